"""Lines of the NVIDIA kernel driver without a number of their own: start-up failures, lost GPUs, and harmless talk.

Xid and SXid lines, a GPU that fell off the bus, and the driver's load line (a recovery) belong elsewhere.
"""

from __future__ import annotations

from nodehealth import pci
from nodehealth.model import (
    GPU_RESET,
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
    kernel_line,
    quiet,
)

_ACCELERATED = Subsystem.ACCELERATED_HARDWARE
_FUNCTION = r"^NVRM: (?:GPU\d{1,3} )?"  # since 565 the driver prints the GPU's number before the function's name
_GPU = rf"^NVRM: GPU (?:at )?(?:PCI:)?(?P<pci>{pci.ADDRESS}): "
_INTERNAL = _FUNCTION + r"(?:_{0,2}[a-z]{1,24}[A-Z0-9]|Rm[A-Z])\w{1,80}: "
"""A function of the driver's core speaks: what it found there is told again as an Xid or as a failed start of the GPU."""
_REPORT = "recorded in a public report"
_NV = "composed from kernel-open/nvidia/nv.c"
_PERSISTENCED = (journal("nvidia-persistenced.service"),)

REASONS = (
    Reason(
        name="GpuInitFailed",
        subsystem=_ACCELERATED,
        severity=Severity.CRITICAL,
        action=Action.REBOOT_NODE,
        summary="The driver could not start a GPU, so no program can use it.",
        remedy="Drain the node and reboot it; look in `dmesg -T | grep NVRM` for the line before, and replace the node when the GPU still fails.",
        clears=(REBOOT, GPU_RESET),
        patterns=(
            kernel_line(
                _GPU
                + r"(?:RmInitAdapter failed!|rm_init_adapter failed\b|GPU does not have the necessary power cables|Can't find an IRQ for)",
                Example("NVRM: GPU 0000:00:06.0: rm_init_adapter failed, device minor number 0", "0000:00:06.0", _REPORT),
                Example(
                    "[  113.674376] NVRM: GPU 0000:00:06.0: RmInitAdapter failed! (0x11:0x45:2540)", "0000:00:06.0", _REPORT
                ),
                Example(
                    "NVRM: GPU 0000:ca:00.0: GPU does not have the necessary power cables connected.", "0000:ca:00.0", _NV
                ),
                lookalikes=(
                    "NVRM: GPU 0000:00:06.0: GPU serial number is 1653923026510.",
                    "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024",
                    "python3[8]: NVRM: GPU 0000:00:06.0: RmInitAdapter failed! (0x11:0x45:2540)",
                ),
            ),
            kernel_line(
                r"^NVRM: (?:RmInitAdapter failed!|rm_init_adapter(?:\(\d{1,4}\))? failed\b)",
                Example("NVRM: RmInitAdapter failed! (0x30:0xffff:660)", "", _REPORT),
                Example("NVRM: rm_init_adapter(0) failed", "", _REPORT),
                Example("NVRM: rm_init_adapter failed for device bearing minor number 0", "", _REPORT),
                lookalikes=(
                    "NVRM: GPU at PCI:0000:3b:00: GPU-12345678-1234-5678-9abc-def012345678",
                    "NVRM: RmInitAdapter succeeded",
                ),
            ),
        ),
        object_kind="GPU",
        joins=30,
        needs=Hardware.NVIDIA_GPU,
    ),
    Reason(
        name="DriverProbeFailed",
        subsystem=_ACCELERATED,
        severity=Severity.CRITICAL,
        action=Action.REBOOT_NODE,
        summary="The NVIDIA driver loaded but could not take over one or more GPUs, which are missing for programs.",
        remedy="Compare `lspci -d 10de:` with `nvidia-smi -L`, look in `dmesg -T | grep NVRM` for the cause, reboot the node and replace it when GPUs stay missing.",
        clears=(REBOOT,),
        patterns=(
            kernel_line(
                r"^NVRM: (?:The NVIDIA probe routine failed for -?\d{1,4} device|No NVIDIA (?:devices|graphics adapter) probed|"
                r"None of the NVIDIA (?:devices|graphics adapters) were initialized)",
                Example("[ 1843.439662] NVRM: The NVIDIA probe routine failed for 1 device(s).", "", _REPORT),
                Example("NVRM: None of the NVIDIA devices were initialized.", "", _NV),
                Example("NVRM: No NVIDIA graphics adapter probed!", "", f"{_NV} of 390"),
                lookalikes=(
                    "NVRM: The NVIDIA probe routine was not called for 1 device(s).",
                    "NVRM: No NVIDIA GPU found.",
                    "nvidia 0000:3b:00.0: enabling device (0140 -> 0142)",
                ),
            ),
        ),
        joins=30,
        needs=Hardware.NVIDIA_GPU,
    ),
    Reason(
        name="GpuNotReachable",
        subsystem=_ACCELERATED,
        severity=Severity.CRITICAL,
        action=Action.REBOOT_NODE,
        summary="The driver noticed that it can no longer reach a GPU; programs on it hang or fail.",
        remedy="Drain the node and run `nvidia-smi` to see which GPU is missing; reboot, and replace the node when it happens again.",
        clears=(REBOOT, GPU_RESET),
        patterns=(
            kernel_line(
                _FUNCTION + r"(?:\w{1,64}: )?API_GPU_ATTACHED_SANITY_CHECK failed\b",
                Example("NVRM: _threadNodeCheckTimeout: API_GPU_ATTACHED_SANITY_CHECK failed!", "", "GPUd test"),
                Example("NVRM: GPU0 _threadNodeCheckTimeout: API_GPU_ATTACHED_SANITY_CHECK failed!", "", _REPORT),
                lookalikes=(
                    "NVRM: _threadNodeCheckTimeout: currentTime: 1234 >= 1000",
                    "app: API_GPU_ATTACHED_SANITY_CHECK failed!",
                ),
            ),
            kernel_line(
                _FUNCTION
                + r"nvGpuOpsReportFatalError: uvm encountered global fatal error 0x[0-9a-f]{1,8}, requiring os reboot",
                Example(
                    "NVRM: nvGpuOpsReportFatalError: uvm encountered global fatal error 0x60, requiring os reboot to recover.",
                    "",
                    _REPORT,
                ),
                lookalikes=(
                    "nvidia-uvm: Loaded the UVM driver, major device number 508.",
                    "NVRM: nvGpuOpsReportFatalError: none",
                ),
            ),
        ),
        joins=60,
        needs=Hardware.NVIDIA_GPU,
    ),
    Reason(
        name="NvlinkPostRxDetectFailed",
        subsystem=_ACCELERATED,
        severity=Severity.WARNING,
        action=Action.RESET_GPU,
        summary="NVLink connections of a GPU could not be brought up, so it may be slow or unable to work with the others.",
        remedy="Run `nvidia-smi nvlink -s` and `nvidia-smi topo -m`; reset the GPUs or reboot the empty node, and replace it when links stay down.",
        clears=(REBOOT, GPU_RESET),
        patterns=(
            kernel_line(
                _FUNCTION
                + r"knvlink\w{1,80}: (?:Getting peer ?\d{1,4}(?:'s)? postRxDetLinkMask failed|Failed to update Rx Detect Link mask)",
                Example(
                    "[6619719.538499] NVRM: knvlinkDiscoverPostRxDetLinks_GH100: Getting peer0's postRxDetLinkMask failed!",
                    "",
                    "GPUd test",
                ),
                Example(
                    "kernel: NVRM: knvlinkDiscoverPostRxDetLinks_GB100_REV2: Getting peer17 postRxDetLinkMask failed!",
                    "",
                    "GPUd test",
                ),
                Example(
                    "[6619723.539520] NVRM: knvlinkUpdatePostRxDetectLinkMask_IMPL: Failed to update Rx Detect Link mask!",
                    "",
                    "GPUd test",
                ),
                lookalikes=(
                    "NVRM: knvlinkDiscoverPostRxDetLinks_GH100: peer0's postRxDetLinkMask is 0x3ffff",
                    "knvlinkDiscoverPostRxDetLinks_GH100: Getting peer0's postRxDetLinkMask failed!",
                ),
            ),
        ),
        joins=300,
        needs=Hardware.NVIDIA_GPU,
    ),
    Reason(
        name="NvswitchInitFailed",
        subsystem=_ACCELERATED,
        severity=Severity.CRITICAL,
        action=Action.REBOOT_NODE,
        summary="The driver could not start an NVSwitch, so GPUs cannot work together.",
        remedy="Drain the node and reboot it; hand it to repair when the switch still fails.",
        clears=(REBOOT,),
        patterns=(
            kernel_line(
                r"^(?P<object>nvidia-nvswitch\d{1,3}): ?(?:Failed (?:to (?:(?:initialize|register) device|initialize (?:interrupt|background tasks)|"
                r"enable PCI device|request memory regions|map BAR0 region)|during device post init)|No supported interrupt mechanism was found|"
                r"[Ff]ailed to get IRQ|Interrupts disabled to avoid a storm)",
                Example(
                    "nvidia-nvswitch3: Failed to initialize device : -5",
                    "nvidia-nvswitch3",
                    "composed from kernel-open/nvidia/linux_nvswitch.c",
                ),
                Example(
                    "nvidia-nvswitch0:Failed during device post init : -5",
                    "nvidia-nvswitch0",
                    "composed from kernel-open/nvidia/linux_nvswitch.c",
                ),
                Example(
                    "nvidia-nvswitch2: Failed to initialize interrupt : -22",
                    "nvidia-nvswitch2",
                    "composed from kernel-open/nvidia/linux_nvswitch.c",
                ),
                lookalikes=(
                    "nvidia-nvswitch3: using MSI",
                    "nvidia-nvswitch3: Failed to read fabric state, fffffffb",
                    "nvidia-nvswitch: Probing device 0000:08:00.0, Vendor Id = 0x10de, Device Id = 0x22a3, Class = 0x68000",
                ),
            ),
        ),
        object_kind="NVSwitch",
        joins=30,
        needs=Hardware.NVSWITCH,
    ),
    Reason(
        name="NvidiaDriverVersionMismatch",
        subsystem=_ACCELERATED,
        severity=Severity.WARNING,
        action=Action.CHECK_CONFIG,
        summary="A program brought NVIDIA libraries of another version than the loaded driver and cannot use the GPUs.",
        remedy="Compare `cat /proc/driver/nvidia/version` with the installed libraries; after a driver update drain the node and reboot it.",
        clears=(quiet(hours=1), REBOOT),
        patterns=(
            kernel_line(
                r"^NVRM: API mismatch: the (?:client|NVIDIA)\b",
                Example("NVRM: API mismatch: the client has the version 535.247.01, but", "", _REPORT),
                Example("NVRM: API mismatch: the client 'nvidia-smi' (pid 4711)", "", _NV),
                lookalikes=(
                    "NVRM: this kernel module has the version 535.230.02.  Please",
                    "NVRM: components have the same version.",
                ),
            ),
        ),
        joins=60,
        needs=Hardware.NVIDIA_GPU,
    ),
    Reason(
        name="PeermemInvalidContext",
        subsystem=_ACCELERATED,
        severity=Severity.INFO,
        action=Action.RESTART_APP,
        summary="A program that shares GPU memory with the network ended in disorder; usually a crashed job, not a fault of the node.",
        remedy="Restart the job when it hangs; look for Xid findings at the same time when the line comes often.",
        clears=(quiet(hours=1),),
        patterns=(
            kernel_line(
                r"^(?:nvidia-peermem|nv_peer_mem):? nv_get_p2p_free_callback:\d{1,6} ERROR (?:detected invalid context|nv_get_p2p_free_callback -- invalid )",
                Example(
                    "[Thu Sep 19 02:29:46 2024] nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context, skipping further processing",
                    "",
                    "GPUd test",
                ),
                Example(
                    "nvidia-peermem nv_get_p2p_free_callback:134 ERROR nv_get_p2p_free_callback -- invalid page_table",
                    "",
                    "composed from kernel-open/nvidia-peermem/nvidia-peermem.c",
                ),
                lookalikes=(
                    "nvidia-peermem nv_mem_client_init:482 ERROR error -22 while registering traditional peer memory client",
                    "nccl: nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context, skipping further processing",
                ),
            ),
        ),
        joins=60,
        needs=Hardware.NVIDIA_GPU,
    ),
    Reason(
        name="PersistencedNoDevices",
        subsystem=_ACCELERATED,
        severity=Severity.WARNING,
        action=Action.CHECK_CONFIG,
        summary="NVIDIA's persistence daemon cannot see any GPU: the driver is not loaded or its device files are missing.",
        remedy="Run `nvidia-smi` and `ls -l /dev/nvidia*`; load the driver with `nvidia-modprobe -c0 -u` and restart nvidia-persistenced.",
        clears=(LINE, REBOOT),
        patterns=(
            Pattern(
                _PERSISTENCED,
                r"^(?:[\w-]{1,32}\[\d{1,10}\]: )?Failed to query NVIDIA devices\. Please ensure that the NVIDIA device files",
                (
                    Example(
                        "Failed to query NVIDIA devices. Please ensure that the NVIDIA device files (/dev/nvidia*) exist",
                        "",
                        "collected from public reports",
                    ),
                ),
                (
                    "Started (887)",
                    "device 0000:3b:00.0 - persistence mode enabled.",
                    "nvidia-persistenced failed to initialize. Check syslog for more details.",
                ),
            ),
        ),
        recoveries=(
            Pattern(
                _PERSISTENCED,
                r"^(?:[\w-]{1,32}\[\d{1,10}\]: )?Local RPC services? initialized",
                (Example("Local RPC services initialized", "", "composed from nvidia-persistenced.c"),),
            ),
        ),
        needs=Hardware.NVIDIA_GPU,
    ),
)

