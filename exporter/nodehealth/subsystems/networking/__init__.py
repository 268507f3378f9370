"""What can be wrong with the network: interfaces, NIC drivers, EFA, InfiniBand, connection tracking."""
