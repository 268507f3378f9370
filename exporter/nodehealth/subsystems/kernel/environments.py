"""Processes with very many environment variables (/proc/<pid>/environ): a namespace with thousands of Services does that
to every pod, and starting programs gets slow or fails.  Off by default, and one finding for the whole node.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, Action, Reason, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

LARGEST = Metric("nodehealth_kernel_largest_environment_variables", "Environment variables of the process that has most.")
LARGE = Metric("nodehealth_kernel_large_environments", "Processes that have more variables than the threshold.")

_MAX_BYTES = 1 << 22

LARGE_ENVIRONMENT = Reason(
    name="LargeEnvironment",
    subsystem=Subsystem.KERNEL,
    severity=Severity.WARNING,
    action=Action.CHECK_CONFIG,
    summary="Processes of this node have thousands of environment variables; starting programs gets slow or fails.",
    remedy=(
        "Count them with `for e in /proc/[0-9]*/environ; do echo $(tr -dc '\\0' <$e | wc -c) $e; done | sort -n | tail`; "
        "in pods set `enableServiceLinks: false`."
    ),
    clears=(CHECK,),
)


def read(host: Host, thresholds: Mapping[str, float]) -> Sample:
    """The largest number of variables, and how many processes have more than the threshold."""
    counts = list(map(_variables, _environments(str(host.path("/proc")))))
    if not counts:
        raise Absent("/proc shows no process whose environment may be read")
    return {"largest": max(counts), "large": sum(count > thresholds["variables"] for count in counts)}


def _environments(base: str) -> Iterator[bytes]:
    """One at a time: they hold secrets, and only their number leaves this process."""
    with os.scandir(base) as entries:
        for name in (entry.name for entry in entries if entry.name.isdigit()):
            try:
                with open(f"{base}/{name}/environ", "rb", buffering=0) as file:  # noqa: PTH123 - thousands of times
                    yield file.read(_MAX_BYTES) or b""
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # it ended in between, or hides from us


def _variables(environment: bytes) -> int:
    return sum(1 for each in environment.split(b"\0") if each)


def judge(seen: Pass) -> Verdict:
    """One finding for the node, whoever has them."""
    largest, large = seen.sample["largest"], seen.sample["large"]
    measured = (Measurement(LARGEST, (), largest), Measurement(LARGE, (), large))
    if large:
        told = f"{large} processes have more than {seen.thresholds['variables']:g} variables, the largest {largest}"
        return Verdict((LARGE_ENVIRONMENT.found(detail=told),), measured)
    return Verdict((), measured)


REASONS = (LARGE_ENVIRONMENT,)
CHECKS = (
    Check(
        "environments",
        Subsystem.KERNEL,
        read,
        judge,
        REASONS,
        (LARGEST, LARGE),
        period=300.0,
        deadline=20.0,
        thresholds={"variables": 1000},
        enabled=False,
    ),
)
