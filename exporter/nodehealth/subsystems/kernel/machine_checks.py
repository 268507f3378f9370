"""Hardware errors that the processor reports: machine checks (x86) and SError (arm64).

The firmware's records of the same fault are in `firmware_errors.py`, memory modules in `memory.py`.
"""

from __future__ import annotations

from nodehealth.model import OPERATOR, REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

_HW = r"\[Hardware Error\]: {1,4}"
_BANK = r"CPU \d{1,5}: Machine Check(?: Exception| Event)?: [0-9a-f]{1,16} Bank \d{1,3}: "

REASONS = (
    Reason(
        name="MachineCheck",
        subsystem=Subsystem.KERNEL,
        severity=Severity.CRITICAL,
        action=Action.REPLACE_NODE,
        summary="The processor reported a hardware error that it could not correct, in itself, its caches, memory or links.",
        remedy=(
            "Drain the node and replace it. `ras-mc-ctl --errors` or `dmesg -T | grep 'Hardware Error'` names the part; "
            "keep those lines for the hardware vendor."
        ),
        clears=(REBOOT, OPERATOR),
        joins=10,
        patterns=(
            kernel_line(
                rf"^(?:mce: )?{_HW}{_BANK}[abefABEF][0-9a-fA-F]{{15}}\b",
                Example(
                    "mce: [Hardware Error]: CPU 2: Machine Check: 0 Bank 5: bea0000000000108", origin="Ryzen bug report"
                ),
                Example(
                    "[Hardware Error]: CPU 12: Machine Check Exception: 5 Bank 9: be00000000800400",
                    origin="composed from kernel 3.10 mcheck/mce.c",
                ),
                lookalikes=(
                    "mce: CPU supports 22 MCE banks",
                    "mce: [Hardware Error]: CPU 2: Machine Check: 0 Bank 5: 8c00004000010090",
                ),
            ),
            kernel_line(
                rf"^mce: (?:{_HW}Machine check: [A-Z]|(?:{_HW})?Uncorrected hardware memory error in user-access at )",
                Example(
                    "mce: [Hardware Error]: Machine check: Processor context corrupt",
                    origin="kernel 5.15 arch/x86/kernel/cpu/mce",
                ),
                Example(
                    "mce: Uncorrected hardware memory error in user-access at 1047e4f3c0",
                    origin="composed from arch/x86/kernel/cpu/mce",
                ),
                lookalikes=(
                    "mce: [Hardware Error]: Machine check events logged",
                    "mce: Machine check injector initialized",
                    "mce: CPU0: Thermal monitoring enabled (TM1)",
                ),
            ),
            kernel_line(
                rf"^{_HW}(?:CPU:\d{{1,5}} \([0-9a-f:]{{1,16}}\) MC\d{{1,3}}_STATUS\[(?:Over|-)\|UE\||System Fatal error"
                r"|Uncorrected, software (?:restartable|containable) error)",
                Example(
                    "[Hardware Error]: CPU:2 (17:31:0) MC5_STATUS[-|UE|MiscV|AddrV|-|TCC|SyndV|-|-|-]: 0xbea0000001000108",
                    origin="composed from drivers/edac/mce_amd.c",
                ),
                Example("[Hardware Error]: System Fatal error.", origin="composed from drivers/edac/mce_amd.c"),
                lookalikes=(
                    "[Hardware Error]: CPU:2 (17:31:0) MC27_STATUS[-|CE|MiscV|-|-|-|SyndV|-|-|-]: 0x982000000002080b",
                    "[Hardware Error]: Corrected error, no action required.",
                ),
            ),
            kernel_line(
                r"^(?:SError Interrupt on CPU ?\d|Bad mode in Error handler detected on CPU ?\d)",
                Example(
                    "SError Interrupt on CPU71, code 0x00000000be000011 -- SError",
                    origin="composed from arch/arm64/kernel/traps.c",
                ),
                lookalikes=(
                    "CPU features: detected: RAS Extension Support",
                    "SError Interrupt handler registered",
                ),
            ),
        ),
    ),
    Reason(
        name="MachineCheckLogged",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="The processor logged a hardware error that it corrected or put off.",
        remedy=(
            "Look for the part with `ras-mc-ctl --summary` or `dmesg -T | grep -E 'Hardware Error|EDAC'`. "
            "Plan a replacement if it comes back every day."
        ),
        clears=(quiet(hours=24), REBOOT),
        joins=10,
        patterns=(
            kernel_line(
                rf"^(?:mce: )?(?:{_HW})?Machine check events logged",
                Example("mce: [Hardware Error]: Machine check events logged", origin="kernel 5.15 arch/x86/kernel/cpu/mce"),
                Example("[Hardware Error]: Machine check events logged", origin="composed from kernel 3.10 mcheck/mce.c"),
                lookalikes=(
                    "MCE: In-kernel MCE decoding enabled.",
                    "mcelog: Machine check events logged by earlier boot: 0",
                ),
            ),
            kernel_line(
                rf"^(?:mce: )?{_HW}{_BANK}[0-9cdCD]",
                Example(
                    "mce: [Hardware Error]: CPU 2: Machine Check: 0 Bank 5: 8c00004000010090",
                    origin="composed from mce/core.c",
                ),
                lookalikes=(
                    "mce: [Hardware Error]: CPU 2: Machine Check: 0 Bank 5: bea0000000000108",
                    "mce: [Hardware Error]: TSC 0 ADDR 1ffffffffe000 MISC d012000100000000 SYND 4d000000",
                ),
            ),
            kernel_line(
                rf"^{_HW}(?:CPU:\d{{1,5}} \([0-9a-f:]{{1,16}}\) MC\d{{1,3}}_STATUS\[(?:Over|-)\|(?:CE|-)\|"
                r"|(?:Corrected|Deferred) error, no action required)",
                Example(
                    "[Hardware Error]: CPU:2 (17:31:0) MC27_STATUS[-|CE|MiscV|-|-|-|SyndV|-|-|-]: 0x982000000002080b",
                    origin="composed from drivers/edac/mce_amd.c",
                ),
                Example(
                    "[Hardware Error]: Corrected error, no action required.", origin="composed from drivers/edac/mce_amd.c"
                ),
                lookalikes=(
                    "[Hardware Error]: CPU:2 (17:31:0) MC5_STATUS[-|UE|MiscV|AddrV|-|TCC|SyndV|-|-|-]: 0xbea0000001000108",
                    "[Hardware Error]: cache level: L3/GEN, tx: GEN, mem-tx: RD",
                ),
            ),
            kernel_line(
                r"^(?:mce: )?(?:CPU\d{1,5} BANK\d{1,3} )?CMCI storm detected",
                Example("mce: CMCI storm detected: switching to poll mode", origin="composed from mce/intel.c"),
                Example("mce: CPU64 BANK1 CMCI storm detected", origin="composed from kernel 6.8 mce/threshold.c"),
                lookalikes=(
                    "mce: CMCI storm subsided: switching to interrupt mode",
                    "mce: CPU0: CMCI storm threshold is 15",
                    "mce: CPU64 BANK1 CMCI storm subsided",
                ),
            ),
        ),
    ),
)
