"""What Btrfs reports about itself; `forced readonly` and superblock writes are in filesystem.py."""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

_DEVICE = r"\(device (?P<object>[\w.!-]{1,64})(?::? state \w{1,12})?\)"

REASONS = (
    Reason(
        name="BtrfsError",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="A Btrfs filesystem had to give up a change or found damaged data.",
        remedy="Run `btrfs device stats` and `btrfs scrub status` on the mount point and look in `dmesg -T` for disk errors before it.",
        clears=(quiet(hours=24), REBOOT),
        patterns=(
            kernel_line(
                rf"^BTRFS critical {_DEVICE}: ",
                Example(
                    "BTRFS critical (device dm-0): corrupt leaf: root=2 block=1 slot=0, invalid key order",
                    "dm-0",
                    "composed from fs/btrfs/tree-checker.c",
                ),
                lookalikes=(
                    "BTRFS info (device dm-0): has skinny extents",
                    "BTRFS: device fsid 1c2d devid 1 transid 5 /dev/dm-0 scanned by mount",
                ),
            ),
            kernel_line(
                rf"^BTRFS: error {_DEVICE} in \w{{1,64}}:\d{{1,6}}: errno=-\d",
                Example(
                    "BTRFS: error (device sda1) in btrfs_commit_transaction:2342: errno=-5 IO failure (Error while writing out transaction)",
                    "sda1",
                    "composed from fs/btrfs/super.c 5.x",
                ),
                Example(
                    "BTRFS: error (device dm-0 state A) in __btrfs_free_extent:3067: errno=-2 No such entry",
                    "dm-0",
                    "composed from fs/btrfs/messages.c 6.x",
                ),
                lookalikes=("BTRFS: Transaction aborted (error -28)", "BTRFS error (device sda1): open_ctree failed"),
            ),
            kernel_line(
                rf"^BTRFS error {_DEVICE}: (?:bdev \S{{1,128}} errs: |parent transid verify failed|bad tree block|level verify failed|"
                r"(?:fixup|unable to fixup)|IO failure|error while writing out transaction|Transaction aborted \(error -)",
                Example(
                    "BTRFS error (device sda): bdev /dev/sda errs: wr 1, rd 0, flush 0, corrupt 0, gen 0",
                    "sda",
                    "composed from fs/btrfs/volumes.c",
                ),
                Example(
                    "BTRFS error (device dm-0 state A): Transaction aborted (error -28)",
                    "dm-0",
                    "composed from fs/btrfs/transaction.c 6.x",
                ),
                Example(
                    "BTRFS error (device sda2): parent transid verify failed on logical 30408704 mirror 1 wanted 5 found 4",
                    "sda2",
                    "composed from fs/btrfs/disk-io.c",
                ),
                lookalikes=(
                    "BTRFS error (device sda1): unrecognized mount option 'nossd_spread2'",
                    "BTRFS info (device sda): bdev /dev/sda errs: wr 1, rd 0, flush 0, corrupt 0, gen 0",
                ),
            ),
            kernel_line(
                rf"^BTRFS (?:warning|error) {_DEVICE}: (?:checksum verify failed|csum failed|checksum error at logical)",
                Example(
                    "BTRFS warning (device sda1): csum failed root 5 ino 257 off 0 csum 0x8941f998 expected csum 0x1b2c3d4e mirror 1",
                    "sda1",
                    "composed from fs/btrfs/btrfs_inode.h",
                ),
                lookalikes=(
                    "BTRFS info (device sda1): using crc32c (crc32c-intel) checksum algorithm",
                    "BTRFS info (device sda1): scrub: finished on devid 1 with status: 0",
                ),
            ),
        ),
        object_kind="filesystem device",
        joins=10,
    ),
)
