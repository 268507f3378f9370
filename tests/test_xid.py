"""Xids: every number, every recorded line, every wording."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from nodehealth import catalog as catalogs
from nodehealth.catalog import Catalog
from nodehealth.model import Action, ClearKind, Counts, Event, Finding, Record, Recovery, Severity
from nodehealth.settings import Settings, SettingsError, parse
from nodehealth.state import Moment, State
from nodehealth.subsystems.accelerated_hardware import xid
from nodehealth.view import Problem
from nodehealth.wrapper import unwrap

CATALOG = catalogs.load()
DATA = Path(__file__).parent / "data"

# What NVIDIA's catalog and its readers say, written down independently of the shipped table.
CRITICAL = """9 12 18 26 30 33 46 48 54 57 58 59 61 62 64 74 78 79 90 95 109 110 119 120 136 140 143 149 150 151 155 156 158
166 167 169 172 173"""
INFO = "14 23 37 43 45 49 66 67 87 106 107 108 137 141 152 153 160 162"
ACTIONS = {
    "none": "14 37 38 43 44 45 63 66 67 92 93 106 107 108 121 137 141 152 153 154 157 160 161 162 164 168 171",
    "restart_app": """8 11 13 25 31 32 39 40 41 60 68 69 70 71 72 75 76 77 80 82 83 84 85 86 88 89 94 96 97 98 99 100 101 102
