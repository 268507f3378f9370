"""What can be wrong with what runs containers: systemd units, kubelet, containerd, dockerd."""
