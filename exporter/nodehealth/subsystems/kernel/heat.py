"""Heat: processors that slow down, and hosts that are about to switch off.  Accelerators' heat is not here."""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

REASONS = (
    Reason(
        name="CPUThermalThrottled",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="A processor is too hot and runs slower than it should.",
        remedy=(
            "Check fans, air flow and room temperature: `ipmitool sdr type temperature` and `ipmitool sdr type fan`. "
            "Move work away if the slow-down hurts."
        ),
        clears=(quiet(minutes=30), REBOOT),
        joins=5,
        patterns=(
            kernel_line(
                r"^(?:mce: )?CPU\d{1,5}: (?:(?:Core|Package) )?[Tt]emperature (?:is )?above threshold, cpu clock (?:is )?throttled",
                Example(
                    "mce: CPU0: Package temperature above threshold, cpu clock throttled (total events = 4)",
                    origin="kernel 5.4 mce/therm_throt.c",
                ),
                Example(
                    "CPU12: Core temperature is above threshold, cpu clock is throttled (total events = 1)",
                    origin="composed from drivers/thermal/intel/therm_throt.c",
                ),
                lookalikes=(
                    "mce: CPU0: Package temperature/speed normal",
                    "CPU0: Package power limit notification (total events = 1)",
                    "CPU0: Thermal monitoring enabled (TM1)",
                ),
            ),
        ),
    ),
    Reason(
        name="HostOverheating",
        subsystem=Subsystem.KERNEL,
        severity=Severity.CRITICAL,
        action=Action.INVESTIGATE,
        summary="A sensor of the host reached its critical temperature and the node is about to switch itself off.",
        remedy=(
            "Drain the node and check its cooling: `ipmitool sdr type temperature` and `ipmitool sdr type fan`. "
            "Put it back only after the cause is found."
        ),
        clears=(REBOOT,),
        joins=10,
        patterns=(
            kernel_line(
                r"^(?:(?:[^\n\[]{1,80}: )?[Cc]ritical temperature reached ?(?:\(-?\d{1,7} C\))?, ?shutting down|thermal thermal_zone\d{1,4}: [^\n:]{1,40}: critical temperature reached\s*$)",
                Example(
                    "thermal thermal_zone0: critical temperature reached (105 C), shutting down",
                    origin="kernel 4.19 drivers/thermal/thermal_core.c",
                ),
                Example(
                    "thermal thermal_zone3: x86_pkg_temp: critical temperature reached, shutting down",
                    origin="composed from kernel 5.15 drivers/thermal/thermal_core.c",
                ),
                Example(
                    "thermal thermal_zone0: acpitz: critical temperature reached",
                    origin="composed from kernel 6.8 drivers/thermal/thermal_core.c",
                ),
                Example(
                    "Critical temperature reached (128 C), shutting down.", origin="composed from drivers/acpi/thermal.c"
                ),
                lookalikes=(
                    "thermal thermal_zone0: failed to read out thermal zone (-61)",
                    "ACPI: thermal: Thermal Zone [TZ00] (28 C)",
                    "thermal thermal_zone0: critical temperature trip is 105 C",
                    "thermald[911]: critical temperature reached, shutting down",
                    "rackmon: Critical temperature reached",
                ),
            ),
            kernel_line(
                r"^(?:[^\n\[]{1,80}: )?HARDWARE PROTECTION (?:shutdown|reboot) \(Temperature",
                Example(
                    "reboot: HARDWARE PROTECTION shutdown (Temperature too high)",
                    origin="composed from kernel 5.15 kernel/reboot.c",
                ),
                lookalikes=(
                    "reboot: Hardware protection timed-out. Trying forced poweroff",
                    "reboot: HARDWARE PROTECTION shutdown (Regulator undervoltage)",
                ),
            ),
        ),
    ),
)
