"""Memory that went bad: pages that the kernel took out of use, and what the memory controllers report (EDAC).

Machine checks and firmware records of the same fault are in `hardware_errors.py`.
"""

from __future__ import annotations

from nodehealth.model import OPERATOR, REBOOT, Action, Example, Reason, Repetition, Severity, Subsystem, kernel_line, quiet

_MF = r"^(?:Memory failure: |MCE )0x[0-9a-f]{1,16}: "

REASONS = (
    Reason(
        name="MemoryFailure",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="A page of memory is corrupt beyond repair by hardware; the kernel took it out of use or killed who used it.",
        remedy=(
            "See the pages with `dmesg -T | grep 'Memory failure'` and the lost amount with `grep HardwareCorrupted /proc/meminfo`. "
            "Plan to replace the node or its memory module; replace it at once if it happens again."
        ),
        clears=(REBOOT, OPERATOR),
        joins=10,
        patterns=(
            kernel_line(
                rf"{_MF}(?:recovery action for [^\n]{{1,80}}: (?:Recovered|Delayed)|[\w ()-]{{1,60}} recovery: (?:Recovered|Delayed))",
                Example("Memory failure: 0x7740c0: recovery action for dirty page: Recovered", origin="rasdaemon report"),
                Example(
                    "MCE 0x7740c0: dirty page recovery: Recovered", origin="composed from kernel 3.10 mm/memory-failure.c"
                ),
                lookalikes=(
                    "Memory failure: 0x7740c0: recovery action for reserved kernel page: Ignored",
                    "Unpoison: Software-unpoisoned page 0x7740c0",
                    "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#1_Chan#0_DIMM#0 (channel:0 slot:0)",
                ),
            ),
            kernel_line(
                rf"{_MF}(?:(?:Killing|Sending SIGBUS to) [^\n]{{1,80}}:\d{{1,10}} due to hardware memory corruption"
                r"|forcibly killing |already hardware poisoned|unhandlable page)",
                Example(
                    "Memory failure: 0x1a2b3c: Killing firefox:4242 due to hardware memory corruption",
                    origin="rasdaemon report",
                ),
                Example(
                    "Memory failure: 0x1a2b3c: Sending SIGBUS to qemu-kvm:4242 due to hardware memory corruption",
                    origin="composed from mm/memory-failure.c",
                ),
                Example("Memory failure: 0x1a2b3c: already hardware poisoned", origin="composed from mm/memory-failure.c"),
                lookalikes=(
                    "Memory failure: 0x1a2b3c: page will be rechecked",
                    "Memory failure handling is enabled",
                    "Killing firefox:4242 due to policy",
                ),
            ),
            kernel_line(
                rf"{_MF}recovery action for already poisoned page: Failed",
                Example(
                    "Memory failure: 0x1a2b3c: recovery action for already poisoned page: Failed",
                    origin="composed from kernel 6.14 mm/memory-failure.c",
                ),
                lookalikes=(
                    "Memory failure: 0x1a2b3c: recovery action for huge page: Failed",
                    "Memory failure: recovery action for already poisoned page",
                ),
            ),
        ),
    ),
    Reason(
        name="MemoryFailureUnrecovered",
        subsystem=Subsystem.KERNEL,
        severity=Severity.CRITICAL,
        action=Action.REPLACE_NODE,
        summary="A page of memory is corrupt and the kernel could not take it out of use: data may be wrong.",
        remedy=(
            "Drain the node and replace it, or its memory module: the kernel may read the corrupt page at any time. "
            "`dmesg -T | grep -E 'Memory failure|EDAC|Hardware Error'` names the module."
        ),
        clears=(REBOOT, OPERATOR),
        joins=10,
        patterns=(
            kernel_line(
                rf"{_MF}(?:recovery action for (?!already poisoned)[^\n]{{1,80}}: (?:Ignored|Failed)"
                r"|[\w ()-]{1,60} recovery: (?:Ignored|Failed))",
                Example(
                    "Memory failure: 0x3c2a10: recovery action for reserved kernel page: Ignored",
                    origin="composed from mm/memory-failure.c",
                ),
                Example(
                    "Memory failure: 0x88: recovery action for huge page: Failed",
                    origin="composed from mm/memory-failure.c",
                ),
                lookalikes=(
                    "Memory failure: 0x7740c0: recovery action for dirty page: Recovered",
                    "Memory failure: 0x1a2b3c: recovery action for already poisoned page: Failed",
                ),
            ),
        ),
    ),
    Reason(
        name="MemoryUncorrectedError",
        subsystem=Subsystem.KERNEL,
        severity=Severity.CRITICAL,
        action=Action.REPLACE_NODE,
        summary="A memory module returned data that its error correction could not repair.",
        remedy=(
            "Drain the node and replace it, or the memory module that the line names. "
            "Counters: `grep . /sys/devices/system/edac/mc/mc*/ue_count`."
        ),
        clears=(REBOOT, OPERATOR),
        joins=5,
        patterns=(
            kernel_line(
                r"^EDAC (?:MC|DEVICE)\d{1,3}: (?:\d{1,10} )?UE\b",
                Example(
                    "EDAC MC3: 1 UE memory read error on CPU_SrcID#0_MC#3_Chan#0_DIMM#0 (channel:0 slot:0 page:0x7e025e"
                    " offset:0x400 grain:32 -  err_code:0x00a0:0x0090)",
                    origin="rasdaemon report",
                ),
                Example(
                    'EDAC MC0: UE page 0x1f00, offset 0x0, grain 4096, row 1, labels ":": i5000',
                    origin="composed from kernel 3.2 drivers/edac/edac_mc.c",
                ),
                lookalikes=(
                    "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#1_Chan#0_DIMM#0 (channel:0 slot:0)",
                    "EDAC MC0: Giving out device to module skx_edac controller Skylake Socket#0 IMC#0: DEV 0000:3a:0a.0 (INTERRUPT)",
                    "EDAC skx MC0: HANDLING MCE MEMORY ERROR",
                ),
            ),
        ),
    ),
    Reason(
        name="MemoryCorrectedError",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="A memory module repeatedly returned data that its error correction had to repair.",
        remedy=(
            "No data is lost. Watch `grep . /sys/devices/system/edac/mc/mc*/ce_count`; "
            "plan to replace the module that the line names if the count keeps growing."
        ),
        clears=(quiet(hours=24), REBOOT),
        repeats=Repetition(10, 86400),
        patterns=(
            kernel_line(
                r"^EDAC (?:MC|DEVICE)\d{1,3}: (?:\d{1,10} )?CE\b",
                Example(
                    "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#1_Chan#0_DIMM#0 (channel:0 slot:0)",
                    origin="node-problem-detector test",
                ),
                Example(
                    "EDAC MC0: 1 CE memory scrubbing error on CPU_SrcID#0_Ha#0_Chan#1_DIMM#0", origin="rasdaemon report"
                ),
                Example(
                    "EDAC MC0: 1 CE on mc#0csrow#3channel#0 (csrow:3 channel:0 page:0x41f72c offset:0x500 grain:0 syndrome:0x4)",
                    origin="composed from drivers/edac/amd64_edac.c",
                ),
                Example(
                    'EDAC MC0: CE page 0xd1cd, offset 0x0, grain 0, syndrome 0x0, row 0, channel 0, label "": e7xxx',
                    origin="composed from kernel 3.2 drivers/edac/edac_mc.c",
                ),
                lookalikes=(
                    "EDAC MC: Ver: 3.0.0",
                    "EDAC MC3: 1 UE memory read error on CPU_SrcID#0_MC#3_Chan#0_DIMM#0",
                    "EDAC MC0: CEx polling started",
                ),
            ),
        ),
    ),
)

CONTEXT = (
    kernel_line(
        r"^EDAC [\w ]{0,24}(?:MC\d{1,3}|igen6[^:]{0,12}): HANDLING \w{0,8} ?MEMORY ERROR",
        Example("EDAC skx MC0: HANDLING MCE MEMORY ERROR", origin="drivers/edac/skx_common.c"),
    ),
)
