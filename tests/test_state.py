"""What holds now: joining, escalating, clearing, restoring.  Time is given, never slept."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from nodehealth import catalog as catalogs
from nodehealth.model import (
    GPU_RESET,
    LINE,
    REBOOT,
    Action,
    ClearKind,
    Hardware,
    Override,
    Reason,
    Record,
    Recovery,
    Repetition,
    Severity,
    Subsystem,
    quiet,
)
from nodehealth.settings import Settings
from nodehealth.state import MAX_OBJECTS, MAX_OTHER_DEVICES, OTHER, Moment, State
from nodehealth.view import Happening

BOOT = "boot-1"
CATALOG = catalogs.load()
SEQUENCE = itertools.count()


class Node:
    """A state, its catalog and a clock that the test moves."""

    def __init__(self, settings: Settings | None = None, *, first_start: bool = False, **more: object) -> None:
        self.catalog = catalogs.load(settings) if settings else CATALOG
        self.state = State(self.catalog.reasons, boot_id=BOOT, first_start=first_start, **more)  # type: ignore[arg-type]
        self.now = 10_000.0

    @property
    def moment(self) -> Moment:
        return Moment(1_000_000.0 + self.now, self.now)

    def line(self, text: str, *, injected: bool = False, live: bool = True, age: float = 0.0, boot: str = BOOT) -> None:
        stamp = self.now - age
        record = Record("kmsg", ("kmsg",), text, 1_000_000.0 + stamp, stamp, boot, next(SEQUENCE), live=live)
        for match in self.catalog.read(record):
            for event in match.events:
                self.state.apply(event, record, self.moment, injected=injected)

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.state.tick(self.moment)

    def active(self) -> set[tuple[str, str, str]]:
        return {problem.key for problem in self.state.problems.values() if problem.active}

    def count(self, reason: str) -> int:
        found = self.state.counts.get(reason)
        return found.value if found else 0

    def xids(self, code: int) -> int:
        return sum(count.value for key, count in self.state.numbers.items() if key[0] == "xid" and key[2] == str(code))


def xid(code: int, text: str = "text", address: str = "0000:3b:00") -> str:
    return f"NVRM: Xid (PCI:{address}): {code}, {text}"


LOST = "NvidiaXIDErrorRebootNode"
APPLICATION = "NvidiaXIDWarningRestartApp"
GPU = "0000:3b:00.0"


def test_an_xid_counts_and_holds() -> None:
    node = Node()
    node.line(xid(79))
    assert node.active() == {(LOST, GPU, "79")}
    assert (node.count(LOST), node.xids(79)) == (1, 1)
    assert Hardware.NVIDIA_GPU in node.state.hardware, "the driver's own line proves the hardware"


def test_an_application_fault_counts_but_never_holds() -> None:
    node = Node()
    for code in (13, 31, 43, 45, 68):
        node.line(xid(code))
    assert node.active() == set()
    assert [node.xids(code) for code in (13, 31, 43, 45, 68)] == [1, 1, 1, 1, 1]
    assert {row.happening for row in node.state.history} == {Happening.SEEN}


def test_lines_of_xid_13_within_a_second_are_one_fault_but_each_a_message() -> None:
    node = Node()
    for _ in range(5):
        node.line(xid(13, "Graphics SM Warp Exception"))
        node.now += 0.3
    assert (node.count(APPLICATION), node.xids(13)) == (1, 5)
    node.now += 1.1
    node.line(xid(13))
    node.line(xid(13, address="0000:5e:00"))
    assert (node.count(APPLICATION), node.xids(13)) == (3, 7)


def test_a_lost_gpu_s_lines_without_number_join_its_xid_79() -> None:
    node = Node()
    node.line(xid(79))
    node.line("NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.")
    node.line("NVRM: krcRcAndNotifyAllChannels_IMPL: RC all channels for critical error 79.")
    assert (node.count(LOST), node.xids(79)) == (1, 1)
    node.now += 5
    node.line(xid(79))
    assert (node.count(LOST), node.xids(79)) == (2, 2), "a second Xid is a second fault"


def test_the_line_without_number_may_come_first() -> None:
    node = Node()
    node.line("NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.")
    node.now += 1
    node.line(xid(79))
    assert (node.count(LOST), node.xids(79)) == (1, 1)
    node.now += 11
    node.line("NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.")
    assert (node.count(LOST), node.xids(79)) == (2, 1)


def test_the_lines_of_an_sxid_are_one_fault() -> None:
    node = Node()
    for tail in ("Fatal, Link 48 LTSSM Fault Up", "Severity 1 Engine instance 48", "Data {0x10000000}"):
        node.line(f"nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, {tail}")
    node.line("nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 49 LTSSM Fault Up")
    assert node.state.numbers["sxid", "0000:06:00.0", "20034"].value == 2
    assert node.count("NvidiaSXIDErrorResetGpu") == 2


def test_recovery_action_is_a_state_that_follows_the_driver() -> None:
    node = Node()
    node.line(xid(48))
    node.line(xid(154, "GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)"))
    node.line(xid(154, "GPU recovery action changed from 0x4 (Drain and Reset) to 0x2 (Node Reboot Required)"))
    assert node.active() == {("NvidiaXIDError", GPU, "48"), (LOST, GPU, "154")}
    node.line(xid(154, "GPU recovery action changed from 0x2 (Node Reboot Required) to 0x0 (None)"))
    assert node.active() == set()
    assert node.xids(154) == 3


def test_recovery_action_none_ends_only_that_gpu() -> None:
    node = Node()
    node.line(xid(48))
    node.line(xid(48, address="0000:5e:00"))
    node.line(xid(154, "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"))
    assert node.active() == {("NvidiaXIDError", "0000:5e:00.0", "48")}


def test_the_driver_s_load_line_ends_every_gpu_and_switch() -> None:
    node = Node()
    node.line(xid(79))
    node.line("nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 48 LTSSM Fault Up")
    node.line("NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build")
    assert node.active() == set()


def test_power_smoothing_reengaged_ends_disengaged() -> None:
    node = Node()
    node.line(xid(163))
    assert {key[2] for key in node.active()} == {"163"}
    node.line(xid(162))
    assert "163" not in {key[2] for key in node.active()}


def test_an_injected_recovery_does_not_end_a_real_fault() -> None:
    node = Node()
    node.line(xid(79))
    node.line("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.15", injected=True)
    assert node.active() == {(LOST, GPU, "79")}


def test_a_real_recovery_ends_an_injected_fault() -> None:
    node = Node()
    node.line(xid(79), injected=True)
    assert [problem.injected for problem in node.state.problems.values()] == [True]
    node.line("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.15")
    assert node.active() == set()


def test_a_real_fault_takes_the_mark_of_injection_off_and_an_injection_never_puts_it_on() -> None:
    node = Node()
    node.line(xid(79), injected=True)
    node.now += 20
    node.line(xid(79))
    assert [problem.injected for problem in node.state.problems.values()] == [False]
    node.now += 20
    node.line(xid(79), injected=True)
    assert [problem.injected for problem in node.state.problems.values()] == [False]


def test_first_start_counts_and_lists_an_old_fault_without_believing_it() -> None:
    node = Node(first_start=True, backlog_max_age=3600.0)
    node.line(xid(79), live=False, age=7200)
    assert (node.active(), node.count(LOST), node.xids(79)) == (set(), 1, 1)
    assert [row.happening for row in node.state.history] == [Happening.SEEN]
    node.line(xid(48), live=False, age=600)
    assert node.active() == {("NvidiaXIDError", GPU, "48")}


def test_after_a_restart_an_old_fault_of_the_backlog_is_believed() -> None:
    node = Node(first_start=False, backlog_max_age=3600.0)
    node.line(xid(79), live=False, age=7200)
    assert node.active() == {(LOST, GPU, "79")}


def test_a_fault_of_another_boot_counts_but_does_not_hold() -> None:
    node = Node()
    node.line(xid(79), boot="boot-0")
    assert (node.active(), node.count(LOST)) == (set(), 1)


def test_quiet_ends_what_quiet_ends_and_the_series_stays_an_hour() -> None:
    node = Node()
    node.line("nf_conntrack: nf_conntrack: table full, dropping packet")
    limit = next(c.seconds for c in CATALOG.reasons["ConntrackExceededKernel"].clears if c.kind is ClearKind.QUIET)
    node.after(limit - 1)
    assert {key[0] for key in node.active()} == {"ConntrackExceededKernel"}
    node.line("nf_conntrack: nf_conntrack: table full, dropping packet")
    node.after(limit - 1)
    assert node.active(), "a new occurrence starts the quiet time again"
    node.after(1)
    assert node.active() == set()
    node.after(3599)
    assert len(node.state.problems) == 1
    node.after(1)
    assert len(node.state.problems) == 0
    assert node.count("ConntrackExceededKernel") == 2


def test_a_recovery_line_ends_its_own_object_only() -> None:
    node = Node()
    node.line("nfs: server a.example not responding, still trying")
    node.line("nfs: server b.example not responding, timed out")
    node.line("nfs: server a.example OK")
    assert {key[1] for key in node.active()} == {"b.example"}


def test_a_clear_of_another_log_ends_only_what_is_earlier() -> None:
    node = Node()
    node.line(xid(48))
    other = Record("journal", ("journal:x",), "reset", node.moment.now - 100, 0.0)
    node.state.apply(Recovery(ClearKind.GPU_RESET, GPU), other, node.moment)
    assert len(node.active()) == 1, "the reset came before the fault"
    later = Record("journal", ("journal:x",), "reset", node.moment.now + 1, 0.0)
    node.state.apply(Recovery(ClearKind.GPU_RESET, GPU), later, node.moment)
    assert node.active() == set()


def test_a_number_can_be_critical_from_so_many_times_on() -> None:
    settings = Settings(xids={31: Override(Severity.CRITICAL, Action.RESET_GPU, Repetition(3, 3600.0))})
    node = Node(settings)
    for _ in range(2):
        node.line(xid(31))
        node.now += 60
    assert node.active() == set()
    node.line(xid(31, address="0000:5e:00"))
    assert node.active() == set(), "each GPU counts for itself"
    node.line(xid(31))
    assert node.active() == {("NvidiaXIDError", GPU, "31")}
    node.now += 7200
    node.line(xid(31))
    assert node.active() == {("NvidiaXIDError", GPU, "31")}, "critical is not forgotten when it gets rarer"
    assert node.xids(31) == 5


def test_repetitions_survive_a_restart() -> None:
    settings = Settings(xids={31: Override(Severity.CRITICAL, Action.RESET_GPU, Repetition(2, 3600.0))})
    node = Node(settings)
    node.line(xid(31))
    change = node.state.take_change()
    again = Node(settings)
    again.state.restore(change.counts, change.numbers, (), change.recent, again.moment)
    again.line(xid(31))
    assert again.active() == {("NvidiaXIDError", GPU, "31")}


def test_an_operator_s_clear_ends_one_object_or_all() -> None:
    node = Node()
    node.line(xid(79))
    node.line(xid(79, address="0000:5e:00"))
    assert node.state.clear(LOST, GPU, node.moment) == 1
    assert node.active() == {(LOST, "0000:5e:00.0", "79")}
    assert node.state.clear(LOST, None, node.moment) == 1
    assert node.state.clear(LOST, None, node.moment) == 0


def test_disabling_a_reason_ends_its_problems_and_keeps_its_counter() -> None:
    node = Node()
    node.line(xid(79))
    node.state.regrade({**CATALOG.reasons, LOST: replace(CATALOG.reasons[LOST], enabled=False)}, node.moment)
    assert (node.active(), node.count(LOST)) == (set(), 1)


def test_a_storm_gives_one_row_of_history_a_minute_that_says_how_many() -> None:
    node = Node()
    for _ in range(100):
        node.line(xid(79))
        node.now += 0.5
    node.now += 15
    node.line(xid(79))
    rows = [row for row in node.state.history if row.reason == LOST]
    assert [row.unsaid for row in rows] == [0, 99]


def test_unknown_addresses_and_numbers_are_bounded_and_real_devices_keep_their_room() -> None:
    node = Node(devices=[GPU])
    for bus in range(MAX_OTHER_DEVICES + 10):
        node.line(xid(79, address=f"00{bus // 100 + 10}:{bus % 100:02d}:00"))
    node.line(xid(79))
    devices = {key[1] for key in node.state.numbers}
    assert len(devices) == MAX_OTHER_DEVICES + 2
    assert {GPU, OTHER} <= devices
    for code in range(100_000, 100_100):
        node.line(xid(code))
    assert len({key[2] for key in node.state.numbers}) <= 66
    assert sum(count.value for count in node.state.numbers.values()) == MAX_OTHER_DEVICES + 11 + 100
    assert node.state.cut_objects > 0


def test_objects_of_a_reason_are_bounded() -> None:
    node = Node()
    for number in range(MAX_OBJECTS + 50):
        node.line(f"nfs: server host-{number} not responding, still trying")
    assert len(node.state.problems) == MAX_OBJECTS + 1
    assert node.count("NfsServerNotResponding") == MAX_OBJECTS + 50


def test_what_restore_takes_in_goes_on() -> None:
    node = Node()
    node.line(xid(79))
    node.line("nf_conntrack: nf_conntrack: table full, dropping packet")
    change = node.state.take_change()
    again = Node()
    again.now = node.now + 100_000
    problems = [problem for problem in change.problems.values() if problem]
    again.state.restore(change.counts, change.numbers, problems, change.recent, again.moment)
    assert {key[0] for key in again.active()} == {LOST, "ConntrackExceededKernel"}
    again.state.tick(again.moment)
    assert {key[0] for key in again.active()} == {LOST}, "the quiet time went on while the exporter was down"
    again.line(xid(79))
    assert again.count(LOST) == 2


def test_reboot_ends_problems_of_another_boot() -> None:
    node = Node()
    node.line(xid(79))
    change = node.state.take_change()
    after = Node()
    after.state.boot_id = "boot-2"
    after.state.restore(change.counts, change.numbers, [p for p in change.problems.values() if p], {}, after.moment)
    after.state.rebooted(after.moment)
    assert after.active() == set()
    assert after.state.history[-1].how == "the node was rebooted"


@pytest.mark.parametrize("clears", [(GPU_RESET,), (REBOOT,), (LINE,), (quiet(minutes=5),)])
def test_every_change_is_noted_for_the_disk(clears: tuple[object, ...]) -> None:
    reason = Reason("Made", Subsystem.STORAGE, Severity.WARNING, Action.NONE, "s.", "r.", clears)  # type: ignore[arg-type]
    state = State({"Made": reason}, boot_id=BOOT, first_start=False)
    record = Record("kmsg", ("kmsg",), "text", 10.0, 10.0, BOOT, 1)
    state.apply(reason.found("sda"), record, Moment(10.0, 10.0))
    change = state.take_change()
    assert set(change.problems) == {("Made", "sda", "")}
    assert change.counts["Made"].value == 1
    assert not state.take_change()
    state.clear("Made", None, Moment(11.0, 11.0))
    assert state.take_change().problems["Made", "sda", ""].cleared == 11.0  # type: ignore[union-attr]


def test_a_reset_that_nvsentinel_reports_by_uuid_ends_that_gpu() -> None:
    uuid = "GPU-12345678-1234-5678-9abc-def012345678"
    node = Node(uuids={GPU: uuid})
    node.line(xid(48))
    node.line(xid(48, address="0000:5e:00"))
    record = Record("journal", ("journal:nvsentinel-gpu-reset",), f"GPU reset executed: {uuid}", node.moment.now, node.now)
    for match in node.catalog.read(record):
        for event in match.events:
            node.state.apply(event, record, node.moment)
    assert node.active() == {("NvidiaXIDError", "0000:5e:00.0", "48")}


def test_lines_that_join_do_not_make_an_unconfirmed_fault_hold() -> None:
    reason = next(each for each in CATALOG.reasons.values() if each.repeats and each.joins)
    node = Node()
    for _ in range(2):
        record = Record("kmsg", ("kmsg",), "text", node.moment.now, node.now, BOOT, next(SEQUENCE))
        node.state.apply(reason.found(), record, node.moment)
    assert node.active() == set()
    assert node.count(reason.name) == 1
