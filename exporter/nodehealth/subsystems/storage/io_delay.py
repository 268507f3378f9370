"""How long programs waited for their disks: `delayacct_blkio_ticks` of /proc/PID/stat (proc_pid_stat(5)).

It counts a process' first thread, and only where the kernel accounts for delays (sysctl kernel.task_delayacct).  Kernel
threads are left out, because waiting for disks is what the flushers among them do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict, grown
from nodehealth.model import CHECK, Action, Reason, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

WORST = Metric("nodehealth_storage_io_delay_worst_seconds", "Longest wait for disks of one process in the last period.")
DELAYED = Metric(
    "nodehealth_storage_io_delayed_processes", "Processes that waited for disks for too long in the last period."
)

DELAYS = Reason(
    name="IODelays",
    subsystem=Subsystem.STORAGE,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="Programs of the node wait long for their disks.",
    remedy="Find them with `pidstat -d 5` or `iotop -o`; look at `iostat -x 5` whether a disk is slow or has reached its limits.",
    clears=(CHECK,),
)

PERIOD = 600.0
_TICKS = 100  # USER_HZ, which is part of the kernel's interface
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD
_FLAGS, _STARTED, _DELAY = 9 - 3, 22 - 3, 42 - 3  # after the name, which may hold anything, the third field comes first


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """The boot, and the ticks of each process that waited at all; the start time tells a reused number apart."""
    if host.text("/proc/sys/kernel/task_delayacct") == "0":
        raise Absent("kernel.task_delayacct is 0")
    return {"boot": host.boot_id, "ticks": dict(_waited(host))}


def _waited(host: Host) -> Iterator[tuple[str, int]]:
    for place in host.path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                fields = (place / "stat").read_bytes().rpartition(b")")[2].split()
                if len(fields) > _DELAY and fields[_DELAY] != b"0" and not int(fields[_FLAGS]) & _KERNEL_THREAD:
                    yield f"{place.name}/{fields[_STARTED].decode()}", int(fields[_DELAY])


def judge(seen: Pass) -> Verdict:
    """One finding where a process waited longer than `seconds`, scaled up where the pass before is long ago."""
    before = seen.previous
    if before is None or before["boot"] != seen.sample["boot"]:
        return Verdict()
    waits = [grown(ticks, before["ticks"].get(key, 0)) / _TICKS for key, ticks in seen.sample["ticks"].items()]
    limit = seen.thresholds["seconds"] * max(1.0, (seen.elapsed or 0.0) / PERIOD)
    slow, worst = sum(wait >= limit for wait in waits), max(waits, default=0.0)
    measured = (Measurement(WORST, (), worst), Measurement(DELAYED, (), slow))
    if not slow:
        return Verdict((), measured)
    return Verdict(
        (DELAYS.found(detail=f"{slow} processes waited {limit:.0f} s or more, the worst {worst:.1f} s"),), measured
    )


REASONS = (DELAYS,)
CHECKS = (
    Check(
        "io_delay",
        Subsystem.STORAGE,
        read,
        judge,
        REASONS,
        (WORST, DELAYED),
        period=PERIOD,
        thresholds={"seconds": 10.0},
        keeps=True,
        enabled=False,
    ),
)
