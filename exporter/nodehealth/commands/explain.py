"""`nodehealth explain`: which reason a log line matches, what it would do and why, or why it does not count."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from nodehealth.catalog import Catalog, is_driver_line
from nodehealth.model import Clear, ClearKind, Counts, Event, Finding, Number, Record, Recovery, Severity
from nodehealth.settings import Trust
from nodehealth.sources.host import Host
from nodehealth.sources.kmsg import Malformed
from nodehealth.sources.kmsg import parse as parse_kmsg
from nodehealth.wrapper import unwrap

MAX_LINE = 4096
_ESCAPED = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|n)")


_INJECTED = "user space wrote this record: it counts, and everything that it causes is marked as injected"
_IGNORED = "user space wrote this record, and trust_user_records is never: it does not count"
_EFFECTS = {
    Severity.CRITICAL: "it makes {subsystem} unhealthy",
    Severity.WARNING: "it makes {subsystem} degraded, not unhealthy",
    Severity.INFO: "it is listed, the node stays healthy",
}
_ENDS = {
    ClearKind.CHECK: "its check says that it is gone",
    ClearKind.LINE: "the log says that it is over",
    ClearKind.GPU_RESET: "the GPU is reset or its driver loaded again",
    ClearKind.REBOOT: "the node is rebooted",
}


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
    raw = line.encode("utf-8", "surrogateescape")  # several \xNN are the bytes of one character
    raw = _ESCAPED.sub(lambda found: bytes((int(found[1], 16),)) if found[1] else b"\n", raw)
    return raw.decode("utf-8", "replace")


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


def as_text(found: Explanation, host: Host, trust: Trust) -> str:
    """The answer for a person: the line, then one statement a row."""
    rows = [*_about_findings(found, host), *_about_recoveries(found, host)] or [*_about_nothing(found)]
    if found.user and found.events:
        rows = [_IGNORED] if trust is Trust.NEVER else [*rows, *([_INJECTED] if trust is Trust.DRILL else [])]
    return "\n".join([_printable(unwrap(decode(found.line))), *(f"  {_printable(row)}" for row in rows)])


def _printable(text: str) -> str:
    """On one line, and without what would move a terminal's cursor."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _about_findings(found: Explanation, host: Host) -> Iterable[str]:
    for finding in found.findings:
        reason = finding.reason
        if finding.number is not None:
            yield from _about_number(finding.number, host)
        where = f" on {finding.object}" if finding.object else ""
        yield f"{reason.name}{where}: {reason.severity}, action {reason.action.replace('_', ' ')}. {reason.summary}"
        yield _effect(finding, ends=any(recovery.variant for recovery in found.recoveries))
        yield f"what to do: {reason.remedy}"
        if finding.lasting or finding.escalation:
            ends = [_end(clear) for clear in reason.clears if clear.kind is not ClearKind.OPERATOR]
            yield f"ends when: {'; '.join([*ends, f'somebody runs `nodehealth clear {reason.name}`'])}"


def _end(clear: Clear) -> str:
    return _ENDS.get(clear.kind) or f"{_span(clear.seconds)} pass without another one"


def _span(seconds: float) -> str:
    """A time as the configuration writes it: 90s, 15m, 24h."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _about_number(number: Number, host: Host) -> Iterable[str]:
    name = number.name or "a number that NVIDIA's catalog does not have"
    yield f"{_word(number)} {number.code} is {name}{f': {number.detail}' if number.detail else ''}"
    if number.counts is Counts.NEVER:
        yield "the message has no Xid of its own: the counter of Xids stays as it is"
    known = [gpu.pci_bus_id for gpu in host.gpus()]
    if number.family == "xid" and number.pci_bus_id not in known:
        address = number.pci_bus_id.removesuffix(".0")
        yield f"{address} is no GPU of this node: it counts all the same, with the address as its object"


def _word(number: Number) -> str:
    return "SXid" if number.family == "sxid" else "Xid"


def _effect(finding: Finding, *, ends: bool) -> str:
    number, reason, escalation = finding.number, finding.reason, finding.escalation
    if not reason.enabled:
        return "the configuration disables this reason: no problem is made of it"
    if not finding.lasting and escalation is None:
        what = f"{_word(number)} {number.code}" if number else "this"
        kind = "says that a fault ended" if ends else "is an application fault"
        return f"{what} {kind}: counted, the node stays healthy"
    repeats = escalation.repetition if escalation else reason.repeats
    after = f"once it was seen {repeats.count} times within {_span(repeats.seconds)}, " if repeats else ""
    stronger = escalation.reason if escalation else reason
    return f"counted; {after}{_EFFECTS[stronger.severity].format(subsystem=reason.subsystem)}"


def _about_recoveries(found: Explanation, host: Host) -> Iterable[str]:
    for recovery in found.recoveries:
        if recovery.number is not None:
            yield from _about_number(recovery.number, host)
        yield f"{_recovered(recovery)} on {recovery.object or 'every device'}"


def _recovered(recovery: Recovery) -> str:
    if recovery.kind is ClearKind.GPU_RESET:
        return "says that the GPU was reset or its driver loaded: ends what a reset ends"
    if recovery.variant:
        return f"ends number {recovery.variant}"
    return f"ends {recovery.reason or 'what a line of the log ends'}"


def _about_nothing(found: Explanation) -> Iterable[str]:
    if found.context:
        yield f"recognised ({', '.join(dict.fromkeys(found.context))}): it means nothing by itself and is not counted"
    elif found.driver:
        yield "a driver's line that no rule recognises: counted in nodehealth_source_unmatched_driver_lines_total only"
    else:
        yield "no rule recognises this line: it does not count"
