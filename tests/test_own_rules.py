"""Operators' own rules: proved by their own examples when they are loaded, and harmless whatever their pattern."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

from nodehealth import catalog as catalogs
from nodehealth import own_rules
from nodehealth.catalog import Catalog, findings
from nodehealth.model import ClearKind, Record, Recovery, Severity
from nodehealth.settings import SettingsError, parse
from nodehealth.state import Moment, State

RULE: dict[str, Any] = {
    "name": "RaidBroken",
    "source": "kmsg",
    "pattern": r"^myraid (?P<object>\w+): is degraded",
    "subsystem": "storage",
    "severity": "critical",
    "examples": ["myraid r0: is degraded", "[ 12.5] myraid r1: is degraded, disk 3"],
}
STREAMS = ("kmsg",)


def configured(*rules: dict[str, Any]) -> Catalog:
    return catalogs.load(parse({"rules": list(rules)}))


def refused(*changes: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as error:
        configured(*(RULE | change for change in changes))
    return str(error.value)


def record(line: str, clock: float = 0.0, stream: str = "kmsg") -> Record:
    return Record(stream, (stream,), line, time=clock, clock=clock, boot_id="boot")


def fold(catalog: Catalog, *lines: tuple[float, str]) -> State:
    state = State(catalog.reasons, boot_id="boot")
    for clock, line in lines:
        for match in catalog.read(record(line, clock)):
            for event in match.events:
                state.apply(event, record(line, clock), Moment(clock, clock))
    return state


def active(state: State) -> list[str]:
    return [problem.object for problem in state.problems.values() if problem.active]


def test_own_rule_finds_its_lines_with_their_object() -> None:
    found = findings(configured(RULE).read(record("<4>[ 7.0] myraid r7: is degraded")))
    assert [(each.reason.name, each.object, each.reason.severity) for each in found] == [
        ("RaidBroken", "r7", Severity.CRITICAL)
    ]


def test_own_rule_stands_beside_the_built_in_ones() -> None:
    catalog = configured(RULE)
    assert set(catalog.reasons) == {*catalogs.load().reasons, "RaidBroken"}


@pytest.mark.parametrize("source", ["journal:my-daemon.service", "file:/var/log/my.log"])
def test_own_rule_opens_its_stream(source: str) -> None:
    catalog = configured(RULE | {"source": source})
    assert source in catalog.streams
    assert findings(catalog.read(record("myraid r7: is degraded", stream=source)))
    assert not findings(catalog.read(record("myraid r7: is degraded")))


def test_text_for_people_has_a_default() -> None:
    reason = configured(RULE).reasons["RaidBroken"]
    assert reason.summary == "A rule of this installation's configuration found RaidBroken."
    assert reason.remedy
    assert configured(RULE | {"summary": "Mine."}).reasons["RaidBroken"].summary == "Mine."


def test_examples_are_kept_with_their_object() -> None:
    examples = configured(RULE).reasons["RaidBroken"].patterns[0].examples
    assert [example.object for example in examples] == ["r0", "r1"]


# -- refused at load ---------------------------------------------------------------------------------------------------


def test_example_that_does_not_match_is_refused() -> None:
    assert refused({"examples": ["other"]}) == "rules[0].pattern: does not match its own example 'other'"


def test_lookalike_that_matches_is_refused() -> None:
    line = "myraid r0: is degraded"
    assert refused({"lookalikes": ["fine", line]}) == f"rules[0].pattern: matches its own lookalike {line!r}"


def test_rule_without_an_example_is_refused() -> None:
    assert refused({"examples": []}) == "rules[0].pattern: needs at least one example, a line that it must match"


def test_recovery_needs_examples_that_match() -> None:
    assert refused({"recovery": "myraid .* is whole"}).startswith("rules[0].recovery: needs at least one example")
    assert "does not match" in refused({"recovery": "myraid whole", "recovery_examples": ["x"]})


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"\d+ \w+", "rules[0].pattern: needs a fixed text of at least 4 characters, so that other lines cost nothing"),
        ("(?i)myraid", "rules[0].pattern: (?i) cannot be used: write the few letters that vary as [Aa]"),
        ("myraid (", "rules[0].pattern: not a regular expression: "),
        ("myraid [", "rules[0].pattern: not a regular expression: "),
        ("myraid(?=x)", "rules[0].pattern: not a pattern of google-re2: invalid perl operator: (?="),
        (r"(myraid) \1", "rules[0].pattern: not a pattern of google-re2: "),
    ],
)
def test_pattern_that_cannot_be_used_is_refused(pattern: str, message: str) -> None:
    assert refused({"pattern": pattern}).startswith(message)


def test_refused_pattern_of_the_second_rule_names_that_rule() -> None:
    assert refused({}, {"name": "Other", "pattern": "("}).startswith("rules[1].pattern: ")


def test_two_rules_of_one_name_are_refused() -> None:
    assert refused({}, {}) == 'rules[1].name: two rules are named "RaidBroken"'


def test_name_of_a_built_in_reason_is_refused() -> None:
    assert refused({"name": "NvidiaXIDError"}) == 'rules: a built-in reason is named "NvidiaXIDError" already'


def test_missing_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    assert refused({}) == "rules[0].pattern: own rules need google-re2; install nodehealth-exporter[rules]"


# -- how a finding begins and ends -------------------------------------------------------------------------------------


def test_recovery_line_ends_it_on_its_object() -> None:
    catalog = configured(
        RULE | {"recovery": r"^myraid (?P<object>\w+): is whole", "recovery_examples": ["myraid r0: is whole"]}
    )
    lines = [(float(index), f"myraid {name}: is degraded") for index, name in enumerate(("r0", "r1"))]
    assert active(fold(catalog, *lines, (3.0, "myraid r0: is whole"))) == ["r1"]
    events = [event for match in catalog.read(record("myraid r0: is whole")) for event in match.events]
    assert events == [Recovery(ClearKind.LINE, "r0", "RaidBroken")]


def test_quiet_ends_it() -> None:
    state = fold(configured(RULE | {"quiet": "10m"}), (0.0, "myraid r0: is degraded"))
    state.tick(Moment(599.0, 599.0))
    assert active(state) == ["r0"]
    state.tick(Moment(600.0, 600.0))
    assert active(state) == []


def test_an_operator_ends_it() -> None:
    state = fold(configured(RULE), (0.0, "myraid r0: is degraded"))
    assert state.clear("RaidBroken", None, Moment(1.0, 1.0)) == 1


@pytest.mark.parametrize(("word", "kind"), [("reboot", ClearKind.REBOOT), ("gpu_reset", ClearKind.GPU_RESET)])
def test_clears_are_taken_over(word: str, kind: ClearKind) -> None:
    assert configured(RULE | {"clears": [word]}).reasons["RaidBroken"].clears_by(kind)


def test_joined_lines_are_one_occurrence() -> None:
    line = "myraid r0: is degraded"
    state = fold(configured(RULE | {"joins": "5s"}), (0.0, line), (4.0, line), (20.0, line))
    assert state.counts["RaidBroken"].value == 2


def test_it_holds_only_from_the_repeat_on() -> None:
    catalog = configured(RULE | {"repeats": {"count": 3, "within": "1m"}})
    line = "myraid r0: is degraded"
    assert active(fold(catalog, (0.0, line), (1.0, line))) == []
    assert active(fold(catalog, (0.0, line), (50.0, line), (100.0, line))) == [], "not within the time"
    assert active(fold(catalog, (0.0, line), (1.0, line), (2.0, line))) == ["r0"]


# -- the engine --------------------------------------------------------------------------------------------------------


def test_backtracking_pattern_is_fast() -> None:
    """Python's own engine would need longer than the universe is old."""
    catalog = configured(RULE | {"pattern": "(a+)+bcdef", "examples": ["aabcdef"]})
    began = time.monotonic()
    assert findings(catalog.read(record("a" * 4000 + " bcdef"))) == []
    assert time.monotonic() - began < 10.0


def test_own_patterns_run_on_google_re2() -> None:
    reason = configured(RULE).reasons["RaidBroken"]
    assert reason.engine == own_rules.ENGINE
    assert type(own_rules.compile_linear("key", "abcdef")).__module__.startswith("re2")


def test_without_own_rules_the_engine_is_not_loaded() -> None:
    program = "import sys; from nodehealth import catalog; catalog.load(); sys.exit('re2' in sys.modules or 'yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
