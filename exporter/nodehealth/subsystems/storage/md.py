"""Linux software RAID (md): arrays that failed and arrays that lost a member."""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line

# raid0 printed its array without a colon (`md/raid0md0:`) until 6.x; device-mapper RAID calls every array mdX.
_ARRAY = r"^md/(?:raid\d{0,3}|linear|multipath|faulty):?(?P<object>md\w{0,31}): "

REASONS = (
    Reason(
        name="MdArrayFailed",
        subsystem=Subsystem.STORAGE,
        severity=Severity.CRITICAL,
        action=Action.REPLACE_NODE,
        summary="A software RAID array lost more disks than it can bear; the array and the data on it are gone.",
        remedy="Drain the node, look at `cat /proc/mdstat` and `mdadm --detail /dev/ARRAY`, replace the failed disk or the node and build the array anew.",
        clears=(REBOOT,),
        patterns=(
            kernel_line(
                _ARRAY
                + r"(?:Disk failure on \S{1,64} detected, failing array\b|Cannot continue operation \(|not enough operational (?:devices|mirrors)\b|failed to run raid set\b|cannot start dirty degraded array)",
                Example("md/raid0md0: Disk failure on nvme1n1p1 detected, failing array.", "md0", "GPUd test"),
                Example("md/raid1:md1: Disk failure on sda1 detected, failing array", "md1", "GPUd test"),
                Example(
                    "md/raid:md127: Cannot continue operation (2/4 failed).", "md127", "composed from drivers/md/raid5.c"
                ),
                Example("md/raid:md5: cannot start dirty degraded array.", "md5", "composed from drivers/md/raid5.c"),
                Example(
                    "md/linear:md_data: Disk failure on sdb detected, failing array.",
                    "md_data",
                    "composed from drivers/md/md-linear.c",
                ),
                lookalikes=(
                    "md/raid1:md1: Disk failure on sda1, disabling device.",
                    "md/raid0:md0: md_size is 7501209600 sectors.",
                    "md: md0: recovery done.",
                    "mdadm[7]: md/raid0md0: Disk failure on nvme1n1p1 detected, failing array.",
                ),
            ),
        ),
        object_kind="md array",
        joins=60,
    ),
    Reason(
        name="MdMemberFailed",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="A software RAID array lost a disk; it still works but the next failure may lose the data.",
        remedy="Look at `mdadm --detail /dev/ARRAY` and the disk's errors in `dmesg -T`; replace the disk and add it back with `mdadm --add`.",
        clears=(REBOOT,),
        patterns=(
            kernel_line(
                _ARRAY + r"Disk failure on \S{1,64}, disabling device\b",
                Example("md/raid1:md1: Disk failure on sda1, disabling device.", "md1", "composed from drivers/md/raid1.c"),
                Example(
                    "md/raid10:md127: Disk failure on nvme3n1, disabling device.",
                    "md127",
                    "composed from drivers/md/raid10.c",
                ),
                Example(
                    "md/raid:md_d0: Disk failure on dm-5, disabling device.", "md_d0", "composed from drivers/md/raid5.c"
                ),
                lookalikes=(
                    "md/raid1:md1: active with 2 out of 2 mirrors",
                    "md/raid1:md1: Operation continuing on 1 devices.",
                    "md/raid1:md1: redirecting sector 2048 to other mirror: sda1",
                ),
            ),
        ),
        object_kind="md array",
        joins=5,
    ),
)