103 104 105 126 127 128 129 130 131 132 133 134 135 139 170""",
    "reset_gpu": "46 48 62 64 95 109 110 119 120 136 140 143 155 156 158 163 166 169 172",
    "reboot_node": "79 151 167 173",
    "check_config": "78",
}
LASTING = "46 48 62 63 64 74 79 94 95 109 110 119 120 140 143"


def numbers(text: str) -> set[int]:
    return {int(word) for word in text.split()}


def record(line: str, *, sequence: int = 0, clock: float = 0.0) -> Record:
    return Record("kmsg", ("kmsg",), line, time=clock, clock=clock, sequence=sequence, boot_id="boot")


def events(line: str, catalog: Catalog = CATALOG) -> list[Event]:
    return [event for match in catalog.read(record(line)) for event in match.events]


def finding(line: str, catalog: Catalog = CATALOG) -> Finding:
    found = [event for event in events(line, catalog) if isinstance(event, Finding)]
    assert len(found) == 1, line
    return found[0]


def message(code: int, rest: str = "", address: str = "PCI:0000:3b:00") -> str:
    return f"NVRM: Xid ({address}): {code}{rest}"


def problems(*lines: str, catalog: Catalog = CATALOG) -> list[Problem]:
    """What holds after these lines, a second apart."""
    state = State(catalog.reasons, boot_id="boot")
    for index, line in enumerate(lines):
        one = record(line, sequence=index, clock=float(index))
        for match in catalog.read(one):
            for event in match.events:
                state.apply(event, one, Moment(one.time, one.clock))
    return [problem for problem in state.problems.values() if problem.active]


def configured(document: object) -> Catalog:
    return catalogs.load(parse(document))


# -- every number ------------------------------------------------------------------------------------------------------


def test_the_table_has_every_number() -> None:
    assert set(xid.family({}).table) == set(range(1, 174))


@pytest.mark.parametrize("code", range(1, 174))
def test_number_has_its_severity_and_action(code: int) -> None:
    found = finding(message(code))
    action = next((name for name, codes in ACTIONS.items() if code in numbers(codes)), "investigate")
    severity = "critical" if code in numbers(CRITICAL) else "info" if code in numbers(INFO) else "warning"
    assert (found.reason.severity, found.reason.action) == (severity, action)
    assert found.number is not None
    assert (found.number.code, found.number.counts, found.variant) == (code, Counts.MESSAGE, str(code))
    assert found.number.name, "known by name"


@pytest.mark.parametrize("code", [0, 174, 999, 99999, 999_999_999])
def test_unknown_number_is_a_warning_and_keeps_its_number(code: int) -> None:
    found = finding(message(code, ", pid=1, name=x, something new"))
    assert (found.reason.severity, found.reason.action) == ("warning", "investigate")
    assert found.number is not None
    assert (found.number.code, found.number.name) == (code, None)


@pytest.mark.parametrize("code", [13, 31, 43, 45, 68])
def test_application_xid_never_holds(code: int) -> None:
    assert finding(message(code)).lasting is False
    assert problems(message(code)) == []


@pytest.mark.parametrize("code", sorted(numbers(LASTING)))
def test_hardware_xid_holds(code: int) -> None:
    assert [problem.variant for problem in problems(message(code))] == [str(code)]


@pytest.mark.parametrize("code", [63, 94])
def test_contained_memory_faults_are_warnings(code: int) -> None:
    assert finding(message(code)).reason.severity is Severity.WARNING


def test_reasons_of_the_node_monitoring_agent_exist() -> None:
    assert CATALOG.reasons["NvidiaXIDError"].severity is Severity.CRITICAL
    assert CATALOG.reasons["NvidiaXIDWarning"].severity is Severity.WARNING


# -- every recorded line -----------------------------------------------------------------------------------------------


def lines() -> list[dict[str, str]]:
    with (DATA / "xid_lines.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def sysfs(address: str) -> str:
    """An address of the recorded lines as sysfs writes it."""
    full = address.lower() if address.count(":") == 2 else f"0000:{address.lower()}"
    return full if "." in full else f"{full}.0"


def described(row: dict[str, str]) -> str:
    return f"{row['code']} {row['line'][:70]}"


def test_the_recorded_lines_are_complete() -> None:
    assert len(lines()) == 132


@pytest.mark.parametrize("row", [row for row in lines() if row["code"] != "-"], ids=described)
def test_recorded_line_gives_address_number_and_class(row: dict[str, str]) -> None:
    found = finding(row["line"])
    assert found.number is not None
    family, _, code = row["code"].rpartition(":")
    assert (found.number.family, str(found.number.code)) == (family.lower() or "xid", code)
    assert (found.number.severity, found.number.action) == (row["severity"], row["action"])
    assert (found.reason.name, found.reason.severity, found.reason.action) == (
        row["reason"],
        row["severity"],
        row["action"],
    )
    assert found.object == found.number.pci_bus_id == sysfs(row["pci"])


@pytest.mark.parametrize("row", [row for row in lines() if row["code"] == "-"], ids=described)
def test_recorded_line_without_a_number_counts_none(row: dict[str, str]) -> None:
    found = events(row["line"])
    assert [event.reason.name for event in found if isinstance(event, Finding)] == (
        [] if row["reason"] == "-" else [row["reason"]]
    )
    assert all(event.number is None for event in found)


@pytest.mark.parametrize("row", [row for row in lines() if row["unit"] != "-"], ids=described)
def test_recorded_nvlink5_line_is_decoded(row: dict[str, str]) -> None:
    found = xid.decode_nvlink5(unwrap(row["line"]).partition("): ")[2])
    assert found is not None
    assert (found.unit, str(found.link), str(found.subcode)) == (row["unit"], row["link"], row["subcode"])
    detail = finding(row["line"]).number
    assert detail is not None
    assert detail.detail == f"NVLink error in unit {row['unit']} on link {row['link']}, sub-code {row['subcode']}"


# -- every wording -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("PCI:0000:3b:00", "0000:3b:00.0"),
        ("0000:03:00", "0000:03:00.0"),
        ("PCI:0000:00:08.0", "0000:00:08.0"),
        ("PCI:0000:D8:00", "0000:d8:00.0"),
        ("PCI:00000000:3B:00.0", "0000:3b:00.0"),
        ("PCI:00010000:3B:00.0", "10000:3b:00.0"),
        ("PCI:18:00.0", "0000:18:00.0"),
        ("PCI:000d:00:00", "000d:00:00.0"),
        ("PCI:0000:3b:00 GPU-I:05", "0000:3b:00.0"),
        ("PCI:0000:3b:00 GPU-CI:5 GPU-I:1", "0000:3b:00.0"),
    ],
)
def test_every_form_of_the_address_is_read(address: str, expected: str) -> None:
    assert finding(message(48, ", x", address)).object == expected


@pytest.mark.parametrize(
    "rest", ["", ",", ", pid=1", " (", ", pid='<unknown>', name=<unknown>, x", ", name=a, b 'c' \"d\""]
)
def test_what_follows_the_number_does_not_matter(rest: str) -> None:
    assert finding(message(46, rest)).variant == "46"


@pytest.mark.parametrize(
    "line",
    [
        "NVRM: Xid (invalid): some error",
        "NVRM: Xid : 32, pid=2280636",
        "NVRM: Xid (PCI:0000:3b:00): pid=79",
        "NVRM: Xid (PCI:0000:3b:00): 79abc",
        "NVRM: Xid (PCI:0000:3b): 79, x",
        'python: "NVRM: Xid (PCI:0000:3b:00): 79, x"',
        "kubelet[12]: NVRM: Xid (PCI:0000:3b:00): 79, x",
        "Aug 30 11:43:14 host dcgm-exporter[3]: NVRM: Xid (PCI:0000:3b:00): 79, x",
        "12,34,56,-;myapp: NVRM: Xid (PCI:0000:3b:00): 79, x",
        "NVRM: krcRcAndNotifyAllChannels_IMPL: RC all channels for critical error 79.",
    ],
)
def test_a_line_that_is_no_xid_message_has_no_xid(line: str) -> None:
    assert [event for event in events(line) if event.number is not None] == []


# -- NVLink5 -----------------------------------------------------------------------------------------------------------


def nvlink5(word: str, code: int = 145, unit: str = "RLW_REMAP", words: str = " (0x00000004 0x00000040)") -> Finding:
    return finding(message(code, f", pid=7, name=a b, {unit} {word} XC0 i0 Link 03{words}"))


@pytest.mark.parametrize("code", range(144, 151))
@pytest.mark.parametrize(("word", "severity"), [("Fatal", "critical"), ("Nonfatal", "warning"), ("Non-fatal", "warning")])
def test_the_word_of_an_nvlink5_line_wins(code: int, word: str, severity: str) -> None:
    assert nvlink5(word, code).reason.severity == severity


@pytest.mark.parametrize(
    ("word", "words", "action"),
    [
        ("Fatal", " (0x00000004 0x00000040)", Action.RESET_GPU),  # the row of NVIDIA's table
        ("Nonfatal", " (0x00000004 0x00000040)", Action.INVESTIGATE),  # the table calls it fatal
        ("Nonfatal", " (0x00000004 0x00000100)", Action.NONE),  # the row says ignore
        ("Nonfatal", " (0x00000004 0x40000000)", Action.NONE),  # no row
        ("Fatal", "", Action.RESET_GPU),  # a cut line
        ("Nonfatal", "", Action.NONE),
    ],
)
def test_the_action_of_an_nvlink5_line(word: str, words: str, action: Action) -> None:
    assert nvlink5(word, words=words).reason.action is action


def test_sub_code_is_bits_20_to_25_of_the_first_word() -> None:
    found = xid.decode_nvlink5(", NETIR_LINK_EVT Fatal XC0 i0 Link 09 (0xfe5fffff 0x00000001)")
    assert found is not None
    assert (found.subcode, found.status, found.link) == (0b100101, 1, 9)


@pytest.mark.parametrize("rest", [", Placeholder message", "", ", RLW_REMAP Fatal", ", rlw fatal XC0 i0 Link 1"])
def test_an_nvlink5_number_with_other_text_has_the_class_of_its_number(rest: str) -> None:
    assert xid.decode_nvlink5(rest) is None
    assert finding(message(149, rest)).reason.name == "NvidiaXIDErrorInvestigate"


# -- Xid 154 -----------------------------------------------------------------------------------------------------------

WORDS = {0: "None", 1: "GPU Reset Required", 2: "Node Reboot Required", 3: "Drain P2P", 4: "Drain and Reset", 9: "New Word"}


def changed(before: int, after: int, address: str = "PCI:0008:01:00") -> str:
    text = f", GPU recovery action changed from 0x{before:x} ({WORDS[before]}) to 0x{after:x} ({WORDS[after]})"
    return message(154, text, address)


@pytest.mark.parametrize(
    ("value", "severity", "action"),
    [
        (1, "critical", "reset_gpu"),
        (2, "critical", "reboot_node"),
        (3, "warning", "restart_app"),
        (4, "critical", "reset_gpu"),
        (9, "warning", "investigate"),
    ],
)
def test_recovery_action_of_the_driver(value: int, severity: str, action: str) -> None:
    found = finding(changed(0, value))
    assert (found.reason.severity, found.reason.action, found.latest) == (severity, action, True)


def test_recovery_action_none_ends_what_a_reset_ends_and_counts() -> None:
    found = events(changed(1, 0))
    assert [type(event) for event in found] == [Recovery]
    assert isinstance(found[0], Recovery)
    assert (found[0].kind, found[0].object) == (ClearKind.GPU_RESET, "0008:01:00.0")
    assert found[0].number is not None
    assert (found[0].number.code, found[0].number.counts) == (154, Counts.MESSAGE)


def test_recovery_action_is_the_latest_one_alone() -> None:
    active = problems(changed(0, 2), changed(2, 4), changed(4, 3))
    assert [(problem.reason.action, problem.variant) for problem in active] == [(Action.RESTART_APP, "154")]


def test_recovery_action_none_ends_the_faults_of_that_gpu_alone() -> None:
    other = message(48, ", x", "PCI:0009:01:00")
    active = problems(message(48, ", x", "PCI:0008:01:00"), other, changed(0, 1), changed(1, 0))
    assert [problem.object for problem in active] == ["0009:01:00.0"]


def test_driver_load_ends_the_faults_of_every_gpu() -> None:
    assert problems(message(48), changed(0, 1), "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.15") == []


def test_162_ends_163_and_nothing_else() -> None:
    assert [problem.variant for problem in problems(message(163), message(48), message(162))] == ["48"]


# -- a GPU lost without an Xid -----------------------------------------------------------------------------------------

MULTI = (
    "NVRM: The NVIDIA GPU 0000:b3:00.0 {n} NVRM: (PCI ID: 10de:26b5) installed in this system has {n} "
    "NVRM: fallen off the bus and is not responding to commands."
)


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("NVRM: GPU 0000:29:00.0: GPU has fallen off the bus.", "0000:29:00.0"),
        ("NVRM: GPU 18:00.0: GPU has fallen off the bus.", "0000:18:00.0"),
        ("NVRM: GPU at PCI:0000:66:00: GPU has fallen off the bus.", "0000:66:00.0"),
        ("[  5.0] NVRM: GPU 0000:29:00.0: GPU has fallen off the bus.", "0000:29:00.0"),
        (MULTI.format(n="\n"), "0000:b3:00.0"),
        (MULTI.replace("GPU 0000", "GPU PCI:0000").format(n="\n"), "0000:b3:00.0"),
    ],
)
def test_gpu_lost_without_an_xid_is_the_fault_of_xid_79(line: str, address: str) -> None:
    found = finding(line)
    assert (found.reason.name, found.object, found.variant) == ("NvidiaXIDErrorRebootNode", address, "79")
    assert found.number is not None
    assert found.number.counts is Counts.NEVER, "the message has no Xid to count"


def test_lost_gpu_and_its_xid_are_one_fault() -> None:
    first, second = finding(message(79)), finding("NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.")
    assert first.join is not None
    assert second.join is not None
    assert (first.join.key, first.join.seconds, first.join.head, second.join.head) == (second.join.key, 10.0, True, False)


# -- the configuration's say -------------------------------------------------------------------------------------------


def test_override_changes_severity_and_action() -> None:
    catalog = configured({"xids": {13: {"severity": "critical", "action": "investigate"}, 79: {"severity": "info"}}})
    assert finding(message(13), catalog).reason.name == "NvidiaXIDErrorInvestigate"
    assert finding(message(79), catalog).reason.name == "NvidiaXIDInfoRebootNode"
    assert [problem.variant for problem in problems(message(13), catalog=catalog)] == ["13"], "it holds now"


def test_override_of_the_action_alone_leaves_an_application_fault_one() -> None:
    assert problems(message(31), catalog=configured({"xids": {31: {"action": "investigate"}}})) == []


def test_override_of_an_unknown_number() -> None:
    assert finding(message(999), configured({"xids": {999: {"severity": "critical"}}})).reason.severity is Severity.CRITICAL


@pytest.mark.parametrize("severity", list(Severity))
@pytest.mark.parametrize("action", [None, *Action])
def test_every_override_has_a_reason_for_whatever_the_line_says(severity: Severity, action: Action | None) -> None:
    said = {"severity": str(severity), "count": 2, "within": "1h"} | ({"action": str(action)} if action else {})
    lines = [changed(0, value) for value in (1, 2, 3, 4, 9)]
    lines += [message(149, f", NETIR {word} XC0 i0 Link 1 (0x00000000 0x1)") for word in ("Fatal", "Nonfatal")]
    for override in (said, {key: value for key, value in said.items() if key in {"severity", "action"}}):
        catalog = configured({"xids": {149: override, 154: override}})
        for line in lines:
            found = finding(line, catalog)
            graded = found.escalation.reason if found.escalation else found.reason
            assert graded.severity is severity


def test_repetition_makes_an_application_xid_critical() -> None:
    catalog = configured({"xids": {31: {"severity": "critical", "count": 3, "within": "1m"}}})
    assert problems(message(31), message(31), catalog=catalog) == []
    active = problems(message(31), message(31), message(31), catalog=catalog)
    assert [(problem.reason.severity, problem.variant) for problem in active] == [("critical", "31")]


def test_repetition_without_a_severity_means_critical() -> None:
    found = finding(message(94), configured({"xids": {94: {"count": 3, "within": "1m"}}}))
    assert found.reason.severity is Severity.WARNING
    assert found.escalation is not None
    assert found.escalation.reason.severity is Severity.CRITICAL


def test_critical_number_is_a_warning_until_it_was_repeated() -> None:
    catalog = configured({"xids": {74: {"severity": "critical", "count": 2, "within": "1h"}}})
    assert [p.reason.severity for p in problems(message(74), catalog=catalog)] == ["warning"]
    assert [p.reason.severity for p in problems(message(74), message(74), catalog=catalog)] == ["critical"]


def test_a_reason_can_be_regraded_and_disabled_by_name() -> None:
    catalog = configured(
        {"reasons": {"NvidiaXIDError": {"severity": "warning"}, "NvidiaXIDErrorRebootNode": {"enabled": False}}}
    )
    assert finding(message(48), catalog).reason.severity is Severity.WARNING
    assert finding(message(79), catalog).reason.enabled is False
    assert problems(message(79), catalog=catalog) == []


def test_configuration_that_names_no_reason_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r'no reason is named "NvidiaXIDEror"; did you mean "NvidiaXIDError"\?'):
        configured({"reasons": {"NvidiaXIDEror": {"enabled": False}}})


def test_without_a_configuration_nothing_is_overridden() -> None:
    assert catalogs.load(Settings()).families["xid"].overrides == {}
