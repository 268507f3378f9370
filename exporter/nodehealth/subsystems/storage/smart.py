"""What smartd says about disks: sectors that cannot be read and disks that predict their own failure."""

from __future__ import annotations

from nodehealth.model import OPERATOR, REBOOT, Action, Example, Pattern, Reason, Severity, Subsystem, journal, quiet

_SMARTD = (journal("smartd"),)
_DEVICE = r"\bDevice: (?:/dev/)?(?P<object>[\w!/.-]{1,64})(?: \[[^\]\n]{1,40}\])?(?: \[[^\]\n]{1,40}\])?, "

REASONS = (
    Reason(
        name="DiskBadSectors",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="A disk has places that it can no longer read; the data there is lost and more will follow.",
        remedy="Run `smartctl -a /dev/DEVICE`; a number that grows or is above about a hundred means replace the disk, and back up its data first.",
        clears=(quiet(hours=24), REBOOT),
        patterns=(
            Pattern(
                _SMARTD,
                _DEVICE
                + r"[1-9]\d{0,9} (?:Currently unreadable \(pending\)|Offline uncorrectable|Total offline uncorrectable) sectors",
                (
                    Example(
                        "smartd[1234]: Device: /dev/sda [SAT], 124 Currently unreadable (pending) sectors",
                        "sda",
                        "node-problem-detector",
                    ),
                    Example(
                        "Device: /dev/sdaa [SAT], 8 Offline uncorrectable sectors (changed +8)",
                        "sdaa",
                        "composed from smartmontools smartd.cpp",
                    ),
                ),
                (
                    "Device: /dev/sda [SAT], No more Currently unreadable (pending) sectors, warning condition reset after 1 email",
                    "Device: /dev/sda [SAT], 0 Currently unreadable (pending) sectors",
                    "Device: /dev/sda [SAT], SMART Usage Attribute: 194 Temperature_Celsius changed from 120 to 119",
                ),
            ),
        ),
        object_kind="block device",
    ),
    Reason(
        name="DiskFailurePredicted",
        subsystem=Subsystem.STORAGE,
        severity=Severity.CRITICAL,
        action=Action.REPLACE_NODE,
        summary="A disk says that it is about to fail or has no spare area left.",
        remedy="Drain the node and save the data; confirm with `smartctl -H /dev/DEVICE` and replace the disk or the node.",
        clears=(REBOOT, OPERATOR),
        patterns=(
            Pattern(
                _SMARTD,
                _DEVICE
                + r"(?:FAILED SMART self-check\. BACK UP DATA NOW|Critical Warning \(0x[0-9a-f]{2}\): [\w, ]{0,40}(?:LowSpare|Reliability|R/O))",
                (
                    Example(
                        "Device: /dev/sda [SAT], FAILED SMART self-check. BACK UP DATA NOW!",
                        "sda",
                        "composed from smartmontools smartd.cpp",
                    ),
                    Example(
                        "smartd[903]: Device: /dev/nvme0, Critical Warning (0x04): Reliability",
                        "nvme0",
                        "composed from smartmontools smartd.cpp",
                    ),
                ),
                (
                    'Device: /dev/sda [SAT], is SMART capable. Adding to "monitor" list.',
                    "Device: /dev/nvme0, Critical Warning (0x02): Temperature",
                    "Device: /dev/nvme0, number of Error Log entries increased from 1 to 2",
                ),
            ),
        ),
        object_kind="block device",
    ),
)
