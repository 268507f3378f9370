"""Paths to a disk: native NVMe multipath and device-mapper multipath.

Errors of single requests are in block.py; a controller that is gone is in nvme.py.
"""

from __future__ import annotations

from nodehealth.model import LINE, REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

_DM = "composed from drivers/md/dm-mpath.c"
_DM_PATH = r"^device-mapper: multipath: (?:\d{1,6}:\d{1,8}: )?"

REASONS = (
    Reason(
        name="BlockDeviceNoPath",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="Every way to a disk is gone, so all reads and writes to it fail.",
        remedy="Look with `nvme list-subsys` or `multipath -ll`; check the disk, its controller or the storage network, and reboot or replace the node when the disk is local.",
        clears=(REBOOT, quiet(hours=6)),
        patterns=(
            kernel_line(
                r"^block (?P<object>nvme\w{1,24}): no available path - failing I/O",
                Example("block nvme0n1: no available path - failing I/O", "nvme0n1", "GPUd test"),
                Example(
                    "kernel: message repeated 9 times: [block nvme0n1: no available path - failing I/O]",
                    "nvme0n1",
                    "GPUd test",
                ),
                Example("block nvme10n1: no available path - failing I/O", "nvme10n1", "GPUd test"),
                lookalikes=(
                    "block nvme0n1: no usable path - requeuing I/O",
                    "fio[99]: block nvme0n1: no available path - failing I/O",
                    "block nvme0n1: the capability attribute has been deprecated.",
                ),
            ),
        ),
        object_kind="block device",
        joins=60,
    ),
    Reason(
        name="BlockDevicePathFailed",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="One of several ways to a disk failed; the disk still works but is slower or has no spare path.",
        remedy="Look with `multipath -ll` or `nvme list-subsys` at which path is down; check that adapter, cable or storage network.",
        clears=(LINE, quiet(hours=6), REBOOT),
        patterns=(
            kernel_line(
                _DM_PATH + r"Failing path (?P<object>\d{1,6}:\d{1,8}|[\w!-]{1,64})\.",
                Example("device-mapper: multipath: 253:3: Failing path 8:64.", "8:64", f"{_DM} 5.x"),
                Example("device-mapper: multipath: Failing path 8:16.", "8:16", f"{_DM} 3.10"),
                lookalikes=(
                    "device-mapper: multipath: 253:3: Reinstating path 8:64.",
                    "device-mapper: multipath service-time: version 0.3.0 loaded",
                ),
            ),
            kernel_line(
                r"^block (?P<object>nvme\w{1,24}): no usable path - requeu\w{1,5} I/O",
                Example(
                    "block nvme0n1: no usable path - requeuing I/O",
                    "nvme0n1",
                    "composed from drivers/nvme/host/multipath.c",
                ),
                lookalikes=(
                    "block nvme0n1: no available path - failing I/O",
                    "nvme nvme0: 16/0/0 default/read/poll queues",
                ),
            ),
        ),
        recoveries=(
            kernel_line(
                _DM_PATH + r"Reinstating path (?P<object>\d{1,6}:\d{1,8}|[\w!-]{1,64})\.",
                Example("device-mapper: multipath: 253:3: Reinstating path 8:64.", "8:64", _DM),
            ),
        ),
        object_kind="block device",
    ),
)