CONTEXT = tuple(
    kernel_line(regex, Example(line))
    for regex, line in (
        # Follows a fault that has its own line.
        (
            _INTERNAL,
            "NVRM: nvAssertFailedNoLog: Assertion failed: expectedFunc == vgpu_rpc_message_header_v->function @ kernel_gsp.c:2192",
        ),
        (
            r"^NVRM: GPU\d{1,3} (?:GSP RPC buffer contains function|RPC (?:event )?history \()",
            "NVRM: GPU4 GSP RPC buffer contains function 103 (GSP_RM_ALLOC) and data 0x0000000000002081 0x0000000000000004.",
        ),
        (
            r"^NVRM: {2,16}[\w(\[*-]",  # tables and register dumps
            "NVRM:      0    76   GSP_RM_CONTROL        0x000000002080a097 0x0000000000000490 0x0005f5e100000000",
        ),
        (
            r"^NVRM: Rate limiting GSP RPC error prints for GPU at PCI:",
            "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:0000:61:00 (printing 1 of every 30).  The GPU likely needs to be reset.",
        ),
        (
            r"^NVRM: (?:A GPU crash dump has been created|nvidia-bug-report\.sh as root to collect|the NVIDIA kernel module is unloaded)",
            "NVRM: A GPU crash dump has been created. If possible, please run",
        ),
        (
            r"^NVRM: Attempting to remove (?:minor )?device ",
            "NVRM: Attempting to remove minor device 0 with non-zero usage count!",
        ),
        (
            r"^NVRM: (?:(?:this kernel module|has) (?:has )?the version |make sure that this kernel module|components have the same version)",
            "NVRM: this kernel module has the version 535.230.02.  Please",
        ),
        (
            r"^NVRM: (?:This PCI I/O region assigned to your NVIDIA device is invalid|BAR\d is \d{1,6}M @ 0x|The system BIOS may have misconfigured)",
            "NVRM: BAR1 is 0M @ 0x0 (PCI:0000:07:00.0)",
        ),
        (
            (
                r"^NVRM: (?:The NVIDIA GPU [0-9a-fA-F:.]{7,16}(?: \(PCI ID: |\s|$)|installed in this system (?:is not supported|requires use of) |"
                r"NVIDIA [0-9.]{5,12} driver release|Please see (?:'Appendix A|the 'Open Linux)|in this release's README|specific graphics driver download)"
            ),
            "NVRM: installed in this system is not supported by the",
        ),
        (
            (
                r"^NVRM: (?:GPU [0-9a-fA-F:.]{7,16}: )?(?:Please check your BIOS settings|\[(?:Plug & Play OS|Assign IRQ to VGA)\] should be set to|"
                r"[Ff]ailed to enable MSI\b|GPU [0-9a-fA-F:.]{7,16} is already bound to )"
            ),
            "NVRM: GPU 0000:3b:00.0 is already bound to nouveau.",
        ),
        (
            r"^nvidia-modeset: ERROR: GPU:\d{1,3}: ",
            "nvidia-modeset: ERROR: GPU:0: Error while waiting for GPU progress: 0x0000c67d:0 2:0:4048:4040",
        ),
        # What a driver prints when it starts, works and stops.
        (
            r"^NVRM: GPU at (?:PCI:)?[0-9a-fA-F:.]{7,16}: GPU-[0-9a-f-]{36}",
            "NVRM: GPU at PCI:0000:3b:00: GPU-12345678-1234-5678-9abc-def012345678",
        ),
        (
            r"^NVRM: (?:GPU (?:PCI:)?[0-9a-fA-F:.]{7,16}: )?GPU (?:serial number is|Board Serial Number:)",
            "NVRM: GPU Board Serial Number: 1653923026510",
        ),
        (
            r"^NVRM: (?:The NVIDIA probe routine was not called for|This can occur when |Try unloading the conflicting|reconfigure your kernel without|No NVIDIA GPU found)",
            "NVRM: No NVIDIA GPU found.",
        ),
        (
            r"^NVRM: (?:obtained ownership of|was loaded and obtained ownership|driver\(s\)\), then try loading|nouveau, rivafb|again\.)",
            "NVRM: driver(s)), then try loading the NVIDIA kernel module",
        ),
        (
            r"^NVRM: (?:Persistence mode is deprecated|PAT configuration unsupported|CPU does not support the PAT|objClInitPcieChipset: |cpuidInfoAMD: Unrecognized AMD processor)",
            "NVRM: Persistence mode is deprecated and will be removed in a future release. Please use nvidia-persistenced instead.",
        ),
        (
            r"^NVRM: (?:Open nvidia\.ko is only ready for use|To force use of Open nvidia\.ko|'OpenRmEnableUnsupportedGpus')",
            "NVRM: Open nvidia.ko is only ready for use on Data Center GPUs.",
        ),
        (
            r"^NVRM: (?:Aborting|Ignoring) probe for VF ",
            "NVRM: Aborting probe for VF 0000:3b:00.4 since PF is not bound to nvidia driver.",
        ),
        (
            (
                r"^NVRM: (?:Your system is not currently configured to drive a VGA|on the primary VGA device|requires the use of a text-mode VGA|"
                r"drivers including, but not limited to|corruption and stability problems)"
            ),
            "NVRM: Your system is not currently configured to drive a VGA console",
        ),
        (
            r"^NVRM: os_schedule: Attempted to yield the CPU",
            "NVRM: os_schedule: Attempted to yield the CPU while in atomic or interrupt context",
        ),
        (
            r"^nvidia-nvswitch\d{0,3}: (?:Probing device |Major: |Interface already initialized|(?:Blacklisted|Excluded) nvswitch device|Failed to (?:read fabric state|re-schedule background))",
            "nvidia-nvswitch: Probing device 0000:08:00.0, Vendor Id = 0x10de, Device Id = 0x22a3, Class = 0x68000",
        ),
        (
            r"^nvidia-nvswitch\d{0,3}: (?:using (?:MSI|PCI pin)|(?:open|release|close) \(major=|removing device |MSI-X$|PCI Pin$)",
            "nvidia-nvswitch3: open (major=510)",
        ),
        (
            r"^nvidia-nvswitch\d{0,3}: _{0,2}nvswitch_\w{1,80}: ",
            "nvidia-nvswitch1: nvswitch_minion_send_command: MINION is busy",
        ),
        (
            r"^nvidia-peermem:? nv_mem_client_init:\d{1,6} ERROR error -?\d{1,4} while registering ",
            "nvidia-peermem nv_mem_client_init:482 ERROR error -22 while registering traditional peer memory client",
        ),
    )
)
