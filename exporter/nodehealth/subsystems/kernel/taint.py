"""Why the kernel calls itself tainted (/proc/sys/kernel/tainted, kernel/panic.c, admin-guide/tainted-kernels)."""

from __future__ import annotations

from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import Reason, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

TAINTED = Metric(
    "nodehealth_kernel_tainted", "1 for each reason why the kernel is tainted; none where it is not.", ("flag",)
)

FLAGS = (
    "proprietary_module",
    "forced_module",
    "cpu_out_of_spec",
    "forced_unload",
    "machine_check",
    "bad_page",
    "user_request",
    "oops",
    "acpi_table_overridden",
    "warning",
    "staging_driver",
    "firmware_workaround",
    "out_of_tree_module",
    "unsigned_module",
    "soft_lockup",
    "live_patch",
    "auxiliary",
    "struct_randomization",
    "test",
    "fwctl",
)
"""By bit, from 0."""
OTHER = "other"


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """The bit mask."""
    text = host.text("/proc/sys/kernel/tainted")
    if not text:
        raise Absent("/proc/sys/kernel/tainted does not exist")
    return int(text)


def judge(seen: Pass) -> Verdict:
    """Values only: what tainted the kernel has reasons of its own."""
    flags = [flag for bit, flag in enumerate(FLAGS) if seen.sample >> bit & 1]
    if seen.sample >> len(FLAGS):
        flags.append(OTHER)
    return Verdict((), tuple(Measurement(TAINTED, (flag,), 1.0) for flag in flags))


REASONS: tuple[Reason, ...] = ()
CHECKS = (Check("taint", Subsystem.KERNEL, read, judge, REASONS, (TAINTED,), period=300.0),)
