"""Requests to block devices that the kernel gave up, in every wording from end_request (3.x) to no prefix (6.x).

Bad media, lost paths and what filesystems and NVMe controllers say have their own files.
"""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

_BLK = "kernel block/blk-core.c and blk-mq.c"
_REQUEST = r"^(?:(?:end_request|print_req_error|blk_update_request|__?blk_\w{1,40}): )?"
# A floppy or an empty optical drive of a virtual machine answers every probe with an error.
_DEVICE = r"(?!fd\d|sr\d)(?P<object>[\w!-]{1,64})"
_SCSI = r"^(?:sd|sr|ses|scsi) (?P<object>\d{1,6}:\d{1,6}:\d{1,6}:\d{1,20}): (?:\[\w{1,16}\] )?"

_IO_ERROR = kernel_line(
    _REQUEST + r"(?:I/O|timeout|recoverable transport|critical (?:target|nexus)|protection|kernel resource|device offline|"
    r"reservation conflict|(?:open|active) zones exceeded|duration limit exceeded) error, dev " + _DEVICE + r", sector \d",
    Example(
        "I/O error, dev nvme0n1, sector 2048 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2", "nvme0n1", "kernel 6.x"
    ),
    Example("[9943662.053217] end_request: I/O error, dev sde, sector 52428288", "sde", "EKS Node Monitoring Agent test"),
    Example(
        "[12345.678901] blk_update_request: I/O error, dev dm-0, sector 7654321", "dm-0", "EKS Node Monitoring Agent test"
    ),
    Example(
        "[470907.282230] blk_update_request: I/O error, dev nvme2n1, sector 6442712256 op 0x1:(WRITE) flags 0x1000 phys_seg 8 prio class 0",
        "nvme2n1",
        "GPUd test",
    ),
    Example("print_req_error: I/O error, dev sdaa, sector 0 flags 0", "sdaa", f"composed from {_BLK} 4.14"),
    Example(
        "blk_update_request: critical target error, dev sda, sector 976773160 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 0",
        "sda",
        f"composed from {_BLK} 5.x",
    ),
    Example(
        "recoverable transport error, dev sdb, sector 4096 op 0x0:(READ) flags 0x4200 phys_seg 1 prio class 2",
        "sdb",
        f"composed from {_BLK} 6.x",
    ),
    Example(
        "device offline error, dev sdc, sector 16 op 0x1:(WRITE) flags 0x0 phys_seg 1 prio class 2",
        "sdc",
        f"composed from {_BLK} 6.x",
    ),
    lookalikes=(
        "blk_update_request: I/O error, dev fd0, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 0",
        "blk_update_request: operation not supported error, dev loop0, sector 0 op 0x9:(WRITE_ZEROES) flags 0x800 phys_seg 0 prio class 0",
        "python3[77]: blk_update_request: I/O error, dev sda, sector 1",
        "EXT4-fs warning (device dm-0): ext4_end_bio:345: I/O error 10 writing to inode 131 starting block 1234)",
    ),
)
_BUFFER_ERROR = kernel_line(
    r"^Buffer I/O error on dev(?:ice)? " + _DEVICE + r", logical block \d",
    Example("Buffer I/O error on dev nvme0n1p1, logical block 789012, lost sync page read", "nvme0n1p1", "GPUd test"),
    Example(
        "[9943664.191262] Buffer I/O error on device md0, logical block 209713024", "md0", "EKS Node Monitoring Agent test"
    ),
    Example(
        "[Sun Jun 29 19:29:39 2025] Buffer I/O error on dev dm-0, logical block 1308098575, lost async page write",
        "dm-0",
        "GPUd test",
    ),
    Example(
        "Buffer I/O error on dev mmcblk0p1, logical block 0, async page read", "mmcblk0p1", "composed from fs/buffer.c"
    ),
    lookalikes=(
        "Buffer I/O error on dev sr0, logical block 0, async page read",
        "Buffer I/O error on dev fd0, logical block 0, async page read",
        "buffer_io_error: 10 callbacks suppressed",
    ),
)
_LOST_PAGE = kernel_line(
    r"^lost page write due to I/O error on " + _DEVICE + r"\b",
    Example("lost page write due to I/O error on md0", "md0", "composed from fs/buffer.c 3.10"),
    lookalikes=(
        "BTRFS warning (device sda1): lost page write due to IO error on /dev/sda1",
        "lost page write due to I/O error on fd0",
    ),
)
_HARDWARE_SENSE = kernel_line(
    _SCSI + r"(?:tag#\d{1,6} )?Sense Key ?: Hardware Error\b",
    Example(
        "sd 0:0:3:0: [sdd] tag#12 Sense Key : Hardware Error [current] ",
        "0:0:3:0",
        "composed from drivers/scsi/scsi_logging.c",
    ),
    lookalikes=(
        "sd 0:0:3:0: [sdd] tag#12 Sense Key : Illegal Request [current] ",
        "sd 0:0:3:0: [sdd] Sense Key : No Sense [current] ",
    ),
)
_OFFLINE = kernel_line(
    _SCSI + r"(?:rejecting I/O to (?:offline|dead) device|Device offlined - not ready after error recovery)",
    Example("sd 2:0:0:0: [sdb] rejecting I/O to offline device", "2:0:0:0", "composed from drivers/scsi/scsi_lib.c"),
    Example(
        "sd 2:0:0:0: Device offlined - not ready after error recovery", "2:0:0:0", "composed from drivers/scsi/scsi_error.c"
    ),
    lookalikes=("sd 2:0:0:0: [sdb] Synchronizing SCSI cache", "sd 2:0:0:0: [sdb] Attached SCSI disk"),
)

REASONS = (
    Reason(
        name="BlockDeviceIOError",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="A disk or volume did not carry out a read or write, so data may be missing or a program may hang.",
        remedy="Look with `dmesg -T | grep -i error` and `lsblk` at what the device is; check the volume or replace the disk when it comes back.",
        clears=(quiet(hours=6), REBOOT),
        patterns=(_IO_ERROR, _BUFFER_ERROR, _LOST_PAGE, _HARDWARE_SENSE),
        object_kind="block device",
    ),
    Reason(
        name="BlockDeviceOffline",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="The kernel stopped using a disk because it no longer answers; all reads and writes to it fail.",
        remedy="Find the disk with `lsscsi`; check cable, path or volume attachment and rescan or replace it.",
        clears=(REBOOT, quiet(hours=24)),
        patterns=(_OFFLINE,),
        object_kind="block device",
        joins=60,
    ),
)

CONTEXT = (
    kernel_line(
        _REQUEST
        + r"(?:operation not supported|nonblocking retry|device resource|dm internal retry|invalid) error, dev [\w!-]{1,64}, sector \d",
        Example(
            "operation not supported error, dev loop0, sector 0 op 0x9:(WRITE_ZEROES) flags 0x8000800 phys_seg 0 prio class 0",
            origin=f"composed from {_BLK}",
        ),
    ),
    kernel_line(
        r"^(?:buffer_io_error|print_req_error|blk_update_request|blk_print_req_error): \d{1,9} callbacks suppressed"
    ),
)
