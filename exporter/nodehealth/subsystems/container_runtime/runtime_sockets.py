"""Whether containerd, CRI-O and dockerd answer on their sockets.

A connection alone proves nothing, because the kernel accepts it for a daemon that hangs; so each gets the first bytes of
its protocol and must say something back.  dockerd is asked only while it runs: a connection would start it.
"""

from __future__ import annotations

import socket
import stat
from collections.abc import Mapping

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, REBOOT, Action, Reason, Repetition, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # preface and empty SETTINGS
_PING = b"GET /_ping HTTP/1.0\r\nHost: localhost\r\n\r\n"
SOCKETS = (
    ("containerd", "/run/containerd/containerd.sock", _HTTP2),
    ("k3s-containerd", "/run/k3s/containerd/containerd.sock", _HTTP2),
    ("crio", "/run/crio/crio.sock", _HTTP2),
    ("docker", "/run/docker.sock", _PING),
)

RESPONDING = Metric(
    "nodehealth_container_runtime_socket_responding",
    "1 where the container runtime answers on its socket, else 0.",
    ("runtime",),
)

NOT_RESPONDING = Reason(
    name="ContainerRuntimeNotResponding",
    subsystem=Subsystem.CONTAINER_RUNTIME,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="The container runtime does not answer on its socket; containers can be neither started nor stopped.",
    remedy="Look at `systemctl status containerd` (or crio, docker) and its journal; a restart of it keeps containers running.",
    clears=(CHECK, REBOOT),
    object_kind="container runtime",
    repeats=Repetition(3, 300),
)


def read(host: Host, thresholds: Mapping[str, float]) -> Sample:
    """For each runtime with a socket: "" where it answers, else why not."""
    found = {
        name: _trouble(str(host.path(path)), hello, thresholds["timeout"])
        for name, path, hello in SOCKETS
        if _is_socket(host, path) and (name != "docker" or _dockerd_runs(host))
    }
    if not found:
        raise Absent("there is no socket of containerd, CRI-O or a running dockerd")
    return found


def _is_socket(host: Host, path: str) -> bool:
    try:
        return stat.S_ISSOCK(host.path(path).stat().st_mode)
    except FileNotFoundError:
        return False


def _dockerd_runs(host: Host) -> bool:
    pid = host.text("/run/docker.pid")
    return pid.isdigit() and host.path(f"/proc/{pid}").is_dir()


def _trouble(path: str, hello: bytes, timeout: float) -> str:
    """Why it does not answer; PermissionError where it could not be asked."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(timeout)
        try:
            stream.connect(path)
            stream.sendall(hello)
            return "" if stream.recv(64) else "it closed the connection"
        except (TimeoutError, BlockingIOError):
            return f"no answer within {timeout:g} s"
        except (ConnectionError, FileNotFoundError) as error:
            return error.strerror or type(error).__name__


def judge(seen: Pass) -> Verdict:
    """Every runtime with a reason why it does not answer."""
    measured = tuple(Measurement(RESPONDING, (name,), float(not why)) for name, why in seen.sample.items())
    return Verdict(tuple(NOT_RESPONDING.found(name, detail=why) for name, why in seen.sample.items() if why), measured)


REASONS = (NOT_RESPONDING,)
CHECKS = (
    Check(
        "runtimes",
        Subsystem.CONTAINER_RUNTIME,
        read,
        judge,
        REASONS,
        (RESPONDING,),
        deadline=10.0,
        thresholds={"timeout": 2.0},
        boot_grace=300.0,
    ),
)
