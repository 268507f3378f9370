"""SXids: every number, the line's own word, and the lines of one fault."""

from __future__ import annotations

from collections import Counter

import pytest

from nodehealth import catalog as catalogs
from nodehealth.catalog import Catalog
from nodehealth.model import Action, ClearKind, Counts, Event, Finding, Record, Recovery, Severity
from nodehealth.settings import parse
from nodehealth.state import Moment, State
from nodehealth.subsystems.accelerated_hardware import sxid

CATALOG = catalogs.load()
TABLE = sxid.family({}).table

# Independent of the shipped table: the fabric manager guide's always-fatal numbers and samples of the other classes.
ALWAYS_FATAL = (10003, 12020, 22003, 22011, *range(23001, 23018))
SAMPLES = {
    10001: ("warning", "none"),
    10004: ("warning", "investigate"),
    10005: ("info", "none"),
    10006: ("critical", "reset_fabric"),
    11001: ("critical", "reset_fabric"),
    12028: ("warning", "reset_fabric"),
    12033: ("warning", "none"),
    20009: ("warning", "investigate"),
    20034: ("critical", "reset_gpu"),
    22013: ("warning", "none"),
    24007: ("critical", "reset_gpu"),
    26006: ("critical", "reset_fabric"),
    26008: ("warning", "none"),
}


def message(code: int, rest: str = "", address: str = "PCI:0000:05:00.0") -> str:
    return f"nvidia-nvswitch3: SXid ({address}): {code}{rest}"


def record(line: str, *, sequence: int = 0, clock: float = 0.0) -> Record:
    return Record("kmsg", ("kmsg",), line, time=clock, clock=clock, sequence=sequence, boot_id="boot")


def events(line: str, catalog: Catalog = CATALOG) -> list[Event]:
    return [event for match in catalog.read(record(line)) for event in match.events]


def finding(line: str, catalog: Catalog = CATALOG) -> Finding:
    found = [event for event in events(line, catalog) if isinstance(event, Finding)]
    assert len(found) == 1, line
    return found[0]


def fold(*lines: tuple[float, str]) -> State:
    """The state after these lines, each at its time."""
    state = State(CATALOG.reasons, boot_id="boot")
    for index, (clock, line) in enumerate(lines):
        for event in events(line):
            state.apply(event, record(line, sequence=index, clock=clock), Moment(clock, clock))
    return state


def test_the_table_has_every_number() -> None:
    assert len(TABLE) == 398
    assert Counter(str(row.severity) for row in TABLE.values()) == {"critical": 234, "warning": 163, "info": 1}
    assert Counter(str(row.action) for row in TABLE.values()) == {
        "none": 158,
        "reset_fabric": 113,
        "investigate": 109,
        "reset_gpu": 9,
        "replace_node": 9,
    }


@pytest.mark.parametrize("code", sorted(TABLE))
def test_number_has_the_class_of_its_row(code: int) -> None:
    found = finding(message(code, ", some error"))
    row = TABLE[code]
    assert (found.reason.severity, found.reason.action) == (row.severity, row.action)
    assert found.number is not None
    assert (found.number.family, found.number.code, found.number.pci_bus_id) == ("sxid", code, "0000:05:00.0")
    assert found.number.counts is Counts.FAULT


@pytest.mark.parametrize("code", ALWAYS_FATAL)
def test_always_fatal_numbers_reset_the_fabric(code: int) -> None:
    assert finding(message(code)).reason.name == "NvidiaSXIDError"


@pytest.mark.parametrize(("code", "expected"), SAMPLES.items())
def test_sample_number_has_its_class(code: int, expected: tuple[str, str]) -> None:
    reason = finding(message(code)).reason
    assert (reason.severity, reason.action) == expected


@pytest.mark.parametrize(
    ("code", "unit"),
    [(20123, "data or physical link"), (99999, "unknown unit"), (11111, "ingress port"), (7, "unknown unit")],
)
def test_unknown_number_says_at_least_the_unit(code: int, unit: str) -> None:
    found = finding(message(code, ", Unknown error"))
    assert (found.reason.severity, found.reason.action) == ("warning", "investigate")
    assert found.number is not None
    assert (found.number.name, found.number.detail) == (None, f"NVSwitch error, {unit}")


# -- the line's word ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(TABLE))
def test_the_word_of_the_line_wins_for_every_number(code: int) -> None:
    assert finding(message(code, ", Fatal, Link 62 x")).reason.severity is Severity.CRITICAL
    assert finding(message(code, ", Non-fatal, Link 62 x")).reason.severity is Severity.WARNING


