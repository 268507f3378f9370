"""How much of the time tasks wait for CPU, memory and I/O (pressure stall information, kernel/sched/psi.c)."""

from __future__ import annotations

from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import Reason, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

PRESSURE = Metric(
    "nodehealth_kernel_pressure_ratio",
    "Share of the last 60 s in which some tasks, or all of them at once (full), waited for this resource.",
    ("resource", "stalled"),
)

_MEANINGLESS = ("cpu", "full")  # always 0 for the whole node: some task always has a CPU


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """The averages over 60 s in per cent, by resource and kind."""
    found = [
        [resource, kind, float(values["avg60"])]
        for resource in ("cpu", "io", "memory")
        for kind, values in _lines(host.text(f"/proc/pressure/{resource}"))
        if (resource, kind) != _MEANINGLESS
    ]
    if not found:
        raise Absent("the kernel does not account pressure (CONFIG_PSI, psi=1)")
    return found


def _lines(text: str) -> list[tuple[str, dict[str, str]]]:
    words = [line.split() for line in text.splitlines()]
    return [(kind, dict(word.split("=", 1) for word in rest)) for kind, *rest in words]


def judge(seen: Pass) -> Verdict:
    """Values only: what is too much depends on the work."""
    return Verdict((), tuple(Measurement(PRESSURE, (resource, kind), value / 100) for resource, kind, value in seen.sample))


REASONS: tuple[Reason, ...] = ()
CHECKS = (Check("pressure", Subsystem.KERNEL, read, judge, REASONS, (PRESSURE,)),)
