"""What leaves the exporter: metrics and the web page."""
