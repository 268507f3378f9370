"""Ports of InfiniBand and RoCE adapters: state, rate and error counters, as sysfs has them.

A RoCE port is down when its network interface is, so that the interface's own check tells.  Reading a counter asks the
adapter's firmware; one that refuses makes the driver print a line each time, so what cannot be read is asked once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict, grown
from nodehealth.model import CHECK, REBOOT, Action, Finding, Reason, Repetition, Severity, Subsystem, quiet
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

_LABELS = ("device", "port")
ACTIVE = Metric("nodehealth_networking_infiniband_port_active", "Whether an InfiniBand or RoCE port is active.", _LABELS)
RATE = Metric(
    "nodehealth_networking_infiniband_port_rate_bits_per_second", "Rate of an InfiniBand or RoCE port's link.", _LABELS
)
COUNTS = Metric(
    "nodehealth_networking_infiniband_port_errors",
    "Error counters of an InfiniBand or RoCE port.",
    (*_LABELS, "counter"),
    "counter",
)


def _reason(name: str, summary: str, remedy: str, **more: Any) -> Reason:
    common: dict[str, Any] = {"severity": Severity.WARNING, "action": Action.INVESTIGATE, "clears": (CHECK,)}
    return Reason(
        name=name,
        subsystem=Subsystem.NETWORKING,
        summary=summary,
        remedy=remedy,
        object_kind="port",
        **{**common, **more},
    )


DOWN = _reason(
    "InfinibandPortDown",
    "An InfiniBand port has no active link; jobs over several nodes fail or are slow.",
    "Look at `ibstat` and `iblinkinfo`; check cable and switch port, and that a subnet manager runs (state Initialize).",
    repeats=Repetition(2, 300),
)
SLOW = _reason(
    "InfinibandPortSlow",
    "The link of an InfiniBand or RoCE port is slower than this node's configuration expects.",
    "Look at `ibstat` and `mlxlink -d DEVICE`; reseat or replace the cable, and compare width and speed at the switch.",
    repeats=Repetition(2, 300),
)
LOST = _reason(
    "InfinibandLinkDowned",
    "The link of an InfiniBand or RoCE port broke and trained again within the last hour.",
    "Look at `mlxlink -d DEVICE -c` and at the switch port; clean or replace the cable where it comes again.",
    clears=(quiet(hours=1), REBOOT),
)
ERRORS = _reason(
    "InfinibandPortErrors",
    "An InfiniBand or RoCE port counts errors of its link faster than a good cable ever does.",
    "Look at `perfquery` and `mlxlink -d DEVICE -c`; clean or replace the cable, then try another switch port.",
    repeats=Repetition(2, 600),
)

_BASE = "/sys/class/infiniband"
_LINK_DOWNED = "link_downed"
_LIMITS = {  # errors per second; 0: any
    "symbol_error": 10.0,
    "port_rcv_errors": 10.0,
    "link_error_recovery": 0.1,
    "local_link_integrity_errors": 0.0,
    "excessive_buffer_overrun_errors": 0.0,
}
_INFINIBAND = "InfiniBand"
_LAYERS = (_INFINIBAND, "Ethernet")  # anything else (EFA: Unspecified) has no port to speak of
_SWITCHED_OFF = ("1:", "3:")  # Sleep, Disabled
_refused: set[str] = set()  # counters that this process could not read


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """Each port by `device/port`, and the boot, because adapters count the restart of the node as a lost link."""
    paths = sorted(host.path(_BASE).glob("*/ports/*"))
    names = [f"{path.parts[-3]}/{path.name}" for path in paths]
    found = {
        name: _port(host, f"{_BASE}/{path.parts[-3]}/ports/{path.name}") for name, path in zip(names, paths, strict=True)
    }
    ports = {name: port for name, port in found.items() if port is not None}
    if not ports:
        raise Absent("there is no InfiniBand or RoCE adapter")
    return {"boot_id": host.boot_id, "ports": ports}


def _port(host: Host, path: str) -> dict[str, Any] | None:
    """What sysfs tells of a port; `4: ACTIVE`, `5: LinkUp`, `400 Gb/sec (4X NDR)`."""
    layer, state, phys, rate = (host.text(f"{path}/{name}") for name in ("link_layer", "state", "phys_state", "rate"))
    if layer not in _LAYERS or not state:
        return None
    counters = {name: _counter(host, f"{path}/counters/{name}") for name in (_LINK_DOWNED, *_LIMITS)}
    return {
        "layer": layer,
        "state": state,
        "phys_state": phys,
        "gigabits": float(rate.split()[0]) if rate else 0.0,
        "counters": {name: value for name, value in counters.items() if value is not None},
        "unreadable": [name for name in counters if f"{host.root}{path}/counters/{name}" in _refused],
    }


def _counter(host: Host, path: str) -> int | None:
    """A counter's value; None where there is none, or where it was refused once."""
    key = f"{host.root}{path}"
    if key in _refused:
        return None
    try:
        return int(host.path(path).read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except OSError:
        _refused.add(key)
        return None


def judge(seen: Pass) -> Verdict:
    """State and rate are of now, errors of the time since the last pass."""
    findings: list[Finding] = []
    measured: list[Measurement] = []
    known = seen.previous["ports"] if seen.previous and seen.previous["boot_id"] == seen.sample["boot_id"] else {}
    for name, port in seen.sample["ports"].items():
        before = known.get(name, {}).get("counters", {})
        growth = {each: grown(value, before.get(each)) for each, value in port["counters"].items()}
        findings += [*_state(seen, name, port), *_errors(seen, name, growth)]
        measured += _measured(name.split("/"), port)
    return Verdict(tuple(findings), tuple(measured))


def _measured(labels: list[str], port: Mapping[str, Any]) -> Iterator[Measurement]:
    device, number = labels
    yield Measurement(ACTIVE, (device, number), float(_active(port)))
    yield Measurement(RATE, (device, number), port["gigabits"] * 1e9 if _active(port) else 0.0)
    for counter, value in port["counters"].items():
        yield Measurement(COUNTS, (device, number, counter), value)


def _state(seen: Pass, name: str, port: Mapping[str, Any]) -> Iterator[Finding]:
    expected = seen.thresholds["expected_rate_gbps"]
    if _active(port) and port["gigabits"] < expected:
        yield SLOW.found(name, detail=f"{name} runs at {port['gigabits']:g} Gb/s, expected {expected:g} Gb/s")
    if not _active(port) and port["layer"] == _INFINIBAND and not _spare(seen.sample["ports"], name):
        yield DOWN.found(name, detail=f"{name} has state {port['state']} and physical state {port['phys_state']}")


def _active(port: Mapping[str, Any]) -> bool:
    return bool(port["state"].startswith("4:"))


def _spare(ports: Mapping[str, Any], name: str) -> bool:
    """Switched off, or a port that never lost a link on an adapter whose other port has one."""
    port, adapter = ports[name], name.partition("/")[0]
    if port["phys_state"].startswith(_SWITCHED_OFF):
        return True
    others = (other for each, other in ports.items() if each != name and each.partition("/")[0] == adapter)
    return not port["counters"].get(_LINK_DOWNED) and any(_active(other) for other in others)


def _errors(seen: Pass, name: str, growth: Mapping[str, float]) -> Iterator[Finding]:
    seconds = seen.elapsed or 0.0
    if lost := growth.get(_LINK_DOWNED):
        yield LOST.found(name, detail=f"{name} lost its link {lost:g} times in {seconds:.0f} s")
    high = [each for each in _LIMITS if growth.get(each) and seconds and growth[each] / seconds >= seen.thresholds[each]]
    if high:
        counts = ", ".join(f"{each} {growth[each]:g}" for each in high)
        yield ERRORS.found(name, detail=f"{name} counted in {seconds:.0f} s: {counts}")


REASONS = (DOWN, SLOW, LOST, ERRORS)
CHECKS = (
    Check(
        "infiniband",
        Subsystem.NETWORKING,
        read,
        judge,
        REASONS,
        (ACTIVE, RATE, COUNTS),
        thresholds={"expected_rate_gbps": 0.0, **_LIMITS},
        boot_grace=300.0,
        keeps=True,
    ),
)
