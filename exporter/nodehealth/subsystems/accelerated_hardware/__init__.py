"""What can be wrong with accelerators: NVIDIA GPUs, NVSwitches, fabric manager, AWS Neuron."""
