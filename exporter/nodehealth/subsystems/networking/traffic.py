"""Errors and dropped packets of the physical interfaces that are up, as shares of what they carried since the last pass."""

from __future__ import annotations

import os
from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict, grown
from nodehealth.model import CHECK, Action, Finding, Reason, Repetition, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

_LABELS = ("interface", "direction")
PACKETS = Metric("nodehealth_networking_interface_packets", "Packets of a physical interface.", _LABELS, "counter")
BAD = Metric("nodehealth_networking_interface_errors", "Bad packets of a physical interface.", _LABELS, "counter")
DROPPED = Metric("nodehealth_networking_interface_drops", "Packets a physical interface dropped.", _LABELS, "counter")

ERRORS = Reason(
    name="InterfaceErrors",
    subsystem=Subsystem.NETWORKING,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="A network card sends or receives many damaged packets: cable, transceiver, switch port or card.",
    remedy="Compare `ip -s -s link show dev INTERFACE` over a minute; replace cable or transceiver, then look at the switch port.",
    clears=(CHECK,),
    object_kind="interface",
    repeats=Repetition(3, 600),
)
DROPS = Reason(
    name="InterfaceDrops",
    subsystem=Subsystem.NETWORKING,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="A network card drops many of its packets: the node is too slow to take them, or its queues are too short.",
    remedy="Look at `ethtool -S INTERFACE`, raise the rings with `ethtool -G`, and look for a core busy with softirqs in `top`.",
    clears=(CHECK,),
    object_kind="interface",
    repeats=Repetition(3, 600),
)

_NET = "/sys/class/net"
_TYPES = ("1", "32")  # Ethernet and InfiniBand
_IFF_UP = 1
_KINDS = ("packets", "errors", "dropped")


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """Packets, errors and drops by interface and direction."""
    base = str(host.path(_NET))
    if not os.path.isdir(base):  # noqa: PTH112 - with a thousand interfaces, paths as objects cost more than the calls
        raise Absent(f"{_NET} does not exist")
    names = [name for name in sorted(os.listdir(base)) if os.path.lexists(f"{base}/{name}/device")]  # noqa: PTH208
    return {name: _counters(host, f"{_NET}/{name}") for name in names if _carries(host, f"{_NET}/{name}")}


def _carries(host: Host, path: str) -> bool:
    return host.text(f"{path}/type") in _TYPES and bool(int(host.text(f"{path}/flags") or "0", 16) & _IFF_UP)


def _counters(host: Host, path: str) -> dict[str, dict[str, int]]:
    return {way: {kind: int(host.text(f"{path}/statistics/{way}_{kind}") or 0) for kind in _KINDS} for way in ("rx", "tx")}


def judge(seen: Pass) -> Verdict:
    """Too many where the share reaches the threshold and there are enough of them to mean anything."""
    measured = []
    findings: list[Finding] = []
    for name, ways in seen.sample.items():
        for way, now in ways.items():
            metrics = zip((PACKETS, BAD, DROPPED), _KINDS, strict=True)
            measured += [Measurement(metric, (name, way), now[kind]) for metric, kind in metrics]
        before = (seen.previous or {}).get(name)
        if before is not None:
            findings += _found(seen, ERRORS, name, "errors", seen.thresholds["error_ratio"])
            findings += _found(seen, DROPS, name, "dropped", seen.thresholds["drop_ratio"])
    return Verdict(tuple(findings), tuple(measured))


def _found(seen: Pass, reason: Reason, name: str, kind: str, limit: float) -> list[Finding]:
    """The reason on the interface, where one of its directions is over the limit."""
    details = []
    for way in ("rx", "tx"):
        now, before = seen.sample[name][way], seen.previous[name][way]  # type: ignore[index]
        bad, good = grown(now[kind], before[kind]), grown(now["packets"], before["packets"])
        if bad >= seen.thresholds["least"] and bad / (bad + good) >= limit:
            details.append(f"{way}: {bad:g} {kind}, {good:g} packets in {seen.elapsed or 0:.0f} s")
    return [reason.found(name, detail=f"{name} {'; '.join(details)}")] if details else []


REASONS = (ERRORS, DROPS)
CHECKS = (
    Check(
        "traffic",
        Subsystem.NETWORKING,
        read,
        judge,
        REASONS,
        (PACKETS, BAD, DROPPED),
        thresholds={"error_ratio": 0.01, "drop_ratio": 0.05, "least": 100.0},
        keeps=True,
    ),
)
