"""The exporter's own log: one structured line for each thing worth saying, in logfmt or JSON, limited per reason."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

from nodehealth.pci import is_pci_address
from nodehealth.view import Occurrence

MAX_VALUE = 512
LINES_PER_REASON = 10
LIMIT_SECONDS = 60.0
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def fields(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """Key and value of everything that a line says."""
    yield "time", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
    yield "level", record.levelname.lower()
    yield "msg", record.getMessage()
    for key, value in vars(record).items():
        if key in _STANDARD:
            continue
        if isinstance(value, Occurrence):
            yield from _occurrence(value)
        elif value is not None and value != "":
            yield key, value
    if record.exc_info and record.exc_info[0]:
        yield "error", f"{record.exc_info[0].__name__}: {record.exc_info[1]}"
        yield "traceback", logging.Formatter().formatException(record.exc_info)[-MAX_VALUE:]


def _occurrence(occurrence: Occurrence) -> Iterator[tuple[str, Any]]:
    yield "at", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(occurrence.time))
    for key in ("reason", "severity", "action", "object", "variant", "source", "boot_id", "how", "text"):
        value = getattr(occurrence, key)
        if value:
            yield key, str(value)
    if occurrence.sequence >= 0:
        yield "sequence", occurrence.sequence
    if is_pci_address(occurrence.object):
        yield "pci_bus_id", occurrence.object
    yield "injected", occurrence.injected
    if occurrence.unsaid:
        yield "unsaid", occurrence.unsaid


class Logfmt(logging.Formatter):
    """`key=value` pairs; values with spaces, quotes or control characters are quoted and escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        return " ".join(f"{key}={_quoted(value)}" for key, value in fields(record))


class Json(logging.Formatter):
    """One JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        return _escaped({key: _plain(value) for key, value in fields(record)})


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float) else str(value)[:MAX_VALUE]


def _quoted(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)[:MAX_VALUE]
    if text and all(each.isalnum() or each in "-_.:/+@%," for each in text) and text.isascii():
        return text
    return _escaped(text)


def _escaped(value: Any) -> str:
    """JSON in printable ASCII: what a log or a device says cannot move a terminal's cursor or begin a line."""
    return json.dumps(value, ensure_ascii=True).replace("\x7f", "\\u007f")


def _about(record: logging.LogRecord) -> str:
    """What is limited: the findings of a reason, and a fault of ours that comes again and again; else nothing."""
    occurrence = getattr(record, "occurrence", None)
    if isinstance(occurrence, Occurrence):
        return occurrence.reason
    return str(record.msg) if record.exc_info else ""


class PerReason(logging.Filter):
    """Lets LINES_PER_REASON findings of one reason through in LIMIT_SECONDS and says how many it held back."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[str, list[float]] = {}  # reason: start of the window (monotonic), lines in it, held back

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line may be written."""
        about = _about(record)
        if not about:
            return True
        now = time.monotonic()
        window = self._windows.setdefault(about, [now, 0, 0])
        if now - window[0] >= LIMIT_SECONDS:
            if window[2]:
                record.suppressed = int(window[2])
            window[:] = [now, 0, 0]
        window[1] += 1
        window[2] += window[1] > LINES_PER_REASON
        return window[1] <= LINES_PER_REASON

    def overdue(self) -> Iterator[tuple[str, int]]:
        """What was held back of reasons whose window is over and of which nothing more came: reason and number."""
        now = time.monotonic()
        for reason, window in list(self._windows.items()):
            if window[2] and now - window[0] >= LIMIT_SECONDS:
                del self._windows[reason]
                yield reason, int(window[2])


PER_REASON = PerReason()


def say_suppressed() -> None:
    """Say how many lines were held back where no further line does it."""
    for reason, number in PER_REASON.overdue():
        logging.getLogger("nodehealth").info("findings not logged", extra={"reason": reason, "suppressed": number})


def set_up(level: str, style: str) -> None:
    """Write to standard error from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if style == "json" else Logfmt())
    handler.addFilter(PER_REASON)
    logger = logging.getLogger("nodehealth")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())
