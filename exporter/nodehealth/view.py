"""What the exporter knows at one moment: immutable, so that a scrape reads it without a lock.

The engine publishes a new View after each committed batch; sections that did not change are the same objects, so a
reporter renders again only what changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from nodehealth.checks import Measurement, Metric
from nodehealth.model import Hardware, Health, Reason, Severity, Subsystem
from nodehealth.sources.host import Gpu

NumberKey = tuple[str, str, str]
"""Family (`xid`, `sxid`), PCI address, number."""


@dataclass(frozen=True, slots=True)
class Count:
    """A counter and when it last grew (Unix seconds)."""

    value: int
    last_seen: float


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding that holds, or held within the last hour (`cleared` is then the time of its end).

    `text` is the line that proves it, `detail` what its number means (an Xid's meaning, a link).
    """

    reason: Reason
    object: str
    variant: str
    since: float
    last_seen: float
    source: str
    text: str
    boot_id: str
    sequence: int
    injected: bool
    cleared: float | None = None
    detail: str = ""

    @property
    def active(self) -> bool:
        """Whether it holds now."""
        return self.cleared is None

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells problems apart."""
        return self.reason.name, self.object, self.variant

    @property
    def number(self) -> str:
        """`Xid 79` or `SXid 20034` where the driver numbers it, else nothing."""
        word = {"xid": "Xid", "sxid": "SXid"}.get(self.reason.family)
        return f"{word} {self.variant}" if word else ""


class Happening(StrEnum):
    """What a row of the history tells."""

    FOUND = "found"  # became active, or was seen again after a while
    SEEN = "seen"  # happened but does not hold (an application's fault, an old line)
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One row of the history; `how` says why a cleared one ended, `unsaid` how many came since the row before."""

    time: float
    happening: Happening
    reason: str
    severity: str
    action: str
    object: str
    variant: str
    injected: bool
    source: str
    boot_id: str
    sequence: int
    text: str
    how: str = ""
    unsaid: int = 0


class SourceState(StrEnum):
    """The three outcomes of an input, and the time before the first one."""

    STARTING = "starting"
    UP = "up"
    DOWN = "down"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class SourceView:
    """One input; `detail` says why it is not up, `serves` which streams it delivers."""

    name: str
    state: SourceState = SourceState.STARTING
    detail: str = ""
    required: bool = False
    serves: frozenset[str] = frozenset()
    records: int = 0
    matched: int = 0
    unmatched_driver_lines: int = 0
    errors: int = 0
    cut: int = 0
    lost: int = 0
    gaps: int = 0
    last_record: float | None = None
    caught_up: bool = False


class Outcome(StrEnum):
    """The three outcomes of a check, and the time before the first one."""

    WAITING = "waiting"
    SUCCESS = "success"
    ABSENT = "absent"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CheckView:
    """One check; `detail` says why it is not a success, `duration` is in seconds."""

    name: str
    subsystem: Subsystem
    outcome: Outcome = Outcome.WAITING
    detail: str = ""
    duration: float = 0.0
    last_run: float = 0.0


@dataclass(frozen=True, slots=True)
class SelfView:
    """The exporter itself."""

    version: str
    started: float
    persistent: bool
    saved: bool = True
    ready: bool = False
    config_reload_ok: bool = True
    state_note: str = ""
    cut_objects: int = 0


@dataclass(frozen=True)
class View:
    """Everything a reporter may show."""

    reasons: Mapping[str, Reason]
    hardware: frozenset[Hardware]
    gpus: tuple[Gpu, ...]
    self_: SelfView
    counts: Mapping[str, Count] = field(default_factory=dict)
    numbers: Mapping[NumberKey, Count] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    sources: tuple[SourceView, ...] = ()
    history: tuple[Occurrence, ...] = ()
    checks: tuple[CheckView, ...] = ()
    measurements: Mapping[Metric, tuple[Measurement, ...]] = field(default_factory=dict)
    impossible: frozenset[str] = frozenset()

    def active(self) -> list[Problem]:
        """What holds now, the worst and newest first."""
        urgency = list(Severity)
        found = [problem for problem in self.problems if problem.active]
        return sorted(found, key=lambda each: (urgency.index(each.reason.severity), -each.last_seen, each.key))

    @cached_property
    def possible(self) -> tuple[Reason, ...]:
        """The reasons that can occur on this node at all."""
        return tuple(reason for reason in self.reasons.values() if self._is_possible(reason))

    def _is_possible(self, reason: Reason) -> bool:
        proved = reason.needs is None or reason.needs in self.hardware
        return reason.enabled and proved and (reason.name not in self.impossible or reason.name in self.counts)

    @cached_property
    def health(self) -> Mapping[Subsystem, Health]:
        """The state of each subsystem of which any reason can occur on this node."""
        found = {subsystem: self._health(subsystem) for subsystem in Subsystem}
        return {subsystem: health for subsystem, health in found.items() if health is not None}

    def _health(self, subsystem: Subsystem) -> Health | None:
        reasons = [reason for reason in self.possible if reason.subsystem is subsystem]
        if not reasons:
            return None
        worst = {p.reason.severity for p in self.problems if p.active and p.reason.subsystem is subsystem}
        if Severity.CRITICAL in worst:
            return Health.UNHEALTHY
        if not self.observed(subsystem, reasons):
            return Health.UNKNOWN
        return Health.DEGRADED if Severity.WARNING in worst else Health.HEALTHY

    def observed(self, subsystem: Subsystem, reasons: list[Reason]) -> bool:
        """Whether somebody looks: the kernel log where these reasons ask for it, else any of their logs or a check."""
        wanted = {source for reason in reasons for pattern in reason.patterns for source in pattern.sources}
        served = {stream for source in self.sources if source.state is SourceState.UP for stream in source.serves}
        if "kmsg" in wanted:
            return "kmsg" in served
        looked = any(check.outcome is Outcome.SUCCESS and check.subsystem is subsystem for check in self.checks)
        return looked or bool(wanted & served)
