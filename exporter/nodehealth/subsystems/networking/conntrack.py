"""The connection tracking table of the kernel: when it is full, new connections are dropped without any answer."""

from __future__ import annotations

from nodehealth.model import Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

REASONS = (
    Reason(
        name="ConntrackExceededKernel",
        subsystem=Subsystem.NETWORKING,
        severity=Severity.WARNING,
        action=Action.CHECK_CONFIG,
        summary="The kernel's connection tracking table is full and it drops the packets of new connections.",
        remedy=(
            "Compare `sysctl net.netfilter.nf_conntrack_count` with `net.netfilter.nf_conntrack_max`; raise the maximum, or "
            "find who opens the connections with `conntrack -L | awk '{print $5}' | sort | uniq -c | sort -n | tail`."
        ),
        clears=(quiet(minutes=30),),
        joins=60,
        patterns=(
            kernel_line(
                r"^(?:(?:nf|ip)_conntrack: ){1,2}table full(?: in netns \d{1,12})?, dropping packet",
                Example("nf_conntrack: nf_conntrack: table full, dropping packet", origin="EKS Node Monitoring Agent"),
                Example(
                    "nf_conntrack: table full, dropping packet", origin="kernel 3.10 net/netfilter/nf_conntrack_core.c"
                ),
                Example(
                    "[ 9412.552121] ip_conntrack: table full, dropping packet.", origin="kernel 2.6 ip_conntrack_core.c"
                ),
                Example(
                    "nf_conntrack: nf_conntrack: table full in netns 4026532281, dropping packet",
                    origin="composed from kernel 6.17 net/netfilter/nf_conntrack_core.c",
                ),
                lookalikes=(
                    "nf_conntrack version 0.5.0 (65536 buckets, 262144 max)",
                    "nf_conntrack: nf_conntrack: expectation table full",
                    "nf_conntrack: falling back to vmalloc.",
                    "net_ratelimit: 15 callbacks suppressed",
                    "neighbour: arp_cache: neighbor table overflow!",
                    "myapp: saw nf_conntrack: table full, dropping packet in dmesg",
                ),
            ),
        ),
    ),
)
