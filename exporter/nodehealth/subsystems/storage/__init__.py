"""What can be wrong with storage: block devices, NVMe, file systems, RAID, NFS."""
