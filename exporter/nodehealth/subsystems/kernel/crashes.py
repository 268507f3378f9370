"""Ends of the kernel or of one of its threads: panic, oops, and the mark of an earlier crash.

What the kernel only complains about is in `bugs.py`, crashes of programs in `apps.py`.
"""

from __future__ import annotations

from nodehealth.model import (
    OPERATOR,
    REBOOT,
    Action,
    Example,
    Pattern,
    Reason,
    Severity,
    Subsystem,
    journal,
    kernel_line,
    quiet,
)

_GPUD = "GPUd test"
_NPD = "node-problem-detector test"
_ABRT = (journal("abrt-notification"),)
_TRAPS = (
    r"divide error|int3|bounds|invalid opcode|general protection fault|stack segment|double fault|segment not present|invalid TSS"
    r"|alignment check|coprocessor segment overrun|simd exception|fpu exception|control protection fault"
    r"|kernel stack overflow|stack guard page"
)
"""The names under which x86 kernels before 6.10 print an oops; later ones put `Oops: ` before them."""


REASONS = (
    Reason(
        name="KernelPanic",
        subsystem=Subsystem.KERNEL,
        severity=Severity.CRITICAL,
        action=Action.REBOOT_NODE,
        summary="The kernel stopped because it could not go on.",
        remedy=(
            "The text after `not syncing:` is the cause. Reboot the node if it has not rebooted by itself, "
            "keep `/sys/fs/pstore` and `/var/crash`, and replace the node if it panics again."
        ),
        clears=(REBOOT,),
        joins=60,
        patterns=(
            kernel_line(
                r"^(?:-{3}\[ end )?Kernel [Pp]anic - not syncing\b",
                Example("[228678.723352] Kernel panic - not syncing: hung_task: blocked tasks", origin=_GPUD),
                Example("Kernel Panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", origin=_GPUD),
                Example("[  456.789012] Kernel panic - not syncing: Fatal Machine check", origin=_GPUD),
                Example(
                    "---[ end Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b ]---",
                    origin="composed from kernel/panic.c",
                ),
                lookalikes=(
                    "Rebooting in 10 seconds..",
                    "Kernel command line: BOOT_IMAGE=/vmlinuz root=/dev/nvme0n1p1 panic=10 oops=panic",
                    "sysrq: Trigger a crash",
                    "crash-test[9]: expecting Kernel panic - not syncing: sysrq",
                ),
            ),
        ),
    ),
    Reason(
        name="KernelOops",
        subsystem=Subsystem.KERNEL,
        severity=Severity.CRITICAL,
        action=Action.REBOOT_NODE,
        summary="Kernel code made an invalid access and was killed; locks and memory that it held are lost.",
        remedy=(
            "Drain and reboot the node: nothing that runs after an oops can be trusted. "
            "Keep the stack (`dmesg -T | grep -A60 -E 'Oops|BUG:'`); the module after `RIP:` or `pc :` is the suspect."
        ),
        clears=(REBOOT,),
        joins=10,
        patterns=(
            kernel_line(
                r"^(?:BUG: )?[Uu]nable to handle (?:kernel \S|page fault for address)",
                Example("BUG: unable to handle kernel NULL pointer dereference at 0000000000000078", origin=_NPD),
                Example("<4>[  201.654822] BUG: unable to handle kernel NULL pointer dereference", origin=_NPD),
                Example(
                    "BUG: unable to handle page fault for address: ffffffffc0a81000",
                    origin="composed from arch/x86/mm/fault.c",
                ),
                Example(
                    "Unable to handle kernel paging request at virtual address dead000000000108",
                    origin="composed from arch/arm64/mm/fault.c",
                ),
                lookalikes=(
                    "BUG: sleeping function called from invalid context at mm/slab.h:494",
                    "nfs: server fs1 unable to handle kernel credentials",
                    "Unable to handle boot memory map",
                ),
            ),
            kernel_line(
                r"^BUG: [Kk]ernel NULL pointer dereference\b",
                Example(
                    "BUG: kernel NULL pointer dereference, address: 0000000000000008",
                    origin="kernel 5.4 arch/x86/mm/fault.c",
                ),
                Example(
                    "BUG: Kernel NULL pointer dereference on read at 0x00000000",
                    origin="composed from arch/powerpc/mm/fault.c",
                ),
                lookalikes=(
                    "test: kernel NULL pointer dereference is expected next",
                    "BUG: KFENCE: use-after-free read in test_use_after_free_read+0xb3/0x143",
                ),
            ),
            kernel_line(
                r"^(?:Oops: |Internal error: )[^\n]{1,160} \[#\d{1,6}\]",
                Example("Oops: 0002 [#1] PREEMPT SMP NOPTI", origin=_GPUD),
                Example(
                    "Oops: general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP NOPTI",
                    origin="composed from kernel 6.10 arch/x86/kernel/traps.c",
                ),
                Example(
                    "Internal error: Oops: 0000000096000004 [#1] SMP", origin="composed from arch/arm64/kernel/traps.c"
                ),
                Example(
                    "Internal error: synchronous external abort: 0000000096000410 [#1] SMP",
                    origin="composed from arch/arm64/mm/fault.c",
                ),
                lookalikes=(
                    "Oops, the volume label is [#1]",
                    "Internal error: firmware returned 5",
                    "CPU: 4 PID: 112 Comm: insmod Tainted: G      D    5.15.102 #1",
                ),
            ),
            kernel_line(
                rf"^(?:{_TRAPS})[^\n\[]{{0,120}}: [0-9a-f]{{4}} \[#\d{{1,6}}\]",
                Example("divide error: 0000 [#1] SMP", origin=_NPD),
                Example("int3: 0000 [#1] SMP PTI", origin="composed from arch/x86/kernel/traps.c"),
                Example(
                    "general protection fault, probably for non-canonical address 0x6b6b6b6b6b6b6b6b: 0000 [#1] SMP NOPTI",
                    origin="composed from kernel 5.10 arch/x86/kernel/traps.c",
                ),
                Example("invalid opcode: 0000 [#2] SMP PTI", origin="composed from kernel 4.18 arch/x86/kernel/traps.c"),
                lookalikes=(
                    "traps: bash[99] general protection fault ip:55 sp:7f error:0 in libc",
                    "traps: a.out[31] trap divide error ip:400501 sp:7ffc6f8a error:0 in a.out[400000+1000]",
                ),
            ),
            kernel_line(
                r"^(?:traps: PANIC: double fault\b|Fixing recursive fault but reboot is needed)",
                Example("traps: PANIC: double fault, error_code: 0x0", origin="composed from arch/x86/kernel/traps.c"),
                Example("Fixing recursive fault but reboot is needed!", origin="composed from kernel/exit.c"),
                lookalikes=(
                    "traps: a.out[31] trap stack segment ip:400501 sp:7ffc6f8a error:0 in a.out[400000+1000]",
                    "test[4]: Fixing recursive fault but reboot is needed!",
                ),
            ),
        ),
    ),
    Reason(
        name="KernelCrashDumpFound",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="The kernel crashed before this boot and left a memory dump.",
        remedy=(
            "Look into `/var/crash` or `abrt-cli list` for the cause. Replace the node if it crashes repeatedly; "
            "clear this finding once the dump is kept."
        ),
        clears=(quiet(hours=24), OPERATOR),
        patterns=(
            Pattern(
                _ABRT,
                r"^System encountered a fatal error in \S",
                (Example("System encountered a fatal error in do_exit", origin=_NPD),),
                (
                    "System encountered a non-fatal error in native_safe_halt",
                    "Process 1234 (System encountered a fatal error in) crashed in bar()",
                ),
            ),
        ),
    ),
)

CONTEXT = (
    kernel_line(
        r"^CPU: \d{1,5} (?:UID: \d{1,10} )?PID: \d{1,10} Comm: ",
        Example("[228678.727237] CPU: 4 PID: 112 Comm: khungtaskd Not tainted 5.15.102 #1", origin=_GPUD),
    ),
    kernel_line(
        r"^-{3,12}\[ (?:cut here|end trace) ",
        Example("------------[ cut here ]------------", origin="include/asm-generic/bug.h"),
    ),
    kernel_line(
        r"^Modules linked in: ",
        Example("Modules linked in: nvidia_uvm(POE) nvidia(POE) ib_core", origin="kernel/module/main.c"),
    ),
)
