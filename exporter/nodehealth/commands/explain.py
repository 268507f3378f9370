"""`nodehealth explain`: which reason a log line matches, what it would do and why, or why it does not count."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from nodehealth.catalog import Catalog, is_driver_line
from nodehealth.model import ClearKind, Counts, Event, Finding, Number, Record, Recovery, Severity
from nodehealth.sources.host import Host
from nodehealth.sources.kmsg import Malformed
from nodehealth.sources.kmsg import parse as parse_kmsg
from nodehealth.wrapper import unwrap

MAX_LINE = 4096
_ESCAPED = re.compile(r"\\(?:x([0-9a-fA-F]{2})|(n))")


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the catalog says of one line."""

    line: str
    findings: tuple[Finding, ...]
    recoveries: tuple[Recovery, ...]
    context: tuple[str, ...]
    user: bool
    driver: bool

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything that the line means."""
        return (*self.findings, *self.recoveries)

    def number(self, family: str) -> Number | None:
        """The Xid or SXid that the line carries."""
        return next((e.number for e in self.events if e.number is not None and e.number.family == family), None)


def decode(line: str) -> str:
    r"""Undo `\n` and `\xNN` as records of /dev/kmsg carry them."""
    if "\\" not in line:
        return line
    raw = _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else "\n", line)
    try:  # several \xNN are the bytes of one character
        return raw.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return raw


def explain(line: str, catalog: Catalog, source: str | None = None) -> Explanation:
    """Try the rules of one source, or of every source, on a line in any wrapper."""
    text = decode(line)[:MAX_LINE]
    streams = (source,) if source else tuple(catalog.streams)
    record = Record(source or "explain", streams, text, time=0.0, clock=0.0, user=_by_user(line))
    matches = catalog.read(record) if source else catalog.read_everywhere(record)
    events = list(dict.fromkeys(event for match in matches for event in match.events))
    return Explanation(
        line,
        tuple(event for event in events if isinstance(event, Finding)),
        tuple(event for event in events if isinstance(event, Recovery)),
        tuple(match.rule.name for match in matches if not match.events),
        record.user,
        is_driver_line(text),
    )


def _by_user(line: str) -> bool:
    """Whether a raw kmsg record says that user space wrote it."""
    try:
        return parse_kmsg(line.strip().encode("utf-8", "surrogateescape")).user
    except Malformed:
        return False


def as_json(found: Explanation) -> str:
    """One object, as the design of the command says."""
    matches = [
        {
            "reason": each.reason.name,
            "subsystem": each.reason.subsystem,
            "severity": each.reason.severity,
            "action": each.reason.action,
            "object": each.object,
        }
        for each in found.findings
    ]
    answer = {
        "line": found.line,
        "matches": matches,
        "xid": _number(found.number("xid")),
        "sxid": _number(found.number("sxid")),
    }
    return json.dumps(answer)


def _number(number: Number | None) -> dict[str, object] | None:
    if number is None:
        return None
    return {
        "code": number.code,
        "pci_bus_id": number.pci_bus_id,
        "name": number.name,
        "severity": number.severity,
        "action": number.action,
    }


def as_text(found: Explanation, host: Host) -> str:
    """The answer for a person: the line, then one statement a row."""
    rows = [*_about_findings(found, host), *(_about_recovery(each) for each in found.recoveries)]
    if not rows:
        rows = [*_about_nothing(found)]
    if found.user and found.events:
        rows.append("user space wrote this record: it counts, and everything that it causes is marked as injected")
    return "\n".join([unwrap(decode(found.line)).replace("\n", "\\n"), *(f"  {row}" for row in rows)])


def _about_findings(found: Explanation, host: Host) -> Iterable[str]:
    for finding in found.findings:
        reason = finding.reason
        if finding.number is not None:
            yield from _about_number(finding.number, host)
        where = f" on {finding.object}" if finding.object else ""
        yield f"{reason.name}{where}: {reason.severity}, action {reason.action.replace('_', ' ')}. {reason.summary}"
        yield _effect(finding)
        yield f"what to do: {reason.remedy}"
        yield f"ends by: {', '.join(map(str, reason.clears))}, or `nodehealth clear {reason.name}`"


def _about_number(number: Number, host: Host) -> Iterable[str]:
    name = number.name or "a number that NVIDIA's catalog does not have"
    word = "Xid" if number.family == "xid" else "SXid"
    detail = f" ({number.detail})" if number.detail else ""
    yield f"{word} {number.code} is {name}{detail}"
    if number.counts is Counts.NEVER:
        yield "the message has no Xid of its own: the counter of Xids stays as it is"
    known = [gpu.pci_bus_id for gpu in host.gpus()]
    if number.family == "xid" and number.pci_bus_id not in known:
        address = number.pci_bus_id.removesuffix(".0")
        yield f"{address} is no GPU of this node: it counts all the same, with the address as its object"


def _effect(finding: Finding) -> str:
    number, reason = finding.number, finding.reason
    if not reason.enabled:
        return "the reason is disabled by the configuration: nothing happens"
    if not finding.lasting:
        what = f"Xid {number.code}" if number else "this"
        return f"{what} is an application fault: counted, the node stays healthy"
    escalation = finding.escalation
    repeats = reason.repeats or (escalation.repetition if escalation else None)
    after = f" once it was seen {repeats.count} times in {repeats.seconds:g} s" if repeats else ""
    stronger = escalation.reason if escalation else reason
    effect = {
        Severity.CRITICAL: f"makes {reason.subsystem} unhealthy",
        Severity.WARNING: f"makes {reason.subsystem} degraded, not unhealthy",
        Severity.INFO: "is listed; the node stays healthy",
    }[stronger.severity]
    return f"counted; it {effect}{after}"


def _about_recovery(recovery: Recovery) -> str:
    what = {
        ClearKind.GPU_RESET: "says that the GPU was reset or the driver loaded: ends what a reset ends",
        ClearKind.LINE: f"ends {recovery.reason or 'the fault that it belongs to'}",
    }.get(recovery.kind, f"ends what ends by {recovery.kind}")
    return f"{what}{f' on {recovery.object}' if recovery.object else ' on every device'}"


def _about_nothing(found: Explanation) -> Iterable[str]:
    if found.context:
        yield f"recognised ({', '.join(dict.fromkeys(found.context))}): it means nothing by itself and is not counted"
    elif found.driver:
        yield "a driver's line that no rule recognises: counted in nodehealth_source_unmatched_driver_lines_total only"
    else:
        yield "no rule recognises this line: it does not count"
