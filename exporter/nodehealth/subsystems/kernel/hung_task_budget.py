"""How many hung-task reports the kernel will still print, and how many hung tasks it saw (kernel/hung_task.c)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import Reason, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

LEFT = Metric(
    "nodehealth_kernel_hung_task_warnings_left", "Hung-task reports that the kernel will still print; +Inf: no limit."
)
SEEN = Metric(
    "nodehealth_kernel_hung_tasks",
    "Hung tasks that the kernel saw since boot, reported or not (Linux 6.13).",
    kind="counter",
)


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """The budget, and the kernel's own count where it keeps one."""
    timeout = host.text("/proc/sys/kernel/hung_task_timeout_secs")
    if not timeout:
        raise Absent("the kernel does not look for hung tasks (CONFIG_DETECT_HUNG_TASK)")
    if int(timeout) == 0:
        raise Absent("looking for hung tasks is switched off (kernel.hung_task_timeout_secs is 0)")
    counted = host.text("/proc/sys/kernel/hung_task_detect_count")
    return {"left": int(host.text("/proc/sys/kernel/hung_task_warnings")), "seen": int(counted) if counted else None}


def judge(seen: Pass) -> Verdict:
    """Values only: the kernel says in its log when the budget is used up."""
    left, counted = seen.sample["left"], seen.sample["seen"]
    measured = [Measurement(LEFT, (), left if left >= 0 else math.inf)]
    if counted is not None:
        measured.append(Measurement(SEEN, (), counted))
    return Verdict((), tuple(measured))


REASONS: tuple[Reason, ...] = ()
CHECKS = (Check("hung_task_budget", Subsystem.KERNEL, read, judge, REASONS, (LEFT, SEEN), period=300.0),)
