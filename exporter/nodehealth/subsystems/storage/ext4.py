"""What ext2, ext3 and ext4 report about their own structures.

A remount read-only, a lost journal and a superblock that cannot be written are in filesystem.py.
"""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

_DEVICE = r"(?P<object>[\w.!-]{1,64})"

REASONS = (
    Reason(
        name="Ext4Error",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="An ext4 filesystem found that its own structures on disk are damaged or cannot be read.",
        remedy="Look in `dmesg -T` for disk errors before it; drain the node, unmount the filesystem and run `e2fsck -f` on the device.",
        clears=(REBOOT,),
        patterns=(
            kernel_line(
                rf"^EXT[234]-fs error \(device {_DEVICE}\)(?:: | in )",
                Example("EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2", "sda1", "node-problem-detector"),
                Example(
                    "EXT4-fs error (device dm-3) in ext4_reserve_inode_write:5764: Journal has aborted",
                    "dm-3",
                    "composed from fs/ext4/inode.c",
                ),
                Example(
                    "EXT4-fs error (device nvme10n1p1): ext4_validate_block_bitmap:390: comm java: bg 1: bad block bitmap checksum",
                    "nvme10n1p1",
                    "composed from fs/ext4/balloc.c",
                ),
                lookalikes=(
                    "EXT4-fs (sda1): mounted filesystem with ordered data mode. Opts: errors=remount-ro",
                    "EXT4-fs warning (device sda1): ext4_clear_journal_err:5990: Filesystem error recorded from previous mount: IO failure",
                    "logger[9]: EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2",
                ),
            ),
            kernel_line(
                rf"^EXT4-fs \({_DEVICE}\): (?:Delayed block allocation failed for inode|This should not happen!! Data will be lost|failed to convert unwritten extents to written)",
                Example(
                    "EXT4-fs (dm-3): Delayed block allocation failed for inode 131 at logical offset 0 with max blocks 8 with error 5",
                    "dm-3",
                    "composed from fs/ext4/inode.c",
                ),
                Example(
                    "EXT4-fs (dm-3): This should not happen!! Data will be lost", "dm-3", "composed from fs/ext4/inode.c"
                ),
                Example(
                    "EXT4-fs (dm-3): failed to convert unwritten extents to written extents -- potential data loss!  (inode 12, error -30)",
                    "dm-3",
                    "composed from fs/ext4/page-io.c",
                ),
                lookalikes=("EXT4-fs (dm-3): orphan cleanup on readonly fs", "EXT4-fs (dm-3): recovery complete"),
            ),
        ),
        object_kind="filesystem device",
        joins=5,
    ),
    Reason(
        name="Ext4Warning",
        subsystem=Subsystem.STORAGE,
        severity=Severity.INFO,
        action=Action.INVESTIGATE,
        summary="An ext4 filesystem reports something unusual that it could live with.",
        remedy="Read the line in `dmesg -T`; plan `e2fsck -f` for the device where the line asks for it.",
        clears=(quiet(hours=24), REBOOT),
        patterns=(
            kernel_line(
                rf"^EXT[234]-fs warning \(device {_DEVICE}\): ",
                Example(
                    "EXT4-fs warning (device sda1): ext4_dirblock_csum_verify:405: inode #2: comm ls: No space for directory leaf checksum. Please run e2fsck -D.",
                    "sda1",
                    "node-problem-detector",
                ),
                Example(
                    "EXT4-fs warning (device dm-0): ext4_end_bio:345: I/O error 10 writing to inode 131 starting block 1234)",
                    "dm-0",
                    "composed from fs/ext4/page-io.c",
                ),
                lookalikes=(
                    "EXT4-fs (sda1): warning: mounting fs with errors, running e2fsck is recommended",
                    "EXT4-fs: Warning: mounting with data=journal disables delayed allocation",
                    "e2fsck: EXT4-fs warning (device sda1): text in another program's message",
                ),
            ),
        ),
        object_kind="filesystem device",
    ),
)

CONTEXT = (
    kernel_line(
        r"^EXT4-fs \([\w.!-]{1,64}\): (?:error count since last fsck|initial error at time|last error at time)[: ]",
        Example(
            "EXT4-fs (sda1): error count since last fsck: 5",
            origin="composed from fs/ext4/super.c: repeats old errors every day",
        ),
    ),
)
