"""The status page for people: what is wrong, since when, what to do.  HTML without scripts; refreshes itself.

Everything that came from a log or a device is escaped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from html import escape
from importlib.resources import files

from nodehealth.model import Health, Severity, Subsystem
from nodehealth.view import CheckView, Count, Occurrence, Outcome, Problem, SourceView, View

REFRESH_SECONDS = 10
MAX_ROWS = 100
_STYLE = (files(__package__) / "page.css").read_text(encoding="utf-8")
_NAMES = {
    Subsystem.KERNEL: "Kernel",
    Subsystem.NETWORKING: "Networking",
    Subsystem.STORAGE: "Storage",
    Subsystem.CONTAINER_RUNTIME: "Container runtime",
    Subsystem.ACCELERATED_HARDWARE: "Accelerated hardware",
}
_MEANING = {
    Health.HEALTHY: "observed, nothing wrong",
    Health.DEGRADED: "observed, warnings hold",
    Health.UNHEALTHY: "do not trust it with work",
    Health.UNKNOWN: "not observed",
    None: "not on this node",
}


def render(view: View | None) -> str:
    """The whole page."""
    if view is None or not view.self_.ready:
        return _document("nodehealth", "<main><h1>nodehealth</h1><p>Reading what was logged before the start.</p></main>")
    worst = _worst(view)
    active = view.active()
    parts = (
        f'<header class="{worst}"><h1>{_headline(worst, active)}</h1><p>{_subline(view)}</p></header>',
        _subsystems(view),
        _problems(active, view),
        _gpus(view, active),
        _sources(view.sources),
        _checks(view.checks),
        _history(view.history),
    )
    return _document(f"{worst}: nodehealth", f"<main>{''.join(parts)}</main>")


def _document(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>{body}</body></html>'
    )


def _worst(view: View) -> Health:
    found = {view.health.get(subsystem) for subsystem in Subsystem}
    order = (Health.UNHEALTHY, Health.DEGRADED, Health.HEALTHY)
    return next((health for health in order if health in found), Health.UNKNOWN)


def _headline(worst: Health, active: list[Problem]) -> str:
    critical = [problem for problem in active if problem.reason.severity is Severity.CRITICAL]
    if worst is Health.UNHEALTHY:
        devices = len({problem.object for problem in critical})
        where = f" on {devices} devices" if devices > 1 else ""
        return f"This node is unhealthy: {len(critical)} critical problem{'s' if len(critical) > 1 else ''}{where}"
    return {
        Health.DEGRADED: "This node works, with warnings",
        Health.HEALTHY: "This node is healthy",
        Health.UNKNOWN: "This node is not observed",
    }[worst]


def _subline(view: View) -> str:
    state = "kept over restarts" if view.self_.persistent else "not kept over restarts"
    notes = [f"nodehealth {view.self_.version}", f"up since {_when(view.self_.started)}", f"state is {state}"]
    if view.self_.persistent and not view.self_.saved:
        notes.append("the disk does not take the newest state")
    if view.self_.state_note:
        notes.append(view.self_.state_note)
    if not view.self_.config_reload_ok:
        notes.append("the last configuration was refused; the one before it holds")
    return escape(" · ".join(notes)) + ' · <a href="/metrics">metrics</a>'


def _subsystems(view: View) -> str:
    cells = []
    for subsystem in Subsystem:
        health = view.health.get(subsystem)
        what = _tally(view, subsystem) or _MEANING[health]
        word = health or "absent"
        cells.append(f'<li class="{word}"><b>{_NAMES[subsystem]}</b><span>{word}</span><small>{what}</small></li>')
    return f'<ul class="subsystems">{"".join(cells)}</ul>'


def _tally(view: View, subsystem: Subsystem) -> str:
    """How many critical, warning and info problems hold."""
    found = [p.reason.severity for p in view.problems if p.active and p.reason.subsystem is subsystem]
    return ", ".join(f"{found.count(severity)} {severity}" for severity in Severity if severity in found)


def _problems(active: list[Problem], view: View) -> str:
    if not active:
        return "<section><h2>Problems</h2><p>None.</p></section>"
    rows = [
        (
            f'<span class="{p.reason.severity}">{p.reason.severity}</span>',
            f"<b>{escape(p.reason.name)}</b>{_injected(p.injected)}<br>{escape(p.detail or p.reason.summary)}",
            _object(p, view),
            f"<b>{p.reason.action.replace('_', ' ')}</b><br>{_prose(p.reason.remedy)}",
            _when(p.since) + (f"<br><small>last {_when(p.last_seen)}</small>" if p.last_seen - p.since >= 1 else ""),
            f"<code>{escape(p.text[:240])}</code>",
        )
        for p in active[:MAX_ROWS]
    ]
    more = f"<p>and {len(active) - MAX_ROWS} more</p>" if len(active) > MAX_ROWS else ""
    heads = ("Severity", "What", "Where", "What to do", "Since", "Evidence")
    return f"<section><h2>Problems</h2>{_table(heads, rows)}{more}</section>"


def _prose(text: str) -> str:
    """A sentence whose commands stand between back quotes."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _injected(injected: bool) -> str:  # noqa: FBT001 - a flag of the data
    return ' <span class="injected" title="written by user space, not by a driver">injected</span>' if injected else ""


