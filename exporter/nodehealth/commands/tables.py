"""`nodehealth reasons` and `nodehealth events`: the catalog and the history, as tables or as one JSON object a line."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator

from nodehealth.catalog import Catalog
from nodehealth.model import Reason
from nodehealth.view import Occurrence


def reasons(catalog: Catalog, *, as_json: bool) -> Iterator[str]:
    """The catalog, one reason a line."""
    for reason in sorted(catalog.reasons.values(), key=lambda each: (each.subsystem, each.name)):
        yield json.dumps(_reason(reason, catalog)) if as_json else _reason_row(reason)


def _reason(reason: Reason, catalog: Catalog) -> dict[str, object]:
    return {
        "name": reason.name,
        "subsystem": reason.subsystem,
        "severity": reason.severity,
        "action": reason.action,
        "clears": [str(clear) for clear in reason.clears],
        "sources": _sources(reason, catalog),
        "enabled": reason.enabled,
        "summary": reason.summary,
        "remedy": reason.remedy,
    }


def _sources(reason: Reason, catalog: Catalog) -> list[str]:
    """The logs whose lines prove it, and the checks that find it."""
    logs = {source for pattern in reason.patterns for source in pattern.sources}
    checks = [planned.check for planned in catalog.checks.values()]
    found = {f"check:{check.name}" for check in checks if any(each.name == reason.name for each in check.reasons)}
    return sorted(logs | found)


def _reason_row(reason: Reason) -> str:
    off = "" if reason.enabled else " (disabled)"
    return f"{reason.subsystem:<22}{reason.name:<36}{reason.severity:<10}{reason.action:<14}{reason.summary}{off}"


def events(rows: Iterable[Occurrence], *, as_json: bool) -> Iterator[str]:
    """The history, oldest first."""
    for row in rows:
        yield json.dumps(dataclasses.asdict(row)) if as_json else _event_row(row)


def _event_row(row: Occurrence) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(row.time))
    where = " ".join(filter(None, (row.object, row.variant and f"({row.variant})"))) or "-"
    more = f" (and {row.unsaid} more)" if row.unsaid else ""
    drill = " [injected]" if row.injected else ""
    what = row.how or ascii(row.text)[1:-1][:120]
    return f"{when}  {row.happening:<8}{row.severity:<9}{row.reason:<34}{where:<22}{what}{more}{drill}"
