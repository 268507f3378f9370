"""Software RAID as md shows it in sysfs: arrays that miss disks, and arrays that do not run (Documentation/admin-guide/md.rst)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, Action, Finding, Reason, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

_LABELS = ("device",)
DISKS = Metric("nodehealth_storage_md_disks", "Disks that a RAID array should have.", _LABELS)
MISSING = Metric("nodehealth_storage_md_missing_disks", "Disks that a RAID array misses.", _LABELS)
RUNNING = Metric("nodehealth_storage_md_running", "1 where a RAID array runs, else 0.", _LABELS)

DEGRADED = Reason(
    name="MdArrayDegraded",
    subsystem=Subsystem.STORAGE,
    severity=Severity.WARNING,
    action=Action.REPLACE_NODE,
    summary="A software RAID array misses a disk; it works, but one more failure loses its data.",
    remedy="Look with `mdadm --detail /dev/DEVICE`; replace the disk or the node while the data is still there.",
    clears=(CHECK,),
    object_kind="RAID array",
)
INACTIVE = Reason(
    name="MdArrayInactive",
    subsystem=Subsystem.STORAGE,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="A software RAID array does not run; what is on it cannot be reached.",
    remedy="Look with `mdadm --detail /dev/DEVICE` which disks are missing; assemble it again, or stop a left-over with `mdadm --stop`.",
    clears=(CHECK,),
    object_kind="RAID array",
)

_STOPPED = ("inactive", "broken")
_FILES = ("array_state", "degraded", "raid_disks", "sync_action", "metadata_version")


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """The state of each array; a container of external metadata (IMSM, DDF) never runs and is no array."""
    if not host.path("/proc/mdstat").exists():
        raise Absent("the kernel has no md driver loaded")
    places = sorted(host.path("/sys/block").glob("md*/md"))
    arrays = {place.parent.name: {name: _text(host, place.parent.name, name) for name in _FILES} for place in places}
    return {name: each for name, each in arrays.items() if _is_array(each)}


def _text(host: Host, name: str, file: str) -> str:
    return host.text(f"/sys/block/{name}/md/{file}")


def _is_array(array: Mapping[str, str]) -> bool:
    kind = array["metadata_version"]
    container = kind.startswith("external:") and not kind.startswith("external:/")
    return array["array_state"] not in {"", "clear"} and not container


def judge(seen: Pass) -> Verdict:
    """Every array that misses disks or does not run."""
    findings = [found for name, array in seen.sample.items() for found in _findings(name, array)]
    measured = [each for name, array in seen.sample.items() for each in _measured(name, array)]
    return Verdict(tuple(findings), tuple(measured))


def _findings(name: str, array: Mapping[str, Any]) -> Iterator[Finding]:
    if array["array_state"] in _STOPPED:
        yield INACTIVE.found(name, detail=f"its state is {array['array_state']}")
    elif _number(array["degraded"]):
        doing = array["sync_action"] or "nothing"
        yield DEGRADED.found(
            name, detail=f"{array['degraded']} of {_number(array['raid_disks'])} disks missing, now: {doing}"
        )


def _measured(name: str, array: Mapping[str, Any]) -> Iterator[Measurement]:
    yield Measurement(RUNNING, (name,), float(array["array_state"] not in _STOPPED))
    yield Measurement(DISKS, (name,), _number(array["raid_disks"]))
    if array["degraded"]:  # an array without redundancy has no such file
        yield Measurement(MISSING, (name,), _number(array["degraded"]))


def _number(text: str) -> int:
    """The first number: `raid_disks` reads `4 (3)` while an array grows."""
    return int(text.split(maxsplit=1)[0]) if text else 0


REASONS = (DEGRADED, INACTIVE)
CHECKS = (Check("raid", Subsystem.STORAGE, read, judge, REASONS, (DISKS, MISSING, RUNNING), boot_grace=300),)
