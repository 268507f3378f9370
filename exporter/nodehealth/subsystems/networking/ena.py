"""Allowances of an EC2 instance that its ENA interfaces exceeded: the driver's counters, as rates since the last pass.

Amazon's network counts each packet that it queued or dropped because the instance was over its allowance.  The counters
are read through the ethtool ioctl; a recorded host has them in `recorded/ethtool-INTERFACE.json` (name to value).
"""

from __future__ import annotations

import array
import json
import os
import struct
from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict, grown
from nodehealth.model import CHECK, Action, Reason, Repetition, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

EXCEEDED = Metric(
    "nodehealth_networking_ena_allowance_exceeded_packets",
    "Packets queued or dropped because the instance exceeded an allowance.",
    ("interface", "allowance"),
    "counter",
)
AVAILABLE = Metric(
    "nodehealth_networking_ena_conntrack_available",
    "Connections that the instance may still track before its allowance is exceeded.",
    ("interface",),
)


def _reason(name: str, summary: str, remedy: str) -> Reason:
    return Reason(
        name=name,
        subsystem=Subsystem.NETWORKING,
        severity=Severity.WARNING,
        action=Action.CHECK_CONFIG,
        summary=summary,
        remedy=remedy,
        clears=(CHECK,),
        object_kind="interface",
        repeats=Repetition(2, 300),  # a burst is ordinary
    )


_LARGER = "Spread the traffic over more nodes or use an instance type with more network bandwidth."
_BY_COUNTER = {
    "bw_in_allowance_exceeded": _reason(
        "BandwidthInExceeded", "The instance receives more than its bandwidth allows; packets wait or are lost.", _LARGER
    ),
    "bw_out_allowance_exceeded": _reason(
        "BandwidthOutExceeded", "The instance sends more than its bandwidth allows; packets wait or are lost.", _LARGER
    ),
    "pps_allowance_exceeded": _reason(
        "PPSExceeded",
        "The instance sends and receives more packets each second than it may; packets wait or are lost.",
        "Find who sends many small packets with `sar -n DEV 1` and `ss -s`; spread them or use a larger instance type.",
    ),
    "conntrack_allowance_exceeded": _reason(
        "ConntrackExceeded",
        "The instance has more connections than its security groups may track; new connections fail.",
        "Close idle connections, use untracked security group rules, or use a larger instance type.",
    ),
    "linklocal_allowance_exceeded": _reason(
        "LinkLocalExceeded",
        "The instance asks Amazon's DNS, metadata or time service more than it may; such requests are lost.",
        "Run a DNS cache on the node (node-local DNS), and find who asks the metadata service all the time.",
    ),
}

_NET = "/sys/class/net"
_AVAILABLE = "conntrack_allowance_available"
_SIOCETHTOOL = 0x8946
_GDRVINFO, _GSTRINGS, _GSTATS = 0x03, 0x1B, 0x1D  # include/uapi/linux/ethtool.h
_DRVINFO_SIZE, _N_STATS_AT, _NAME_SIZE, _SET_OF_STATS = 196, 180, 32, 1


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """The allowance counters of each interface of the ENA driver."""
    base = str(host.path(_NET))
    names = sorted(os.listdir(base)) if os.path.isdir(base) else []  # noqa: PTH112, PTH208 - one call for a thousand names
    ours = [name for name in names if _is_ena(f"{base}/{name}/device/driver")]
    if not ours:
        raise Absent("no interface has the ENA driver")
    wanted = (*_BY_COUNTER, _AVAILABLE)
    found = {name: {each: value for each, value in _stats(host, name).items() if each in wanted} for name in ours}
    if not any(found.values()):
        raise Absent("this ENA driver has no allowance counters: they came with version 2.2.10")
    return found


def _is_ena(driver: str) -> bool:
    return os.path.lexists(driver) and os.path.basename(os.path.realpath(driver)) == "ena"  # noqa: PTH119 - as above


def _stats(host: Host, name: str) -> dict[str, int]:
    recorded = host.text(f"/recorded/ethtool-{name}.json")
    if recorded:
        stats: dict[str, int] = json.loads(recorded)
        return stats
    if not host.boot_id or host.boot_id != Host().boot_id:
        raise Absent("ethtool's counters are only on the running host")
    _refuse_foreign(host)
    return ethtool(name)


def _refuse_foreign(host: Host) -> None:
    """Raises OSError where this process is in another network namespace than the host's first process."""
    try:
        theirs, ours = host.path("/proc/1/ns/net").readlink(), Host().path("/proc/self/ns/net").readlink()
    except OSError:
        return  # not allowed to know
    if theirs != ours:
        raise OSError("the exporter is not in the host's network namespace: start it with hostNetwork")


def ethtool(name: str) -> dict[str, int]:
    """What `ethtool -S` prints.  Raises OSError."""
    described = _ask(name, struct.pack("I", _GDRVINFO), _DRVINFO_SIZE)
    (count,) = struct.unpack_from("I", described, _N_STATS_AT)
    room = 2 * count + 64  # the kernel writes as many as there are by then, whatever we ask for
    names = _ask(name, struct.pack("III", _GSTRINGS, _SET_OF_STATS, count), _NAME_SIZE * room)[12:]
    values = struct.unpack_from(f"{count}Q", _ask(name, struct.pack("II", _GSTATS, count), 8 * room), 8)
    rows = (names[at : at + _NAME_SIZE] for at in range(0, _NAME_SIZE * count, _NAME_SIZE))
    return {row.partition(b"\0")[0].decode(errors="replace"): value for row, value in zip(rows, values, strict=True)}


def _ask(name: str, command: bytes, room: int) -> bytes:
    """The command with the kernel's answer, for which there are that many bytes."""
    import fcntl  # noqa: PLC0415 - only where there is such an interface
    import socket  # noqa: PLC0415

    buffer = array.array("B", command + bytes(room))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, _SIOCETHTOOL, struct.pack("16sP16x", name.encode(), buffer.buffer_info()[0]))
    return buffer.tobytes()


def judge(seen: Pass) -> Verdict:
    """An allowance that was exceeded by as many packets each second as its threshold."""
    findings, measured = [], []
    for name, counters in seen.sample.items():
        before = (seen.previous or {}).get(name, {})
        if _AVAILABLE in counters:
            measured.append(Measurement(AVAILABLE, (name,), counters[_AVAILABLE]))
        for counter in [each for each in _BY_COUNTER if each in counters]:
            allowance = counter.removesuffix("_allowance_exceeded")
            measured.append(Measurement(EXCEEDED, (name, allowance), counters[counter]))
            growth, seconds = grown(counters[counter], before.get(counter)), seen.elapsed or 0.0
            if growth and seconds and growth / seconds >= seen.thresholds[allowance]:
                detail = f"{name}: {growth:g} packets over the allowance in {seconds:.0f} s"
                findings.append(_BY_COUNTER[counter].found(name, detail=detail))
    return Verdict(tuple(findings), tuple(measured))


REASONS = tuple(_BY_COUNTER.values())
CHECKS = (
    Check(
        "ena",
        Subsystem.NETWORKING,
        read,
        judge,
        REASONS,
        (EXCEEDED, AVAILABLE),
        thresholds={counter.removesuffix("_allowance_exceeded"): 1.0 for counter in _BY_COUNTER},
        keeps=True,
    ),
)
