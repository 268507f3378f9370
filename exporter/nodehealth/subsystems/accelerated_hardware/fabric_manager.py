"""What the NVIDIA fabric manager logs: NVSwitch errors as it sees them, and fabrics that it cannot set up.

The NVSwitch driver's own SXid lines are a family of their own; whether the service runs is a check.
"""

from __future__ import annotations

from nodehealth import pci
from nodehealth.model import (
    LINE,
    REBOOT,
    Action,
    Example,
    Hardware,
    Pattern,
    Reason,
    Severity,
    Subsystem,
    journal,
    log_file,
    quiet,
)

_LOG = (journal("nvidia-fabricmanager.service"), log_file("/var/log/fabricmanager.log"))
_ON = rf"(?: \d{{1,6}}\b(?:[^\n]{{0,60}}? on NVSwitch pci bus id (?P<pci>{pci.ADDRESS}))?|[.:]?\s{{0,4}}$)"
_TEST = "GPUd test"

REASONS = (
    Reason(
        name="FabricManagerFatalError",
        subsystem=Subsystem.ACCELERATED_HARDWARE,
        severity=Severity.CRITICAL,
        action=Action.RESET_FABRIC,
        summary="An NVSwitch reported a fatal error; GPUs of this node can no longer talk to each other.",
        remedy="Drain the node and read /var/log/fabricmanager.log for the error number; stop the workloads and reset all GPUs and switches with `nvidia-smi -r`, or reboot.",
        clears=(REBOOT,),
        patterns=(
            Pattern(
                _LOG,
                r"\bdetected NVSwitch fatal error" + _ON,
                (
                    Example(
                        "[Feb 15 2025 12:34:56] [ERROR] [tid 1234] detected NVSwitch fatal error 98765 on fid 0 on NVSwitch pci bus id 00000000:47:00.0 physical id 1 port 21",
                        "0000:47:00.0",
                        _TEST,
                    ),
                    Example(
                        "[ERROR] [tid 841] detected NVSwitch fatal error 20034 on fid 0 on NVSwitch pci bus id 00000000:86:00.0 physical id 3 port 33",
                        "0000:86:00.0",
                        _TEST,
                    ),
                    Example(
                        "nv-fabricmanager[1929]: detected NVSwitch fatal error 20034 on fid 0",
                        "",
                        "composed from GPUd tests",
                    ),
                ),
                (
                    "[ERROR] [tid 12727] detected NVSwitch non-fatal error 12028 on fid 0",
                    "[INFO] [tid 841] cleared NVSwitch fatal error 20034",
                    "[INFO] [tid 841] detected NVSwitch fatal errors will be reported",
                ),
            ),
        ),
        object_kind="NVSwitch",
        needs=Hardware.NVSWITCH,
    ),
    Reason(
        name="FabricManagerNonFatalError",
        subsystem=Subsystem.ACCELERATED_HARDWARE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="An NVSwitch reported an error that it could contain; often a GPU or a program behind it caused it.",
        remedy="Read /var/log/fabricmanager.log for the error number and port and look for Xid errors of the GPUs at the same time; reset the fabric when it comes back.",
        clears=(quiet(hours=1), REBOOT),
        patterns=(
            Pattern(
                _LOG,
                r"\bdetected NVSwitch non-fatal error" + _ON,
                (
                    Example(
                        "[Jul 09 2024 18:14:07] [ERROR] [tid 12727] detected NVSwitch non-fatal error 12028 on fid 0 on NVSwitch pci bus id 00000000:86:00.0 physical id 3 port 61",
                        "0000:86:00.0",
                        _TEST,
                    ),
                    Example("[ERROR] [tid 12727] detected NVSwitch non-fatal error 12028 on fid 0", "", _TEST),
                    Example("[ERROR] [tid 12727] detected NVSwitch non-fatal error", "", _TEST),
                ),
                (
                    "[ERROR] [tid 841] detected NVSwitch fatal error 20034 on fid 0",
                    "[INFO] [tid 841] NVSwitch non-fatal error reporting is enabled",
                ),
            ),
        ),
        object_kind="NVSwitch",
        needs=Hardware.NVSWITCH,
    ),
    Reason(
        name="FabricManagerTopologyMismatch",
        subsystem=Subsystem.ACCELERATED_HARDWARE,
        severity=Severity.CRITICAL,
        action=Action.REBOOT_NODE,
        summary="The fabric manager found fewer or other NVSwitches than the machine should have and stopped; programs cannot use the GPUs together.",
        remedy="Count the switches with `lspci -d 10de: | grep -i bridge`; reboot the node once, and hand it to repair when a switch stays missing.",
        clears=(LINE, REBOOT),
        patterns=(
            Pattern(
                _LOG,
                r"\bdetected number of NVSwitches don'?t match with any supported system topology",
                (
                    Example(
                        "[Sep 08 2025 23:21:50] [ERROR] detected number of NVSwitches don't match with any supported system topology, aborting fabric manager",
                        "",
                        _TEST,
                    ),
                    Example(
                        "[ERROR] [tid 99999] detected number of NVSwitches don't match with any supported system topology, aborting fabric manager",
                        "",
                        _TEST,
                    ),
                ),
                (
                    "[INFO] [tid 841] detected number of NVSwitches: 4",
                    "[INFO] [tid 841] detected system topology is based on multi-node or MNNVL",
                ),
            ),
        ),
        recoveries=(
            Pattern(
                _LOG,
                r"\bSuccessfully configured all the available (?:GPUs and )?NVSwitches to route NVLink traffic",
                (
                    Example(
                        "Successfully configured all the available GPUs and NVSwitches to route NVLink traffic.",
                        "",
                        "NVIDIA Fabric Manager User Guide",
                    ),
                    Example(
                        "nv-fabricmanager[3009]: Successfully configured all the available NVSwitches to route NVLink traffic. NVLink Peer-to-Peer support will be enabled once the GPUs are successfully registered with the NVLink fabric.",
                        "",
                        "recorded on a public node",
                    ),
                ),
            ),
        ),
        needs=Hardware.NVSWITCH,
    ),
    Reason(
        name="FabricManagerMulticastError",
        subsystem=Subsystem.ACCELERATED_HARDWARE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="The fabric manager could not set up NVLink multicast for a GPU, so collective operations are slow or fail.",
        remedy="Check `nvidia-smi -q | grep -A3 Fabric` for GPUs that are not registered; restart nvidia-fabricmanager when the node is empty.",
        clears=(quiet(hours=1), REBOOT),
        patterns=(
            Pattern(
                _LOG,
                r"\bfailed to find the GPU handle \d{1,24} in the multicast team\b",
                (
                    Example(
                        "[Sep 17 2024 06:01:46] [ERROR] [tid 1230079] failed to find the GPU handle 5410063385821516767 in the multicast team request setup 6130285411925746235.",
                        "",
                        _TEST,
                    ),
                ),
                (
                    "[Feb 27 2025 14:10:02] [INFO] [tid 1808] multicast group 1 is allocated.",
                    "[INFO] [tid 1808] found the GPU handle 5410063385821516767 in the multicast team request setup 1.",
                ),
            ),
        ),
        needs=Hardware.NVSWITCH,
        joins=60,
    ),
)

CONTEXT = (
    Pattern(
        _LOG,
        r"\[NV_WARN_NOTHING_TO_DO\]",
        (
            Example(
                "request to query NVSwitch device information from NVSwitch driver failed with error:WARNING Nothing to do [NV_WARN_NOTHING_TO_DO]",
                "",
                "GPUd test: the switches are not in this host (GB200)",
            ),
        ),
    ),
)
