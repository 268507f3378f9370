"""Whether the kernel's clock is synchronised, and how far off it may be (adjtimex(2), kernel/time/ntp.c).

The clock belongs to the machine and to no file, so the call counts only where the host under the root is the one that
runs; a recorded host has the answer in /recorded/adjtimex.json.  A clock that nothing is meant to synchronise (no time
service enabled, never steered since boot) is measured and no fault.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, Action, Reason, Repetition, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

SYNCHRONIZED = Metric("nodehealth_kernel_clock_synchronized", "1 while the kernel takes its clock for synchronised.")
OFFSET = Metric(
    "nodehealth_kernel_clock_offset_seconds", "What the kernel still has to correct (positive: the clock is behind)."
)
MAX_ERROR = Metric(
    "nodehealth_kernel_clock_max_error_seconds", "The largest error that the clock may have; 16 and it counts as lost."
)
ESTIMATED_ERROR = Metric("nodehealth_kernel_clock_estimated_error_seconds", "The error as its time service estimates it.")

_UNSYNCHRONIZED, _NANOSECONDS = 0x40, 0x2000  # STA_UNSYNC, STA_NANO
_SERVICES = ("chronyd", "chrony", "systemd-timesyncd", "ntpd", "ntp", "ntpsec", "openntpd", "phc2sys")
_WANTS = tuple(
    f"{base}/{target}.target.wants"
    for base in ("/etc/systemd/system", "/usr/lib/systemd/system")
    for target in ("sysinit", "multi-user")
)

UNSYNCHRONIZED = Reason(
    name="ClockUnsynchronized",
    subsystem=Subsystem.KERNEL,
    severity=Severity.WARNING,
    action=Action.CHECK_CONFIG,
    summary="The node's clock is not synchronised; certificates, leases and logs will go wrong as it drifts.",
    remedy=(
        "See why with `chronyc tracking; chronyc sources` or `timedatectl timesync-status`: a service that is down or a time "
        "server that is out of reach. chrony tells the kernel only with `rtcsync` in its configuration."
    ),
    clears=(CHECK,),
    repeats=Repetition(5, 420),
)


class Timex(ctypes.Structure):
    """struct timex of include/uapi/linux/timex.h."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "seconds", "fraction", "tick")),
        *((name, ctypes.c_long) for name in ("ppsfreq", "jitter")),
        ("shift", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("stabil", "jitcnt", "calcnt", "errcnt", "stbcnt")),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """What the kernel says, and whether a time service is enabled."""
    recorded = host.text("/recorded/adjtimex.json")
    if not recorded and host.boot_id != Host().boot_id:
        raise Absent("only the running host can be asked for its clock")
    said = json.loads(recorded) if recorded else _ask()
    return {
        **{name: said[name] for name in ("status", "offset", "freq", "maxerror", "esterror")},
        "service": _enabled(host),
    }


def _ask() -> dict[str, int]:
    """Ask the kernel and change nothing (`modes` is 0)."""
    answer = Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(answer)) < 0:
        raise OSError(ctypes.get_errno(), f"adjtimex: {os.strerror(ctypes.get_errno())}")
    return {name: getattr(answer, name) for name in ("status", "offset", "freq", "maxerror", "esterror")}


def _enabled(host: Host) -> bool:
    """Whether systemd runs this host and starts a time service."""
    if not host.path("/run/systemd/system").is_dir():
        return False
    return any(os.path.lexists(host.path(f"{wants}/{name}.service")) for wants in _WANTS for name in _SERVICES)


def judge(seen: Pass) -> Verdict:
    """Unsynchronised although something is, or was, there to synchronise it."""
    said = seen.sample
    lost = bool(said["status"] & _UNSYNCHRONIZED)
    measured = (
        Measurement(SYNCHRONIZED, (), float(not lost)),
        Measurement(OFFSET, (), said["offset"] / (1e9 if said["status"] & _NANOSECONDS else 1e6)),
        Measurement(MAX_ERROR, (), said["maxerror"] / 1e6),
        Measurement(ESTIMATED_ERROR, (), said["esterror"] / 1e6),
    )
    if lost and (said["service"] or said["freq"] or said["offset"]):
        detail = f"the kernel takes its clock for lost; it may be wrong by {said['maxerror'] / 1e6:g} s"
        return Verdict((UNSYNCHRONIZED.found(detail=detail),), measured)
    return Verdict((), measured)


REASONS = (UNSYNCHRONIZED,)
CHECKS = (
    Check(
        "clock",
        Subsystem.KERNEL,
        read,
        judge,
        REASONS,
        (SYNCHRONIZED, OFFSET, MAX_ERROR, ESTIMATED_ERROR),
        boot_grace=300.0,
    ),
)
