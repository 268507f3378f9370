"""The check of AWS Neuron devices."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nodehealth import worker
from nodehealth.checks import Pass, Sample, Verdict
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host
from nodehealth.subsystems.accelerated_hardware import neuron_devices

RECORDED = Path(__file__).parent / "checks/neuron"
SICK, WELL = RECORDED / "sick", RECORDED / "well"
(CHECK,) = neuron_devices.CHECKS


def sampled(root: Path) -> Sample:
    return json.loads(json.dumps(CHECK.read(Host(root), CHECK.thresholds)))


def judged(sample: Sample, previous: Sample = None) -> Verdict:
    return CHECK.judge(Pass(sample, CHECK.thresholds, previous, None if previous is None else 300.0))


def found(verdict: Verdict) -> list[tuple[str, str, str]]:
    return [(each.reason.name, each.object, each.detail) for each in verdict.findings]


def measured(verdict: Verdict) -> dict[str, float]:
    prefix = "nodehealth_accelerated_hardware_neuron_"
    return {"/".join((each.metric.name.removeprefix(prefix), *each.labels)): each.value for each in verdict.measurements}


def test_a_device_that_the_driver_does_not_have() -> None:
    verdict = judged(sampled(SICK))
    assert found(verdict) == [("NeuronDeviceCountMismatch", "", "PCI has 2 devices, the driver 1")]
    assert measured(verdict) == {
        "pci_devices": 2,
        "devices": 1,
        "ecc_errors/neuron0/sram_ecc_uncorrected": 2,
        "ecc_errors/neuron0/mem_ecc_uncorrected": 1,
        "ecc_errors/neuron0/mem_ecc_repairable_uncorrected": 4,
        "execution_errors/neuron0/hw_error": 1,
        "execution_errors/neuron0/timeout": 0,
    }


def test_a_well_node() -> None:
    sample = sampled(WELL)
    assert found(judged(sample)) == []
    assert found(judged(sample, sample)) == []
    assert measured(judged(sample))["devices"] == 2


def test_new_uncorrected_errors_are_found_on_their_device() -> None:
    assert found(judged(sampled(SICK), sampled(WELL)))[1:] == [
        ("NeuronUncorrectedEccErrors", "neuron0", "new since the last look: 2 sram_ecc_uncorrected, 1 mem_ecc_uncorrected")
    ]


@pytest.mark.parametrize(("before", "now", "expected"), [(5, 5, 0), (5, 6, 1), (5, 0, 0), (5, 2, 1)])
def test_a_counter_that_went_backwards_was_reset(before: int, now: int, expected: int) -> None:
    samples = [
        {"expected": 1, "present": 1, "ecc": {"neuron0": {"mem_ecc_uncorrected": count}}, "status": {}}
        for count in (before, now)
    ]
    assert len(judged(samples[1], samples[0]).findings) == expected


def test_repairable_errors_alone_are_only_counted() -> None:
    samples = [
        {"expected": 1, "present": 1, "ecc": {"neuron0": {"mem_ecc_repairable_uncorrected": count}}, "status": {}}
        for count in (0, 9)
    ]
    assert found(judged(samples[1], samples[0])) == []


def test_a_device_that_appears_later_starts_from_its_first_sample() -> None:
    sample = sampled(SICK)
    assert not [each for each in found(judged(sample, {**sample, "ecc": {}})) if each[0] == "NeuronUncorrectedEccErrors"]


def test_without_a_driver_all_devices_are_missing(tmp_path: Path) -> None:
    shutil.copytree(WELL / "sys/bus", tmp_path / "sys/bus")
    verdict = judged(sampled(tmp_path))
    assert found(verdict) == [("NeuronDeviceCountMismatch", "", "PCI has 2 devices, the driver 0")]
    assert measured(verdict) == {"pci_devices": 2, "devices": 0}


def test_device_nodes_stand_in_for_a_driver_without_a_class(tmp_path: Path) -> None:
    shutil.copytree(WELL / "sys/bus", tmp_path / "sys/bus")
    (tmp_path / "dev").mkdir()
    for name in ("neuron0", "neuron1", "neuron_fabric", "null"):
        (tmp_path / "dev" / name).touch()
    assert found(judged(sampled(tmp_path))) == []


def test_no_neuron_device_is_absent(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="no Neuron device"):
        sampled(tmp_path)


def test_the_check_runs_on_this_machine() -> None:
    request = {"topic": neuron_devices.__name__, "check": CHECK.name, "thresholds": dict(CHECK.thresholds)}
    assert "failed" not in worker.answer(request, Host(Path("/")))
