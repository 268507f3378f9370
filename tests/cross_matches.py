"""Pairs (A, B): a recorded line of reason A also proves reason B, and that is meant."""

ALLOWED: set[tuple[str, str]] = {
    ("NvidiaNCCLError", "AppCrash"),  # the program crashed, and inside NCCL
    ("EtcHostsMountFailed", "ContainerRuntimeFailed"),  # that is why the container did not start
    ("OOMKill", "SystemOOM"),  # a kill because the whole node was out of memory
    ("SystemOOM", "OOMKill"),
}