@pytest.mark.parametrize(
    ("code", "rest", "action"),
    [
        (20034, ", Fatal, Link 62 LTSSM Fault Up", Action.RESET_GPU),  # both say fatal: the table's action
        (12033, ", Fatal, Link 1 x", Action.INVESTIGATE),  # the table knows another error of that number
        (28006, ", Non-fatal, Link 46 MC TS crumbstore MCTO (First)", Action.NONE),
        (12028, ", Non-fatal", Action.RESET_FABRIC),
        (99999, ", Fatal", Action.INVESTIGATE),
        (99999, ", Nonfatal", Action.INVESTIGATE),
    ],
)
def test_the_action_where_the_line_has_a_word(code: int, rest: str, action: Action) -> None:
    assert finding(message(code, rest)).reason.action is action


@pytest.mark.parametrize("rest", ["", ",", ", Li", ", Non-fatal, Li", ", Fatality, x", " Severity"])
def test_cut_lines_count(rest: str) -> None:
    assert finding(message(20009, rest)).variant == "20009"


def test_link_is_in_the_detail() -> None:
    number = finding(message(20034, ", Fatal, Link 62 LTSSM Fault Up")).number
    assert number is not None
    assert number.detail == "NVSwitch error, data/physical link, link 62"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("PCI:0000:C3:00.0", "0000:c3:00.0"),
        ("0000:05:00.0", "0000:05:00.0"),
        ("PCI:00000000:86:00.0", "0000:86:00.0"),
        ("PCI:0004:00:00", "0004:00:00.0"),
    ],
)
def test_every_form_of_the_address_is_read(address: str, expected: str) -> None:
    assert finding(message(26006, ", SOE HALT", address)).object == expected


@pytest.mark.parametrize(
    "line",
    [
        "nvidia-nvswitch2: open (major=510)",
        "nvidia-nvswitch0: SXid handling enabled",
        "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): fatal",
        "nv-fabricmanager[812]: nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal",
        "detected NVSwitch fatal error 20034 on fid 0",
    ],
)
def test_a_line_that_is_no_sxid_message_has_no_sxid(line: str) -> None:
    assert [event for event in events(line) if event.number is not None] == []


# -- the lines of one fault --------------------------------------------------------------------------------------------

FAULT = (", Fatal, Link 62 LTSSM Fault Up", ", Severity 1 Engine instance 62 Sub-engine instance 00", ", Data {0x10000000}")


def test_the_lines_of_one_fault_count_once() -> None:
    state = fold(*((index * 0.1, message(20034, rest)) for index, rest in enumerate(FAULT)))
    assert state.numbers["sxid", "0000:05:00.0", "20034"].value == 1
    assert state.counts["NvidiaSXIDErrorResetGpu"].value == 1


def test_two_faults_within_a_second_count_twice() -> None:
    state = fold(*((index * 0.1, message(20034, rest)) for index, rest in enumerate((*FAULT, *FAULT))))
    assert state.numbers["sxid", "0000:05:00.0", "20034"].value == 2


def test_detail_lines_alone_are_a_fault() -> None:
    assert fold((0.0, message(20034, FAULT[2]))).numbers["sxid", "0000:05:00.0", "20034"].value == 1


def test_the_end_of_a_thermal_event_ends_its_start() -> None:
    assert [type(event) for event in events(message(10005))] == [Finding, Recovery]
    state = fold((0.0, message(10004)), (9.0, message(10005)))
    assert [problem.variant for problem in state.problems.values() if problem.active] == []
    assert state.numbers["sxid", "0000:05:00.0", "10005"].value == 1, "the end is counted"


@pytest.mark.parametrize(("end", "start"), [(10005, "10004"), (28002, "28001"), (28004, "28003")])
def test_thermal_pairs(end: int, start: str) -> None:
    recovery = events(message(end))[-1]
    assert isinstance(recovery, Recovery)
    assert (recovery.kind, recovery.variant, recovery.object) == (ClearKind.LINE, start, "0000:05:00.0")


# -- the configuration's say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rest", ["", ", Fatal, Link 1", ", Non-fatal"])
@pytest.mark.parametrize("code", [12028, 20034, 99999])
def test_override_wins_over_the_line(code: int, rest: str) -> None:
    catalog = catalogs.load(parse({"sxids": {code: {"severity": "info"}}}))
    assert finding(message(code, rest), catalog).reason.severity is Severity.INFO


def test_override_by_repetition() -> None:
    catalog = catalogs.load(parse({"sxids": {20009: {"count": 5, "within": "10m", "action": "replace_node"}}}))
    found = finding(message(20009, ", Non-fatal, Link 04"), catalog)
    assert found.reason.severity is Severity.WARNING
    assert found.escalation is not None
    assert found.escalation.reason.name == "NvidiaSXIDErrorReplaceNode"
    assert (found.escalation.repetition.count, found.escalation.repetition.seconds) == (5, 600.0)


def test_xid_and_sxid_overrides_are_apart() -> None:
    catalog = catalogs.load(parse({"xids": {12028: {"severity": "info"}}}))
    assert finding(message(12028), catalog).reason.severity is Severity.WARNING
