"""How busy the node's own disks are (Documentation/admin-guide/iostats.rst): numbers only, no reason."""

from __future__ import annotations

from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

_LABELS = ("device",)
IN_PROGRESS = Metric("nodehealth_storage_io_in_progress", "Requests that a disk has not answered yet.", _LABELS)
IO_TIME = Metric("nodehealth_storage_io_time_seconds", "Time during which a disk had requests.", _LABELS, "counter")

_NO_DISK = ("loop", "ram", "zram", "dm-", "md", "nbd", "rbd", "drbd", "sr", "fd")
_NAME, _RUNNING, _BUSY = 2, 11, 12  # columns of /proc/diskstats; busy in milliseconds


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """[requests in progress, busy milliseconds] of each whole disk that has a device behind it."""
    rows = [line.split() for line in host.text("/proc/diskstats").splitlines()]
    found = {row[_NAME]: [int(row[_RUNNING]), int(row[_BUSY])] for row in rows if _is_disk(host, row[_NAME])}
    if not found:
        raise Absent("the node has no disk of its own")
    return found


def _is_disk(host: Host, name: str) -> bool:
    place = host.path(f"/sys/block/{name}")
    return not name.startswith(_NO_DISK) and (place / "device").exists() and host.text(f"/sys/block/{name}/hidden") != "1"


def judge(seen: Pass) -> Verdict:
    """Only measured."""
    running = (Measurement(IN_PROGRESS, (name,), values[0]) for name, values in seen.sample.items())
    busy = (Measurement(IO_TIME, (name,), values[1] / 1000) for name, values in seen.sample.items())
    return Verdict((), (*running, *busy))


REASONS = ()
CHECKS = (Check("disks", Subsystem.STORAGE, read, judge, REASONS, (IN_PROGRESS, IO_TIME)),)
