"""What can be wrong with the kernel and the hardware that it drives: lockups, crashes, memory, PCIe, limits."""
