"""What the network's sysctls tell: packet forwarding on nodes with a kubelet, and the connection tracking table.

The kernel shows everybody the values of their own network namespace, whichever `/proc` they read.
"""

from __future__ import annotations

from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, Action, Reason, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

FORWARDING = Metric("nodehealth_networking_ip_forwarding", "Whether the node forwards IPv4 packets (net.ipv4.ip_forward).")
ENTRIES = Metric("nodehealth_networking_conntrack_entries", "Tracked connections of the node.")
LIMIT = Metric("nodehealth_networking_conntrack_limit", "The kernel's limit of tracked connections.")

SYSCTL = Reason(
    name="NetworkSysctl",
    subsystem=Subsystem.NETWORKING,
    severity=Severity.WARNING,
    action=Action.CHECK_CONFIG,
    summary="The node does not forward IPv4 packets (net.ipv4.ip_forward is 0); its pods cannot reach other nodes.",
    remedy="Run `sysctl -w net.ipv4.ip_forward=1` and find the file in /etc/sysctl.d that says 0.",
    clears=(CHECK,),
)
NEARLY_FULL = Reason(
    name="ConntrackNearlyFull",
    subsystem=Subsystem.NETWORKING,
    severity=Severity.WARNING,
    action=Action.CHECK_CONFIG,
    summary="The table of tracked connections is nearly full; when it is, the kernel drops new connections.",
    remedy="Find who opens them with `conntrack -L | awk '{print $5}' | sort | uniq -c | sort -n`; raise net.netfilter.nf_conntrack_max.",
    clears=(CHECK,),
)

_FORWARD = "/proc/sys/net/ipv4/ip_forward"
_CONNTRACK = "/proc/sys/net/netfilter/nf_conntrack"
_KUBELET = "/var/lib/kubelet"


def _refuse_foreign(host: Host) -> None:
    """Raises OSError where this process is in another network namespace than the host's first process."""
    try:
        theirs, ours = host.path("/proc/1/ns/net").readlink(), Host().path("/proc/self/ns/net").readlink()
    except OSError:
        return  # a recorded host, or not allowed to know
    if theirs != ours:
        raise OSError("the exporter is not in the host's network namespace: start it with hostNetwork")


def read_forwarding(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """net.ipv4.ip_forward."""
    if not host.path(_KUBELET).is_dir():
        raise Absent(f"there is no kubelet: {_KUBELET} does not exist")
    _refuse_foreign(host)
    return int(host.path(_FORWARD).read_text(encoding="ascii"))


def judge_forwarding(seen: Pass) -> Verdict:
    """A node with pods has to forward."""
    measured = (Measurement(FORWARDING, (), seen.sample),)
    return Verdict(() if seen.sample else (SYSCTL.found(detail="net.ipv4.ip_forward is 0"),), measured)


def read_conntrack(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """Entries and limit."""
    entries, limit = host.text(f"{_CONNTRACK}_count"), host.text(f"{_CONNTRACK}_max")
    if not entries or not limit:
        raise Absent("the kernel tracks no connections: nf_conntrack is not loaded")
    _refuse_foreign(host)
    return {"entries": int(entries), "limit": int(limit)}


def judge_conntrack(seen: Pass) -> Verdict:
    """Nearly full where the share of the limit reaches the threshold `ratio`; a limit of 0 is none."""
    entries, limit = seen.sample["entries"], seen.sample["limit"]
    measured = (Measurement(ENTRIES, (), entries), Measurement(LIMIT, (), limit))
    if limit and entries / limit >= seen.thresholds["ratio"]:
        return Verdict((NEARLY_FULL.found(detail=f"{entries} of {limit} connections are tracked"),), measured)
    return Verdict((), measured)


REASONS = (SYSCTL, NEARLY_FULL)
CHECKS = (
    Check("sysctls", Subsystem.NETWORKING, read_forwarding, judge_forwarding, (SYSCTL,), (FORWARDING,), boot_grace=300.0),
    Check(
        "conntrack_use",
        Subsystem.NETWORKING,
        read_conntrack,
        judge_conntrack,
        (NEARLY_FULL,),
        (ENTRIES, LIMIT),
        thresholds={"ratio": 0.9},
    ),
)
