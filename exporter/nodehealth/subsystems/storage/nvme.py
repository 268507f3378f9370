"""NVMe controllers: commands that timed out, controllers that stopped answering, were disabled or removed.

Paths to a namespace are in multipath.py, failed requests in block.py.
"""

from __future__ import annotations

from nodehealth import pci
from nodehealth.model import REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

_CTRL = rf"^nvme (?:(?P<object>nvme\d{{1,5}})|(?P<pci>{pci.ADDRESS})): "  # drivers before 4.5 printed the address

REASONS = (
    Reason(
        name="NvmeTimeout",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="An NVMe disk did not answer a command in time; the driver aborts the command or resets the disk.",
        remedy="Run `nvme smart-log /dev/DEVICE` and `dmesg -T | grep nvme`; on cloud volumes check throttling and nvme_core.io_timeout, on local disks plan a replacement when it comes back.",
        clears=(quiet(hours=1), REBOOT),
        patterns=(
            kernel_line(
                _CTRL
                + r"(?:I/O (?:tag )?\d{1,6} [^\n]{0,80}?QID \d{1,6} timeout\b|Timeout I/O \d{1,6} QID \d|queue \d{1,6}: timeout request )",
                Example("nvme nvme0: I/O 566 QID 3 timeout, aborting", "nvme0", "collected from public reports"),
                Example("nvme nvme1: I/O 12 QID 1 timeout, reset controller", "nvme1", "GPUd test"),
                Example(
                    "[Sun Jun 29 19:20:26 2025] nvme nvme4: I/O tag 22 (2016) opcode 0x2 (Admin Cmd) QID 0 timeout, reset controller",
                    "nvme4",
                    "GPUd test",
                ),
                Example(
                    "nvme nvme0: I/O tag 489 (d1e9) opcode 0x1 (I/O Cmd) QID 3 timeout, aborting req_op:WRITE(1) size:524288",
                    "nvme0",
                    "kernel 6.x",
                ),
                Example("nvme nvme10: I/O tag 28 (301c) QID 0 timeout, disable controller", "nvme10", "kernel 6.x"),
                Example(
                    "nvme nvme2: I/O 5 QID 2 timeout, completion polled", "nvme2", "composed from drivers/nvme/host/pci.c"
                ),
                Example(
                    "nvme 0000:01:00.0: I/O 38 QID 1 timeout, aborting",
                    "0000:01:00.0",
                    "composed from drivers/block/nvme-core.c 4.1",
                ),
                Example(
                    "nvme nvme3: queue 2: timeout request 0x1a type 4", "nvme3", "composed from drivers/nvme/host/tcp.c"
                ),
                lookalikes=(
                    "nvme nvme0: 16/0/0 default/read/poll queues",
                    "nvme nvme0: Abort status: 0x0",
                    "nvme nvme0: Shutdown timeout set to 10 seconds",
                    "fio[3]: nvme nvme0: I/O 566 QID 3 timeout, aborting",
                ),
            ),
        ),
        object_kind="NVMe controller",
    ),
    Reason(
        name="NvmeControllerDown",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="An NVMe disk stopped answering, or vanished from the PCI bus, and the driver tries to reset it.",
        remedy="Look with `nvme list` whether it came back; check power and PCIe errors (`dmesg -T | grep -i aer`) and replace the disk when it happens again.",
        clears=(quiet(hours=6), REBOOT),
        patterns=(
            kernel_line(
                _CTRL + r"(?:controller is down; will reset\b|Device not ready; aborting (?:reset|initiali[sz]ation)|"
                r"frozen state error detected, reset controller|Failed status: [0-9a-fx]{1,10}, reset controller)",
                Example(
                    "nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0xffff",
                    "nvme0",
                    "collected from public reports",
                ),
                Example(
                    "nvme nvme0: controller is down; will reset: CSTS=0x3, PCI_STATUS read failed (134)",
                    "nvme0",
                    "kernel 6.x",
                ),
                Example("nvme nvme0: Device not ready; aborting reset, CSTS=0x1", "nvme0", "kernel 6.x"),
                Example(
                    "nvme nvme1: frozen state error detected, reset controller",
                    "nvme1",
                    "composed from drivers/nvme/host/pci.c",
                ),
                lookalikes=(
                    "nvme nvme0: resetting controller",
                    "nvme nvme0: restart after slot reset",
                    "nvme nvme0: Device shutdown incomplete; abort shutdown",
                    "nvme nvme0: pci function 0000:01:00.0",
                ),
            ),
        ),
        object_kind="NVMe controller",
        joins=60,
    ),
    Reason(
        name="NvmeDeviceDisabled",
        subsystem=Subsystem.STORAGE,
        severity=Severity.CRITICAL,
        action=Action.REPLACE_NODE,
        summary="The driver gave up an NVMe disk after a failed reset; the disk and everything on it is gone until a reboot.",
        remedy="Drain the node and reboot it; replace the disk or the node when the disk does not come back or fails again.",
        clears=(REBOOT,),
        patterns=(
            kernel_line(
                _CTRL + r"Disabling device after reset failure\b",
                Example(
                    "[Sun Jun 29 19:28:36 2025] nvme nvme4: Disabling device after reset failure: -19", "nvme4", "GPUd test"
                ),
                Example("nvme nvme10: Disabling device after reset failure: -19", "nvme10", "GPUd test"),
                lookalikes=(
                    "nvme nvme4: allocated 64 MiB host memory buffer.",
                    "nvme nvme4: ctrl state 1 is not RESETTING",
                ),
            ),
        ),
        object_kind="NVMe controller",
    ),
    Reason(
        name="NvmeDeviceRemoved",
        subsystem=Subsystem.STORAGE,
        severity=Severity.CRITICAL,
        action=Action.REPLACE_NODE,
        summary="The driver removed an NVMe disk because it could not start it; the disk and everything on it is missing.",
        remedy="Drain the node and reboot it; replace the disk or the node when the disk does not come back.",
        clears=(REBOOT,),
        patterns=(
            kernel_line(
                _CTRL + r"Removing after probe failure\b",
                Example("nvme nvme0: Removing after probe failure status: -19", "nvme0", "collected from public reports"),
                Example(
                    "nvme 0000:01:00.0: Removing after probe failure",
                    "0000:01:00.0",
                    "composed from drivers/nvme/host/pci.c 4.4",
                ),
                lookalikes=(
                    'nvme nvme0: Removing ctrl: NQN "nqn.2014-08.org.nvmexpress.discovery"',
                    "nvme nvme0: rescanning namespaces.",
                ),
            ),
        ),
        object_kind="NVMe controller",
    ),
)
