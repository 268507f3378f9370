"""The exporter's own log: one safe line each, logfmt or JSON, limited per reason."""

from __future__ import annotations

import json
import logging
import re
import shlex
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodehealth import logs
from nodehealth.logs import LIMIT_SECONDS, LINES_PER_REASON, MAX_VALUE, Json, Logfmt, PerReason
from views import LINE, NOW, occurrence

PATIENT = settings(deadline=None, suppress_health_check=list(HealthCheck))  # this machine may be busy

HOSTILE = 'say "hi" \x1b[31m\r\nlevel=critical msg=forged\t\x00\x07\x7f\u009b2J é \u202e\ud800 \\'


def line(message: str = "found", created: float = NOW, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, "levelname": "INFO", "levelno": logging.INFO, **extra})
    made.created = created
    return made


def pairs(text: str) -> dict[str, str]:
    """The keys and values of a logfmt line, quoted values decoded."""
    found = re.findall(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^\s"]+)(?: |$)', text)
    return {key: json.loads(value) if value.startswith('"') else value for key, value in found}


def test_logfmt_line_of_a_finding_has_every_field() -> None:
    found = pairs(Logfmt().format(line(occurrence=occurrence(injected=True, unsaid=3))))
    assert found == {
        "time": "2023-11-14T22:13:20Z",
        "level": "info",
        "msg": "found",
        "at": "2023-11-14T22:13:20Z",
        "reason": "NvidiaXIDErrorRebootNode",
        "severity": "critical",
        "action": "reboot_node",
        "object": "0000:3b:00.0",
        "variant": "79",
        "source": "kmsg",
        "boot_id": "boot",
        "text": LINE,
        "sequence": "7",
        "pci_bus_id": "0000:3b:00.0",
        "injected": "true",
        "unsaid": "3",
    }


def test_json_line_of_a_finding_has_the_same_fields() -> None:
    record = line(occurrence=occurrence())
    found = json.loads(Json().format(record))
    assert (found["sequence"], found["injected"], found["text"]) == (7, False, LINE)
    assert found.keys() == pairs(Logfmt().format(record)).keys()


def test_plain_values_are_not_quoted() -> None:
    text = Logfmt().format(line("listening", url="http://127.0.0.1:10841/", read=5, up=True))
    assert text == "time=2023-11-14T22:13:20Z level=info msg=listening url=http://127.0.0.1:10841/ read=5 up=true"


def test_what_is_empty_is_left_out() -> None:
    assert pairs(Logfmt().format(line(object=None, why=""))).keys() == {"time", "level", "msg"}


@pytest.mark.parametrize("formatter", [Logfmt(), Json()])
def test_hostile_text_stays_inside_its_value(formatter: logging.Formatter) -> None:
    text = formatter.format(line(occurrence=occurrence(text=HOSTILE, object=HOSTILE), why=HOSTILE))
    assert re.fullmatch(r"[ -~]+", text), "one line of printable ASCII"
    found = json.loads(text) if isinstance(formatter, Json) else pairs(text)
    assert found["text"] == found["object"] == found["why"] == HOSTILE
    assert found["level"] == "info"


@given(st.text(max_size=100))
@PATIENT
def test_whatever_was_logged_the_line_can_be_read_back(text: str) -> None:
    record = line(occurrence=occurrence(text=f"x{text}"))
    for shown in (Logfmt().format(record), Json().format(record)):
        assert re.fullmatch(r"[ -~]+", shown)
    assert pairs(Logfmt().format(record))["text"] == json.loads(Json().format(record))["text"] == f"x{text}"


def test_long_text_is_cut() -> None:
    assert len(pairs(Logfmt().format(line(occurrence=occurrence(text="x" * 5000))))["text"]) == MAX_VALUE


def test_exception_is_one_line_with_its_end() -> None:
    error = ValueError("the disk\nis full")
    text = Logfmt().format(line("follower failed", exc_info=(ValueError, error, None)))
    assert pairs(text)["error"] == "ValueError: the disk\nis full"
    assert pairs(text)["traceback"].endswith("ValueError: the disk\nis full")
    assert "\n" not in text


def test_logfmt_line_splits_like_a_shell_line() -> None:
    assert len(shlex.split(Logfmt().format(line("two words", a="b c")))) == 4


# -- the limit ---------------------------------------------------------------------------------------------------------


def passed(limit: PerReason, count: int, reason: str = "OOMKill", created: float = NOW) -> list[logging.LogRecord]:
    records = [line(occurrence=occurrence(reason=reason), created=created) for _ in range(count)]
    return [record for record in records if limit.filter(record)]


def test_only_some_lines_of_a_reason_are_written() -> None:
    assert len(passed(PerReason(), LINES_PER_REASON + 25)) == LINES_PER_REASON


def test_the_next_line_says_how_many_were_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, clock = PerReason(), [100.0]
    monkeypatch.setattr("nodehealth.logs.time.monotonic", lambda: clock[0])
    passed(limit, LINES_PER_REASON + 25)
    clock[0] += LIMIT_SECONDS
    (record,) = passed(limit, 1)
    assert pairs(Logfmt().format(record))["suppressed"] == "25"
    (after,) = passed(limit, 1)
    assert "suppressed" not in pairs(Logfmt().format(after))


def test_what_was_held_back_is_said_where_no_further_line_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, clock = PerReason(), [100.0]
    monkeypatch.setattr("nodehealth.logs.time.monotonic", lambda: clock[0])
    passed(limit, LINES_PER_REASON + 25)
    assert list(limit.overdue()) == []
    clock[0] += LIMIT_SECONDS
    assert [number for _, number in limit.overdue()] == [25]
    assert list(limit.overdue()) == []


def test_reasons_have_limits_of_their_own() -> None:
    limit = PerReason()
    passed(limit, 100)
    assert len(passed(limit, 1, reason="SoftLockup")) == 1


def test_other_lines_are_never_held_back() -> None:
    limit = PerReason()
    assert all(limit.filter(line("source is up")) for _ in range(100))


# -- set-up ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The package's logger, given back as it was."""
    found = logging.getLogger("nodehealth")
    before = (found.handlers[:], found.level, found.propagate)
    yield found
    found.handlers[:], found.propagate = before[0], before[2]
    found.setLevel(before[1])


@pytest.mark.parametrize(("style", "formatter"), [("json", Json), ("logfmt", Logfmt)])
def test_lines_go_to_standard_error(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str], style: str, formatter: type[logging.Formatter]
) -> None:
    logs.set_up("warning", style)
    logs.set_up("warning", style)
    logger.info("too little")
    logger.warning("source is %s", "down")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, "one handler, however often it is set up"
    assert "source is down" in captured.err
    assert isinstance(logger.handlers[0].formatter, formatter)
