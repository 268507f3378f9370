"""Programs that the kernel killed for an invalid access or instruction: a workload's matter, not the node's.

The program's name stays in the line: a finding is about the node.
"""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Pattern, Reason, Severity, Subsystem, journal, kernel_line, quiet

_TASK = r"(?:[^\n\\]|\\x[0-9a-f][0-9a-f]){1,15}\[\d{1,10}\]"
"""A task's name has at most 15 characters; a longer start is the host and program of a log line that only quotes the kernel."""
_NPD = "node-problem-detector test"

REASONS = (
    Reason(
        name="AppCrash",
        subsystem=Subsystem.KERNEL,
        severity=Severity.INFO,
        action=Action.RESTART_APP,
        summary="A program crashed: it touched memory or ran an instruction that it may not.",
        remedy=(
            "Tell the owner of the program that the line names. If many different programs crash on this node only, "
            "suspect its memory and look for machine checks with `dmesg -T | grep -i 'hardware error'`."
        ),
        clears=(quiet(hours=1), REBOOT),
        patterns=(
            kernel_line(
                rf"^(?:{_TASK}: )?segfault (?:\(\d{{1,2}}\) )?at (?:0x)?[0-9a-f]{{1,16}} (?:r|e|n)?ip[ :]",
                Example(
                    "[   32.298491][  T896] kexec[896]: segfault at 0 ip 0000000000000000 sp 00007ffeaf0ff420 error 14"
                    " in dash[561ac3c57000+4000]",
                    origin="EKS Node Monitoring Agent test",
                ),
                Example("segfault at 7f797fe00000 ip 00007f7c7ac69996", origin=_NPD),
                Example(
                    "Web Content[4711]: segfault at 10 rip 7f2a8c1 rsp 7ffd1 error 4",
                    origin="composed from arch/x86/mm/fault.c",
                ),
                Example(
                    "java[9]: segfault (11) at 8 nip 3fffb4c lr 3fffb4b code 1 in libjvm.so[3fffb3000000+1200000]",
                    origin="composed from arch/powerpc/kernel/traps.c",
                ),
                lookalikes=(
                    "tester[4]: segfault at startup is handled",
                    "segfault handler installed at 7f797fe00000",
                    "ip-10-0-3-17.ec2.internal crashreporter[77]: segfault at 7f797fe00000 ip 00007f7c7ac69996",
                    "show_unhandled_signals: segfault reports enabled",
                ),
            ),
            kernel_line(
                rf"^(?:traps: )?{_TASK} (?:(?:general|control) protection(?: fault)?|trap (?!int3 )[a-zA-Z ]{{3,40}}) ip:[0-9a-f]",
                Example("traps: bash[99] general protection fault ip:55 sp:7f error:0 in libc", origin=_NPD),
                Example(
                    "traps: node[31337] trap invalid opcode ip:55d0c8a1 sp:7ffd3b20 error:0 in node[55d0c7e00000+1a00000]",
                    origin="composed from arch/x86/kernel/traps.c",
                ),
                Example(
                    "traps: a.out[31] general protection ip:400501 sp:7ffc6f8a error:0 in a.out[400000+1000]",
                    origin="composed from kernel 3.10 arch/x86/kernel/traps.c",
                ),
                lookalikes=(
                    "traps: dlv[22114] trap int3 ip:47a2b0 sp:c00008bf00 error:0 in app[400000+8a000]",
                    "general protection fault: 0000 [#1] SMP",
                    "x86/split lock detection: #AC: qemu[77] took a split_lock trap at address: 0x1f8e",
                ),
            ),
            kernel_line(
                rf"^{_TASK}: unhandled (?:exception: |signal \d|[a-z0-9 -]{{3,60}} fault \(\d{{1,2}}\) at )",
                Example(
                    "python3[1234]: unhandled level 2 translation fault (11) at 0x00000010, esr 0x92000006",
                    origin="composed from kernel 4.14 arch/arm64/mm/fault.c",
                ),
                Example(
                    "python3[1234]: unhandled exception: DABT (lower EL), ESR 0x0000000092000006, level 2 translation fault in"
                    " libc.so.6[ffff8c000000+188000]",
                    origin="composed from arch/arm64/kernel/traps.c",
                ),
                lookalikes=(
                    "systemd[1]: unhandled unit state",
                    "kworker[7]: unhandled exceptions are reported",
                ),
            ),
            Pattern(
                (journal("abrt-notification"),),
                r"^Process \d{1,10} \([^\n]{1,128}\)(?: of user \d{1,10})? (?:crashed in |encountered an uncaught )\S",
                (
                    Example("Process 1234 (foo) crashed in bar()", origin=_NPD),
                    Example(
                        "Process 4711 (python3.9) of user 1000 encountered an uncaught ValueError exception",
                        origin="composed from abrt",
                    ),
                ),
                (
                    "Process 1234 (foo) was ignored: its package is not signed",
                    "System encountered a fatal error in do_exit",
                    "Processed 3 crashed in total",
                ),
            ),
            Pattern(
                (journal("abrt-notification"),),
                r"^Display server \S{1,128} crashed in \S",
                (Example("Display server /usr/libexec/Xorg crashed in OsLookupColor", origin="composed from abrt"),),
                ("Display server /usr/libexec/Xorg started", "Display server crashed"),
            ),
        ),
    ),
    Reason(
        name="AppDebugTrap",
        subsystem=Subsystem.KERNEL,
        severity=Severity.INFO,
        action=Action.NONE,
        summary="A program hit a breakpoint instruction: a debugger, a profiler, or its own deliberate abort.",
        remedy="Nothing to do for the node. Tell the owner of the program that the line names if it was not expected.",
        clears=(quiet(hours=1), REBOOT),
        patterns=(
            kernel_line(
                rf"^(?:traps: )?{_TASK} trap int3 ip:[0-9a-f]",
                Example(
                    "traps: dlv[22114] trap int3 ip:47a2b0 sp:c00008bf00 error:0 in app[400000+8a000]",
                    origin="composed from arch/x86/kernel/traps.c",
                ),
                lookalikes=(
                    "traps: node[31337] trap invalid opcode ip:55d0c8a1 sp:7ffd3b20 error:0 in node[55d0c7e00000+1a00000]",
                    "int3: 0000 [#1] SMP",
                ),
            ),
        ),
    ),
)
