"""Folds findings and recoveries into what holds now, since when, how often, and when it ends.

Pure but for its own memory: no file, no thread, no clock of its own.  Every change is also noted in a `Change`, which
the engine commits to disk before anybody sees it.  A recovery ends only findings that came before it; what user space
wrote to the kernel log can end only what user space wrote.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nodehealth.model import (
    ClearKind,
    Counts,
    Event,
    Finding,
    Hardware,
    Number,
    Reason,
    Record,
    Recovery,
    Repetition,
)
from nodehealth.view import Count, Happening, NumberKey, Occurrence, Problem

OTHER = "other"
_INJECTED = "/injected"
_RUNNING = "running/"
MAX_OTHER_DEVICES = 64  # addresses of numbers that are no device of this host
MAX_UNKNOWN_NUMBERS = 64  # numbers that NVIDIA's catalog does not have
MAX_OBJECTS = 1024  # per reason, in memory
MAX_MEMORY = 4096  # running faults, repetitions and noted problems
MAX_OBJECT_LENGTH = 128
MAX_TEXT = 512
MAX_HISTORY = 50  # rows in memory, for the page
HISTORY_INTERVAL = 60.0  # a problem that repeats gives one row in that time
ZERO_SECONDS = 3600.0  # how long a cleared problem stays at 0

ProblemKey = tuple[str, str, str]


@dataclass(slots=True)
class Change:
    """What one batch changed, as absolute values: applying it twice is applying it once."""

    counts: dict[str, Count] = field(default_factory=dict)
    numbers: dict[NumberKey, Count] = field(default_factory=dict)
    problems: dict[ProblemKey, Problem | None] = field(default_factory=dict)
    recent: dict[str, tuple[float, ...]] = field(default_factory=dict)
    history: list[Occurrence] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.counts or self.numbers or self.problems or self.recent or self.history)


@dataclass(slots=True)
class _Fault:
    """The running fault of a join key, and what its first line, or its head, was taken for."""

    clock: float
    headed: bool
    reason: Reason
    holds: bool = False
    key: str = ""

    @property
    def row(self) -> str:
        """The key under which it is stored among the recent occurrences."""
        return f"{_RUNNING}{self.reason.name}/{self.key}"


@dataclass(slots=True)
class _Noted:
    """When a problem last got a row of the history, and how often it was seen since."""

    clock: float
    unsaid: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """The time of a batch: wall and monotonic seconds."""

    now: float
    clock: float

    def of(self, time: float) -> float:
        """When something of that wall time was on the clock that never steps."""
        return self.clock - max(0.0, self.now - time)

    def wall(self, clock: float) -> float:
        """The wall time of a moment of that clock."""
        return self.now - (self.clock - clock)


class State:
    """What holds now.  Used by one thread."""

    def __init__(
        self,
        reasons: Mapping[str, Reason],
        *,
        boot_id: str,
        devices: Iterable[str] = (),
        hardware: Iterable[Hardware] = (),
        uuids: Mapping[str, str] | None = None,
        first_start: bool = True,
        backlog_max_age: float = ZERO_SECONDS,
    ) -> None:
        self.reasons = reasons
        self.boot_id = boot_id
        self.devices = frozenset(devices)
        self.hardware = frozenset(hardware)
        self.uuids = dict(uuids or {})
        """The UUID of each GPU by its PCI address."""
        self.first_start = first_start
        self.backlog_max_age = backlog_max_age
        self.counts: dict[str, Count] = {}
        self.numbers: dict[NumberKey, Count] = {}
        self.problems: dict[ProblemKey, Problem] = {}
        self.history: list[Occurrence] = []
        self.cut_objects = 0
        self._recent: dict[str, tuple[float, ...]] = {}
        self._faults: dict[str, _Fault] = {}
        self._seen_clock: dict[ProblemKey, float] = {}
        self._noted: dict[ProblemKey, _Noted] = {}
        self._admitted: dict[str, set[str]] = {}
        self._change = Change()

    # -- what was saved ------------------------------------------------------------------------------------------------

    def restore(
        self,
        counts: Mapping[str, Count],
        numbers: Mapping[NumberKey, Count],
        problems: Iterable[Problem],
        recent: Mapping[str, tuple[float, ...]],
        moment: Moment,
        *,
        same_boot: bool = True,
    ) -> None:
        """Go on from what the store holds; problems of reasons that are gone or disabled stay out."""
        self.counts.update(counts)
        self.numbers.update(numbers)
        for key, times in recent.items():
            if not key.startswith(_RUNNING):
                self._recent[key] = tuple(moment.of(each) for each in times)
            elif not (same_boot and self._restore_fault(key, times)):
                self._change.recent[key] = ()
        self._bound_recent()
        for family, address, code in numbers:
            self._admit(f"{family} device", address, address in self.devices, MAX_OTHER_DEVICES)
            self._admit(f"{family} number", code, reserved=False, limit=MAX_UNKNOWN_NUMBERS)
        for problem in problems:
            if not problem.reason.enabled:
                self._change.problems[problem.key] = None
                continue
            self._bounded_object(problem.reason, problem.object)
            self.problems[problem.key] = problem
            self._seen_clock[problem.key] = moment.of(problem.cleared or problem.last_seen)
        needed = (self.reasons[name].needs for name in counts if name in self.reasons)
        self.hardware |= {need for need in needed if need is not None}

    def _restore_fault(self, row: str, times: tuple[float, ...]) -> bool:
        """Go on with a fault that may still be running; its clock is that of this boot."""
        _, name, key = row.split("/", 2)
        reason = self.reasons.get(name)
        if reason is not None:
            clock, headed, holds = times
            self._faults[key] = _Fault(clock, bool(headed), reason, bool(holds), key)
        return reason is not None

    def take_change(self) -> Change:
        """What changed since the last call."""
        change, self._change = self._change, Change()
        return change

    # -- what happens --------------------------------------------------------------------------------------------------

    def apply(self, event: Event, record: Record, moment: Moment, *, injected: bool = False) -> None:
        """Fold one event of one record."""
        if isinstance(event, Finding):
            self._found(event, record, moment, injected=injected)
        else:
            self._recovered(event, record, moment, injected=injected)

    def rebooted(self, moment: Moment) -> None:
        """End what a reboot ends: problems of another boot."""
        for problem in self._active():
            if problem.reason.clears_by(ClearKind.REBOOT) and problem.boot_id != self.boot_id:
                self._clear(problem, moment.now, moment, "the node was rebooted")

    def tick(self, moment: Moment) -> None:
        """End what was quiet for long enough, and forget what ended an hour ago."""
        for key, problem in list(self.problems.items()):
            quiet = moment.clock - self._seen_clock.get(key, moment.clock)
            if problem.active:
                limits = [clear.seconds for clear in problem.reason.clears if clear.kind is ClearKind.QUIET]
                if limits and quiet >= min(limits):
                    self._clear(problem, moment.now, moment, f"not seen for {min(limits):g} s")
            elif quiet >= ZERO_SECONDS:
                self._forget(key)

    def clear(self, reason: str, object_: str | None, moment: Moment, *, before: float = math.inf) -> int:
        """An operator's clear of what was seen until then; the number of problems that it ended."""
        found = (p for p in self._active() if p.reason.name == reason and object_ in {None, p.object})
        ended = [p for p in found if p.last_seen <= before]
        for problem in ended:
            self._clear(problem, moment.now, moment, "an operator cleared it")
        return len(ended)

    def regrade(self, reasons: Mapping[str, Reason], moment: Moment) -> None:
        """Take over a new catalog; a problem whose reason is gone or disabled ends, counters stay."""
        self.reasons = reasons
        for fault in self._faults.values():
            fault.reason = reasons.get(fault.reason.name, fault.reason)
        for key, problem in list(self.problems.items()):
            reason = reasons.get(problem.reason.name)
            if reason is not None and reason.enabled:
                self._put(replace(problem, reason=reason))
            elif problem.active:
                self._clear(problem, moment.now, moment, "its reason was disabled")
            else:
                self._forget(key)

    # -- checks --------------------------------------------------------------------------------------------------------

    def checked(self, reasons: Iterable[Reason], findings: Iterable[Finding], source: str, moment: Moment) -> None:
        """Take over what a check found to hold now: new problems begin, and those that it no longer finds end."""
        held = set()
        for found in findings:
            finding = replace(found, reason=self.reasons.get(found.reason.name, found.reason))
            if finding.reason.enabled:
                object_ = self._bounded_object(finding.reason, finding.object)
                held.add((finding.reason.name, object_, finding.variant))
                self._holding(finding, object_, source, moment)
        names = {reason.name for reason in reasons if reason.clears_by(ClearKind.CHECK)}
        for problem in self._active():
            if problem.reason.name in names and problem.key not in held:
                self._clear(problem, moment.now, moment, _HOW[ClearKind.CHECK])

    def unchecked(self, check: str, moment: Moment) -> None:
        """End what a check found that is disabled now: nothing else would."""
        for problem in self._active():
            if problem.source == f"check:{check}":
                self._clear(problem, moment.now, moment, "its check was disabled")

    def _holding(self, finding: Finding, object_: str, source: str, moment: Moment) -> None:
        """A check found it: an edge from inactive to active counts, once it repeated often enough."""
        reason = finding.reason
        key = (reason.name, object_, finding.variant)
        known = self.problems.get(key)
        if known is not None and known.active:
            self.problems[key] = replace(known, last_seen=moment.now, detail=finding.detail)
            self._seen_clock[key] = moment.clock
            return
        if not self._confirmed(reason, object_, moment.clock, moment):
            return
        record = Record(source, (source,), finding.detail, moment.now, moment.clock, self.boot_id)
        self._count(reason, moment.now)
        self._activate(finding, reason, object_, record, moment, injected=False, detail=False)

    # -- findings ------------------------------------------------------------------------------------------------------

    def _found(self, finding: Finding, record: Record, moment: Moment, *, injected: bool) -> None:
        if (number := finding.number) is not None:
            device, code = self._bounded_device(number.family, number.pci_bus_id), self._bounded_code(number)
            variant = code if finding.variant == str(number.code) else finding.variant
            finding = replace(finding, object=device, variant=variant)
        fault, joined = self._fault(finding, record.clock, injected=injected)
        if number is not None:
            self._count_number(number, record, joined=joined)
        if not fault.reason.enabled:
            return
        happened = moment.of(record.time)
        reason = fault.reason = fault.reason if joined else self._escalated(finding, happened, moment, injected=injected)
        if reason.needs is not None:
            self.hardware |= {reason.needs}
        object_ = self._bounded_object(reason, finding.object)
        if not joined:
            self._count(reason, record.time)
            confirmed = self._confirmed(reason, object_, happened, moment, injected=injected)
            fault.holds = confirmed and self._holds(finding, reason, record, moment)
        if fault.holds:
            detail = joined and not (finding.join and finding.join.head)
            self._activate(finding, reason, object_, record, moment, injected=injected, detail=detail)
        elif not joined:
            self._note(Happening.SEEN, reason, object_, finding.variant, record, moment, injected=injected)
        if fault.key:  # a restart in the middle of a fault does not make two of it
            self._change.recent[fault.row] = (fault.clock, float(fault.headed), float(fault.holds))

    def _confirmed(self, reason: Reason, object_: str, clock: float, moment: Moment, *, injected: bool = False) -> bool:
        """Whether a reason that has to repeat has done so."""
        key = f"{reason.name}/{object_}{_INJECTED if injected else ''}"
        return reason.repeats is None or self._repeated(key, reason.repeats, clock, moment)

    def _fault(self, finding: Finding, clock: float, *, injected: bool) -> tuple[_Fault, bool]:
        """The fault that the line belongs to, and whether it was counted already."""
        join = finding.join
        if join is None:
            return _Fault(clock, headed=False, reason=finding.reason), False
        key = f"{join.key}{_INJECTED if injected else ''}"
        running = self._faults.pop(key, None)
        if running is not None and not (0 <= clock - running.clock <= join.seconds and not (join.head and running.headed)):
            running = None
        fault = running if running is not None and not join.head else _Fault(clock, join.head, finding.reason)
        fault.clock, fault.key = clock, key
        self._faults[key] = fault
        if len(self._faults) > MAX_MEMORY:
            self._change.recent[self._faults.pop(next(iter(self._faults))).row] = ()
        return fault, running is not None

    def _escalated(self, finding: Finding, clock: float, moment: Moment, *, injected: bool) -> Reason:
        escalation = finding.escalation
        if escalation is None:
            return finding.reason
        family = finding.number.family if finding.number else ""
        key = f"{family}/{finding.object}/{finding.variant}{_INJECTED if injected else ''}"
        stronger = self.problems.get((escalation.reason.name, finding.object, finding.variant))
        reached = self._repeated(key, escalation.repetition, clock, moment)
        return escalation.reason if reached or (stronger is not None and stronger.active) else finding.reason

    def _repeated(self, key: str, repetition: Repetition, clock: float, moment: Moment) -> bool:
        """Whether this occurrence is the n-th within the time, on the clock that never steps."""
        kept = tuple(each for each in self._recent.pop(key, ()) if 0 <= clock - each <= repetition.seconds)
        times = (*kept, clock)[-repetition.count :]
        self._recent[key] = times
        self._change.recent[key] = tuple(moment.wall(each) for each in times)
        self._bound_recent()
        return len(times) >= repetition.count

    def _bound_recent(self) -> None:
        while len(self._recent) > MAX_MEMORY:
            oldest = next(iter(self._recent))
            del self._recent[oldest]
            self._change.recent[oldest] = ()

    def _holds(self, finding: Finding, reason: Reason, record: Record, moment: Moment) -> bool:
        """Whether the finding can still be true: not an event of a program, of another boot, or too old to act on."""
        key = (reason.name, finding.object, finding.variant)
        if not finding.lasting and reason is finding.reason:
            return False
        if record.boot_id and record.boot_id != self.boot_id and reason.clears_by(ClearKind.REBOOT):
            return False
        too_old = self.first_start and not record.live and moment.now - record.time > self.backlog_max_age
        return not too_old or (key in self.problems and self.problems[key].active)

    def _activate(
        self,
        finding: Finding,
        reason: Reason,
        object_: str,
        record: Record,
        moment: Moment,
        *,
        injected: bool,
        detail: bool,
    ) -> None:
        """It holds now; a further line of the same fault (`detail`) leaves the evidence that named it."""
        key = (reason.name, object_, finding.variant)
        known = self.problems.get(key)
        active = known if known is not None and known.active else None
        if finding.latest or (reason is not finding.reason and not detail):
            self._supersede(key, reason, record, moment, injected=injected)
        last_seen = max(record.time, active.last_seen if active else 0.0)
        if active is not None and (detail or (injected and not active.injected)):
            problem = replace(active, last_seen=last_seen)
        else:
            problem = Problem(
                reason=reason,
                object=object_,
                variant=finding.variant,
                since=active.since if active else record.time,
                last_seen=last_seen,
                source=record.source,
                text=record.text[:MAX_TEXT],
                boot_id=record.boot_id or self.boot_id,
                sequence=record.sequence,
                injected=injected,
                detail=finding.number.detail if finding.number else finding.detail,
            )
        self._put(problem)
        self._seen_clock[key] = moment.of(record.time)
        fresh = active is None or (active.injected and not injected)  # a drill does not hide what follows it
        self._note(Happening.FOUND, reason, object_, finding.variant, record, moment, injected=injected, fresh=fresh)

    def _supersede(self, key: ProblemKey, reason: Reason, record: Record, moment: Moment, *, injected: bool) -> None:
        """End what the same number on the same object was called before."""
        for problem in self._active():
            same = (problem.object, problem.variant) == key[1:] and problem.reason.family == reason.family
            if same and problem.key != key and (problem.injected or not injected):
                self._clear(problem, record.time, moment, f"it is {reason.name} now")

    # -- recoveries ----------------------------------------------------------------------------------------------------

    def _recovered(self, recovery: Recovery, record: Record, moment: Moment, *, injected: bool) -> None:
        if recovery.number is not None:
            self._count_number(recovery.number, record, joined=False)
        for problem in self._active():
            if (
                _ends(recovery, problem, self.uuids.get(problem.object))
                and _is_earlier(problem, record)
                and (problem.injected or not injected)
            ):
                self._clear(problem, record.time, moment, _HOW[recovery.kind])

    def _clear(self, problem: Problem, time: float, moment: Moment, how: str) -> None:
        self._put(replace(problem, cleared=min(time, moment.now)))
        self._seen_clock[problem.key] = moment.of(time)
        self._noted.pop(problem.key, None)
        self._remember(
            Occurrence(
                time=time,
                happening=Happening.CLEARED,
                reason=problem.reason.name,
                severity=problem.reason.severity,
                action=problem.reason.action,
                object=problem.object,
                variant=problem.variant,
                injected=problem.injected,
                source=problem.source,
                boot_id=self.boot_id,
                sequence=-1,
                text="",
                how=how,
            )
        )

    # -- book-keeping --------------------------------------------------------------------------------------------------

    def _active(self) -> Iterator[Problem]:
        return (problem for problem in list(self.problems.values()) if problem.active)

    def _put(self, problem: Problem) -> None:
        self.problems[problem.key] = self._change.problems[problem.key] = problem

    def _forget(self, key: ProblemKey) -> None:
        del self.problems[key]
        self._change.problems[key] = None
        self._seen_clock.pop(key, None)
        self._noted.pop(key, None)
        if not any(each[:2] == key[:2] for each in self.problems):
            self._admitted.get(key[0], set()).discard(key[1])

    def _count(self, reason: Reason, time: float) -> None:
        self.counts[reason.name] = self._change.counts[reason.name] = _grown(self.counts.get(reason.name), 1, time)

    def _count_number(self, number: Number, record: Record, *, joined: bool) -> None:
        counted = number.counts is Counts.MESSAGE or (number.counts is Counts.FAULT and not joined)
        if not counted:
            return
        code = self._bounded_code(number)
        key = (number.family, self._bounded_device(number.family, number.pci_bus_id), code)
        self.numbers[key] = self._change.numbers[key] = _grown(self.numbers.get(key), 1, record.time)

    def _bounded_device(self, family: str, address: str) -> str:
        return self._admit(f"{family} device", address, address in self.devices, MAX_OTHER_DEVICES)

    def _bounded_code(self, number: Number) -> str:
        return self._admit(f"{number.family} number", str(number.code), number.name is not None, MAX_UNKNOWN_NUMBERS)

    def _bounded_object(self, reason: Reason, object_: str) -> str:
        text = "".join(each for each in object_[:MAX_OBJECT_LENGTH] if each.isprintable())
        return self._admit(reason.name, text, text in self.devices or not text, MAX_OBJECTS)

    def _admit(self, scope: str, value: str, reserved: object, limit: int) -> str:
        """The value, or `other` where the scope is full and the value has no reserved room."""
        if reserved:
            return value
        admitted = self._admitted.setdefault(scope, set())
        if value not in admitted:
            if len(admitted) >= limit:
                self.cut_objects += 1
                return OTHER
            admitted.add(value)
        return value

    def _note(
        self,
        happening: Happening,
        reason: Reason,
        object_: str,
        variant: str,
        record: Record,
        moment: Moment,
        *,
        injected: bool,
        fresh: bool = False,
    ) -> None:
        """A row of the history, at most one in HISTORY_INTERVAL for a problem that only repeats."""
        key = (reason.name, object_, variant)
        noted = self._noted.get(key)
        if not fresh and noted is not None and moment.clock - noted.clock < HISTORY_INTERVAL:
            noted.unsaid += 1
            return
        self._noted[key] = _Noted(moment.clock)
        _trim(self._noted)
        self._remember(
            Occurrence(
                time=record.time,
                happening=happening,
                reason=reason.name,
                severity=reason.severity,
                action=reason.action,
                object=object_,
                variant=variant,
                injected=injected,
                source=record.source,
                boot_id=record.boot_id,
                sequence=record.sequence,
                text=record.text[:MAX_TEXT],
                unsaid=noted.unsaid if noted else 0,
            )
        )

    def _remember(self, occurrence: Occurrence) -> None:
        self._change.history.append(occurrence)
        self.history.append(occurrence)
        del self.history[:-MAX_HISTORY]


