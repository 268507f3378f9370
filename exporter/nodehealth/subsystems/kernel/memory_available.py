"""Memory that is left for new work, and swap (fs/proc/meminfo.c).

Huge pages that were set aside are no memory that programs can have in any other way, so they count neither as available
nor as total: a node that gives most of its memory to them is not short of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, Action, Reason, Repetition, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

AVAILABLE = Metric("nodehealth_kernel_memory_available_bytes", "Memory that programs can still get without swapping.")
TOTAL = Metric("nodehealth_kernel_memory_total_bytes", "Memory of the node without the huge pages that were set aside.")
SWAP_TOTAL = Metric("nodehealth_kernel_swap_total_bytes", "Swap space; no series where there is none.")
SWAP_FREE = Metric("nodehealth_kernel_swap_free_bytes", "Swap space that is free.")

LOW = Reason(
    name="NodeMemoryLow",
    subsystem=Subsystem.KERNEL,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="The node has had almost no memory left for minutes; the kernel will soon kill processes or thrash.",
    remedy=(
        "Find the holder with `ps -eo rss,args --sort=-rss | head` and `slabtop -o -s c | head`; "
        "give its pod a memory limit and reserve memory for the system (`kubeReserved`, `systemReserved`)."
    ),
    clears=(CHECK,),
    repeats=Repetition(5, 420),
)


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """The lines of /proc/meminfo that are needed, in bytes."""
    rows = (line.partition(":") for line in host.text("/proc/meminfo").splitlines())
    found = {name: value.split() for name, _, value in rows}
    if not found:
        raise Absent("/proc/meminfo does not exist")
    if "MemAvailable" not in found:
        raise Absent("the kernel does not estimate available memory")
    value = {name: int(words[0]) * (1024 if words[-1] == "kB" else 1) for name, words in found.items() if words}
    huge = value.get("Hugetlb", value.get("HugePages_Total", 0) * value.get("Hugepagesize", 0))
    return {
        "available": value["MemAvailable"],
        "total": value["MemTotal"] - huge,
        "swap_total": value.get("SwapTotal", 0),
        "swap_free": value.get("SwapFree", 0),
    }


def judge(seen: Pass) -> Verdict:
    """Low where the available share falls below the threshold `available_ratio`."""
    available, total, swap = seen.sample["available"], seen.sample["total"], seen.sample["swap_total"]
    measured = [Measurement(AVAILABLE, (), available), Measurement(TOTAL, (), total)]
    if swap:
        measured += [Measurement(SWAP_TOTAL, (), swap), Measurement(SWAP_FREE, (), seen.sample["swap_free"])]
    if total > 0 and available / total < seen.thresholds["available_ratio"]:
        detail = f"{available >> 20} MiB of {total >> 20} MiB are available"
        return Verdict((LOW.found(detail=detail),), tuple(measured))
    return Verdict((), tuple(measured))


REASONS = (LOW,)
CHECKS = (
    Check(
        "memory_available",
        Subsystem.KERNEL,
        read,
        judge,
        REASONS,
        (AVAILABLE, TOTAL, SWAP_TOTAL, SWAP_FREE),
        thresholds={"available_ratio": 0.05},
    ),
)
