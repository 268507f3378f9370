"""The state that the NVMe driver gives each controller (drivers/nvme/host/sysfs.c)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, Action, Reason, Repetition, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

LIVE = Metric("nodehealth_storage_nvme_live", "1 where the driver can use an NVMe controller, else 0.", ("controller",))

NOT_LIVE = Reason(
    name="NvmeControllerNotLive",
    subsystem=Subsystem.STORAGE,
    severity=Severity.CRITICAL,
    action=Action.REPLACE_NODE,
    summary="The driver cannot use an NVMe disk: it is being reset again and again, or it is dead.",
    remedy="Look with `nvme list` and in `dmesg -T`; drain the node and reboot it; replace the disk or the node when it stays so.",
    clears=(CHECK,),
    object_kind="NVMe controller",
    repeats=Repetition(2, 300),
)

_CONTROLLER = re.compile(r"nvme\d{1,4}")


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """State, model and serial number of each controller on PCI; a fabric's is no part of the node."""
    place = host.path("/sys/class/nvme")
    if not place.exists():
        raise Absent("the kernel has no NVMe driver loaded")
    names = sorted(state.parent.name for state in place.glob("nvme*/state"))
    local = [name for name in names if _CONTROLLER.fullmatch(name) and _text(host, name, "transport") in {"", "pcie"}]
    return {name: {key: _text(host, name, key) for key in ("state", "model", "serial")} for name in local}


def _text(host: Host, name: str, key: str) -> str:
    return host.text(f"/sys/class/nvme/{name}/{key}")


def judge(seen: Pass) -> Verdict:
    """Everything but `live`; a controller that vanished while it was read has no state."""
    known = {name: each for name, each in seen.sample.items() if each["state"]}
    findings = (
        NOT_LIVE.found(name, detail=f"its state is {each['state']} ({each['model']}, serial {each['serial']})")
        for name, each in known.items()
        if each["state"] != "live"
    )
    measured = (Measurement(LIVE, (name,), float(each["state"] == "live")) for name, each in known.items())
    return Verdict(tuple(findings), tuple(measured))


REASONS = (NOT_LIVE,)
CHECKS = (Check("nvme", Subsystem.STORAGE, read, judge, REASONS, (LIVE,)),)
