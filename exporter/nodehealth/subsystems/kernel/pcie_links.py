"""PCIe devices that are gone or do not come back: containment (DPC), hotplug ports, failed recovery, no answer."""

from __future__ import annotations

from nodehealth.model import (
    LINE,
    OPERATOR,
    REBOOT,
    Action,
    Example,
    Reason,
    Severity,
    Subsystem,
    kernel_line,
    quiet,
)
from nodehealth.pci import ADDRESS

_DRIVER = r"^\S{1,48} "
_OBJECT = rf"{_DRIVER}(?P<pci>{ADDRESS})(?::pcie\d{{1,4}})?: "
_LOOK = "See the device with `lspci -vvv -s <address>`"

REASONS = (
    Reason(
        name="PCIeRecoveryFailed",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.REBOOT_NODE,
        summary="The kernel could not bring a PCIe device back after an error.",
        remedy=f"Check whether the device still answers. {_LOOK}; reboot the node if it does not.",
        patterns=(
            kernel_line(
                rf"{_OBJECT}AER: (?:[Dd]evice recovery failed|(?:subordinate device|[A-Za-z ]{{0,24}}[Ll]ink|[Rr]oot [Pp]ort) reset failed)",
                Example("pcieport 0000:00:01.0: AER: device recovery failed", "0000:00:01.0", "composed from pcie/err.c"),
                Example(
                    "pcieport 0000:00:01.0: AER: subordinate device reset failed",
                    "0000:00:01.0",
                    "composed from pcie/err.c",
                ),
                lookalikes=(
                    "pcieport 0000:00:01.0: AER: device recovery successful",
                    "ena 0000:00:05.0: Device reset failed, retrying",
                    "mlx5_core 0000:5c:00.0: device recovery failed",
                ),
            ),
        ),
        clears=(REBOOT, OPERATOR),
        object_kind="PCI device",
        joins=5,
    ),
    Reason(
        name="PCIeContainment",
        subsystem=Subsystem.KERNEL,
        severity=Severity.CRITICAL,
        action=Action.REBOOT_NODE,
        summary="A PCIe port cut off the device behind it to keep an error from spreading.",
        remedy=f"{_LOOK} of the port and see what is behind it with `lspci -t`. Drain and reboot the node if it did not come back.",
        patterns=(
            kernel_line(
                rf"{_OBJECT}(?:DPC: |DPC )?containment event, status:",
                Example(
                    "pcieport 0000:80:01.1: DPC: containment event, status:0x1f01 source:0x0000",
                    "0000:80:01.1",
                    "kernel 5.15 drivers/pci/pcie/dpc.c",
                ),
                Example(
                    "dpc 0000:00:01.0:pcie010: DPC containment event, status:0x1f01 source:0x0000",
                    "0000:00:01.0",
                    "composed from kernel 4.14 drivers/pci/pcie/pcie-dpc.c",
                ),
                Example(
                    "pcieport 10000:e0:06.0: DPC: containment event, status:0x1f05: ERR_FATAL received from 10000:e1:00.0",
                    "10000:e0:06.0",
                    "composed from kernel 6.16 drivers/pci/pcie/dpc.c",
                ),
                lookalikes=(
                    "pcieport 0000:80:01.1: DPC: enabled with IRQ 41",
                    "pcieport 0000:80:01.1: DPC: error containment capabilities: Int Msg #0, RPExt+ PoisonedTLP+ SwTrigger+",
                    "pcieport 0000:80:01.1: AER: device recovery successful",
                ),
            ),
        ),
        clears=(LINE, REBOOT),
        object_kind="PCI device",
        joins=5,
        recoveries=(
            kernel_line(
                rf"{_OBJECT}AER: [Dd]evice recovery successful",
                Example("pcieport 0000:80:01.1: AER: device recovery successful", "0000:80:01.1", "drivers/pci/pcie/err.c"),
            ),
        ),
    ),
    Reason(
        name="PCIeLinkDown",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="The device in a PCIe hotplug slot lost its link or was pulled.",
        remedy="If nobody detached it, see what is missing with `lspci -t` and reseat or replace the device.",
        patterns=(
            kernel_line(
                rf"{_OBJECT}(?:pciehp: )?[Ss]lot\([^)\n]{{1,48}}\): Link Down(?: event)?(?:\.|$)",
                Example("pcieport 0000:b0:01.1: pciehp: Slot(5): Link Down", "0000:b0:01.1", "kernel 5.15 pciehp_ctrl.c"),
                Example(
                    "pciehp 0000:00:1c.0:pcie004: Slot(0-2): Link Down event",
                    "0000:00:1c.0",
                    "composed from kernel 4.4 pciehp_hpc.c",
                ),
                lookalikes=(
                    "pcieport 0000:b0:01.1: pciehp: Slot(5): Link Up",
                    "pcieport 0000:b0:01.1: pciehp: Slot(5): Link Down/Up ignored (recovered by DPC)",
                    "mlx5_core 0000:b1:00.0 eth2: Link down",
                ),
            ),
        ),
        clears=(LINE, REBOOT, OPERATOR),
        object_kind="PCI device",
        recoveries=(
            kernel_line(
                rf"{_OBJECT}(?:pciehp: )?[Ss]lot\([^)\n]{{1,48}}\): Link Up(?: event)?(?:\.|$)",
                Example(
                    "pcieport 0000:b0:01.1: pciehp: Slot(5): Link Up", "0000:b0:01.1", "drivers/pci/hotplug/pciehp_ctrl.c"
                ),
            ),
        ),
    ),
    Reason(
        name="PCIeDeviceUnreachable",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.REBOOT_NODE,
        summary="A PCIe device does not answer any more.",
        remedy=f"{_LOOK}: `rev ff` means that it is gone. Drain and reboot the node, replace it if the device does not come back.",
        patterns=(
            kernel_line(
                rf"{_OBJECT}(?:can't change power state from \w{{1,12}} to D\w{{1,8}} \(config space inaccessible\)"
                r"|[Uu]nable to change power state from \w{1,12} to D\w{1,8}, device inaccessible"
                r"|[Rr]efused to change power state)",
                Example(
                    "pci 0000:01:00.0: can't change power state from D3cold to D0 (config space inaccessible)",
                    "0000:01:00.0",
                    "kernel 5.15 drivers/pci/pci.c",
                ),
                Example(
                    "nvidia 0000:3b:00.0: Unable to change power state from D3cold to D0, device inaccessible",
                    "0000:3b:00.0",
                    "composed from kernel 6.1 drivers/pci/pci.c",
                ),
                Example(
                    "nvme 10000:01:00.0: Refused to change power state, currently in D3",
                    "10000:01:00.0",
                    "composed from kernel 5.4 drivers/pci/pci.c",
                ),
                lookalikes=(
                    "pci 0000:01:00.0: PME# supported from D0 D3hot D3cold",
                    "pci 0000:01:00.0: power state changed by ACPI to D3cold",
                    "nvme nvme0: can't change power state from userspace",
                ),
            ),
            kernel_line(
                rf"{_OBJECT}unknown header type 7f, ignoring device",
                Example(
                    "pci 0000:3b:00.0: unknown header type 7f, ignoring device",
                    "0000:3b:00.0",
                    "composed from drivers/pci/probe.c",
                ),
                lookalikes=(
                    "pci 0000:3b:00.0: [10de:2330] type 00 class 0x030200",
                    "pci 0000:3b:00.0: ignoring class 0x060400 (doesn't match header type 00)",
                ),
            ),
            kernel_line(
                rf"{_OBJECT}not ready \d{{1,9}}ms after [^;\n]{{1,32}}; giving up",
                Example(
                    "vfio-pci 0000:3b:00.0: not ready 65535ms after FLR; giving up",
                    "0000:3b:00.0",
                    "composed from drivers/pci/pci.c",
                ),
                lookalikes=(
                    "vfio-pci 0000:3b:00.0: not ready 1023ms after FLR; waiting",
                    "vfio-pci 0000:3b:00.0: ready 2047ms after FLR",
                ),
            ),
        ),
        clears=(quiet(hours=24), REBOOT),
        object_kind="PCI device",
        joins=5,
    ),
)
