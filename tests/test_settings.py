"""The configuration file: every key good and bad; an error names the key and the nearest valid one."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodehealth.model import Action, Override, Repetition, Severity, Subsystem
from nodehealth.settings import (
    ReasonSettings,
    RuleSettings,
    Settings,
    SettingsError,
    Trust,
    duration,
    load,
    nearest,
    parse,
)

PATIENT = settings(deadline=None, suppress_health_check=list(HealthCheck))  # this machine may be busy

RULE = {
    "name": "RaidDegraded",
    "source": "kmsg",
    "pattern": "raid is degraded",
    "subsystem": "storage",
    "severity": "warning",
    "examples": ["raid is degraded on md0"],
}
FULL_RULE = RULE | {
    "action": "replace_node",
    "summary": "A RAID is degraded.",
    "remedy": "Replace the disk.",
    "lookalikes": ["raid is fine"],
    "clears": ["reboot", "gpu_reset", "operator"],
    "quiet": "2h",
    "recovery": "raid is whole",
    "recovery_examples": ["raid is whole on md0"],
    "joins": "10s",
    "repeats": {"count": 3, "within": "5m"},
}


@pytest.mark.parametrize("document", [None, {}, {"sources": None, "reasons": None, "xids": None, "sxids": None}])
def test_empty_configuration_is_the_default(document: object) -> None:
    assert parse(document) == Settings()


def test_defaults() -> None:
    assert Settings().trust_user_records is Trust.DRILL
    assert Settings().backlog_max_age == 3600.0


def test_every_key_is_read() -> None:
    found = parse(
        {
            "sources": {"required": ["kmsg", "journal", "file:/var/log/x"], "disabled": ["journal"]},
            "trust_user_records": "never",
            "backlog_max_age": "2h",
            "reasons": {"OOMKill": {"enabled": False, "severity": "info", "action": "none"}},
            "xids": {79: {"severity": "warning", "action": "investigate", "count": 2, "within": "1d"}},
            "sxids": {20034: {"action": "replace_node"}},
            "rules": [FULL_RULE],
        }
    )
    assert found == Settings(
        required_sources=("kmsg", "journal", "file:/var/log/x"),
        disabled_sources=("journal",),
        trust_user_records=Trust.NEVER,
        backlog_max_age=7200.0,
        reasons={"OOMKill": ReasonSettings(enabled=False, severity=Severity.INFO, action=Action.NONE)},
        xids={79: Override(Severity.WARNING, Action.INVESTIGATE, Repetition(2, 86400.0))},
        sxids={20034: Override(action=Action.REPLACE_NODE)},
        rules=(
            RuleSettings(
                name="RaidDegraded",
                source="kmsg",
                pattern="raid is degraded",
                subsystem=Subsystem.STORAGE,
                severity=Severity.WARNING,
                examples=("raid is degraded on md0",),
                action=Action.REPLACE_NODE,
                summary="A RAID is degraded.",
                remedy="Replace the disk.",
                lookalikes=("raid is fine",),
                clears=("reboot", "gpu_reset", "operator"),
                quiet=7200.0,
                recovery="raid is whole",
                recovery_examples=("raid is whole on md0",),
                joins=10.0,
                repeats=Repetition(3, 300.0),
            ),
        ),
    )


@pytest.mark.parametrize("value", list(Trust))
def test_every_trust_is_read(value: Trust) -> None:
    assert parse({"trust_user_records": str(value)}).trust_user_records is value


def test_repetition_without_severity_means_critical() -> None:
    assert parse({"xids": {31: {"count": 3, "within": 60}}}).xids[31].severity is Severity.CRITICAL


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(90, 90), ("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604800), ("1.5h", 5400), (0.5, 0.5), ("0", 0)],
)
def test_durations(value: object, seconds: float) -> None:
    assert duration("key", value) == seconds


@pytest.mark.parametrize(
    "value", ["", "s", "1w", "-1s", "1 h", "1h30m", "1e3", True, None, [], float("inf"), float("nan"), "1h\n"]
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match=r"(?s)^backlog_max_age: .* is no time; write for example 90s, 15m, 1h or 7d"):
        parse({"backlog_max_age": value})


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("text", "the file: a mapping (key: value) is needed, not 'text'"),
        ([], "the file: a mapping (key: value) is needed, not a list"),
        ({"ruels": []}, 'unknown key "ruels"; did you mean "rules"?'),
        ({"xid": {}}, 'unknown key "xid"; did you mean "xids"?'),
        (
            {"qqq": 1},
            'unknown key "qqq"; valid: backlog_max_age, checks, reasons, rules, sources, sxids, trust_user_records, xids',
        ),
        (
            {1: 2},
            'unknown key "1"; valid: backlog_max_age, checks, reasons, rules, sources, sxids, trust_user_records, xids',
        ),
        ({"sources": {"require": []}}, 'unknown key "sources.require"; did you mean "required"?'),
        ({"sources": []}, "sources: a mapping (key: value) is needed, not a list"),
        ({"sources": {"required": "kmsg"}}, "sources.required: a list is needed, not 'kmsg'"),
        (
            {"sources": {"required": ["kmesg"]}},
            'sources.required[0]: "kmesg" is no source; write kmsg, journal or file:/<path>',
        ),
        ({"sources": {"disabled": [["kmsg"]]}}, "sources.disabled[0]: \"['kmsg']\" is no source"),
        ({"trust_user_records": "alway"}, 'trust_user_records: "alway" is not valid; did you mean "always"?'),
        ({"trust_user_records": True}, 'trust_user_records: "True" is not valid; valid: always, drill, never'),
        ({"trust_user_records": {}}, 'trust_user_records: "{}" is not valid'),
        ({"reasons": {"OOMKill": {"enable": True}}}, 'unknown key "reasons.OOMKill.enable"; did you mean "enabled"?'),
        ({"reasons": {"OOMKill": {"enabled": "no"}}}, "reasons.OOMKill.enabled: true or false is needed, not 'no'"),
        (
            {"reasons": {"OOMKill": {"severity": "crit"}}},
            'reasons.OOMKill.severity: "crit" is not valid; did you mean "critical"?',
        ),
        (
            {"reasons": {"OOMKill": {"action": "reboot"}}},
            'reasons.OOMKill.action: "reboot" is not valid; did you mean "reboot_node"?',
        ),
        ({"reasons": {"OOMKill": 5}}, "reasons.OOMKill: a mapping (key: value) is needed, not 5"),
        ({"xids": {"79": {}}}, 'xids: "79" is no number of NVIDIA\'s catalog; write for example xids: {79: ...}'),
        ({"xids": {-1: {}}}, 'xids: "-1" is no number'),
        ({"xids": {True: {}}}, 'xids: "True" is no number'),
        ({"xids": {79: {"count": 2}}}, 'xids.79: "count" and "within" belong together (so many times within that time)'),
        ({"sxids": {5: {"within": "1h"}}}, 'sxids.5: "count" and "within" belong together'),
        ({"xids": {79: {"count": 0, "within": "1h"}}}, "xids.79.count: a whole number of at least 1 is needed, not 0"),
        (
            {"xids": {79: {"count": True, "within": "1h"}}},
            "xids.79.count: a whole number of at least 1 is needed, not True",
        ),
        ({"xids": {79: {"count": 2.5, "within": "1h"}}}, "xids.79.count: a whole number of at least 1 is needed, not 2.5"),
        ({"xids": {79: {"count": 2, "within": 0}}}, "xids.79.within: a time longer than 0 is needed"),
        ({"rules": {}}, "rules: a list is needed, not a mapping"),
        ({"rules": [None]}, 'rules[0]: key "name" is missing'),
    ],
)
def test_bad_value_is_refused_by_its_key(document: object, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse(document)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"name": "raid degraded"},
            '.name: "raid degraded" is no reason\'s name; write PascalCase, for example RaidDegraded',
        ),
        ({"name": "<b>"}, '.name: "<b>" is no reason\'s name'),
        ({"name": 7}, ".name: a text is needed, not 7"),
        ({"source": "dmesg"}, '.source: "dmesg" is no source; write kmsg, journal:<unit or identifier> or file:/<path>'),
        ({"source": "journal:"}, '.source: "journal:" is no source'),
        ({"source": "file:relative"}, '.source: "file:relative" is no source'),
        ({"pattern": ""}, ".pattern: a text is needed, not ''"),
        ({"pattern": None}, ".pattern: a text is needed, not nothing"),
        ({"subsystem": "network"}, '.subsystem: "network" is not valid; did you mean "networking"?'),
        ({"severity": "error"}, '.severity: "error" is not valid'),
        ({"action": "reset"}, '.action: "reset" is not valid; did you mean "reset_gpu"?'),
        ({"examples": "x"}, ".examples: a list is needed, not 'x'"),
        ({"examples": [1]}, ".examples[0]: a text is needed, not 1"),
        ({"lookalikes": [""]}, ".lookalikes[0]: a text is needed, not ''"),
        ({"clears": ["quiet"]}, '.clears[0]: "quiet" is not valid'),
        ({"quiet": "soon"}, '.quiet: "soon" is no time'),
        ({"joins": []}, '.joins: "[]" is no time'),
        ({"repeats": {"count": 3}}, '.repeats: key "within" is missing'),
        ({"repeats": {"count": 3, "within": "0s"}}, ".repeats.within: a time longer than 0 is needed"),
        ({"repeats": 3}, ".repeats: a mapping (key: value) is needed, not 3"),
    ],
)
def test_bad_rule_is_refused_by_its_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse({"rules": [RULE, RULE | change]})
    assert str(refused.value).startswith(f"rules[1]{message}")


@pytest.mark.parametrize("key", sorted(FULL_RULE))
def test_misspelt_key_of_a_rule_names_the_right_one(key: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse({"rules": [RULE | {f"{key}x": 1}]})
    assert str(refused.value) == f'unknown key "rules[0].{key}x"; did you mean "{key}"?'


@pytest.mark.parametrize("key", sorted(RULE))
def test_missing_key_of_a_rule_is_named(key: str) -> None:
    with pytest.raises(SettingsError, match=rf'^rules\[0\]: key "{key}" is missing$'):
        parse({"rules": [{name: value for name, value in RULE.items() if name != key}]})


def test_nearest_ignores_case_and_lists_few() -> None:
    assert nearest("CRITICAL", ["critical", "info"]) == '; did you mean "critical"?'
    many = [f"Reason{number}" for number in range(200)]
    assert nearest("zzz", many).startswith("; the nearest of 200: ")
    assert nearest("zzz", many).count(",") == 2


JSONLIKE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 100), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from([*FULL_RULE, "rules", "xids", "sources", "count", "within"]), st.integers()), inner
        ),
    ),
)
TOP = ["sources", "trust_user_records", "backlog_max_age", "reasons", "xids", "sxids", "rules"]


@given(st.one_of(JSONLIKE, st.dictionaries(st.sampled_from(TOP), JSONLIKE)))
@PATIENT
def test_whatever_the_file_holds_it_is_read_or_refused(document: object) -> None:
    with suppress(SettingsError):
        assert isinstance(parse(document), Settings)


# -- the file ----------------------------------------------------------------------------------------------------------


def test_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "nodehealth.yaml"
    path.write_text("xids:\n  13: {severity: critical}\nbacklog_max_age: 1h\n", encoding="utf-8")
    assert load(path).xids == {13: Override(Severity.CRITICAL)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ruels: []", 'unknown key "ruels"; did you mean "rules"?'),
        (b"a: [", "is not YAML: "),
        (b"\xff\xfe\x00", "is not YAML: "),
        (b"? [a]\n: b", "is not YAML: "),
        (b"a: !!python/object/apply:os.system [id]", "is not YAML: "),
        (b"[" * 5000, "is not YAML: "),
    ],
)
def test_bad_file_is_refused_by_its_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "nodehealth.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as refused:
        load(path)
    assert str(path) in str(refused.value)
    assert message in str(refused.value)


def test_empty_file_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "nodehealth.yaml"
    path.write_text("# nothing yet\n", encoding="utf-8")
    assert load(path) == Settings()


@pytest.mark.parametrize(("name", "why"), [("missing.yaml", "No such file or directory"), (".", "Is a directory")])
def test_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(SettingsError, match=rf"^cannot read .*: {why}$"):
        load(tmp_path / name)
