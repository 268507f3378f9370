"""Open files of the whole node against the kernel's limit (fs/file_table.c, /proc/sys/fs/file-nr)."""

from __future__ import annotations

from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, Action, Reason, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

OPEN_FILES = Metric("nodehealth_kernel_open_files", "Open file handles of the node.")
OPEN_FILES_LIMIT = Metric("nodehealth_kernel_open_files_limit", "The kernel's limit of open file handles (fs.file-max).")

APPROACHING = Reason(
    name="ApproachingMaxOpenFiles",
    subsystem=Subsystem.KERNEL,
    severity=Severity.WARNING,
    action=Action.CHECK_CONFIG,
    summary="The node has nearly as many open files as the kernel allows; soon programs fail to open anything.",
    remedy="Find the holder with `lsof -n | awk '{print $1}' | sort | uniq -c | sort -n | tail`; raise fs.file-max.",
    clears=(CHECK,),
)


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """Allocated handles and the limit."""
    words = host.text("/proc/sys/fs/file-nr").split()
    if not words:
        raise Absent("/proc/sys/fs/file-nr does not exist")
    return {"open": int(words[0]), "limit": int(words[2])}


def judge(seen: Pass) -> Verdict:
    """Too many where the share of the limit reaches the threshold `ratio`."""
    opened, limit = seen.sample["open"], seen.sample["limit"]
    measured = (Measurement(OPEN_FILES, (), opened), Measurement(OPEN_FILES_LIMIT, (), limit))
    if limit and opened / limit >= seen.thresholds["ratio"]:
        return Verdict((APPROACHING.found(detail=f"{opened} of {limit} file handles are open"),), measured)
    return Verdict((), measured)


REASONS = (APPROACHING,)
CHECKS = (
    Check(
        "open_files",
        Subsystem.KERNEL,
        read,
        judge,
        REASONS,
        (OPEN_FILES, OPEN_FILES_LIMIT),
        thresholds={"ratio": 0.7},
    ),
)
