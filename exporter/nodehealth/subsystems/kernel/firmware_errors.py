"""Hardware errors that the firmware reports as APEI/CPER records, of this boot or the one before.

Which device a record is about is in other lines of it and in the devices' own topics.
"""

from __future__ import annotations

from nodehealth.model import OPERATOR, REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

_HW = r"\[Hardware Error\]: {1,4}"
_GHES = "kernel 5.15 drivers/acpi/apei/ghes.c"
_CPER = "composed from drivers/firmware/efi/cper.c"


def _severity(word: str) -> str:
    """A record of the running kernel carries its number `{n}`; one of the boot record (BERT) does not."""
    return rf"^(?:\{{\d{{1,10}}\}}|mce: ){_HW}(?:event severity: |Error \d{{1,4}}, type: ){word}"


REASONS = (
    Reason(
        name="FirmwareErrorRecord",
        subsystem=Subsystem.KERNEL,
        severity=Severity.INFO,
        action=Action.NONE,
        summary="The firmware handed the kernel a record of a hardware error of any severity.",
        remedy="Nothing to do for this line: the next one says how severe it is and gives its own finding.",
        clears=(quiet(hours=1), REBOOT),
        joins=1,
        patterns=(
            kernel_line(
                rf"^(?:\{{\d{{1,10}}\}})?{_HW}Hardware error from APEI Generic Hardware Error Source: \d",
                Example("{1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 5", origin=_GHES),
                lookalikes=(
                    "GHES: APEI firmware first mode is enabled by APEI bit and WHEA _OSC.",
                    "[Firmware Warn]: GHES: Failed to read error status block address for hardware error source: 5",
                ),
            ),
        ),
    ),
    Reason(
        name="HardwareErrorFatal",
        subsystem=Subsystem.KERNEL,
        severity=Severity.CRITICAL,
        action=Action.REPLACE_NODE,
        summary="The firmware reported a fatal hardware error.",
        remedy=(
            "Drain the node and replace it. `dmesg -T | grep -A30 'event severity: fatal'` and the BMC's event log "
            "(`ipmitool sel elist`) name the part."
        ),
        clears=(REBOOT, OPERATOR),
        joins=10,
        patterns=(
            kernel_line(
                _severity("fatal"),
                Example("{1}[Hardware Error]: event severity: fatal", origin="node-problem-detector test"),
                Example("mce: [Hardware Error]: event severity: fatal", origin="node-problem-detector test"),
                Example("{2}[Hardware Error]:  Error 0, type: fatal", origin=_CPER),
                lookalikes=(
                    "{1}[Hardware Error]: event severity: recoverable",
                    "[Hardware Error]: event severity: fatal",
                    "{1}[Hardware Error]:   section_type: memory error",
                ),
            ),
        ),
    ),
    Reason(
        name="HardwareErrorRecoverable",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="The firmware reported an uncorrected hardware error that software can contain.",
        remedy=(
            "See the part with `dmesg -T | grep -A30 'event severity: recoverable'` and `ipmitool sel elist`. "
            "Replace the part or the node if it happens again."
        ),
        clears=(REBOOT, OPERATOR),
        joins=10,
        patterns=(
            kernel_line(
                _severity("recoverable"),
                Example("{1}[Hardware Error]: event severity: recoverable", origin="node-problem-detector test"),
                lookalikes=(
                    "{1}[Hardware Error]: event severity: corrected",
                    "[Hardware Error]: event severity: recoverable",
                ),
            ),
        ),
    ),
    Reason(
        name="HardwareErrorCorrected",
        subsystem=Subsystem.KERNEL,
        severity=Severity.INFO,
        action=Action.INVESTIGATE,
        summary="The firmware reported a hardware error that the hardware corrected.",
        remedy="Nothing to do at once. Look for the part with `ras-mc-ctl --summary` if it comes back every day.",
        clears=(quiet(hours=24), REBOOT),
        joins=1,
        patterns=(
            kernel_line(
                _severity("(?:corrected|info)"),
                Example("{1}[Hardware Error]: event severity: corrected", origin="node-problem-detector test"),
                lookalikes=("{1}[Hardware Error]: event severity: fatal", "{1}[Hardware Error]: section_type: corrected"),
            ),
            kernel_line(
                rf"^\{{\d{{1,10}}\}}{_HW}It has been corrected by h/w",
                Example("{1}[Hardware Error]: It has been corrected by h/w and requires no further action", origin=_CPER),
                lookalikes=(
                    "{1}[Hardware Error]: event severity: recoverable",
                    "It has been corrected by h/w and requires no further action",
                ),
            ),
        ),
    ),
    Reason(
        name="HardwareErrorPreviousBoot",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="The firmware kept a record of a hardware error that ended the boot before this one.",
        remedy=(
            "Read the record with `dmesg -T | grep -A30 'Hardware Error'` and `ipmitool sel elist`. "
            "Replace the node if it crashed more than once."
        ),
        clears=(quiet(hours=24), OPERATOR),
        joins=10,
        patterns=(
            kernel_line(
                rf"^(?:BERT: (?:{_HW})?Error records from previous boot|{_HW}(?:event severity|Error \d{{1,4}}, type): [a-z])",
                Example("BERT: [Hardware Error]: Error records from previous boot:", origin="composed from apei/bert.c"),
                Example("[Hardware Error]: event severity: fatal", origin=_CPER),
                lookalikes=(
                    "{1}[Hardware Error]: event severity: fatal",
                    "BERT: Boot Error Record Table support is disabled.",
                    "ACPI: BERT 0x00000000775A5000 000030 (v01 INTEL  EDK2     00000001 INTL 00000001)",
                ),
            ),
        ),
    ),
)
