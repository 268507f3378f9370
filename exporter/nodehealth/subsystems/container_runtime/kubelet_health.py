"""Whether the kubelet says that it is well (its /healthz on the loopback address)."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, REBOOT, Action, Reason, Repetition, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

RECORDED = "/recorded/kubelet-healthz.json"
_OK = 200
_PORT = 10248
_CONFIGURATIONS = (
    "/var/lib/kubelet/config.yaml",
    "/etc/kubernetes/kubelet/config.json",
    "/etc/kubernetes/kubelet/kubelet-config.json",
)
_UNIT_FOLDERS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_UNITS = ("kubelet", "snap.kubelet-eks.daemon", "k3s", "k3s-agent", "rke2-server", "rke2-agent")

HEALTHY = Metric("nodehealth_container_runtime_kubelet_healthy", "1 where the kubelet's /healthz says ok, else 0.")

UNHEALTHY = Reason(
    name="KubeletUnhealthy",
    subsystem=Subsystem.CONTAINER_RUNTIME,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="The kubelet does not answer or says that it is not well; the node soon becomes NotReady.",
    remedy="Look at `systemctl status kubelet`, `journalctl -u kubelet -e` and `curl localhost:10248/healthz`.",
    clears=(CHECK, REBOOT),
    repeats=Repetition(3, 300),
)


def read(host: Host, thresholds: Mapping[str, float]) -> Sample:
    """The HTTP status of /healthz, or 0 and why there is none."""
    _expect_kubelet(host)
    recorded = host.path(RECORDED)
    if host.root != Path("/") and recorded.exists():
        return json.loads(recorded.read_text(encoding="utf-8"))
    _expect_its_network(host)
    try:
        status = _ask(_port(host), thresholds["timeout"])
    except TimeoutError:
        return {"status": 0, "error": f"no answer within {thresholds['timeout']:g} s"}
    except (ConnectionError, ValueError) as error:
        return {"status": 0, "error": getattr(error, "strerror", None) or str(error)}
    return {"status": status, "error": ""}


def _expect_kubelet(host: Host) -> None:
    """The kubelet makes the folder of its pods at its first start: an image that only has it installed is no node."""
    if not host.path("/var/lib/kubelet/pods").is_dir():
        raise Absent("the kubelet has never run here")
    units = (host.path(f"{folder}/{unit}.service") for folder in _UNIT_FOLDERS for unit in _UNITS)
    if not any(unit.is_symlink() or unit.exists() for unit in units) and not _has_process(host):
        raise Absent("there is no kubelet unit or process")


def _has_process(host: Host) -> bool:
    names = (entry.name for entry in host.path("/proc").iterdir() if entry.name.isdigit())
    return any(host.text(f"/proc/{name}/comm") == "kubelet" for name in names)


def _expect_its_network(host: Host) -> None:
    """In a network namespace of its own the exporter's loopback is not the kubelet's."""
    if host.root != Path("/") and host.path("/proc/1/ns/net").readlink() != Path("/proc/self/ns/net").readlink():
        raise Absent("the exporter is not in the host's network namespace")


def _port(host: Host) -> int:
    text = next(filter(None, map(host.text, _CONFIGURATIONS)), "")
    found = re.search(r'^\s*"?healthzPort"?:\s*(\d{1,5})', text, re.MULTILINE)
    port = int(found[1]) if found else _PORT
    if not port:
        raise Absent("the kubelet's healthz port is switched off")
    return port


def _ask(port: int, timeout: float) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout) as stream:
        stream.sendall(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        words = stream.recv(256).split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():  # noqa: PLR2004
        raise ValueError("the answer is not HTTP")
    return int(words[1])


def judge(seen: Pass) -> Verdict:
    """Anything but status 200 is not well."""
    status, error = seen.sample["status"], seen.sample["error"]
    measured = (Measurement(HEALTHY, (), float(status == _OK)),)
    if status == _OK:
        return Verdict((), measured)
    detail = f"/healthz answered with status {status}" if status else f"/healthz: {error}"
    return Verdict((UNHEALTHY.found(detail=detail),), measured)


REASONS = (UNHEALTHY,)
CHECKS = (
    Check(
        "kubelet",
        Subsystem.CONTAINER_RUNTIME,
        read,
        judge,
        REASONS,
        (HEALTHY,),
        thresholds={"timeout": 2.0},
        boot_grace=300.0,
    ),
)