def _object(problem: Problem, view: View) -> str:
    if not problem.object:
        return "the node"
    known = {gpu.pci_bus_id: gpu for gpu in view.gpus}
    text = escape(problem.object) + (f"<br><small>{escape(problem.number)}</small>" if problem.number else "")
    if problem.reason.object_kind == "GPU":
        gpu = known.get(problem.object)
        text += (
            f"<br><small>GPU {gpu.index} {escape(gpu.uuid)}</small>" if gpu else "<br><small>no GPU of this node</small>"
        )
    return text


def _gpus(view: View, active: list[Problem]) -> str:
    if not view.gpus:
        return ""
    rows = []
    for gpu in view.gpus:
        mine = [p for p in active if p.object == gpu.pci_bus_id]
        worst = min((p.reason.severity for p in mine), key=list(Severity).index, default=None)
        counts = {key[2]: count for key, count in view.numbers.items() if key[:2] == ("xid", gpu.pci_bus_id)}
        rows.append(
            (
                str(gpu.index),
                f'<span class="{worst or "healthy"}">{worst or "no problem"}</span>',
                f"<code>{escape(gpu.pci_bus_id)}</code>",
                escape(gpu.model) or "-",
                f"<small>{escape(gpu.uuid) or '-'}</small>",
                _xids(counts),
            )
        )
    heads = ("GPU", "State", "PCI address", "Model", "UUID", "Xids counted")
    return f"<section><h2>GPUs</h2>{_table(heads, rows)}</section>"


def _xids(counts: dict[str, Count]) -> str:
    found = sorted(counts.items(), key=lambda each: -each[1].last_seen)
    return (
        ", ".join(f"{escape(code)}: {count.value} <small>{_when(count.last_seen)}</small>" for code, count in found)
        or "none"
    )


def _sources(sources: Iterable[SourceView]) -> str:
    rows = [
        (
            f"<code>{escape(source.name)}</code>",
            f'<span class="source-{source.state}">{source.state}</span>',
            escape(source.detail) or f"{source.records} records, {source.matched} recognised",
            str(source.lost) if not source.gaps else f"{source.lost} and {source.gaps} gaps",
            _when(source.last_record) if source.last_record else "-",
        )
        for source in sources
    ]
    heads = ("Source", "State", "", "Lost", "Last record")
    return f"<section><h2>Sources</h2>{_table(heads, rows)}</section>"


def _checks(checks: Iterable[CheckView]) -> str:
    rows = [
        (
            f"<code>{escape(each.name)}</code>",
            f'<span class="{_OUTCOMES[each.outcome]}">{each.outcome}</span>',
            escape(each.detail),
            f"{each.duration * 1000:.0f} ms" if each.last_run else "-",
            _when(each.last_run) if each.last_run else "-",
        )
        for each in checks
    ]
    if not rows:
        return ""
    return f"<section><h2>Checks</h2>{_table(('Check', 'Outcome', '', 'Took', 'Last run'), rows)}</section>"


_OUTCOMES = {
    Outcome.SUCCESS: "source-up",
    Outcome.FAILED: "source-down",
    Outcome.ABSENT: "source-absent",
    Outcome.WAITING: "source-starting",
}


def _history(history: tuple[Occurrence, ...]) -> str:
    rows = [
        (
            _when(row.time),
            f'<span class="{row.happening}">{row.happening}</span>',
            f"{escape(row.reason)}{_injected(row.injected)}",
            escape(" ".join(filter(None, (row.object, row.variant)))) or "the node",
            escape(row.how) if row.how else f"<code>{escape(row.text[:160])}</code>",
        )
        for row in history[:-21:-1]
    ]
    heads = ("When", "", "Reason", "Where", "")
    return f"<section><h2>Last events</h2>{_table(heads, rows) if rows else '<p>None.</p>'}</section>"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{each}</th>" for each in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _when(seconds: float) -> str:
    """A time as people and logs write it, in UTC because nodes and pagers live in different zones."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
