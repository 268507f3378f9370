"""What can be wrong with a node: one folder for each subsystem, one file for each topic."""
