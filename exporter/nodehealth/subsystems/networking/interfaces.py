"""Whether the physical network interfaces are up and have a link, and whether the loopback interface is there.

Physical is what has a `device` in sysfs and is of type Ethernet: no veth, bridge, bond, tunnel or dummy.  InfiniBand (type
32) has a topic of its own; virtual functions of a card in this machine and switch representors come and go with pods.
An interface that was never up is a spare one, and one that never had a link and has neither address nor bond is unused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, Action, Finding, Reason, Repetition, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

UP = Metric("nodehealth_networking_interface_up", "Whether a physical interface is administratively up.", ("interface",))
CARRIER = Metric("nodehealth_networking_interface_carrier", "Whether a physical interface has a link.", ("interface",))

NOT_UP = Reason(
    name="InterfaceNotUp",
    subsystem=Subsystem.NETWORKING,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="A network card that was in use is switched off (administratively down).",
    remedy="Find who did it with `journalctl -u systemd-networkd -u NetworkManager`; `ip link set INTERFACE up` brings it back.",
    clears=(CHECK,),
    object_kind="interface",
    repeats=Repetition(2, 300),
)
NOT_RUNNING = Reason(
    name="InterfaceNotRunning",
    subsystem=Subsystem.NETWORKING,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="A network card is switched on and has no link: cable, transceiver, switch port or card.",
    remedy="Check `ip link show dev INTERFACE` and `ethtool INTERFACE`, then cable, transceiver and switch port.",
    clears=(CHECK,),
    object_kind="interface",
    repeats=Repetition(2, 300),
)
NO_LOOPBACK = Reason(
    name="MissingLoopbackInterface",
    subsystem=Subsystem.NETWORKING,
    severity=Severity.CRITICAL,
    action=Action.REBOOT_NODE,
    summary="The loopback interface is missing or down; programs on the node cannot reach each other at 127.0.0.1.",
    remedy="Run `ip link set lo up`; reboot the node where that does not help.",
    clears=(CHECK,),
)

_NET = "/sys/class/net"
_ETHERNET = "1"
_IFF_UP = 1
_RUNNING = ("up", "unknown")  # what the kernel makes IFF_RUNNING of (RFC 2863): `unknown` is a driver that does not tell
_REPRESENTOR = re.compile(r"(?:c\d+)?pf\d+(?:vf|sf)\d+")


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """The loopback's flags and the state of each physical interface."""
    base = str(host.path(_NET))
    if not os.path.isdir(base):  # noqa: PTH112 - with a thousand interfaces, paths as objects cost more than the calls
        raise Absent(f"{_NET} does not exist")
    found = {name: _state(host, name) for name in sorted(os.listdir(base)) if _physical(host, base, name)}  # noqa: PTH208
    return {"loopback": _flags(host, "lo"), "interfaces": {name: state for name, state in found.items() if state}}


def _physical(host: Host, base: str, name: str) -> bool:
    if not os.path.lexists(f"{base}/{name}/device") or host.text(f"{_NET}/{name}/type") != _ETHERNET:
        return False
    virtual_function = os.path.lexists(f"{base}/{name}/device/physfn")
    return not (virtual_function or _REPRESENTOR.fullmatch(host.text(f"{_NET}/{name}/phys_port_name")))


def _state(host: Host, name: str) -> dict[str, Any] | None:
    """What sysfs tells of an interface; None where it went away meanwhile."""
    flags, operstate = _flags(host, name), host.text(f"{_NET}/{name}/operstate")
    if flags is None or not operstate:
        return None
    up, running, linked = bool(flags & _IFF_UP), operstate in _RUNNING, _ever_linked(host, name)
    used = linked or (up and (running or _configured(host, name)))
    return {"up": up, "carrier": up and running, "operstate": operstate, "used": used}


def _flags(host: Host, name: str) -> int | None:
    text = host.text(f"{_NET}/{name}/flags")
    return int(text, 16) if text else None


def _ever_linked(host: Host, name: str) -> bool:
    """Whether it had a link since it appeared; some drivers count one change when they start."""
    ups = host.text(f"{_NET}/{name}/carrier_up_count")  # Linux 4.16
    return int(ups) > 0 if ups else int(host.text(f"{_NET}/{name}/carrier_changes") or 0) > 1


def _configured(host: Host, name: str) -> bool:
    """Whether it belongs to a bond or bridge, or has an address (then it has a route)."""
    if os.path.lexists(host.path(f"{_NET}/{name}/master")):
        return True
    routes = host.text("/proc/1/net/route") or host.text("/proc/net/route")
    addresses = host.text("/proc/1/net/if_inet6") or host.text("/proc/net/if_inet6")
    routed = any(line.startswith(f"{name}\t") for line in routes.splitlines())
    return routed or any(line.split()[-1:] == [name] for line in addresses.splitlines())


def judge(seen: Pass) -> Verdict:
    """Each interface in use has to be up and to have a link."""
    findings = [] if (seen.sample["loopback"] or 0) & _IFF_UP else [_no_loopback(seen.sample["loopback"])]
    measured = []
    for name, state in seen.sample["interfaces"].items():
        measured += [Measurement(UP, (name,), float(state["up"])), Measurement(CARRIER, (name,), float(state["carrier"]))]
        if state["used"] and not state["up"]:
            findings.append(NOT_UP.found(name, detail=f"{name} was up before and is administratively down"))
        elif state["used"] and not state["carrier"]:
            findings.append(NOT_RUNNING.found(name, detail=f"{name} is up and its state is {state['operstate']}"))
    return Verdict(tuple(findings), tuple(measured))


def _no_loopback(flags: int | None) -> Finding:
    return NO_LOOPBACK.found(detail="there is no interface lo" if flags is None else "lo is administratively down")


REASONS = (NOT_UP, NOT_RUNNING, NO_LOOPBACK)
CHECKS = (Check("interfaces", Subsystem.NETWORKING, read, judge, REASONS, (UP, CARRIER), boot_grace=300.0),)
