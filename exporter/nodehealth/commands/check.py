"""`nodehealth check`: one pass over everything, as a table for people or as JSON; its result is the exit status."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable

from nodehealth.model import Health, Subsystem
from nodehealth.view import Problem, SourceState, View

HEALTHY, UNHEALTHY, NOT_OBSERVED = 0, 1, 3


def status(view: View) -> int:
    """0 where nothing critical holds, 1 where something does, 3 where that cannot be said."""
    found = [view.health.get(subsystem) for subsystem in Subsystem]
    if Health.UNHEALTHY in found:
        return UNHEALTHY
    blind = any(source.state is SourceState.DOWN and not _replaced(source.name, view) for source in view.sources)
    observed = any(health in {Health.HEALTHY, Health.DEGRADED} for health in found)
    return HEALTHY if observed and not (blind and Health.UNKNOWN in found) else NOT_OBSERVED


def _replaced(source: str, view: View) -> bool:
    """Whether another source delivers what this one cannot."""
    wanted = next((each.serves for each in view.sources if each.name == source), frozenset())
    served = {stream for each in view.sources if each.state is SourceState.UP for stream in each.serves}
    return bool(wanted) and wanted <= served


def as_json(view: View) -> str:
    """One object with subsystems, problems and sources."""
    answer = {
        "status": {HEALTHY: "healthy", UNHEALTHY: "unhealthy", NOT_OBSERVED: "not observed"}[status(view)],
        "subsystems": {subsystem: view.health.get(subsystem) or "absent" for subsystem in Subsystem},
        "problems": [
            {
                "reason": problem.reason.name,
                "subsystem": problem.reason.subsystem,
                "severity": problem.reason.severity,
                "action": problem.reason.action,
                "object": problem.object,
                "variant": problem.variant,
                "since": problem.since,
                "last_seen": problem.last_seen,
                "injected": problem.injected,
                "text": problem.text,
            }
            for problem in view.problems
            if problem.active
        ],
        "sources": {source.name: {"state": source.state, "detail": source.detail} for source in view.sources},
        "checks": {each.name: {"outcome": each.outcome, "detail": each.detail} for each in view.checks},
    }
    return json.dumps(answer)


def as_text(view: View) -> str:
    """The table for people."""
    rows = [*_subsystems(view), "", *_problems(view), "", *_sources(view), "", *_checks(view), "", _verdict(view)]
    return "\n".join(rows)


def _subsystems(view: View) -> Iterable[str]:
    yield f"{'SUBSYSTEM':<22}{'STATE':<12}PROBLEMS"
    for subsystem in Subsystem:
        count = sum(problem.active and problem.reason.subsystem is subsystem for problem in view.problems)
        yield f"{subsystem:<22}{view.health.get(subsystem) or 'absent':<12}{count or ''}".rstrip()


def _problems(view: View) -> Iterable[str]:
    active = view.active()
    if not active:
        yield "no problem holds"
    for problem in active:
        since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(problem.since))
        drill = " (injected)" if problem.injected else ""
        yield f"{problem.reason.severity.upper():<9}{problem.reason.name}{_where(problem, view)} since {since}{drill}"
        yield f"         {problem.detail or problem.reason.summary}"
        yield f"         {problem.reason.action.replace('_', ' ')}: {problem.reason.remedy}"
        yield f"         {ascii(problem.text)[1:-1][:160]}"


def _where(problem: Problem, view: View) -> str:
    """The device, its number and what else it is known by."""
    gpu = next((gpu for gpu in view.gpus if gpu.pci_bus_id == problem.object), None)
    known = (problem.object, problem.number, f"GPU {gpu.index}" if gpu else "", gpu.uuid if gpu else "")
    words = ", ".join(filter(None, known))
    return f" on {words}" if words else ""


def _sources(view: View) -> Iterable[str]:
    width = max((len(source.name) for source in view.sources), default=0) + 2
    yield f"{'SOURCE':<{width}}{'STATE':<10}"
    for source in view.sources:
        detail = source.detail or f"{source.records} records read, {source.matched} recognised"
        yield f"{source.name:<{width}}{source.state:<10}{detail}"


def _checks(view: View) -> Iterable[str]:
    width = max((len(each.name) for each in view.checks), default=0) + 2
    yield f"{'CHECK':<{max(width, 7)}}{'OUTCOME':<10}"
    for each in view.checks:
        yield f"{each.name:<{max(width, 7)}}{each.outcome:<10}{each.detail or f'{each.duration * 1000:.0f} ms'}"


def _verdict(view: View) -> str:
    return {
        HEALTHY: "healthy: nothing critical holds",
        UNHEALTHY: "unhealthy: do not trust this node with work",
        NOT_OBSERVED: "not observed: a source that should be read cannot be read",
    }[status(view)]
