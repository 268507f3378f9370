"""Errors that PCIe devices report themselves (advanced error reporting, AER).

An error is about the device that sent it where the port's line names it, else about the port.
"""

from __future__ import annotations

from nodehealth.model import (
    OPERATOR,
    REBOOT,
    Action,
    Clear,
    Example,
    Reason,
    Severity,
    Subsystem,
    kernel_line,
    quiet,
)
from nodehealth.pci import ADDRESS

_DRIVER = r"^\S{1,48} "
_PORT = rf"{_DRIVER}{ADDRESS}(?::pcie\d{{1,4}})?: "
_OBJECT = rf"{_DRIVER}(?P<pci>{ADDRESS})(?::pcie\d{{1,4}})?: "
_UPSTREAM = "composed from drivers/pci/pcie/aer.c"


def _error(
    name: str,
    word: str,
    severity: Severity,
    action: Action,
    joins: float,
    clears: tuple[Clear, ...],
    summary: str,
    remedy: str,
    examples: tuple[Example, ...],
    lookalikes: tuple[str, ...],
) -> Reason:
    """The port names the sender, the port names a number only (before kernel 4.17), the device's own record."""
    received = rf"(?:AER: )?(?:Multiple )?{word} error (?:message )?received"
    shapes = (
        rf"{_PORT}{received}(?::| from) (?P<pci>{ADDRESS})",
        rf"{_OBJECT}{received}: id=[0-9a-f]{{1,4}}\b",
        rf"{_OBJECT}(?:AER: )?PCIe Bus Error: severity={word},",
    )
    return Reason(
        name=name,
        subsystem=Subsystem.KERNEL,
        severity=severity,
        action=action,
        summary=summary,
        remedy=remedy,
        clears=clears,
        patterns=tuple(
            kernel_line(shape, example, lookalikes=lookalikes) for shape, example in zip(shapes, examples, strict=True)
        ),
        object_kind="PCI device",
        joins=joins,
    )


_LOOK = "See the device with `lspci -vvv -s <address>`"

REASONS = (
    _error(
        "PCIeCorrectedError",
        r"Correct(?:ed|able)",
        Severity.INFO,
        Action.INVESTIGATE,
        1,
        (quiet(hours=1), REBOOT),
        "A PCIe link had an error that the hardware corrected.",
        f"{_LOOK}. Nothing to do for a few; many on one device mean a bad cable, riser or slot.",
        (
            Example(
                "pcieport 0000:00:1c.0: AER: Corrected error received: 0000:01:00.0",
                "0000:01:00.0",
                "kernel 5.4 drivers/pci/pcie/aer.c",
            ),
            Example("pcieport 0000:00:1c.5: AER: Multiple Corrected error received: id=00e5", "0000:00:1c.5", _UPSTREAM),
            Example(
                "nvme 0000:e1:00.0: AER: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)",
                "0000:e1:00.0",
                _UPSTREAM,
            ),
        ),
        (
            "pcieport 0000:00:1c.0: AER: Uncorrected (Fatal) error received: 0000:01:00.0",
            "pcieport 0000:00:1c.0: AER: enabled with IRQ 122",
            "nvme 0000:e1:00.0: PCIe Bus Error: severity=Uncorrectable (Non-Fatal), type=Transaction Layer, (Requester ID)",
        ),
    ),
    _error(
        "PCIeNonFatalError",
        r"Uncorrect(?:ed|able) \(Non-Fatal\)",
        Severity.WARNING,
        Action.INVESTIGATE,
        5,
        (quiet(hours=24), REBOOT),
        "A PCIe device lost or damaged a transaction; the link itself still works.",
        f"{_LOOK} and look for errors of its driver at the same time. Replace the device or node if it comes back.",
        (
            Example(
                "pcieport 0002:00:00.0: AER: Multiple Uncorrectable (Non-Fatal) error message received from 0002:01:00.0",
                "0002:01:00.0",
                "kernel 6.9 drivers/pci/pcie/aer.c",
            ),
            Example(
                "pcieport 0000:00:03.0: AER: Uncorrected (Non-Fatal) error received: id=0018", "0000:00:03.0", _UPSTREAM
            ),
            Example(
                "mlx5_core 0000:01:00.1: PCIe Bus Error: severity=Uncorrectable (Non-Fatal), type=Transaction Layer,"
                " (Requester ID)",
                "0000:01:00.1",
                "kernel 6.9 drivers/pci/pcie/aer.c",
            ),
        ),
        (
            "pcieport 0000:00:01.0: AER: Uncorrected (Fatal) error received: id=0008",
            "mlx5_core 0000:01:00.1: PCIe Bus Error: severity=Corrected, type=Data Link Layer, (Transmitter ID)",
            "pcieport 0002:00:00.0: AER: device recovery successful",
        ),
    ),
    _error(
        "PCIeFatalError",
        r"Uncorrect(?:ed|able) \(Fatal\)",
        Severity.CRITICAL,
        Action.REBOOT_NODE,
        5,
        (REBOOT, OPERATOR),
        "A PCIe link failed and was reset: whatever used the device behind it is broken.",
        f"Drain and reboot the node, then check that the device is back. {_LOOK}; replace the node if it fails again.",
        (
            Example(
                "pcieport 0000:00:02.1: AER: Uncorrectable (Fatal) error message received from 0000:09:05.0",
                "0000:09:05.0",
                "kernel 6.9 drivers/pci/pcie/aer.c",
            ),
            Example(
                "pcieport 0000:00:01.0: AER: Uncorrected (Fatal) error received: id=0008",
                "0000:00:01.0",
                "kernel 4.14 drivers/pci/pcie/aer",
            ),
            Example(
                "nvidia 0000:3b:00.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction Layer, (Receiver ID)",
                "0000:3b:00.0",
                "kernel 5.15 drivers/pci/pcie/aer.c",
            ),
        ),
        (
            "pcieport 0000:00:03.0: AER: Uncorrected (Non-Fatal) error received: id=0018",
            "pcieport 0000:00:02.1: AER: Root Port link has been reset (0)",
            "app[3]: pcieport 0000:00:02.1: AER: Uncorrectable (Fatal) error message received from 0000:09:05.0",
        ),
    ),
)

CONTEXT = (
    kernel_line(
        rf"{_PORT}(?:AER: )? {{0,3}}device \[[0-9a-f]{{4}}:[0-9a-f]{{4}}\] error status/mask=",
        Example("nvme 0000:e1:00.0:   device [144d:a808] error status/mask=00000001/0000e000", origin=_UPSTREAM),
    ),
)
