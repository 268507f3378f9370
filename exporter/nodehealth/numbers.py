"""The number families of NVIDIA's drivers: Xids of GPUs and SXids of NVSwitches.

A family has a table (one row for each known number) and one reason for each pair of severity and action that occurs, so
that alerts and pages speak of what to do and not of numbers.  Unknown numbers have a class too: nothing is dropped.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources.abc import Traversable

from nodehealth.model import (
    GPU_RESET,
    REBOOT,
    Action,
    Clear,
    Escalation,
    Event,
    Example,
    Finding,
    Hardware,
    Override,
    Pattern,
    Reason,
    Record,
    Severity,
    Subsystem,
    quiet,
)
from nodehealth.wrapper import unwrap

Class = tuple[Severity, Action]
_UNKNOWN_CODE = -1  # stands for every number that no table has

REMEDIES: Mapping[Action, str] = {
    Action.NONE: "Nothing to do now; look at it together with other findings on the same device.",
    Action.RESTART_APP: "Restart the workload that used this GPU; if several are hit, run `dcgmi diag -r 3`.",
    Action.RESET_GPU: "Drain this GPU, then reset it (`nvidia-smi --gpu-reset -i <pci address>`) or reboot the node.",
    Action.REBOOT_NODE: "Drain the node and reboot it; if the fault returns, replace the node.",
    Action.RESET_FABRIC: "Drain the node and reset all GPUs and NVSwitches together, or reboot.",
    Action.REPLACE_NODE: "Drain the node and replace it; `dcgmi diag -r 4` gives the evidence for the case.",
    Action.CHECK_CONFIG: "Check driver, firmware and configuration against what this GPU needs.",
    Action.INVESTIGATE: "Look at `nodehealth events` and `nvidia-smi -q` for what came with it; open a case with NVIDIA.",
}

_STEMS = {Severity.CRITICAL: "Error", Severity.WARNING: "Warning", Severity.INFO: "Info"}
_SENTENCES = {
    Severity.CRITICAL: "{device} reported a critical error: {what}.",
    Severity.WARNING: "{device} reported a warning: {what}.",
    Severity.INFO: "{device} reported an event: {what}.",
}
_NEEDS = {
    Action.NONE: "nothing needs to be done by itself",
    Action.RESTART_APP: "the workload on it has to be restarted",
    Action.RESET_GPU: "the GPU has to be reset",
    Action.REBOOT_NODE: "the node has to be rebooted",
    Action.RESET_FABRIC: "the whole NVLink fabric of the node has to be reset",
    Action.REPLACE_NODE: "the hardware has to be replaced",
    Action.CHECK_CONFIG: "its configuration has to be checked",
    Action.INVESTIGATE: "somebody has to look at it",
}
_CLEARS: Mapping[Severity, tuple[Clear, ...]] = {
    Severity.CRITICAL: (GPU_RESET, REBOOT),
    Severity.WARNING: (GPU_RESET, REBOOT, quiet(hours=24)),
    Severity.INFO: (GPU_RESET, REBOOT, quiet(hours=1)),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One known number; `area` is where the fault lies (`application`, `memory`, `link` ...)."""

    code: int
    name: str
    severity: Severity
    action: Action
    area: str
    description: str

    @property
    def application(self) -> bool:
        """Whether it is the fault of a program and says nothing about the GPU."""
        return self.area == "application"


def load_table(file: Traversable) -> dict[int, Row]:
    """The rows of one of the package's tables by number."""
    with file.open(encoding="utf-8") as lines:
        return {
            int(row["code"]): Row(
                int(row["code"]),
                row["name"],
                Severity(row["severity"]),
                Action(row["action"]),
                row["area"],
                row["description"],
            )
            for row in csv.DictReader(lines)
        }


