"""What a check is: a reader that looks at the host, and a judge that says what it means.

A reader runs in a worker process with a deadline, because anything that it touches may hang; it returns plain JSON.  A
judge is pure: it gets the sample, the sample before, and the thresholds.  Ok, absent and failed are three outcomes: a
reader raises Absent where the thing cannot exist on this host, and any other error where it could not be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nodehealth.model import Finding, Hardware, Reason, Subsystem
from nodehealth.sources.host import Host

Sample = Any
"""Whatever JSON can hold."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A family of measurements: `kind` is gauge or counter; a counter's name has no `_total`."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    kind: str = "gauge"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value, in base units, of a metric with its labels' values in order."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a pass found to hold now, and what it measured."""

    findings: tuple[Finding, ...] = ()
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True, slots=True)
class Pass:
    """What a judge gets: `previous` and `elapsed` (seconds between the two) are None at the first pass.

    `previous` may be of an earlier run of the exporter or of an earlier boot: a counter that went backwards was reset.
    """

    sample: Sample
    thresholds: Mapping[str, float]
    previous: Sample | None = None
    elapsed: float | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at every `period` seconds.

    `thresholds` are the configurable numbers with their defaults; `deadline` is how long a reader may take (seconds);
    `boot_grace` is how long after boot the check waits; `keeps` says that the judge compares with the stored sample before.
    """

    name: str
    subsystem: Subsystem
    read: Callable[[Host, Mapping[str, float]], Sample]
    judge: Callable[[Pass], Verdict]
    reasons: tuple[Reason, ...] = ()
    metrics: tuple[Metric, ...] = ()
    period: float = 60.0
    deadline: float = 5.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    boot_grace: float = 0.0
    keeps: bool = False
    enabled: bool = True
    needs: Hardware | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A check with the topic module that has it and the thresholds that hold."""

    topic: str
    check: Check
    period: float
    thresholds: Mapping[str, float]


def grown(now: float, before: float | None) -> float:
    """How much a counter grew; all of it where it was reset, nothing where there is no value before."""
    if before is None:
        return 0.0
    return now - before if now >= before else now
