"""What the kernel complains about in its own state: BUG and WARN_ON.  An oops that follows is in `crashes.py`."""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Pattern, Reason, Severity, Subsystem, journal, kernel_line, quiet

_ABRT = (journal("abrt-notification"),)

REASONS = (
    Reason(
        name="KernelBug",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.REBOOT_NODE,
        summary="The kernel found itself in a state that its code rules out, such as corrupted memory or a lock that is held wrongly.",
        remedy=(
            "Read the stack with `dmesg -T | grep -A40 'BUG'` and report it to who maintains the driver or kernel. "
            "Drain and reboot the node when convenient, at once if an oops follows."
        ),
        clears=(REBOOT, quiet(hours=24)),
        patterns=(
            kernel_line(
                r"^[Kk]ernel BUG at [^\s:]{1,240}:\d{1,6}",
                Example("kernel BUG at mm/slub.c:305!", origin="composed from lib/bug.c"),
                Example(
                    "kernel BUG at /build/linux-aws-5.15-x1Wc/linux-aws-5.15-5.15.0/fs/ext4/inode.c:2720!",
                    origin="composed from lib/bug.c",
                ),
                lookalikes=(
                    "------------[ cut here ]------------",
                    "Report a kernel BUG at bugzilla.kernel.org: 1234",
                    "WARNING: CPU: 3 PID: 1234 at kernel/BUG.c:88 foo_bar+0x12/0x34",
                ),
            ),
            kernel_line(
                r"^BUG: (?!soft lockup|workqueue lockup|[Uu]nable to handle |[Kk]ernel NULL pointer|arch topology borken)\S",
                Example("[Mon Jan 1 12:34:56 2022] BUG: something bad happened", origin="EKS Node Monitoring Agent test"),
                Example("BUG: Bad page state in process python3  pfn:3f5a21", origin="composed from mm/page_alloc.c"),
                Example(
                    "BUG: Bad rss-counter state mm:00000000a5b1f3c2 type:MM_ANONPAGES val:2",
                    origin="composed from kernel/fork.c",
                ),
                Example("BUG: scheduling while atomic: swapper/0/0/0x00000100", origin="composed from kernel/sched/core.c"),
                Example("BUG: KASAN: slab-out-of-bounds in nfs_read+0x12/0x30", origin="composed from mm/kasan/report.c"),
                lookalikes=(
                    "BUG: arch topology borken",
                    "watchdog: BUG: soft lockup - CPU#6 stuck for 23s! [VM Thread:4054]",
                    "[Firmware Bug]: TSC_DEADLINE disabled due to Errata",
                    "ACPI BIOS Error (bug): Could not resolve symbol [\\_SB.PR00._CPC], AE_NOT_FOUND (20210730/psargs-330)",
                    "app[77]: BUG: something bad happened",
                ),
            ),
        ),
    ),
    Reason(
        name="KernelWarning",
        subsystem=Subsystem.KERNEL,
        severity=Severity.INFO,
        action=Action.INVESTIGATE,
        summary="The kernel or a driver met a state that it did not expect and went on.",
        remedy=(
            "Nothing to do at once. The file and the module in brackets say whose code it is; "
            "look with `dmesg -T | grep -A30 'WARNING:'` if other findings appear at the same time."
        ),
        clears=(quiet(hours=1), REBOOT),
        patterns=(
            kernel_line(
                r"^WARNING: (?:CPU: \d{1,5} PID: \d{1,10} )?at [^\s:]{1,240}:\d{1,6}\b",
                Example(
                    "WARNING: CPU: 3 PID: 1234 at drivers/gpu/drm/foo.c:88 foo_bar+0x12/0x34 [nvidia]",
                    origin="kernel 5.15 kernel/panic.c",
                ),
                Example(
                    "WARNING: at fs/btrfs/inode.c:3121 btrfs_orphan_commit_root+0xd4/0xf0 [btrfs]()",
                    origin="composed from kernel 3.10 kernel/panic.c",
                ),
                lookalikes=(
                    "WARNING: Support for this device is limited at this time",
                    "systemd[1]: WARNING: CPU: 3 PID: 12 at foo.c:88",
                    "------------[ cut here ]------------",
                ),
            ),
            kernel_line(
                r"^WARNING: [^\s:]{1,240}\.[ch]:\d{1,6} at ",
                Example(
                    "WARNING: kernel/time/timekeeping.c:1021 at ktime_get+0x8d/0xb0, CPU#12: kworker/12:1/341",
                    origin="composed from kernel 6.19 kernel/panic.c",
                ),
                lookalikes=("WARNING: unable to look at a.c:10 at boot", "WARNING: see notes.txt:4 at the end"),
            ),
            Pattern(
                _ABRT,
                r"^System encountered a non-fatal error in \S",
                (Example("System encountered a non-fatal error in ??()", origin="composed from abrt"),),
                ("System encountered a fatal error in do_exit", "System encountered a non-fatal error count of 3"),
            ),
        ),
    ),
)
