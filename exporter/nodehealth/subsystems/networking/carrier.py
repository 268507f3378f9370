"""Links that come and go: the kernel's count of carrier changes of each physical interface, InfiniBand included."""

from __future__ import annotations

import os
from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict, grown
from nodehealth.model import REBOOT, Action, Reason, Repetition, Severity, Subsystem, quiet
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

CHANGES = Metric(
    "nodehealth_networking_interface_carrier_changes",
    "How often a physical interface got or lost its link.",
    ("interface",),
    "counter",
)

FLAPPING = Reason(
    name="InterfaceFlapping",
    subsystem=Subsystem.NETWORKING,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="The link of a network card comes and goes: in four or more minutes of the last hour it changed.",
    remedy="Look at `ethtool INTERFACE`, clean or replace cable and transceiver, and look at the switch port's own log.",
    clears=(quiet(hours=1), REBOOT),
    object_kind="interface",
    repeats=Repetition(4, 3600),  # a reconfiguration or a switch that restarts is one or two
)

_NET = "/sys/class/net"
_TYPES = ("1", "32")  # Ethernet and InfiniBand


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """The count of each interface that has a device."""
    base = str(host.path(_NET))
    if not os.path.isdir(base):  # noqa: PTH112 - with a thousand interfaces, paths as objects cost more than the calls
        raise Absent(f"{_NET} does not exist")
    names = [name for name in sorted(os.listdir(base)) if os.path.lexists(f"{base}/{name}/device")]  # noqa: PTH208
    physical = [name for name in names if host.text(f"{_NET}/{name}/type") in _TYPES]
    counts = {name: host.text(f"{_NET}/{name}/carrier_changes") for name in physical}
    return {name: int(count) for name, count in counts.items() if count}


def judge(seen: Pass) -> Verdict:
    """A pass in which a link changed is one occurrence; only several in an hour are a finding that holds."""
    measured = tuple(Measurement(CHANGES, (name,), count) for name, count in seen.sample.items())
    before = seen.previous or {}
    findings = []
    for name, count in seen.sample.items():
        changes = grown(count, before.get(name))
        if changes and changes >= seen.thresholds["changes"]:
            detail = f"the link of {name} changed {changes:g} times in {seen.elapsed or 0:.0f} s, {count} times in all"
            findings.append(FLAPPING.found(name, detail=detail))
    return Verdict(tuple(findings), measured)


REASONS = (FLAPPING,)
CHECKS = (
    Check(
        "carrier",
        Subsystem.NETWORKING,
        read,
        judge,
        REASONS,
        (CHANGES,),
        thresholds={"changes": 1.0},
        keeps=True,
    ),
)
