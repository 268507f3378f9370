"""Bad media: a disk could not read back what was written to a place, and thin volumes that have no space left.

Requests that failed for any other cause are in block.py.
"""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

_BLK = "kernel block/blk-core.c and blk-mq.c"
_REQUEST = r"^(?:(?:end_request|print_req_error|blk_update_request|__?blk_\w{1,40}): )?"
_DEVICE = r"(?!fd\d|sr\d)(?P<object>[\w!-]{1,64})"  # not floppies and optical drives
_SCSI = r"^sd \d{1,6}:\d{1,6}:\d{1,6}:\d{1,20}: \[(?P<object>\w{1,16})\] "

_MEDIUM_ERROR = kernel_line(
    _REQUEST + r"critical medium error, dev " + _DEVICE + r", sector \d",
    Example(
        "blk_update_request: critical medium error, dev sdb, sector 9999 op 0x0:(READ)",
        "sdb",
        "collected from public reports",
    ),
    Example("end_request: critical medium error, dev sdag, sector 4184", "sdag", f"composed from {_BLK} 3.10"),
    Example(
        "critical medium error, dev nvme10n1, sector 88 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
        "nvme10n1",
        f"composed from {_BLK} 6.x",
    ),
    lookalikes=(
        "critical medium error, dev sr0, sector 88 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
        "I/O error, dev sdb, sector 9999 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
    ),
)
_NVME_MEDIUM_ERROR = kernel_line(
    r"^(?P<object>nvme\w{1,24}): [^(\n]{1,40}\(0x[0-9a-f]{1,4}\) @ LBA \d{1,20}, \d{1,10} blocks, [^(\n]{1,64} \(sct 0x2 / sc 0x8[0-4]\)",
    Example(
        "nvme0n1: Read(0x2) @ LBA 12345, 8 blocks, Unrecovered Read Error (sct 0x2 / sc 0x81) MORE DNR",
        "nvme0n1",
        "composed from drivers/nvme/host/core.c 6.1",
    ),
    lookalikes=(
        "nvme0n1: Read(0x2) @ LBA 12345, 8 blocks, Host Aborted Command (sct 0x3 / sc 0x71) ",
        "nvme0: Identify(0x6), Invalid Field in Command (sct 0x0 / sc 0x2) MORE DNR",
    ),
)
_MEDIUM_SENSE = kernel_line(
    _SCSI + r"(?:tag#\d{1,6} )?Sense Key ?: Medium Error\b",
    Example(
        "sd 2:0:0:0: [sdb] tag#5 Sense Key : Medium Error [current] ",
        "sdb",
        "composed from drivers/scsi/scsi_logging.c",
    ),
    lookalikes=(
        "sd 2:0:0:0: [sdb] tag#5 Sense Key : Recovered Error [current] ",
        "sd 2:0:0:0: [sdb] tag#5 Sense Key : Not Ready [current] ",
    ),
)
_NO_SPACE = kernel_line(
    _REQUEST + r"critical space allocation error, dev " + _DEVICE + r", sector \d",
    Example(
        "blk_update_request: critical space allocation error, dev dm-3, sector 2048 op 0x1:(WRITE) flags 0x0 phys_seg 1 prio class 0",
        "dm-3",
        f"composed from {_BLK} 5.x",
    ),
    Example(
        "critical space allocation error, dev sdc, sector 2048 op 0x1:(WRITE) flags 0x0 phys_seg 1 prio class 2",
        "sdc",
        f"composed from {_BLK} 6.x",
    ),
    lookalikes=(
        "critical medium error, dev sdc, sector 8 op 0x0:(READ)",
        "device-mapper: thin: 253:4: reached low water mark for data device: sending event.",
    ),
)
_THIN_FULL = kernel_line(
    r"^device-mapper: thin: (?P<object>\d{1,6}:\d{1,8}): (?:reached low water mark for metadata device|no free (?:data|metadata) space available|"
    r"switching pool to (?:out-of-data-space|read-only) )",
    Example(
        "device-mapper: thin: 253:4: switching pool to out-of-data-space (queue IO) mode",
        "253:4",
        "composed from drivers/md/dm-thin.c",
    ),
    Example("device-mapper: thin: 253:4: no free data space available.", "253:4", "composed from drivers/md/dm-thin.c"),
    lookalikes=(
        "device-mapper: thin: 253:4: switching pool to write mode",
        "device-mapper: thin: 253:4: growing the data device from 1600 to 3200 blocks",
    ),
)

REASONS = (
    Reason(
        name="BlockDeviceMediumError",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.REPLACE_NODE,
        summary="A disk could not read or write a place on its medium; the data there is lost and the disk is wearing out.",
        remedy="Move the work away and look at `smartctl -a /dev/DEVICE` or `nvme smart-log /dev/DEVICE`; replace the disk or the node.",
        clears=(REBOOT,),
        joins=2,
        patterns=(_MEDIUM_ERROR, _NVME_MEDIUM_ERROR, _MEDIUM_SENSE),
        object_kind="block device",
    ),
    Reason(
        name="BlockDeviceOutOfSpace",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.CHECK_CONFIG,
        summary="A thin-provisioned volume has no space left behind it, so writes fail although the filesystem looks free.",
        remedy="Look with `lvs -a` or in the storage system; extend the pool or delete data and run fstrim.",
        clears=(quiet(hours=6), REBOOT),
        patterns=(_NO_SPACE, _THIN_FULL),
        object_kind="block device",
        joins=60,
    ),
)
