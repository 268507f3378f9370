"""How full the compressed swap in memory is (drivers/block/zram).  Off by default: a full zram is how many nodes live."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, Action, Reason, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

STORED = Metric("nodehealth_kernel_zram_stored_bytes", "Uncompressed size of what a zram device holds.", ("device",))
SIZE = Metric("nodehealth_kernel_zram_size_bytes", "Uncompressed size of what it can hold.", ("device",))

HIGH = Reason(
    name="ZramHighUsage",
    subsystem=Subsystem.KERNEL,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="A compressed swap device in memory is nearly full; when it is, the kernel kills processes.",
    remedy="See `zramctl` and `ps -eo rss,args --sort=-rss | head`; give the node more memory or less work.",
    clears=(CHECK,),
    object_kind="zram device",
)


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """What each device that is in use holds, and its size."""
    base = host.path("/sys/block")
    names = sorted(each.name for each in base.iterdir() if re.fullmatch(r"zram\d+", each.name)) if base.is_dir() else []
    sizes = {name: int(host.text(f"/sys/block/{name}/disksize")) for name in names}
    stored = {name: host.text(f"/sys/block/{name}/mm_stat").split() for name, size in sizes.items() if size}
    if not stored:
        raise Absent("no zram device is in use")
    return {name: [int(words[0]), sizes[name]] for name, words in stored.items()}


def judge(seen: Pass) -> Verdict:
    """High where the share of a device's size reaches the threshold `ratio`."""
    devices = seen.sample.items()
    return Verdict(
        tuple(
            HIGH.found(name, detail=f"{stored >> 20} of {size >> 20} MiB are used")
            for name, (stored, size) in devices
            if stored / size >= seen.thresholds["ratio"]
        ),
        tuple(
            each
            for name, (stored, size) in devices
            for each in (Measurement(STORED, (name,), stored), Measurement(SIZE, (name,), size))
        ),
    )


REASONS = (HIGH,)
CHECKS = (
    Check(
        "zram",
        Subsystem.KERNEL,
        read,
        judge,
        REASONS,
        (STORED, SIZE),
        period=300.0,
        thresholds={"ratio": 0.8},
        enabled=False,
    ),
)
