"""Threads of the whole node against the kernel's two limits, and how many processes they belong to.

Every thread takes a number below kernel.pid_max and counts against kernel.threads-max, so it is threads and not processes
that are compared.  /proc/loadavg has the count of all PID namespaces for one read (fs/proc/loadavg.c).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, Action, Reason, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

THREADS = Metric("nodehealth_kernel_threads", "Threads of the node, in all PID namespaces.")
PROCESSES = Metric("nodehealth_kernel_processes", "Processes of the node that the exporter sees.")
LIMIT = Metric("nodehealth_kernel_threads_limit", "How many threads the kernel allows by this sysctl.", ("sysctl",))

SYSCTLS = {"kernel.pid_max": "/proc/sys/kernel/pid_max", "kernel.threads-max": "/proc/sys/kernel/threads-max"}

APPROACHING = Reason(
    name="ApproachingKernelPidMax",
    subsystem=Subsystem.KERNEL,
    severity=Severity.WARNING,
    action=Action.CHECK_CONFIG,
    summary="The node has nearly as many threads as the kernel allows; soon nothing can start a process or a thread.",
    remedy=(
        "Find the holder with `ps -eo nlwp,pid,args --sort=-nlwp | head`, restart it and give its pod a PID limit; "
        "else raise the sysctl that the evidence names."
    ),
    clears=(CHECK,),
)


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """Threads, processes and both limits."""
    load = host.text("/proc/loadavg").split()
    if not load:
        raise Absent("/proc/loadavg does not exist")
    limits = {name: int(text) for name, path in SYSCTLS.items() if (text := host.text(path))}
    with os.scandir(host.path("/proc")) as entries:
        processes = sum(entry.name.isdigit() for entry in entries)
    return {"threads": int(load[3].partition("/")[2]), "processes": processes, "limits": limits}


def judge(seen: Pass) -> Verdict:
    """Too many where the share of either limit reaches the threshold `ratio`."""
    threads, limits = seen.sample["threads"], seen.sample["limits"]
    measured = (
        Measurement(THREADS, (), threads),
        Measurement(PROCESSES, (), seen.sample["processes"]),
        *(Measurement(LIMIT, (name,), limit) for name, limit in limits.items()),
    )
    near = [f"{limit} ({name})" for name, limit in limits.items() if limit and threads / limit >= seen.thresholds["ratio"]]
    if near:
        return Verdict((APPROACHING.found(detail=f"{threads} threads of at most {' and '.join(near)}"),), measured)
    return Verdict((), measured)


REASONS = (APPROACHING,)
CHECKS = (
    Check(
        "pids_threads",
        Subsystem.KERNEL,
        read,
        judge,
        REASONS,
        (THREADS, PROCESSES, LIMIT),
        thresholds={"ratio": 0.7},
    ),
)
