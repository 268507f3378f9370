"""Error counters of AWS Elastic Fabric Adapters (the driver's `hw_counters`), as rates since the last pass.

The driver always says that the port is active, so that only its counters and its lines in the kernel log tell of trouble.
"""

from __future__ import annotations

from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict, grown
from nodehealth.model import CHECK, Action, Hardware, Reason, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

COUNTS = Metric(
    "nodehealth_networking_efa_errors",
    "Error counters of an EFA port (retrans_bytes: bytes).",
    ("device", "port", "counter"),
    "counter",
)

ERRORS = Reason(
    name="EFAErrorMetric",
    subsystem=Subsystem.NETWORKING,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="An Elastic Fabric Adapter drops, repeats or fails much of its traffic; collective operations are slow or hang.",
    remedy="Compare the job's other nodes: errors on one node mean that node, on all of them the network or the application.",
    clears=(CHECK,),
    object_kind="EFA port",
    needs=Hardware.EFA,
)

_BASE = "/sys/class/infiniband"
_LIMITS = {  # per second
    "rx_drops": 2.0,
    "rdma_write_wr_err": 2.0,
    "rdma_read_wr_err": 2.0,
    "unresponsive_remote_events": 2.0,
    "impaired_remote_conn_events": 2.0,
    "retrans_timeout_events": 2.0,
    "retrans_pkts": 20.0,
    "retrans_bytes": 20000.0,
}


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """The counters of each port by `device/port`; which there are depends on the adapter and its driver."""
    found = {}
    for path in sorted(host.path(_BASE).glob("*/ports/*")):
        device, port = path.parts[-3], path.name
        if _is_efa(host, f"{_BASE}/{device}/device"):
            texts = {name: host.text(f"{_BASE}/{device}/ports/{port}/hw_counters/{name}") for name in _LIMITS}
            found[f"{device}/{port}"] = {name: int(text) for name, text in texts.items() if text}
    if not found:
        raise Absent("there is no Elastic Fabric Adapter with a driver")
    return found


def _is_efa(host: Host, path: str) -> bool:
    return host.text(f"{path}/vendor") == "0x1d0f" and host.text(f"{path}/device").startswith("0xefa")


def judge(seen: Pass) -> Verdict:
    """A port where at least one counter grows as fast as its threshold."""
    findings, measured = [], []
    for name, counters in seen.sample.items():
        device, _, port = name.partition("/")
        measured += [Measurement(COUNTS, (device, port, counter), value) for counter, value in counters.items()]
        before = (seen.previous or {}).get(name, {})
        growth = {counter: grown(value, before.get(counter)) for counter, value in counters.items()}
        high = [each for each, more in growth.items() if more and _rate(more, seen.elapsed) >= seen.thresholds[each]]
        if high:
            counts = ", ".join(f"{each} {growth[each]:g}" for each in high)
            findings.append(ERRORS.found(name, detail=f"{name} counted in {seen.elapsed or 0:.0f} s: {counts}"))
    return Verdict(tuple(findings), tuple(measured))


def _rate(growth: float, elapsed: float | None) -> float:
    return growth / elapsed if elapsed else 0.0


REASONS = (ERRORS,)
CHECKS = (
    Check(
        "efa",
        Subsystem.NETWORKING,
        read,
        judge,
        REASONS,
        (COUNTS,),
        thresholds=_LIMITS,
        keeps=True,
        needs=Hardware.EFA,
    ),
)
