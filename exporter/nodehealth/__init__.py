"""nodehealth: a Prometheus exporter that says whether a node can still be trusted with work, why not, and what to do."""

__version__ = "0.1.0"
