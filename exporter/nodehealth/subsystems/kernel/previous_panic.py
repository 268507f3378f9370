"""Whether the boot before this one ended in a panic: what pstore kept (fs/pstore/platform.c), or kdump.

The first line of a pstore record says why it was written ("Panic#1 Part1").  systemd-pstore moves records away early in the
next boot, so an archived copy may be as young as that; every other record is older than this boot.  A record is
reported once: what the sample before knew is history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import OPERATOR, Action, Reason, Severity, Subsystem, quiet
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

RECORDS = Metric("nodehealth_kernel_panic_records", "Records of panics that are kept on this node, however old.")

_ARCHIVE = "/var/lib/systemd/pstore"
_PLACES = {
    "/sys/fs/pstore": ("dmesg-*",),
    _ARCHIVE: ("dmesg-*", "*/dmesg-*", "*/*/dmesg-*"),
    "/var/crash": ("*/vmcore-dmesg*.txt", "*/dmesg.*"),
}
_HEAD_BYTES = 256
_STARTUP = 900.0  # within which systemd-pstore has moved the records
_MAX_RECORDS = 1000

PANIC = Reason(
    name="PreviousBootPanic",
    subsystem=Subsystem.KERNEL,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="The boot before this one ended in a kernel panic.",
    remedy=(
        "Read the record's last lines: `tail -n 60 /sys/fs/pstore/dmesg-* /var/lib/systemd/pstore/*/* /var/crash/*/*dmesg*`. "
        "Replace the node if it panics again; delete old records, else pstore has no room for the next one."
    ),
    clears=(quiet(hours=24), OPERATOR),
)


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """Each record of a panic with its time, and when this boot began."""
    places = {place: patterns for place, patterns in _PLACES.items() if host.path(place).is_dir()}
    if not places:
        raise Absent("nothing keeps records of panics here (pstore, kdump)")
    boot = next((line.split()[1] for line in host.text("/proc/stat").splitlines() if line.startswith("btime ")), None)
    if boot is None:
        raise ValueError("/proc/stat does not say when this boot began")
    found = [[place, *each] for place, patterns in places.items() for each in _records(host.path(place), patterns)]
    return {"boot": float(boot), "records": sorted(found)[:_MAX_RECORDS]}


def _records(base: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """The name below its place, and the time, of each record of a panic."""
    list(base.iterdir())  # glob hides a directory that may not be read
    for path in (path for pattern in patterns for path in base.glob(pattern)):
        try:
            with path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
            if _is_panic(path.name, head):
                yield str(path.relative_to(base)), path.stat().st_mtime
        except (FileNotFoundError, IsADirectoryError):
            continue  # moved away in between, or a directory


def _is_panic(name: str, head: bytes) -> bool:
    """What kdump kept is one; pstore also keeps oopses and shutdowns, and compresses what it could not open (.enc.z)."""
    return not name.startswith("dmesg-") or name.endswith(".enc.z") or head.startswith(b"Panic#")


def judge(seen: Pass) -> Verdict:
    """A record of the boot before that the last pass did not know; the first pass reports none older than `hours`."""
    boot, records = seen.sample["boot"], seen.sample["records"]
    known = None if seen.previous is None else seen.previous["records"]
    oldest = boot - seen.thresholds["hours"] * 3600
    new = [
        [place, name, time]
        for place, name, time in records
        if time < boot + (_STARTUP if place == _ARCHIVE else 0.0)
        and (time >= oldest if known is None else [place, name, time] not in known)
    ]
    measured = (Measurement(RECORDS, (), len(records)),)
    if not new:
        return Verdict((), measured)
    place, name, _ = max(new, key=lambda each: each[2])
    return Verdict((PANIC.found(detail=f"{place}/{name} was written by the boot before this one"),), measured)


REASONS = (PANIC,)
CHECKS = (
    Check(
        "previous_panic",
        Subsystem.KERNEL,
        read,
        judge,
        REASONS,
        (RECORDS,),
        period=300.0,
        thresholds={"hours": 24},
        keeps=True,
    ),
)
