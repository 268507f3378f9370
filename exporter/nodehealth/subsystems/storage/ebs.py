"""Amazon EBS volumes that ran into their limits, or into the instance's, as their NVMe log page 0xD0 counts it.

The page's layout is that of `nvme amzn stats` and of amazon-ec2-utils (ebsnvme); reading it needs CAP_SYS_ADMIN.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict, grown
from nodehealth.model import CHECK, Action, Finding, Reason, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

_LABELS = ("controller", "direction")
OPERATIONS = Metric("nodehealth_storage_ebs_operations", "Operations of an EBS volume.", _LABELS, "counter")
BYTES = Metric("nodehealth_storage_ebs_bytes", "Bytes moved by an EBS volume.", _LABELS, "counter")
TIME = Metric("nodehealth_storage_ebs_operation_seconds", "Time that operations of an EBS volume took.", _LABELS, "counter")
EXCEEDED = Metric(
    "nodehealth_storage_ebs_exceeded_seconds",
    "Time during which more was asked of an EBS volume than its limit, or the instance's, allows.",
    ("controller", "limit"),
    "counter",
)
QUEUE = Metric("nodehealth_storage_ebs_queue_length", "Operations that wait for an EBS volume.", ("controller",))


def _reason(name: str, what: str, remedy: str) -> Reason:
    return Reason(
        name=name,
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.CHECK_CONFIG,
        summary=f"Programs ask more {what} allows; every operation of the disk gets slower.",
        remedy=remedy,
        clears=(CHECK,),
        object_kind="NVMe controller",
    )


_VOLUME = "Find the writer with `iotop -o`, or give the volume more with `aws ec2 modify-volume`."
_INSTANCE = "Find the writer with `iotop -o`, or take an instance type with a higher EBS limit."
LIMITS = {
    "volume_iops": _reason("EBSVolumeIOPSExceeded", "operations of an EBS volume than it", _VOLUME),
    "volume_throughput": _reason("EBSVolumeThroughputExceeded", "bytes of an EBS volume than it", _VOLUME),
    "instance_iops": _reason("EBSInstanceIOPSExceeded", "operations of EBS volumes than the instance type", _INSTANCE),
    "instance_throughput": _reason(
        "EBSInstanceThroughputExceeded", "bytes of EBS volumes than the instance type", _INSTANCE
    ),
}

PERIOD = 600.0
PAGE = 4096
MAGIC = 0x3C23B510
_FIELDS = struct.Struct("<I4x11Q")
_COMMAND = struct.Struct("<BBHIQQQII6II4x")  # struct nvme_admin_cmd, linux/nvme_ioctl.h
_ADMIN_COMMAND = 0xC0484E41  # NVME_IOCTL_ADMIN_CMD
_GET_LOG_PAGE, _LOG_PAGE, _WORDS = 0x02, 0xD0, PAGE // 4 - 1  # counted from 0
_CONTROLLER = re.compile(r"nvme\d{1,4}")


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """The log page of each EBS volume, with the volume's id."""
    volumes = [place.name for place in sorted(host.path("/sys/class/nvme").glob("nvme*")) if _is_ebs(host, place.name)]
    if not volumes:
        raise Absent("no NVMe controller is an Amazon EBS volume")
    pages = {name: parse(_page(host, name)) for name in volumes}
    return {name: {"volume": host.text(f"/sys/class/nvme/{name}/serial")} | page for name, page in pages.items()}


def _is_ebs(host: Host, name: str) -> bool:
    base = f"/sys/class/nvme/{name}"
    if not _CONTROLLER.fullmatch(name) or host.text(f"{base}/model") != "Amazon Elastic Block Store":
        return False
    return host.text(f"{base}/device/vendor").lower() == "0x1d0f"


def _page(host: Host, name: str) -> bytes:
    recorded = host.path(f"/recorded/ebs-{name}.bin")
    return recorded.read_bytes() if recorded.exists() else _ask(host, name)


def _ask(host: Host, name: str) -> bytes:
    """Get Log Page from the controller itself."""
    import fcntl  # noqa: PLC0415 - only nodes with EBS volumes pay for it

    page = ctypes.create_string_buffer(PAGE)
    command = _COMMAND.pack(
        _GET_LOG_PAGE, 0, 0, 1, 0, 0, ctypes.addressof(page), 0, PAGE, _LOG_PAGE | (_WORDS << 16), 0, 0, 0, 0, 0, 0
    )
    descriptor = os.open(host.path(f"/dev/{name}"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = fcntl.ioctl(descriptor, _ADMIN_COMMAND, bytearray(command))
    finally:
        os.close(descriptor)
    if status:
        raise OSError(f"{name} refuses log page 0xD0 with NVMe status {status:#x}")
    return page.raw


def parse(page: bytes) -> dict[str, Any]:
    """The counters of a log page in base units.  Raises ValueError where it is no such page."""
    if len(page) != PAGE:
        raise ValueError(f"a log page of {len(page)} bytes")
    magic, *numbers, queue = _FIELDS.unpack_from(page)
    if magic != MAGIC:
        raise ValueError(f"a log page with the magic number {magic:#x}")
    seconds = [number / 1e6 for number in numbers[4:]]  # the page has microseconds
    return {
        "operations": numbers[0:2],
        "bytes": numbers[2:4],
        "seconds": seconds[:2],
        "exceeded": dict(zip(LIMITS, seconds[2:], strict=True)),
        "queue": queue,
    }


def judge(seen: Pass) -> Verdict:
    """Each limit that was exceeded for more than `seconds` in ten minutes."""
    limit = seen.thresholds["seconds"] * max(1.0, (seen.elapsed or 0.0) / PERIOD)
    before = seen.previous or {}
    findings = [
        found
        for name, volume in seen.sample.items()
        if name in before and before[name]["volume"] == volume["volume"]
        for found in _exceeded(name, volume["exceeded"], before[name]["exceeded"], limit)
    ]
    return Verdict(tuple(findings), tuple(each for name, volume in seen.sample.items() for each in _measured(name, volume)))


def _exceeded(name: str, now: Mapping[str, float], before: Mapping[str, float], limit: float) -> Iterator[Finding]:
    for key, reason in LIMITS.items():
        seconds = grown(now[key], before[key])
        if seconds > limit:
            yield reason.found(name, detail=f"exceeded for {seconds:.0f} s since the pass before")


def _measured(name: str, volume: Mapping[str, Any]) -> Iterator[Measurement]:
    yield Measurement(QUEUE, (name,), volume["queue"])
    for metric, key in ((OPERATIONS, "operations"), (BYTES, "bytes"), (TIME, "seconds")):
        for direction, value in zip(("read", "write"), volume[key], strict=True):
            yield Measurement(metric, (name, direction), value)
    for limit, seconds in volume["exceeded"].items():
        yield Measurement(EXCEEDED, (name, limit), seconds)


REASONS = tuple(LIMITS.values())
CHECKS = (
    Check(
        "ebs",
        Subsystem.STORAGE,
        read,
        judge,
        REASONS,
        (OPERATIONS, BYTES, TIME, EXCEEDED, QUEUE),
        period=PERIOD,
        thresholds={"seconds": 50.0},
        keeps=True,
    ),
)
