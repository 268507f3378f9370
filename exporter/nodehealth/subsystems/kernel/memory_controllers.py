"""Errors that the memory controllers counted (EDAC, drivers/edac/edac_mc_sysfs.c).

The counters start with the driver: those of another boot are all new, those that went backwards were reset.  The rate of
corrected errors is judged over an hour, so one error in a short time is no rate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict, grown
from nodehealth.model import OPERATOR, REBOOT, Action, Reason, Severity, Subsystem, quiet
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

CORRECTED = Metric(
    "nodehealth_kernel_memory_corrected_errors", "Errors that a memory controller corrected.", ("controller",), "counter"
)
UNCORRECTED = Metric(
    "nodehealth_kernel_memory_uncorrected_errors", "Errors that it could not correct.", ("controller",), "counter"
)

_BASE = "/sys/devices/system/edac/mc"
_HOUR = 3600.0

UNCORRECTED_ERRORS = Reason(
    name="EdacUncorrectedErrors",
    subsystem=Subsystem.KERNEL,
    severity=Severity.CRITICAL,
    action=Action.REPLACE_NODE,
    summary="A memory controller counted errors that it could not correct: data in memory was lost.",
    remedy=(
        "Drain the node and replace it, or its memory module: `ras-mc-ctl --summary`, `dmesg -T | grep EDAC` and "
        "`grep . /sys/devices/system/edac/mc/mc*/dimm*/dimm_ue_count` name the module."
    ),
    clears=(REBOOT, OPERATOR),
    object_kind="memory controller",
)
CORRECTED_RATE = Reason(
    name="EdacCorrectedErrorRate",
    subsystem=Subsystem.KERNEL,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="A memory controller corrects errors at a high rate; a module wears out and may soon lose data.",
    remedy=(
        "No data is lost yet. `grep . /sys/devices/system/edac/mc/mc*/dimm*/dimm_ce_count` names the module: "
        "plan to replace it."
    ),
    clears=(quiet(hours=24), REBOOT),
    object_kind="memory controller",
)


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """Both counters of each controller, and the boot that they count from."""
    base = host.path(_BASE)
    names = sorted(each.name for each in base.iterdir() if re.fullmatch(r"mc\d+", each.name)) if base.is_dir() else []
    if not names:
        raise Absent("no memory controller reports errors (EDAC)")
    counts = {name: [int(host.text(f"{_BASE}/{name}/{kind}_count")) for kind in ("ce", "ue")] for name in names}
    return {"boot": host.boot_id, "counts": counts}


def _growth(seen: Pass, kind: int) -> dict[str, float]:
    """How much each controller's counter grew since the sample before; nothing at the first one."""
    if seen.previous is None:
        return {}
    same_boot = seen.previous["boot"] == seen.sample["boot"]
    before = seen.previous["counts"] if same_boot else {}
    missing = None if same_boot else 0.0
    return {
        name: grown(counts[kind], before[name][kind] if name in before else missing)
        for name, counts in seen.sample["counts"].items()
    }


def judge(seen: Pass) -> Verdict:
    """Each uncorrected error counts."""
    counts = seen.sample["counts"].items()
    corrected = (Measurement(CORRECTED, (name,), each[0]) for name, each in counts)
    uncorrected = (Measurement(UNCORRECTED, (name,), each[1]) for name, each in counts)
    findings = tuple(
        UNCORRECTED_ERRORS.found(name, detail=f"{new:g} new uncorrected errors")
        for name, new in _growth(seen, 1).items()
        if new
    )
    return Verdict(findings, (*corrected, *uncorrected))


def judge_rate(seen: Pass) -> Verdict:
    """Corrected errors from the threshold `errors_per_hour` on, over an hour at least."""
    elapsed = max(seen.elapsed or 0.0, _HOUR)
    rates = {name: new * _HOUR / elapsed for name, new in _growth(seen, 0).items()}
    return Verdict(
        tuple(
            CORRECTED_RATE.found(name, detail=f"{rate:.0f} corrected errors per hour")
            for name, rate in rates.items()
            if rate >= seen.thresholds["errors_per_hour"]
        )
    )


REASONS = (UNCORRECTED_ERRORS, CORRECTED_RATE)
CHECKS = (
    Check(
        "memory_controllers",
        Subsystem.KERNEL,
        read,
        judge,
        (UNCORRECTED_ERRORS,),
        (CORRECTED, UNCORRECTED),
        keeps=True,
    ),
    Check(
        "memory_corrected_errors",
        Subsystem.KERNEL,
        read,
        judge_rate,
        (CORRECTED_RATE,),
        period=_HOUR,
        thresholds={"errors_per_hour": 50},
        keeps=True,
    ),
)
