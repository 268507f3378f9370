"""Problems as a page shows them: one row for each object of each reason, however many faults it has, capped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nodehealth.model import Reason
from nodehealth.pci import is_pci_address
from nodehealth.sources.host import Gpu
from nodehealth.view import Problem, View

MAX_OBJECTS = 64
"""Objects of one reason that are exported; `nodehealth_problem_active` counts those past it too."""


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One object with one reason: whether it holds now and whether all of it comes from injections."""

    reason: Reason
    object: str
    gpu: Gpu | None
    active: bool
    injected: bool

    @property
    def pci_bus_id(self) -> str:
        """The object where it is a PCI address, else nothing."""
        return self.object if is_pci_address(self.object) else ""


class ObjectRows:
    """The rows of a View, kept for the next family that asks about the same problems."""

    def __init__(self) -> None:
        self._asked: tuple[object, object] = (None, None)
        self._rows: list[ObjectRow] = []

    def of(self, view: View) -> list[ObjectRow]:
        """The rows, the active ones of each reason first."""
        if self._asked[0] is not view.problems or self._asked[1] is not view.gpus:
            self._asked = (view.problems, view.gpus)
            self._rows = _rows(view.problems, {gpu.pci_bus_id: gpu for gpu in view.gpus})
        return self._rows


def _rows(problems: Iterable[Problem], gpus: dict[str, Gpu]) -> list[ObjectRow]:
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.reason.name, problem.object), []).append(problem)
    rows = [_row(group, gpus) for _, group in sorted(groups.items())]
    exported: dict[str, int] = {}
    kept = []
    for row in sorted(rows, key=lambda each: not each.active):
        exported[row.reason.name] = exported.get(row.reason.name, 0) + 1
        if exported[row.reason.name] <= MAX_OBJECTS:
            kept.append(row)
    return kept


def _row(group: list[Problem], gpus: dict[str, Gpu]) -> ObjectRow:
    active = [problem for problem in group if problem.active]
    injected = all(problem.injected for problem in active or group)
    first = group[0]
    return ObjectRow(first.reason, first.object, gpus.get(first.object), bool(active), injected)