_HOW: Mapping[ClearKind, str] = {
    ClearKind.LINE: "the log says that it is over",
    ClearKind.GPU_RESET: "the GPU was reset or its driver was loaded again",
    ClearKind.REBOOT: "the node was rebooted",
    ClearKind.CHECK: "its check says that it is gone",
    ClearKind.QUIET: "it was quiet",
    ClearKind.OPERATOR: "an operator cleared it",
}


def _trim(memory: dict[Any, Any]) -> None:
    """Forget the oldest entry of a memory that is full."""
    if len(memory) > MAX_MEMORY:
        del memory[next(iter(memory))]


def _grown(count: Count | None, by: int, time: float) -> Count:
    return Count((count.value if count else 0) + by, max(time, count.last_seen if count else 0.0))


def _ends(recovery: Recovery, problem: Problem, uuid: str | None) -> bool:
    if recovery.object is not None and recovery.object not in {problem.object, uuid}:
        return False
    if recovery.variant is not None:
        return problem.variant == recovery.variant
    return problem.reason.clears_by(recovery.kind) and recovery.reason in {None, problem.reason.name}


def _is_earlier(problem: Problem, record: Record) -> bool:
    """In one log the order of its records decides, between logs the time."""
    return problem.source == record.source or problem.last_seen <= record.time
