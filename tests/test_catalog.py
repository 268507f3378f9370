"""Every reason carries its own proof; this runs all of it."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cross_matches import ALLOWED
from nodehealth import catalog as catalogs
from nodehealth.catalog import Catalog, findings
from nodehealth.model import ClearKind, Example, Pattern, Reason, Record
from nodehealth.prefilter import required_literals
from nodehealth.wrapper import unwrap
from structure import complaint

DATA = Path(__file__).parent / "data"
CATALOG = catalogs.load()
REASONS = tuple(CATALOG.reasons.values())
CORPUS = (DATA / "ordinary_lines.txt").read_text(encoding="utf-8").splitlines()


def record(line: str, *streams: str) -> Record:
    return Record(source=streams[0], streams=streams, text=line, time=0.0, clock=0.0)


def names(catalog: Catalog, line: str, stream: str) -> set[str]:
    return {found.reason.name for found in findings(catalog.read(record(line, stream)))}


def cases() -> list[tuple[Reason, Pattern, Example]]:
    return [(reason, pattern, example) for reason in REASONS for pattern in reason.patterns for example in pattern.examples]


@pytest.mark.parametrize(("reason", "pattern", "example"), cases(), ids=lambda each: getattr(each, "name", ""))
def test_example_is_found_with_its_object(reason: Reason, pattern: Pattern, example: Example) -> None:
    for source in pattern.sources:
        found = [each for each in findings(CATALOG.read(record(example.line, source))) if each.reason is reason]
        assert [each.object for each in found] == [example.object]


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.name)
def test_reason_is_complete(reason: Reason) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z0-9]+", reason.name)
    assert reason.summary.endswith(".")
    assert reason.remedy.endswith(".")
    assert reason.clears, "says how it ends"
    for pattern in reason.patterns:
        assert pattern.examples, "has examples"
        assert pattern.lookalikes, "has lookalikes"
    assert bool(reason.recoveries) == reason.clears_by(ClearKind.LINE), "a recovery line and the clear rule belong together"


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.name)
def test_lookalikes_are_not_found(reason: Reason) -> None:
    for pattern in reason.patterns:
        for line in pattern.lookalikes:
            for source in pattern.sources:
                assert reason.name not in names(CATALOG, line, source), line


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.name)
def test_recovery_lines_are_read(reason: Reason) -> None:
    for pattern in reason.recoveries:
        for example in pattern.examples:
            for source in pattern.sources:
                events = [event for match in CATALOG.read(record(example.line, source)) for event in match.events]
                assert [(e.reason, e.object or "") for e in events if e.__class__.__name__ == "Recovery"] == [  # type: ignore[union-attr]
                    (reason.name, example.object)
                ]


def test_cross_matches_are_the_listed_ones() -> None:
    """A line that proves one reason proves another one only where that is written down."""
    found = set()
    for reason, pattern, example in cases():
        for source in pattern.sources:
            found |= {(reason.name, other) for other in names(CATALOG, example.line, source) - {reason.name}}
    assert found == ALLOWED


def test_nothing_is_found_in_ordinary_lines() -> None:
    assert len(CORPUS) >= 1000
    streams = tuple(CATALOG.streams)
    hits = [(line, [each.reason.name for each in findings(CATALOG.read(record(line, *streams)))]) for line in CORPUS]
    assert [hit for hit in hits if hit[1]] == []


@pytest.mark.parametrize("rule", CATALOG.rules, ids=lambda rule: rule.name)
def test_pattern_is_linear(rule: catalogs.Rule) -> None:
    assert complaint(rule.regex) is None


@given(st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_prefilter_equals_no_prefilter(data: st.DataObject) -> None:
    """Strings made from the patterns themselves, cut and mixed: both ways find the same rules."""
    rules = data.draw(st.lists(st.sampled_from(CATALOG.rules), min_size=1, max_size=2))
    parts = [data.draw(st.from_regex(rule.regex)) for rule in rules]
    line = data.draw(st.sampled_from(["", "x ", "[ 1.5] "])) + data.draw(st.text(max_size=3)).join(parts)
    streams = tuple(CATALOG.streams)
    with_prefilter = {id(match.rule) for match in CATALOG.read(record(line, *streams))}
    without = {id(match.rule) for match in CATALOG.read_everywhere(record(line, *streams))}
    assert with_prefilter == without


@pytest.mark.parametrize("rule", CATALOG.rules, ids=lambda rule: rule.name)
def test_every_pattern_has_a_literal(rule: catalogs.Rule) -> None:
    assert all(len(literal) >= 4 for literal in required_literals(rule.regex))


def log_lines() -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for path in sorted((DATA / "log_lines").glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows += csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    return rows


@pytest.mark.parametrize("row", log_lines(), ids=lambda row: row["line"][:60])
def test_recorded_line_gives_its_reasons(row: dict[str, str]) -> None:
    """Column `reasons`: the names that the line must give, `-` for none; column `source` is the stream that it came from."""
    expected = set() if row["reasons"] == "-" else set(row["reasons"].split(","))
    assert names(CATALOG, row["line"], row["source"]) == expected


def test_unwrap_leaves_bare_lines() -> None:
    assert [line for line in CORPUS if unwrap(unwrap(line)) != unwrap(line)] == []
