"""AWS Neuron devices: those that PCI has against those that the driver has, and the driver's error counters.

Counters: drivers/neuron, `neuron*/stats/hardware/*` for each device and `neuron*/neuron_core*/stats/status/*/total` for each
core, of which only those that speak of hardware are read; what a driver does not have is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict, grown
from nodehealth.model import CHECK, REBOOT, Action, Finding, Hardware, Reason, Repetition, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

_CLASS = "/sys/class/neuron_device"
_DEVICES = "/sys/devices/virtual/neuron_device"
_ECC = ("sram_ecc_uncorrected", "mem_ecc_uncorrected", "mem_ecc_repairable_uncorrected")
_BAD_ECC = _ECC[:2]
_STATUS = re.compile(r"timeout|hw_[a-z0-9_]{1,40}")
_DEVICE = re.compile(r"neuron\d{1,3}")
_CORE = re.compile(r"neuron_core\d{1,3}")

EXPECTED = Metric("nodehealth_accelerated_hardware_neuron_pci_devices", "Neuron devices that PCI has.")
PRESENT = Metric("nodehealth_accelerated_hardware_neuron_devices", "Neuron devices that the driver has.")
ECC = Metric(
    "nodehealth_accelerated_hardware_neuron_ecc_errors",
    "Uncorrected ECC errors of a Neuron device, as its driver counts them.",
    ("device", "kind"),
    "counter",
)
STATUS = Metric(
    "nodehealth_accelerated_hardware_neuron_execution_errors",
    "Executions on a Neuron device's cores that ended with a hardware error or a timeout.",
    ("device", "kind"),
    "counter",
)

MISMATCH = Reason(
    name="NeuronDeviceCountMismatch",
    subsystem=Subsystem.ACCELERATED_HARDWARE,
    severity=Severity.WARNING,
    action=Action.REBOOT_NODE,
    summary="The Neuron driver has fewer or more devices than PCI; some accelerators cannot be used.",
    remedy="Look at `lsmod | grep neuron`, `neuron-ls` and the kernel log; reboot the node, then replace it.",
    clears=(CHECK, REBOOT),
    repeats=Repetition(2, 900),
    needs=Hardware.NEURON,
)
UNCORRECTED = Reason(
    name="NeuronUncorrectedEccErrors",
    subsystem=Subsystem.ACCELERATED_HARDWARE,
    severity=Severity.WARNING,
    action=Action.REPLACE_NODE,
    summary="A Neuron device counted new uncorrected errors in its memory; results since then may be wrong.",
    remedy="Drain the node and replace it.",
    clears=(REBOOT,),
    object_kind="Neuron device",
    needs=Hardware.NEURON,
)


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """How many devices PCI and the driver have, and each device's counters."""
    expected = sum(each.is_neuron for each in host.pci_devices())
    if not expected:
        raise Absent("there is no Neuron device on PCI")
    devices = _names(host, _CLASS, _DEVICE) or _names(host, "/dev", _DEVICE)
    counted = _names(host, _DEVICES, _DEVICE)
    return {
        "expected": expected,
        "present": len(devices),
        "ecc": {device: dict(_ecc(host, device)) for device in counted},
        "status": {device: _status(host, device) for device in counted},
    }


def _names(host: Host, folder: str, pattern: re.Pattern[str]) -> list[str]:
    try:
        return sorted(each.name for each in host.path(folder).iterdir() if pattern.fullmatch(each.name))
    except FileNotFoundError:
        return []


def _ecc(host: Host, device: str) -> Iterator[tuple[str, int]]:
    for kind in _ECC:
        text = host.text(f"{_DEVICES}/{device}/stats/hardware/{kind}")
        if text.isdigit():
            yield kind, int(text)


def _status(host: Host, device: str) -> dict[str, int]:
    """The sum over the device's cores."""
    found: dict[str, int] = {}
    for core in _names(host, f"{_DEVICES}/{device}", _CORE):
        folder = f"{_DEVICES}/{device}/{core}/stats/status"
        for kind in _names(host, folder, _STATUS):
            text = host.text(f"{folder}/{kind}/total")
            if text.isdigit():
                found[kind] = found.get(kind, 0) + int(text)
    return found


def judge(seen: Pass) -> Verdict:
    """Whether the counts agree, and which device's uncorrected errors grew since the sample before."""
    sample = seen.sample
    measured = (
        Measurement(EXPECTED, (), sample["expected"]),
        Measurement(PRESENT, (), sample["present"]),
        *_measured(ECC, sample["ecc"]),
        *_measured(STATUS, sample["status"]),
    )
    return Verdict((*_mismatch(sample), *_uncorrected(seen)), measured)


def _measured(metric: Metric, counters: Mapping[str, Mapping[str, int]]) -> Iterator[Measurement]:
    for device, kinds in counters.items():
        for kind, value in kinds.items():
            yield Measurement(metric, (device, kind), value)


def _mismatch(sample: Mapping[str, int]) -> Iterator[Finding]:
    if sample["expected"] != sample["present"]:
        yield MISMATCH.found(detail=f"PCI has {sample['expected']} devices, the driver {sample['present']}")


def _uncorrected(seen: Pass) -> Iterator[Finding]:
    before = seen.previous["ecc"] if seen.previous else {}
    for device, kinds in seen.sample["ecc"].items():
        grew = {kind: grown(kinds[kind], before.get(device, {}).get(kind)) for kind in _BAD_ECC if kind in kinds}
        if any(grew.values()):
            counted = ", ".join(f"{count:.0f} {kind}" for kind, count in grew.items() if count)
            yield UNCORRECTED.found(device, detail=f"new since the last look: {counted}")


REASONS = (MISMATCH, UNCORRECTED)
CHECKS = (
    Check(
        "neuron_devices",
        Subsystem.ACCELERATED_HARDWARE,
        read,
        judge,
        REASONS,
        (EXPECTED, PRESENT, ECC, STATUS),
        period=300.0,
        boot_grace=300.0,
        keeps=True,
        needs=Hardware.NEURON,
    ),
)
