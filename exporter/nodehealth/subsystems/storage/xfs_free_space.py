"""How fragmented the free space of XFS is, as `xfs_db` adds it up: files can no longer grow in pieces that are too small."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, Action, Reason, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

AVERAGE = Metric(
    "nodehealth_storage_xfs_free_extent_average_blocks",
    "Average size of a free extent of an XFS file system, in its blocks.",
    ("device",),
)

SMALL = Reason(
    name="XFSSmallAverageClusterSize",
    subsystem=Subsystem.STORAGE,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="The free space of an XFS file system is in tiny pieces; writing gets slow and fails before the disk is full.",
    remedy="Look with `xfs_db -r -c 'freesp -s' /dev/DEVICE`; free space on it, run `xfs_fsr`, or make the file system anew.",
    clears=(CHECK,),
    object_kind="filesystem device",
)

DEADLINE = 30.0
_MARGIN = 2.0  # the tool must be gone before this process is
_OF_A_POD = re.compile(r"/pods/[0-9a-f-]{32,36}/|/plugins/kubernetes\.io/")
_AVERAGE = re.compile(r"^average free extent size (\S+)$", re.MULTILINE)
_TOOLS = ("/usr/sbin/xfs_db", "/sbin/xfs_db", "/usr/local/sbin/xfs_db")


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """The average by device; a file system that is full has no free extent and no average."""
    devices = sorted(set(_devices(host.text("/proc/1/mountinfo") or host.text("/proc/self/mountinfo"))))
    if not devices:
        raise Absent("no XFS file system of the node is mounted")
    until = time.monotonic() + DEADLINE - _MARGIN
    told = {device.removeprefix("/dev/"): _freesp(host, device, until) for device in devices}
    return {name: average for name, text in told.items() if (average := parse(text)) is not None}


def _devices(mountinfo: str) -> Iterator[str]:
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - xfs /dev/")
        if right and not _OF_A_POD.search(left):
            yield f"/dev/{right.split(' ', 1)[0]}"


def _freesp(host: Host, device: str, until: float) -> str:
    """What `xfs_db` prints, or what it printed on a recorded host."""
    recorded = host.path(f"/recorded/xfs_freesp-{device.rpartition('/')[2]}.txt")
    if recorded.exists():
        return recorded.read_text(encoding="utf-8")
    tool = next((each for each in _TOOLS if os.access(each, os.X_OK)), None)
    if tool is None:
        raise Absent("xfs_db is not installed")
    return _run([tool, "-r", "-c", "freesp -s", str(host.path(device))], until - time.monotonic())


def _run(command: list[str], seconds: float) -> str:
    import subprocess  # noqa: PLC0415 - costs memory, and this check is off by default

    if seconds <= 0:
        raise TimeoutError(f"no time left for {Path(command[0]).name}")
    done = subprocess.run(  # noqa: S603 - an argument list, never a shell
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False, env={"LC_ALL": "C"}
    )
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip()[:200]
        raise OSError(f"{Path(command[0]).name} ended with {done.returncode}: {why}")
    return done.stdout.decode(errors="replace")


def parse(text: str) -> float | None:
    """The average of `freesp -s`.  Raises ValueError where there is none in the text."""
    found = _AVERAGE.search(text)
    if found is None:
        raise ValueError("xfs_db printed no average free extent size")
    average = float(found[1])
    return average if average >= 0 else None  # nan: nothing is free


def judge(seen: Pass) -> Verdict:
    """Every file system whose average is below `blocks`."""
    findings = (
        SMALL.found(device, detail=f"a free extent has {average:.1f} blocks on average")
        for device, average in seen.sample.items()
        if average < seen.thresholds["blocks"]
    )
    measured = (Measurement(AVERAGE, (device,), average) for device, average in seen.sample.items())
    return Verdict(tuple(findings), tuple(measured))


REASONS = (SMALL,)
CHECKS = (
    Check(
        "xfs_free_extents",
        Subsystem.STORAGE,
        read,
        judge,
        REASONS,
        (AVERAGE,),
        period=3600.0,
        deadline=DEADLINE,
        thresholds={"blocks": 16.0},
        enabled=False,
    ),
)
