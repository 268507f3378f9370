"""Recorded hosts: a directory goes in, the page that it must give comes out."""

from __future__ import annotations

import difflib
import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from conftest import HOSTS, needs_promtool
from nodehealth import catalog as catalogs
from nodehealth import worker
from nodehealth.catalog import Catalog
from nodehealth.checks import Planned
from nodehealth.commands.serve import page_of
from nodehealth.engine import Engine
from nodehealth.model import log_file
from nodehealth.reporters.metrics import OPENMETRICS, TEXT, Format
from nodehealth.settings import ReasonSettings, Settings
from nodehealth.sources.host import Clock, Host
from nodehealth.sources.tail import NO_FILE
from nodehealth.store import Saved, Store
from nodehealth.view import View
from nodehealth.wiring import Wiring

NOW = 1_760_000_000.0
SCENARIOS = sorted(path.name for path in HOSTS.iterdir() if path.is_dir())
FABRIC_LOG = log_file("/var/log/fabricmanager.log")


@dataclass(frozen=True, slots=True)
class StillClock(Clock):
    """The moment at which a host was recorded."""

    uptime: float

    def now(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return self.uptime


def recorded(scenario: str) -> Host:
    root = HOSTS / scenario
    return Host(root, StillClock(Host(root, StillClock(0.0)).uptime()))


def known_before(scenario: str) -> Saved:
    """A first start, but a log file is new: otherwise a first start follows files from their end."""
    return Saved(positions={FABRIC_LOG: NO_FILE} if scenario == "fault-fabric-manager" else {})


def watch(scenario: str, settings: Settings | None = None, store: Store | None = None, saved: Saved | None = None) -> View:
    """What the exporter knows after it has read everything that the host holds."""
    settings = settings or Settings()
    views: list[View] = []
    host = recorded(scenario)
    wiring = Wiring(
        host, settings, catalogs.load(settings), store, saved or known_before(scenario), ask=partial(asked, host)
    )
    Engine(wiring, views.append, once=True).run()
    return replace(views[-1], self_=replace(views[-1].self_, version="0"))


def asked(host: Host, planned: Planned) -> dict[str, Any]:
    """The worker's answer without a worker: by way of JSON, so that a reader returns nothing else."""
    request = {"topic": planned.topic, "check": planned.check.name, "thresholds": dict(planned.thresholds)}
    found: dict[str, Any] = json.loads(json.dumps(worker.answer(request, host)))
    return found


def rendered(view: View, style: Format = TEXT) -> str:
    return page_of(CATALOG).body(view, style, compressed=False).decode()


CATALOG: Catalog = catalogs.load()
view_of = cache(watch)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a host is recorded for: reason → objects that have it now, reason → times that it was counted at all."""

    active: Mapping[str, set[str]] = field(default_factory=dict)
    counted: Mapping[str, int] = field(default_factory=dict)
    unhealthy: frozenset[str] = frozenset()
    degraded: frozenset[str] = frozenset()
    clears: Mapping[str, set[str]] = field(default_factory=dict)

    @property
    def reasons(self) -> set[str]:
        return {*self.active, *self.counted, *self.clears}


ACCELERATED, KERNEL, NETWORKING, STORAGE = (
    frozenset({name}) for name in ("accelerated_hardware", "kernel", "networking", "storage")
)
NODE = {""}

FAULTS: Mapping[str, Expected] = {
    "gpu-node-sick": Expected(
        active={
            "NvidiaXIDErrorRebootNode": {"0000:df:00.0"},
            "NvidiaXIDErrorInvestigate": {"0000:c3:00.0"},
            "NvidiaXIDError": {"0000:61:00.0"},
            "NvidiaXIDWarningRestartApp": {"0000:61:00.0"},
            "NvidiaXIDWarningNone": {"0000:61:00.0"},
            "NvidiaSXIDErrorResetGpu": {"0000:08:00.0"},
            "NvmeTimeout": {"nvme3"},
            "Ext4Error": {"nvme3n1p1"},
            "OOMKill": NODE,
            "PCIeCorrectedError": {"0000:18:00.0"},
        },
        counted={"NvidiaXIDInfo": 1, "NvidiaXIDWarningRestartApp": 3, "OOMKill": 1, "NvidiaSXIDErrorResetGpu": 1},
        unhealthy=ACCELERATED,
        degraded=STORAGE,
    ),
    "fault-xid-reset": Expected(clears={"NvidiaXIDError": {"0000:43:00.0"}}, counted={"NvidiaXIDError": 2}),
    "fault-driver-reload": Expected(counted={"NvidiaXIDErrorRebootNode": 1}),
    "fault-first-start-old": Expected(counted={"NvidiaXIDErrorRebootNode": 1}),
    "fault-gpu-lost-without-xid": Expected(
        active={"NvidiaXIDErrorRebootNode": {"0000:1b:00.0", "0000:43:00.0"}},
        counted={"NvidiaXIDErrorRebootNode": 2},
        unhealthy=ACCELERATED,
    ),
    "fault-sxid": Expected(
        active={
            "NvidiaSXIDErrorResetGpu": {"0000:07:00.0"},
            "NvidiaSXIDWarningInvestigate": {"0000:08:00.0"},
        },
        counted={"NvidiaSXIDErrorResetGpu": 1, "NvidiaSXIDWarningInvestigate": 2, "NvidiaSXIDWarning": 1},
        unhealthy=ACCELERATED,
    ),
    "fault-nvlink5": Expected(
        active={"NvidiaXIDError": {"0009:01:00.0"}, "NvidiaXIDWarningNone": {"0018:01:00.0"}}, unhealthy=ACCELERATED
    ),
    "fault-gsp": Expected(
        active={
            "NvidiaXIDError": {"0000:1b:00.0", "0000:43:00.0"},
            "GpuNotReachable": NODE,
            "GpuInitFailed": {"0000:43:00.0"},
        },
        counted={"NvidiaXIDError": 3, "GpuInitFailed": 1},
        unhealthy=ACCELERATED,
    ),
    "fault-fabric-manager": Expected(
        active={
            "FabricManagerFatalError": {"0000:07:00.0"},
            "FabricManagerNonFatalError": {"0000:08:00.0"},
            "FabricManagerMulticastError": NODE,
            "FabricManagerTopologyMismatch": NODE,
        },
        unhealthy=ACCELERATED,
    ),
    "fault-neuron": Expected(active={"NeuronHBMUncorrectableError": NODE, "NeuronDMAError": NODE}, unhealthy=ACCELERATED),
    "fault-efa": Expected(
        active={
            "EFACommandTimeout": {"rdmap0s6"},
            "EFAAdminQueueClosed": {"rdmap0s6"},
            "EFAResetFailed": {"0000:00:06.0"},
        },
        counted={"EFACommandFailed": 1},
        unhealthy=NETWORKING,
    ),
    "fault-mlx5": Expected(
        active={
            "Mlx5LinkDown": {"ib1"},
            "Mlx5CableError": {"0000:40:00.0"},
            "Mlx5HighTemperature": {"0000:40:00.0"},
            "Mlx5SlotPowerLow": {"0000:40:00.0"},
            "Mlx5TxTimeout": {"ib2"},
            "Mlx5CommandTimeout": {"0000:5c:00.0"},
            "Mlx5FirmwareFailed": {"0000:5c:00.0"},
            "Mlx5HardwareError": {"0000:5c:00.0"},
        },
        clears={"Mlx5LinkDown": {"ib0"}},
        unhealthy=NETWORKING,
    ),
    "fault-lockup": Expected(
        active={
            "SoftLockup": NODE,
            "HardLockup": NODE,
            "RcuStall": NODE,
            "WorkqueueLockup": NODE,
            "AppBlocked": NODE,
            "HungTaskWarningsExhausted": NODE,
        },
        counted={"SoftLockup": 2},
        unhealthy=KERNEL,
    ),
    "fault-panic-oops": Expected(
        active={"KernelBug": NODE, "KernelOops": NODE, "KernelPanic": NODE}, counted={"KernelOops": 2}, unhealthy=KERNEL
    ),
    "fault-oom": Expected(
        active={"OOMKill": NODE, "SystemOOM": NODE}, counted={"OOMKill": 2, "SystemOOM": 1}, degraded=KERNEL
    ),
    "fault-memory-hardware": Expected(
        active={
            "MemoryCorrectedError": NODE,
            "MemoryUncorrectedError": NODE,
            "MachineCheck": NODE,
            "MachineCheckLogged": NODE,
            "MemoryFailure": NODE,
            "MemoryFailureUnrecovered": NODE,
            "HardwareErrorCorrected": NODE,
            "FirmwareErrorRecord": NODE,
        },
        counted={"MemoryCorrectedError": 11},
        unhealthy=KERNEL,
    ),
    "fault-pcie": Expected(
        active={
            "PCIeCorrectedError": {"0000:18:00.0"},
            "PCIeNonFatalError": {"0000:18:00.0"},
            "PCIeFatalError": {"0000:1b:00.0"},
            "PCIeRecoveryFailed": {"0000:19:01.0"},
            "PCIeContainment": {"0000:b0:01.1"},
            "PCIeLinkDown": {"0000:b0:01.1"},
            "PCIeDeviceUnreachable": {"0000:43:00.0"},
        },
        clears={"PCIeContainment": {"0000:80:01.1"}},
        unhealthy=KERNEL,
    ),
    "fault-block-io": Expected(
        active={
            "BlockDeviceMediumError": {"sdb"},
            "BlockDeviceIOError": {"sde", "sde1"},
            "BlockDeviceOffline": {"3:0:0:0"},
        },
        clears={"BlockDevicePathFailed": {"8:64"}},
        degraded=STORAGE,
    ),
    "fault-filesystem-readonly": Expected(
        active={
            "Ext4Error": {"sda1"},
            "FilesystemJournalAborted": {"sda1"},
            "FilesystemReadOnly": {"sda1"},
            "XfsCorruption": {"nvme1n1"},
            "XfsShutdown": {"nvme1n1"},
        },
        unhealthy=STORAGE,
    ),
    "fault-nvme": Expected(
        active={
            "NvmeTimeout": {"nvme4"},
            "NvmeControllerDown": {"nvme4", "nvme5"},
            "NvmeDeviceDisabled": {"nvme4"},
            "NvmeDeviceRemoved": {"nvme5"},
            "BlockDeviceIOError": {"nvme4n1"},
        },
        unhealthy=STORAGE,
    ),
    "fault-md": Expected(active={"MdMemberFailed": {"md1"}, "MdArrayFailed": {"md0"}}, unhealthy=STORAGE),
    "fault-nfs": Expected(
        active={"NfsServerNotResponding": {"10.0.0.5"}},
        clears={"NfsServerNotResponding": {"nfs-prod-01.example.com"}},
        degraded=STORAGE,
    ),
    "fault-conntrack": Expected(
        active={"ConntrackExceededKernel": NODE}, counted={"ConntrackExceededKernel": 2}, degraded=NETWORKING
    ),
    "fault-netdev": Expected(
        active={"TransmitQueueTimeout": {"enp10s0"}, "UnregisterNetDevice": NODE},
        counted={"UnregisterNetDevice": 3},
        degraded=NETWORKING,
    ),
    "fault-unknown-numbers": Expected(
        active={
            "NvidiaXIDWarning": {"0000:1b:00.0", "0000:66:00.0"},
            "NvidiaSXIDWarningInvestigate": {"0000:07:00.0"},
        },
        degraded=ACCELERATED,
    ),
    "fault-injected": Expected(
        active={"NvidiaXIDErrorRebootNode": {"0000:1b:00.0"}, "SoftLockup": NODE}, unhealthy=ACCELERATED, degraded=KERNEL
    ),
    "fault-lost-records": Expected(active={"NvidiaXIDError": {"0000:43:00.0"}}, unhealthy=ACCELERATED),
    "fault-garbage": Expected(
        active={"NvidiaXIDErrorRebootNode": {"0000:1b:00.0"}},
        counted={"NvidiaXIDWarningRestartApp": 1},
        unhealthy=ACCELERATED,
    ),
}


class Samples:
    """A page's samples, asked for by name and labels."""

    def __init__(self, page: str) -> None:
        self._all = [sample for family in parse_text(page) for sample in family.samples]

    def of(self, name: str, /, **labels: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of the samples that have these labels."""
        found = [(each.labels, each.value) for each in self._all if each.name == name]
        return [(has, value) for has, value in found if labels.items() <= has.items()]

    def value(self, name: str, /, **labels: str) -> float:
        """The value of the one sample that has these labels."""
        [(_, value)] = self.of(name, **labels)
        return value

    def objects(self, active: float) -> dict[str, set[str]]:
        """The objects of each reason that have (1) or no longer have (0) its problem."""
        found: dict[str, set[str]] = {}
        for labels, value in self.of("nodehealth_problem_object_active"):
            if value == active:
                found.setdefault(labels["reason"], set()).add(labels["object"])
        return found

    def subsystems(self, state: str) -> set[str]:
        """The subsystems that are in that state."""
        return {labels["subsystem"] for labels, value in self.of("nodehealth_subsystem_state", state=state) if value == 1}

    def counters(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """The counters that continue over a restart."""
        kept = ("problems_total", "gpu_xid_errors_total", "nvswitch_sxid_errors_total", "source_lost_records_total")
        names = {f"nodehealth_{name}" for name in kept}
        return {(each.name, frozenset(each.labels.items())): each.value for each in self._all if each.name in names}


def samples(scenario: str) -> Samples:
    return Samples(rendered(view_of(scenario)))


def difference(expected: str, page: str, name: str) -> str:
    lines = difflib.unified_diff(expected.splitlines(), page.splitlines(), name, "the page now", lineterm="", n=0)
    return "\n".join(line for line in lines if not line.startswith("@@"))


def golden_of(scenario: str) -> Path:
    return HOSTS / scenario / "expected.prom"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_recorded_host_gives_its_page(scenario: str, golden: bool) -> None:  # noqa: FBT001 - a fixture
    page, file = rendered(view_of(scenario)), golden_of(scenario)
    if golden:
        file.write_text(page, encoding="utf-8")
    changed = difference(file.read_text(encoding="utf-8"), page, f"tests/hosts/{scenario}/{file.name}")
    assert not changed, f"if this is meant, run `make generate` and commit it:\n{changed}"


def test_every_faulty_host_says_what_it_is_for() -> None:
    assert set(SCENARIOS) - set(FAULTS) == {"empty", "plain", "gpu-node-well"}
    assert set(FAULTS) <= set(SCENARIOS)


@pytest.mark.parametrize("scenario", FAULTS)
def test_faulty_host_shows_its_faults(scenario: str) -> None:
    found, expected = samples(scenario), FAULTS[scenario]
    assert found.objects(1) == expected.active
    assert found.objects(0) == expected.clears
    assert found.subsystems("unhealthy") == expected.unhealthy
    assert found.subsystems("degraded") == expected.degraded
    counts = {labels["reason"]: value for labels, value in found.of("nodehealth_problems_total")}
    assert {reason: counts[reason] for reason in expected.counted} == expected.counted
    assert {reason for reason, value in counts.items() if value} == expected.reasons


@pytest.mark.parametrize("scenario", ["empty", "plain", "gpu-node-well"])
def test_well_host_shows_no_fault(scenario: str) -> None:
    found = samples(scenario)
    assert found.objects(1) == found.objects(0) == {}
    assert found.subsystems("unhealthy") | found.subsystems("degraded") == set()
    assert not any(value for _, value in found.of("nodehealth_problems_total"))


def test_nothing_is_healthy_by_default() -> None:
    found = samples("empty")
    assert found.of("nodehealth_subsystem_healthy") == []
    assert found.subsystems("unknown") == {"kernel", "networking", "storage", "container_runtime"}
    assert found.of("nodehealth_source_up") == []


@pytest.mark.parametrize("scenario", FAULTS)
def test_without_its_reasons_the_host_looks_well(scenario: str) -> None:
    """Each reason that the host shows is what makes the page: nothing else would notice the fault."""
    off = {name: ReasonSettings(enabled=False) for name in FAULTS[scenario].reasons}
    page = rendered(watch(scenario, Settings(reasons=off)))
    found = Samples(page)
    assert found.objects(1) == found.objects(0) == {}
    assert found.subsystems("unhealthy") | found.subsystems("degraded") == set()
    assert difference(golden_of(scenario).read_text(encoding="utf-8"), page, scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_counted_twice_over_a_restart(scenario: str, tmp_path: Path) -> None:
    host = recorded(scenario)
    pages = []
    for _ in range(2):
        store = Store(tmp_path, host.machine)
        saved = store.load(CATALOG.reasons)
        if saved.fresh:
            saved = replace(saved, positions=known_before(scenario).positions)
        pages.append(Samples(rendered(watch(scenario, store=store, saved=saved))))
    assert pages[0].counters() == samples(scenario).counters()
    assert pages[1].counters() == pages[0].counters()
    assert pages[1].objects(1) == pages[0].objects(1)
    assert not any(value for _, value in pages[1].of("nodehealth_source_records_total"))


@needs_promtool
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_promtool_has_nothing_to_say(scenario: str) -> None:
    with golden_of(scenario).open("rb") as page:
        said = subprocess.run(["promtool", "check", "metrics"], stdin=page, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_openmetrics_page_says_the_same(scenario: str) -> None:
    view = view_of(scenario)
    other = [sample for family in parse_openmetrics(rendered(view, OPENMETRICS)) for sample in family.samples]  # type: ignore[no-untyped-call]
    assert flat(other) == flat(samples(scenario)._all)


def flat(found: Iterable[Sample]) -> list[tuple[str, list[tuple[str, str]], float]]:
    return sorted((each.name, sorted(each.labels.items()), each.value) for each in found)


def test_fallen_gpu_and_its_cascade_are_one_fault() -> None:
    found, gpu = samples("gpu-node-sick"), "0000:df:00.0"
    assert found.value("nodehealth_gpu_xid_errors_total", pci_bus_id=gpu, xid="79") == 1
    [(labels, _)] = found.of("nodehealth_problem_object_active", object=gpu)
    assert (labels["reason"], labels["gpu"], labels["action"]) == ("NvidiaXIDErrorRebootNode", "7", "reboot_node")
    assert found.value("nodehealth_source_unmatched_driver_lines_total", source="kmsg") == 0


def test_application_fault_counts_each_line_and_leaves_the_gpu_well() -> None:
    found, gpu = samples("gpu-node-sick"), "0000:52:00.0"
    counts = {labels["xid"]: value for labels, value in found.of("nodehealth_gpu_xid_errors_total", pci_bus_id=gpu)}
    assert counts == {"13": 9, "31": 1, "43": 1}
    assert found.of("nodehealth_problem_object_active", object=gpu) == []


def test_gpu_lost_without_a_number_adds_no_xid() -> None:
    assert samples("fault-gpu-lost-without-xid").of("nodehealth_gpu_xid_errors_total") == []


@pytest.mark.parametrize("scenario", ["fault-driver-reload", "fault-first-start-old"])
def test_old_fault_is_counted_and_listed_but_not_active(scenario: str) -> None:
    found, gpu = samples(scenario), "0000:43:00.0"
    assert found.value("nodehealth_gpu_xid_errors_total", pci_bus_id=gpu, xid="79") == 1
    assert found.value("nodehealth_subsystem_healthy", subsystem="accelerated_hardware") == 1
    [row] = view_of(scenario).history
    assert (row.reason, row.object, row.happening) == ("NvidiaXIDErrorRebootNode", gpu, "seen")
    age = NOW - found.value("nodehealth_problem_last_seen_timestamp_seconds", reason="NvidiaXIDErrorRebootNode")
    assert age == pytest.approx(10 * 86400, abs=1)


def test_driver_reload_ends_what_a_reset_ends_however_recent() -> None:
    """The two hosts differ in the driver's load line alone; here their age does not matter."""
    ageless = Settings(backlog_max_age=30 * 86400.0)
    reloaded, lost = (Samples(rendered(watch(f"fault-{name}", ageless))) for name in ("driver-reload", "first-start-old"))
    assert (reloaded.objects(1), reloaded.objects(0)) == ({}, {}), "what ended ten days ago is gone"
    assert lost.objects(1) == {"NvidiaXIDErrorRebootNode": {"0000:43:00.0"}}
    assert lost.subsystems("unhealthy") == ACCELERATED


def test_details_of_an_sxid_leave_the_evidence_that_names_it() -> None:
    texts = {problem.variant: problem.text for problem in view_of("fault-sxid").problems}
    assert texts["20034"].endswith("Fatal, Link 62 LTSSM Fault Up")
    assert "10005" not in texts, "the end of a thermal event is no problem"


def test_unknown_numbers_count_and_an_unknown_wording_is_noticed() -> None:
    found = samples("fault-unknown-numbers")
    assert found.value("nodehealth_gpu_xid_errors_total", pci_bus_id="0000:66:00.0", xid="40123") == 1
    assert found.value("nodehealth_nvswitch_sxid_errors_total", pci_bus_id="0000:07:00.0", sxid="99999") == 1
    assert found.value("nodehealth_xid_info", xid="999", name="") == 1
    assert found.value("nodehealth_source_unmatched_driver_lines_total", source="kmsg") == 1


def test_injections_are_marked() -> None:
    injected = {
        (has["reason"], has["object"]): value for has, value in samples("fault-injected").of("nodehealth_problem_injected")
    }
    assert injected == {("NvidiaXIDErrorRebootNode", "0000:1b:00.0"): 1, ("SoftLockup", ""): 1}


def test_gap_in_the_sequence_is_counted_as_lost() -> None:
    assert samples("fault-lost-records").value("nodehealth_source_lost_records_total", source="kmsg") == 42


def test_malformed_records_are_counted_and_reading_goes_on() -> None:
    found = samples("fault-garbage")
    assert found.value("nodehealth_source_errors_total", source="kmsg") == 6
    assert found.value("nodehealth_source_cut_lines_total", source="kmsg") == 1
    assert found.value("nodehealth_source_up", source="kmsg") == 1


def test_recorded_gpus_are_all_listed() -> None:
    found = samples("gpu-node-well")
    assert found.value("nodehealth_gpus_expected") == 8
    gpus = [labels for labels, _ in found.of("nodehealth_gpu_info")]
    assert [labels["gpu"] for labels in gpus] == [str(index) for index in range(8)]
    assert len({labels["uuid"] for labels in gpus}) == 8
