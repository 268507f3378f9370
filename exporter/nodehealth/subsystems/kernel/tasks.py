"""Processes that ended and were not reaped, and processes that wait in the kernel and can not be killed.

One walk over /proc/<pid>/stat (fs/proc/array.c).  Its second field, the name, may hold spaces, parentheses and line
breaks, so fields count from the last parenthesis.  Only the first thread of a process is looked at.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, Action, Reason, Repetition, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

ZOMBIES = Metric("nodehealth_kernel_zombie_processes", "Processes that ended and that nobody reaped.")
WAITING = Metric("nodehealth_kernel_uninterruptible_processes", "Processes in uninterruptible sleep (D) at this moment.")
STUCK = Metric(
    "nodehealth_kernel_stuck_processes", "Processes in uninterruptible sleep (D) that used no CPU since the pass before."
)

_STAT_BYTES = 4096
_FLAGS, _UTIME, _STIME, _THREADS, _STARTED = 6, 11, 12, 17, 19  # after the name; proc(5) counts from 1 and two more
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD, include/linux/sched.h
_MAX_NOTED = 1000
_HARMLESS = {"refrigerator", "__refrigerator", "do_freezer_trap", "wait_for_vfork_done"}  # frozen by cgroup v1, vfork(2)

EXCESSIVE_ZOMBIES = Reason(
    name="ExcessiveZombieProcesses",
    subsystem=Subsystem.KERNEL,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="Many ended processes are not reaped by their parents; they hold PIDs until the node has none left.",
    remedy=(
        "Find the parent with `ps -eo stat,ppid,comm | awk '$1 ~ /^Z/' | sort | uniq -c | sort -n` and restart it; "
        "a container whose PID 1 does not reap needs an init (`shareProcessNamespace`, tini)."
    ),
    clears=(CHECK,),
    repeats=Repetition(3, 1200),
)
BLOCKED = Reason(
    name="ProcessesStuckInKernel",
    subsystem=Subsystem.KERNEL,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="A process has waited inside the kernel for minutes and can not be killed, mostly for storage or a driver.",
    remedy=(
        "See what it waits for: `ps -eo pid,stat,wchan:32,args | awk '$2 ~ /^D/'` and `cat /proc/<pid>/stack`. "
        "Repair that storage, mount or driver; else drain and reboot the node."
    ),
    clears=(CHECK,),
    repeats=Repetition(2, 900),
)


@dataclass(frozen=True, slots=True)
class _Process:
    pid: str
    state: str
    fields: tuple[bytes, ...]

    @property
    def is_zombie(self) -> bool:
        """Ended as a whole: a leader that ended before its threads can not be reaped yet."""
        return self.state == "Z" and int(self.fields[_THREADS]) <= 1

    @property
    def waits(self) -> bool:
        """A user's process in uninterruptible sleep; threads of the kernel may idle there."""
        return self.state == "D" and not int(self.fields[_FLAGS]) & _KERNEL_THREAD

    @property
    def identity(self) -> str:
        """Tells apart two processes that had one number."""
        return f"{self.pid}/{self.fields[_STARTED].decode()}"

    @property
    def ticks(self) -> int:
        """CPU time that it used."""
        return int(self.fields[_UTIME]) + int(self.fields[_STIME])


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """How many zombies, and who sleeps where after how much CPU time."""
    zombies, waiting = 0, {}
    for process in _processes(host):
        zombies += process.is_zombie
        if process.waits and (place := host.text(f"/proc/{process.pid}/wchan")) not in _HARMLESS:
            waiting[process.identity] = [process.ticks, place if place != "0" else ""]
    return {"zombies": zombies, "waiting": len(waiting), "noted": dict(list(waiting.items())[:_MAX_NOTED])}


def _processes(host: Host) -> Iterator[_Process]:
    base = str(host.path("/proc"))
    with os.scandir(base) as entries:
        names = [entry.name for entry in entries if entry.name.isdigit()]
    if not names:
        raise Absent("/proc shows no processes")
    for name in names:
        try:
            descriptor = os.open(f"{base}/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended in between
        try:
            text = os.read(descriptor, _STAT_BYTES)
        except ProcessLookupError:
            continue
        finally:
            os.close(descriptor)
        if fields := text[text.rfind(b")") + 1 :].split():
            yield _Process(name, fields[0].decode(), tuple(fields))


def judge(seen: Pass) -> Verdict:
    """Zombies from the threshold `zombies` on, sleepers that made no progress from `stuck` on."""
    zombies = seen.sample["zombies"]
    before = (seen.previous or {}).get("noted", {})
    stuck = [place for key, (ticks, place) in seen.sample["noted"].items() if key in before and before[key][0] == ticks]
    findings = []
    if zombies >= seen.thresholds["zombies"]:
        findings.append(EXCESSIVE_ZOMBIES.found(detail=f"{zombies} ended processes are not reaped"))
    if stuck and len(stuck) >= seen.thresholds["stuck"]:
        findings.append(BLOCKED.found(detail=_where(stuck)))
    measured = ((ZOMBIES, zombies), (WAITING, seen.sample["waiting"]), (STUCK, len(stuck)))
    return Verdict(tuple(findings), tuple(Measurement(metric, (), value) for metric, value in measured))


def _where(stuck: list[str]) -> str:
    """How many, and the kernel function in which most of them wait."""
    place, count = Counter(stuck).most_common(1)[0]
    told = f", {count} of them in {place}" if place else ""
    return f"of the processes in uninterruptible sleep {len(stuck)} used no CPU between two passes{told}"


REASONS = (EXCESSIVE_ZOMBIES, BLOCKED)
CHECKS = (
    Check(
        "tasks",
        Subsystem.KERNEL,
        read,
        judge,
        REASONS,
        (ZOMBIES, WAITING, STUCK),
        period=300.0,
        thresholds={"zombies": 20, "stuck": 1},
        keeps=True,
    ),
)
