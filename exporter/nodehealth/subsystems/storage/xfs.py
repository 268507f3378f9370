"""What XFS reports about itself: damaged metadata, failed log and metadata writes, shutdown in every wording."""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

_XFS = r"^XFS \((?P<object>[\w.!-]{1,64})\): "

REASONS = (
    Reason(
        name="XfsShutdown",
        subsystem=Subsystem.STORAGE,
        severity=Severity.CRITICAL,
        action=Action.REBOOT_NODE,
        summary="An XFS filesystem shut itself down after an error; every access to it fails until it is unmounted and repaired.",
        remedy="Drain the node, look in `dmesg -T` for disk errors before it, unmount the filesystem, mount it again or run xfs_repair, and reboot.",
        clears=(REBOOT,),
        patterns=(
            kernel_line(
                _XFS + r"(?:[^\n]{1,220}\.\s{1,3}Shutting down\b|Filesystem has been shut down\b|xfs_do_force_shutdown\(0x|"
                r"[Pp]lease u?n?mount the filesystem and rectify the problem)",
                Example(
                    "XFS (sdb1): Log I/O Error (0x2) detected at xlog_ioend_work+0x6e/0x70 [xfs] (fs/xfs/xfs_log.c:1378).  Shutting down filesystem.",
                    "sdb1",
                    "node-problem-detector",
                ),
                Example(
                    "XFS (sda1): Filesystem has been shut down due to log error (0x2).",
                    "sda1",
                    "collected from public reports",
                ),
                Example(
                    "XFS (sdb): xfs_do_force_shutdown(0x8) called from line 1582 of file fs/xfs/xfs_buf.c. Return address = ffffffffbbbb7e84",
                    "sdb",
                    "linux-xfs mailing list",
                ),
                Example(
                    "XFS (dm-4): Corruption of in-memory data detected.  Shutting down filesystem",
                    "dm-4",
                    "linux-xfs mailing list",
                ),
                Example(
                    "XFS (vda3): Please unmount the filesystem and rectify the problem(s)", "vda3", "linux-xfs mailing list"
                ),
                Example(
                    "XFS (md127): I/O Error Detected. Shutting down filesystem",
                    "md127",
                    "composed from fs/xfs/xfs_fsops.c 3.10",
                ),
                lookalikes=(
                    "XFS (sdb1): Unmounting Filesystem b31f9652-417d-4dd2-a5ed-54ee957fbfcb",
                    "XFS (sdb1): Ending clean mount",
                    "XFS (sdb1): Mounting V5 Filesystem 08403da7-afbe-4bfa-a45c-487e28280acc",
                    "java[81]: XFS (sdb1): I/O Error Detected. Shutting down filesystem",
                    "systemd[1]: Shutting down filesystem XFS.",
                ),
            ),
        ),
        object_kind="filesystem device",
        joins=60,
    ),
    Reason(
        name="XfsCorruption",
        subsystem=Subsystem.STORAGE,
        severity=Severity.CRITICAL,
        action=Action.REBOOT_NODE,
        summary="An XFS filesystem found that its own structures on disk or in memory are damaged.",
        remedy="Drain the node, unmount the filesystem, run `xfs_repair` on the device and check the disk and the memory; run `nodehealth clear` after a repair without reboot.",
        clears=(REBOOT,),
        patterns=(
            kernel_line(
                _XFS
                + r"(?:Corruption detected(?:\.| in)|Metadata (?:corruption|CRC error) detected at |Internal error [^\n]{1,120} at line \d|"
                r"Corruption warning: |Unmount and run xfs_repair)",
                Example(
                    "XFS (sda1): Corruption detected. Unmount and run xfs_repair", "sda1", "collected from public reports"
                ),
                Example(
                    "XFS (loop5): Metadata corruption detected at xfs_btree_lookup_get_block+0x27a/0x300, xfs_refcountbt block 0x28",
                    "loop5",
                    "linux-xfs mailing list",
                ),
                Example(
                    "XFS (dm-4): Metadata CRC error detected at xfs_agf_read_verify+0xd0/0xf0 [xfs], xfs_agf block 0x1",
                    "dm-4",
                    "composed from fs/xfs/xfs_error.c",
                ),
                Example(
                    "XFS (md0): Internal error XFS_WANT_CORRUPTED_GOTO at line 1757 of file fs/xfs/xfs_alloc.c.  Caller xfs_free_ag_extent",
                    "md0",
                    "composed from fs/xfs/xfs_error.c",
                ),
                Example("XFS (loop5): Unmount and run xfs_repair", "loop5", "linux-xfs mailing list"),
                lookalikes=(
                    "XFS (sda1): Corruption of in-memory data detected.  Shutting down filesystem",
                    "XFS (sda1): Starting recovery (logdev: internal)",
                    "XFS (sda1): Superblock has unknown read-only compatible features (0x80000000) enabled.",
                    "ansible: XFS (sda1): Corruption detected. Unmount and run xfs_repair",
                ),
            ),
        ),
        object_kind="filesystem device",
        joins=60,
    ),
    Reason(
        name="XfsIOError",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="An XFS filesystem could not read or write its log or metadata because the disk under it failed.",
        remedy="Look in `dmesg -T` for the disk's error before it; check whether the volume is still attached, and replace the disk when it comes back.",
        clears=(quiet(hours=6), REBOOT),
        patterns=(
            kernel_line(
                _XFS
                + r"(?:log I/O error -?\d|metadata I/O error(?:: block| in )|Failing async write on buffer block|log device error|writeback error on (?:inode|sector) |page discard on |xfs_log_force: error -?\d|xlog_\w{1,40}: log write error)",
                Example("[470911.895805] XFS (md127): log I/O error -5", "md127", "collected from public reports"),
                Example(
                    'XFS (sdb1): metadata I/O error in "xfs_read_agi+0x95/0x140 [xfs]" at daddr 0x2 len 1 error 5',
                    "sdb1",
                    "composed from fs/xfs/xfs_buf.c 5.x",
                ),
                Example(
                    'XFS (dm-2): metadata I/O error: block 0x1d1c4f8 ("xlog_iodone") error 5 numblks 64',
                    "dm-2",
                    "composed from fs/xfs/xfs_buf.c 3.10",
                ),
                Example(
                    "XFS (dm-12): writeback error on inode 134, offset 0, sector 12345",
                    "dm-12",
                    "composed from fs/xfs/xfs_aops.c 5.15",
                ),
                Example("XFS (sdb1): xfs_log_force: error -5 returned.", "sdb1", "composed from fs/xfs/xfs_log.c 4.x"),
                lookalikes=(
                    "XFS (md127): Log I/O Error (0x2) detected at xlog_ioend_work+0x6e/0x70 [xfs] (fs/xfs/xfs_log.c:1378).  Shutting down filesystem.",
                    "XFS (md127): Ending recovery (logdev: internal)",
                    "fio: XFS (md127): log I/O error -5",
                ),
            ),
        ),
        object_kind="filesystem device",
        joins=60,
    ),
)
