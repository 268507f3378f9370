"""System services that failed or start again and again, as systemd itself has them.

Only a closed list of services that a node needs can give a finding; every other failed unit is counted.  Restarts are
compared with the sample before: a lifetime total says nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict, grown
from nodehealth.model import CHECK, REBOOT, Action, Finding, Reason, Repetition, Severity, Subsystem, quiet
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

_PROPERTIES = "Id,ActiveState,SubState,Result,NRestarts,LoadState,UnitFileState"
COMMAND = ("systemctl", "show", "*.service", "--all", "--no-pager", f"--property={_PROPERTIES}")
RECORDED = "/recorded/systemctl-show.txt"
_SECONDS = 8.0
_HOUR = 3600.0

_KUBELETS = ("kubelet", "snap.kubelet-eks.daemon", "k3s", "k3s-agent", "rke2-server", "rke2-agent")
_RUNTIMES = ("containerd", "crio", "cri-docker")
_FABRIC = "nvidia-fabricmanager"
_OTHERS = (
    *("docker", "ipamd", "kube-proxy", "nodeadm-config", "nodeadm-run"),
    *(_FABRIC, "nvidia-persistenced", "nvidia-imex", "nvidia-dcgm"),
    *("systemd-networkd", "systemd-resolved", "NetworkManager", "sshd", "ssh", "dbus", "dbus-broker"),
    *(
        "systemd-journald",
        "systemd-udevd",
        "systemd-logind",
        "systemd-timesyncd",
        "chronyd",
        "chrony",
        "multipathd",
        "iscsid",
    ),
)
WATCHED = frozenset(f"{name}.service" for name in (*_KUBELETS, *_RUNTIMES, *_OTHERS))

FAILED_UNITS = Metric("nodehealth_container_runtime_failed_units", "Services that systemd has as failed.")
RESTARTS = Metric(
    "nodehealth_container_runtime_unit_restarts",
    "Automatic restarts of a service that the node needs, since it was last started by hand or at boot.",
    ("unit",),
    "counter",
)

ESSENTIAL = Reason(
    name="EssentialUnitFailed",
    subsystem=Subsystem.CONTAINER_RUNTIME,
    severity=Severity.CRITICAL,
    action=Action.INVESTIGATE,
    summary="The kubelet or the container runtime failed and systemd does not start it again; the node runs nothing new.",
    remedy="Look at `systemctl status UNIT` and `journalctl -u UNIT -e`, then `systemctl restart UNIT`.",
    clears=(CHECK, REBOOT),
    object_kind="unit",
    repeats=Repetition(2, 300),
)
FAILED = Reason(
    name="SystemdUnitFailed",
    subsystem=Subsystem.CONTAINER_RUNTIME,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="A service that this node needs failed and systemd does not start it again.",
    remedy="Look at `systemctl status UNIT` and `journalctl -u UNIT -e`, then `systemctl restart UNIT`.",
    clears=(CHECK, REBOOT),
    object_kind="unit",
)
RESTARTED = Reason(
    name="UnitRepeatedRestart",
    subsystem=Subsystem.CONTAINER_RUNTIME,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="A service that this node needs was restarted three times or more within an hour.",
    remedy="Read why it ended in `journalctl -u UNIT -e`.",
    clears=(quiet(hours=1), REBOOT),
    object_kind="unit",
    repeats=Repetition(3, _HOUR),
)


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """The watched services that are loaded, how many services failed, and whether GPUs need the fabric manager."""
    if not host.path("/run/systemd/system").is_dir():
        raise Absent("systemd does not run here")
    units = list(parse(_shown(host)))
    return {
        "failed": sum(unit["ActiveState"] == "failed" for unit in units),
        "units": {
            unit["Id"]: [unit["ActiveState"], unit.get("Result", ""), _number(unit.get("NRestarts", ""))]
            for unit in units
            if unit["Id"] in WATCHED and unit.get("LoadState") == "loaded"
        },
        "fabric": _has_fabric(host),
    }


def _shown(host: Host) -> str:
    """What systemctl prints; a recorded host has it in a file."""
    recorded = host.path(RECORDED)
    if host.root != Path("/") and recorded.exists():
        return recorded.read_text(encoding="utf-8")
    import subprocess  # noqa: PLC0415 - costs memory, and a recorded host does not need it

    environment = {**os.environ, "LC_ALL": "C"}
    if host.root != Path("/"):
        environment["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={host.path('/run/dbus/system_bus_socket')}"
    try:
        done = subprocess.run(  # noqa: S603 - an argument list, never a shell
            COMMAND, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        raise Absent("systemctl is not installed") from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise OSError(f"systemctl ended with {done.returncode}: {said[:200]}")
    return done.stdout.decode(errors="replace")


def parse(text: str) -> Iterator[dict[str, str]]:
    """The units in what `systemctl show` prints: `key=value` lines, an empty line between units."""
    for block in text.split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if unit.get("Id", "").endswith(".service") and "ActiveState" in unit:
            yield unit


def _number(text: str) -> int | None:
    """None where this systemd (before 235) does not count restarts."""
    return int(text) if text.isdigit() else None


def _has_fabric(host: Host) -> bool:
    """NVSwitches on PCI, or eight GPUs whose switches sit behind NVIDIA NICs; elsewhere the fabric manager may fail."""
    devices = list(host.pci_devices())
    behind = sum(each.is_gpu for each in devices) >= 8 and any(each.is_mellanox for each in devices)  # noqa: PLR2004
    return behind or any(each.is_nvswitch for each in devices)


def judge(seen: Pass) -> Verdict:
    """What failed now, and what was restarted since the sample before."""
    units = seen.sample["units"]
    known = [(unit, restarts) for unit, (_, _, restarts) in units.items() if restarts is not None]
    measured = (
        Measurement(FAILED_UNITS, (), seen.sample["failed"]),
        *(Measurement(RESTARTS, (unit,), restarts) for unit, restarts in known),
    )
    return Verdict((*_failed(units, fabric=seen.sample["fabric"]), *_restarted(seen, known)), measured)


def _failed(units: Mapping[str, tuple[str, str, int | None]], *, fabric: bool) -> Iterator[Finding]:
    essential = {f"{name}.service" for name in (*_KUBELETS, *_RUNTIMES)}
    if "cri-docker.service" in units or not any(f"{name}.service" in units for name in _KUBELETS):
        essential.add("docker.service")
    for unit, (state, result, _) in units.items():
        if state == "failed" and (fabric or unit != f"{_FABRIC}.service"):
            yield (ESSENTIAL if unit in essential else FAILED).found(unit, detail=f"systemd has it as failed ({result})")


def _restarted(seen: Pass, known: list[tuple[str, int]]) -> Iterator[Finding]:
    """One finding for each restart, so that the reason's repetition counts restarts and not passes."""
    if seen.previous is None or seen.elapsed is None or seen.elapsed > _HOUR:
        return
    for unit, restarts in known:
        before = (seen.previous["units"].get(unit) or (None, None, None))[2]
        count = int(grown(restarts, before))
        for _ in range(min(count, 3)):
            yield RESTARTED.found(unit, detail=f"{count} restarts in the last {seen.elapsed:.0f} s, {restarts} in all")


REASONS = (ESSENTIAL, FAILED, RESTARTED)
CHECKS = (
    Check(
        "units",
        Subsystem.CONTAINER_RUNTIME,
        read,
        judge,
        REASONS,
        (FAILED_UNITS, RESTARTS),
        period=120.0,  # systemctl costs 80 ms of a core for 150 services
        deadline=10.0,
        keeps=True,
    ),
)