@dataclass(frozen=True, slots=True)
class Family:
    """What Xids and SXids have in common.

    `stem` begins the names of the reasons; `plain` is for each severity the action whose reason has no suffix;
    `unknown` is the class of a number that the table does not have; `remedies` say it in other words for this device.
    """

    name: str
    stem: str
    device: str
    needs: Hardware
    plain: Mapping[Severity, Action]
    unknown: Class
    table: Mapping[int, Row]
    overrides: Mapping[int, Override]
    remedies: Mapping[Action, str] = field(default_factory=dict)

    def class_of(self, code: int) -> Class:
        """The built-in class of a number, known or not."""
        row = self.table.get(code)
        return (row.severity, row.action) if row else self.unknown

    def overridden(self, code: int, built_in: Class) -> Class:
        """The class after the configuration had its say."""
        override = self.overrides.get(code)
        if override is None:
            return built_in
        return override.severity or built_in[0], override.action or built_in[1]

    def before_repetition(self, code: int, built_in: Class) -> Class:
        """The class of a number that has to repeat first: never more severe than a warning until it has."""
        override = self.overrides.get(code)
        if override is None or override.repetition is None:
            return self.overridden(code, built_in)
        severity, action = built_in
        return Severity.WARNING if severity is Severity.CRITICAL else severity, action

    def reason_name(self, severity: Severity, action: Action) -> str:
        """`NvidiaXIDError` for the plain action of a severity, `NvidiaXIDErrorRebootNode` for another."""
        suffix = "" if self.plain[severity] is action else "".join(word.capitalize() for word in action.split("_"))
        return f"{self.stem}{_STEMS[severity]}{suffix}"

    def reasons(self, spoken: Callable[[int], Iterable[Class]], pattern: Pattern) -> Iterator[Reason]:
        """One reason for each class that a number, the words of a line (`spoken`) or the configuration can give."""
        for severity, action in sorted(self._classes(spoken)):
            yield Reason(
                name=self.reason_name(severity, action),
                subsystem=Subsystem.ACCELERATED_HARDWARE,
                severity=severity,
                action=action,
                summary=_SENTENCES[severity].format(device=self.device, what=_NEEDS[action]),
                remedy=self.remedies.get(action, REMEDIES[action]),
                clears=_CLEARS[severity],
                patterns=(pattern,),
                object_kind=self.device.removeprefix("A ").removeprefix("An "),
                needs=self.needs,
                family=self.name,
            )

    def _classes(self, spoken: Callable[[int], Iterable[Class]]) -> set[Class]:
        found: set[Class] = set()
        for code in {*self.table, *self.overrides, _UNKNOWN_CODE}:
            for built_in in (self.class_of(code), *spoken(code)):
                found |= {self.overridden(code, built_in), self.before_repetition(code, built_in)}
        return found


class NumberReader:
    """What the readers of both families share: the family, its reasons, and the configuration's say."""

    def __init__(self, family: Family, reasons: Mapping[str, Reason]) -> None:
        self._family = family
        self._reasons = reasons

    def _reason(self, graded: Class) -> Reason:
        return self._reasons[self._family.reason_name(*graded)]

    def _grade(self, code: int, built_in: Class) -> tuple[Class, Escalation | None]:
        """The class of one message, and what it becomes by repeating."""
        graded = self._family.overridden(code, built_in)
        override = self._family.overrides.get(code)
        if override is None or override.repetition is None:
            return graded, None
        return self._family.before_repetition(code, built_in), Escalation(override.repetition, self._reason(graded))


def with_examples(
    reasons: Mapping[str, Reason], pattern: Pattern, read: Callable[[re.Match[str], Record], Iterable[Event]]
) -> dict[str, Reason]:
    """Each reason with those examples of the family's pattern that the family's reader takes for it."""
    proof: dict[str, list[Example]] = {}
    for example in pattern.examples:
        text = unwrap(example.line)
        match = re.search(pattern.regex, text)
        record = Record("example", pattern.sources, text, time=0.0, clock=0.0)
        for event in read(match, record) if match else ():
            if isinstance(event, Finding):
                proof.setdefault(event.reason.name, []).append(example)
    return {
        name: replace(reason, patterns=(replace(pattern, examples=tuple(proof.get(name, ()))),))
        for name, reason in reasons.items()
    }


def believed(spoken: Severity | None, table: Class) -> Class:
    """The class of a line that says Fatal or Non-fatal itself: its word wins over the table.

    Where the two disagree the table's action belongs to another error of the same number: a fatal one then needs somebody
    to look at it, one that is not fatal needs nothing.
    """
    severity, action = table
    if spoken is None:
        return table
    if spoken is Severity.CRITICAL:
        return spoken, Action.INVESTIGATE if severity is not spoken or action is Action.NONE else action
    return spoken, Action.NONE if severity is Severity.CRITICAL else action
