"""Default routes of the host's main routing table, IPv4 and IPv6.

The files below `/proc/1/net` are those of the host's network namespace, wherever the exporter runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, Action, Reason, Repetition, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

DEFAULT_ROUTES = Metric("nodehealth_networking_default_routes", "Usable default routes of the node.", ("family",))

MISSING = Reason(
    name="MissingDefaultRoutes",
    subsystem=Subsystem.NETWORKING,
    severity=Severity.WARNING,
    action=Action.CHECK_CONFIG,
    summary="A network card has a link and the node has no default route: it reaches nothing outside its own subnets.",
    remedy="Look at `ip route` and `ip -6 route`; restart the network service or renew the lease, and look at its log.",
    clears=(CHECK,),
    repeats=Repetition(2, 300),
)

_NET = "/sys/class/net"
_RTF_UP = 0x1
_RTF_REJECT = 0x200
_NOWHERE = "0" * 32


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """How many default routes there are, and whether a physical interface has a link."""
    ipv4 = host.text("/proc/1/net/route") or host.text("/proc/net/route")
    ipv6 = host.text("/proc/1/net/ipv6_route") or host.text("/proc/net/ipv6_route")
    if not ipv4:
        raise Absent("/proc/net/route does not exist")
    return {"ipv4": _ipv4(ipv4), "ipv6": _ipv6(ipv6), "linked": _linked(host)}


def _ipv4(text: str) -> int:
    """Interface, destination, gateway, flags, three counts, mask."""
    rows = (line.split() for line in text.splitlines()[1:] if "\t00000000\t" in line)
    return sum(row[1] == row[7] == "00000000" and _usable(row[3]) for row in rows)


def _ipv6(text: str) -> int:
    """Destination, its length, source, its length, gateway, three counts, flags, interface."""
    rows = (line.split() for line in text.splitlines() if line.startswith(_NOWHERE))
    return sum(row[1] == row[3] == "00" and row[9] != "lo" and _usable(row[8]) for row in rows)


def _usable(flags: str) -> bool:
    return int(flags, 16) & (_RTF_UP | _RTF_REJECT) == _RTF_UP


def _linked(host: Host) -> bool:
    base = str(host.path(_NET))
    if not os.path.isdir(base):  # noqa: PTH112 - with a thousand interfaces, paths as objects cost more than the calls
        return False
    names = [name for name in os.listdir(base) if os.path.lexists(f"{base}/{name}/device")]  # noqa: PTH208
    return any(host.text(f"{_NET}/{name}/carrier") == "1" for name in names)


def judge(seen: Pass) -> Verdict:
    """Either family's default route is enough."""
    counts = {family: seen.sample[family] for family in ("ipv4", "ipv6")}
    measured = tuple(Measurement(DEFAULT_ROUTES, (family,), count) for family, count in counts.items())
    if seen.sample["linked"] and not any(counts.values()):
        return Verdict((MISSING.found(detail="the main table has no default route, neither IPv4 nor IPv6"),), measured)
    return Verdict((), measured)


REASONS = (MISSING,)
CHECKS = (Check("routes", Subsystem.NETWORKING, read, judge, REASONS, (DEFAULT_ROUTES,), boot_grace=300.0),)
