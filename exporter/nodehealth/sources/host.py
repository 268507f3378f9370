"""The host under a root: rooted reads of /proc, /sys and /run, the boot, the machine's identity, PCI devices.

Everything that reads the host gets one `Host`, so that a container with the host at /host and a recorded host in a test
are the same thing.  Nothing here judges.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BOOT_ID = "/proc/sys/kernel/random/boot_id"
_NVIDIA = 0x10DE
_GPU_CLASSES = (0x0300, 0x0302)  # VGA and 3D controller
_NVSWITCH_CLASS = 0x0680  # bridge, other
_AMAZON = 0x1D0F
_NEURON_DEVICES = range(0x7064, 0x7465)  # Inferentia and Trainium, drivers/neuron/neuron_pci.c
_EFA_DEVICES = (0xEFA0, 0xEFA1, 0xEFA2, 0xEFA3)
_MELLANOX = 0x15B3


@dataclass(frozen=True, slots=True)
class PciDevice:
    """One PCI function: address in sysfs form, vendor and device id, class and subclass (0x0302)."""

    address: str
    vendor: int
    device: int
    kind: int

    @property
    def is_gpu(self) -> bool:
        """An NVIDIA GPU, graphics or compute."""
        return self.vendor == _NVIDIA and self.kind in _GPU_CLASSES

    @property
    def is_nvswitch(self) -> bool:
        """An NVIDIA NVSwitch."""
        return self.vendor == _NVIDIA and self.kind == _NVSWITCH_CLASS

    @property
    def is_neuron(self) -> bool:
        """An AWS Inferentia or Trainium device."""
        return self.vendor == _AMAZON and self.device in _NEURON_DEVICES

    @property
    def is_efa(self) -> bool:
        """An AWS Elastic Fabric Adapter."""
        return self.vendor == _AMAZON and self.device in _EFA_DEVICES

    @property
    def is_mellanox(self) -> bool:
        """A NIC of the mlx5 driver."""
        return self.vendor == _MELLANOX


@dataclass(frozen=True, slots=True)
class Gpu:
    """What PCI and the driver's procfs tell of a GPU: `index` in PCI order, which is NVML's; uuid and model may be ""."""

    index: int
    pci_bus_id: str
    uuid: str
    model: str


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall and monotonic time, so that tests can hold them still."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds on a clock that never steps."""
        return time.monotonic()


class Host:
    """A host's files under `root` and its clock."""

    def __init__(self, root: Path = Path("/"), clock: Clock | None = None) -> None:
        self.root = root
        self.clock = clock or Clock()

    def path(self, absolute: str) -> Path:
        """The place of one of the host's absolute paths."""
        return self.root / absolute.lstrip("/")

    def text(self, absolute: str) -> str:
        """A small file's text without surrounding white space; "" where it cannot be read."""
        try:
            return self.path(absolute).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    @property
    def boot_id(self) -> str:
        """The kernel's id of this boot; "" where procfs is not there."""
        return self.text(BOOT_ID)

    @property
    def log_boot_id(self) -> str:
        """The boot of the kernel log: where the root lacks procfs but has the real device, it is our own kernel's."""
        real = not self.boot_id and self.path("/dev/kmsg").is_char_device()
        return Host().boot_id if real else self.boot_id

    @property
    def machine(self) -> str:
        """What this machine is known by: machine-id and DMI product UUID."""
        return f"{self.text('/etc/machine-id')}/{self.text('/sys/class/dmi/id/product_uuid').lower()}"

    def uptime(self) -> float:
        """Seconds since boot, as the kernel's log stamps count."""
        words = self.text("/proc/uptime").split()
        try:
            return float(words[0])
        except (IndexError, ValueError):
            return self.clock.monotonic()

    def pci_devices(self) -> Iterator[PciDevice]:
        """The PCI functions in address order; reads sysfs attributes that the kernel keeps in memory."""
        base = self.path("/sys/bus/pci/devices")
        try:
            addresses = sorted(entry.name for entry in base.iterdir())
        except OSError:
            return
        for address in addresses:
            ids = [self._hex(f"/sys/bus/pci/devices/{address}/{name}") for name in ("vendor", "device", "class")]
            if None not in ids:
                vendor, device, kind = (each or 0 for each in ids)
                yield PciDevice(address.lower(), vendor, device, kind >> 8)

    def gpus(self) -> list[Gpu]:
        """The NVIDIA GPUs in PCI order, which is NVML's."""
        addresses = [each.address for each in self.pci_devices() if each.is_gpu]
        return [Gpu(index, address, *self._gpu_identity(address)) for index, address in enumerate(addresses)]

    def _gpu_identity(self, address: str) -> tuple[str, str]:
        lines = self.text(f"/proc/driver/nvidia/gpus/{address}/information").splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        uuid = fields.get("GPU UUID", "")
        return (uuid if uuid.startswith("GPU-") and "?" not in uuid else ""), fields.get("Model", "")

    def _hex(self, absolute: str) -> int | None:
        try:
            return int(self.text(absolute), 16)
        except ValueError:
            return None
