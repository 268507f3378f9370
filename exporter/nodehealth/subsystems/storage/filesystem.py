"""Filesystems that turned themselves read-only or lost their journal or superblock, whatever their type.

What is particular to ext4, XFS and Btrfs has its own file.
"""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

_DEVICE = r"(?P<object>[\w.!-]{1,64})"
_BTRFS = r"\(device (?P<object>[\w.!-]{1,64})(?::? state \w{1,12})?\)"

REASONS = (
    Reason(
        name="FilesystemReadOnly",
        subsystem=Subsystem.STORAGE,
        severity=Severity.CRITICAL,
        action=Action.REBOOT_NODE,
        summary="A filesystem made itself read-only after an error; every program that writes to it fails.",
        remedy="Find it with `findmnt -O ro` and look in `dmesg -T` for the error before; drain the node, check the disk, run fsck and reboot.",
        clears=(REBOOT,),
        patterns=(
            kernel_line(
                rf"^(?:[A-Za-z][\w-]{{1,15}} \((?:device )?{_DEVICE}\): )?(?:(?:error: )?[Rr]emounting filesystem read-only|"
                r"Filesystem has been set read-only|emergency read only\b|remounting filesystem as read-only)",
                Example("EXT4-fs (sda1): Remounting filesystem read-only", "sda1", "GPUd test"),
                Example(
                    "[Mon Jan  1 10:00:00 2025] XFS (nvme0n1p1): Remounting filesystem read-only", "nvme0n1p1", "GPUd test"
                ),
                Example("Remounting filesystem read-only", "", "node-problem-detector"),
                Example(
                    "FAT-fs (nvme0n1p1): Filesystem has been set read-only", "nvme0n1p1", "composed from fs/fat/misc.c"
                ),
                Example("F2FS-fs (dm-5): Remounting filesystem read-only", "dm-5", "composed from fs/f2fs/super.c 6.7"),
                lookalikes=(
                    "EXT4-fs (sda1): re-mounted. Opts: (null)",
                    "EXT4-fs (sda1): re-mounted 61f5 ro. Quota mode: none.",
                    "EXT4-fs (sda1): INFO: recovery required on readonly filesystem",
                    "VFS: Mounted root (ext4 filesystem) readonly on device 259:1.",
                    "backup.sh[41]: EXT4-fs (sda1): Remounting filesystem read-only",
                ),
            ),
            kernel_line(
                r"^(?:BTRFS:? (?:info|warning|error) " + _BTRFS + r":? forced readonly|[Bb]trfs is forced readonly)",
                Example("BTRFS info (device dm-0 state E): forced readonly", "dm-0", "collected from public reports"),
                Example("BTRFS info (device sda2): forced readonly", "sda2", "composed from fs/btrfs/super.c 4.x"),
                Example(
                    "BTRFS info (device nvme1n1: state EA): forced readonly",
                    "nvme1n1",
                    "composed from fs/btrfs/messages.c 5.18",
                ),
                lookalikes=(
                    "BTRFS info (device sda2): disk space caching is enabled",
                    "BTRFS info (device dm-0 state M): last unmount of filesystem 1c2d",
                ),
            ),
        ),
        object_kind="filesystem device",
        joins=60,
    ),
    Reason(
        name="FilesystemJournalAborted",
        subsystem=Subsystem.STORAGE,
        severity=Severity.CRITICAL,
        action=Action.REBOOT_NODE,
        summary="A filesystem lost its journal after an error, so nothing can be written to it any more.",
        remedy="Drain the node, look in `dmesg -T` for the disk's error before, run fsck on the device and reboot.",
        clears=(REBOOT,),
        patterns=(
            kernel_line(
                r"^(?:JBD2?: )?(?:Aborting journal on device|Error -\d{1,4} detected when updating journal superblock for) (?P<object>dm-\d{1,6}|[\w!]{1,40})(?:-\d{1,10})?\.?\s{0,4}$",
                Example("Aborting journal on device dm-0-8.", "dm-0", "composed from fs/jbd2/journal.c"),
                Example("Aborting journal on device nvme1n1p1-8.", "nvme1n1p1", "composed from fs/jbd2/journal.c"),
                Example(
                    "JBD2: Error -5 detected when updating journal superblock for sda1-8.",
                    "sda1",
                    "composed from fs/jbd2/journal.c",
                ),
                lookalikes=(
                    "JBD2: recovery failed",
                    "JBD2: Detected IO errors while flushing file data on sda1-8",
                    "EXT4-fs (sda1): recovery complete",
                ),
            ),
        ),
        object_kind="filesystem device",
        joins=60,
    ),
    Reason(
        name="SuperblockWriteError",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="A filesystem could not write its superblock: its disk no longer accepts writes or was detached while mounted.",
        remedy="Check with `lsblk` whether the device still exists; when it was a detached volume unmount it, else check the disk and run fsck.",
        clears=(REBOOT, quiet(hours=24)),
        patterns=(
            kernel_line(
                rf"^[A-Za-z][\w-]{{1,15}}(?: \w{{4,8}})?(?: \((?:device )?{_DEVICE}(?::? state \w{{1,12}})?\))?: I/O error while writing superblock",
                Example("kernel: EXT4-fs (nvme0n1p1): I/O error while writing superblock", "nvme0n1p1", "GPUd test"),
                Example("BTRFS: I/O error while writing superblock", "", "GPUd test"),
                Example("XFS (sda1): I/O error while writing superblock", "sda1", "GPUd test"),
                Example("EXT4-fs (dm-0): I/O error while writing superblock", "dm-0", "GPUd test"),
                lookalikes=(
                    "EXT4-fs (sda1): unable to read superblock",
                    "tune2fs[12]: XFS (sda1): I/O error while writing superblock",
                ),
            ),
            kernel_line(
                rf"^BTRFS (?:error|warning) {_BTRFS}: (?:lost super ?block write|lost page write|error writing primary super ?block)",
                Example(
                    "BTRFS error (device sda1): lost super block write due to IO error on /dev/sda1 (-5)",
                    "sda1",
                    "composed from fs/btrfs/disk-io.c 6.x",
                ),
                Example(
                    "BTRFS warning (device sda1): lost page write due to IO error on /dev/sda1",
                    "sda1",
                    "composed from fs/btrfs/disk-io.c 4.x",
                ),
                lookalikes=(
                    "BTRFS info (device sda1): using free space tree",
                    "BTRFS warning (device sda1): devid 2 uuid 1 is missing",
                ),
            ),
            kernel_line(
                rf"^EXT4-fs \({_DEVICE}\): previous I/O error to superblock detected",
                Example(
                    "EXT4-fs (sda1): previous I/O error to superblock detected", "sda1", "composed from fs/ext4/super.c"
                ),
                lookalikes=(
                    "EXT4-fs (sda1): mounted filesystem with ordered data mode",
                    "EXT4-fs (sda1): VFS: Can't find ext4 filesystem",
                ),
            ),
        ),
        object_kind="filesystem device",
        joins=60,
    ),
)
