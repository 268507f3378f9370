"""Reads and writes behind the end of a block device: a truncated volume or a filesystem that is larger than its device."""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

_OLD = "composed from block/blk-core.c 4.x"

REASONS = (
    Reason(
        name="BeyondEndOfDevice",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="Something read or wrote behind the end of a disk: the disk shrank or vanished, or a filesystem is larger than its disk.",
        remedy="Compare `lsblk -b` with the filesystem's size and look for other errors of the same device; check the volume and run fsck on it.",
        clears=(quiet(hours=6), REBOOT),
        patterns=(
            kernel_line(
                # One record of two lines since 5.12; the second names the device.
                r"^(?:[^\n\[]{1,64}: )?attempt to access beyond end of device(?:\s{1,32}(?P<object>[\w!-]{1,64}): rw=|$|\n)",
                Example("kernel: attempt to access beyond end of device", "", "GPUd test"),
                Example("kworker/u203:1: attempt to access beyond end of device", "", "GPUd test"),
                Example(
                    "Web Content: attempt to access beyond end of device\nnvme0n1p1: rw=34817, sector=209713024, nr_sectors = 8 limit=209712991",
                    "nvme0n1p1",
                    "composed from block/blk-core.c 5.15",
                ),
                lookalikes=(
                    "sda1: rw=1, want=209713032, limit=209712991",
                    "mytest: 3 of 5 passed, attempt to access beyond end of device was refused",
                    "EXT4-fs (sda1): bad geometry: block count 100 exceeds size of device (90 blocks)",
                ),
            ),
        ),
        object_kind="block device",
    ),
)

CONTEXT = (
    kernel_line(
        r"^[\w!-]{1,64}: rw=\d{1,10}, (?:want|sector)=\d{1,20}, [^\n]{0,40}limit=\d",
        Example("sda1: rw=1, want=209713032, limit=209712991", origin=_OLD),
    ),
)
