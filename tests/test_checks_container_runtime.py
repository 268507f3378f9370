"""The checks of systemd's services, the kubelet, the container runtimes and the kubelet's certificates."""

from __future__ import annotations

import binascii
import json
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nodehealth import worker
from nodehealth.checks import Pass, Sample, Verdict
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Clock, Host
from nodehealth.state import Moment, State
from nodehealth.subsystems.container_runtime import certificates, kubelet_health, runtime_sockets, unit_states

RECORDED = Path(__file__).parent / "checks/container_runtime"
SICK, WELL = RECORDED / "sick", RECORDED / "well"
DAY = 86400.0
CLIENT_END = 1798761600.0  # 2027-01-01
SERVING_END = 1771113600.0  # 2026-02-15
BEGIN = 1767225600.0  # 2026-01-01


@dataclass(frozen=True)
class Still(Clock):
    """A clock that stands."""

    at: float

    def now(self) -> float:
        return self.at


def sampled(topic: ModuleType, host: Host) -> Sample:
    """What the reader says, as it comes out of the worker."""
    (check,) = topic.CHECKS
    return json.loads(json.dumps(check.read(host, check.thresholds)))


def judged(topic: ModuleType, sample: Sample, previous: Sample = None, elapsed: float | None = None) -> Verdict:
    (check,) = topic.CHECKS
    verdict: Verdict = check.judge(Pass(sample, check.thresholds, previous, elapsed))
    assert {each.metric for each in verdict.measurements} <= set(check.metrics)
    assert {each.reason for each in verdict.findings} <= set(check.reasons)
    return verdict


def found(verdict: Verdict) -> list[tuple[str, str]]:
    assert all(each.detail for each in verdict.findings)
    return [(each.reason.name, each.object) for each in verdict.findings]


def measured(verdict: Verdict) -> dict[str, float]:
    return {
        "/".join((each.metric.name.removeprefix("nodehealth_container_runtime_"), *each.labels)): each.value
        for each in verdict.measurements
    }


# -- systemd's services ------------------------------------------------------------------------------------------------


def test_failed_services_are_found_and_others_only_counted() -> None:
    verdict = judged(unit_states, sampled(unit_states, Host(SICK)))
    assert found(verdict) == [("EssentialUnitFailed", "containerd.service"), ("SystemdUnitFailed", "sshd.service")]
    assert [each.detail for each in verdict.findings] == [
        "systemd has it as failed (exit-code)",
        "systemd has it as failed (timeout)",
    ]
    assert measured(verdict) == {
        "failed_units": 4,
        "unit_restarts/kubelet.service": 7,
        "unit_restarts/containerd.service": 5,
        "unit_restarts/sshd.service": 0,
        "unit_restarts/systemd-networkd.service": 0,
        "unit_restarts/nvidia-fabricmanager.service": 0,
    }


def test_nothing_is_found_where_only_unimportant_services_failed() -> None:
    verdict = judged(unit_states, sampled(unit_states, Host(WELL)))
    assert found(verdict) == []
    assert measured(verdict)["failed_units"] == 2


def test_restarts_are_deltas_and_each_one_counts() -> None:
    sick, well = sampled(unit_states, Host(SICK)), sampled(unit_states, Host(WELL))
    restarts = [each for each in found(judged(unit_states, sick, well, 60.0)) if each[0] == "UnitRepeatedRestart"]
    assert (
        restarts == [("UnitRepeatedRestart", "kubelet.service")] * 3 + [("UnitRepeatedRestart", "containerd.service")] * 3
    )
    assert found(judged(unit_states, well, well, 60.0)) == []


def units(**restarts: int | None) -> dict[str, Any]:
    found_units = {f"{name}.service": ["active", "success", count] for name, count in restarts.items()}
    return {"failed": 0, "units": found_units, "fabric": False}


@pytest.mark.parametrize(
    ("before", "now", "elapsed", "count"),
    [
        (4, 4, 60.0, 0),
        (4, 6, 60.0, 2),
        (4, 90, 60.0, 3),
        (4, 0, 60.0, 0),  # started by hand: reset
        (4, 1, 60.0, 1),  # reset, and restarted since
        (0, 9, 3601.0, 0),  # longer than an hour ago: nobody knows when
        (None, 9, 60.0, 0),
        (4, None, 60.0, 0),  # systemd before 235
    ],
)
def test_restarts_since_the_sample_before(before: int | None, now: int | None, elapsed: float, count: int) -> None:
    verdict = judged(unit_states, units(kubelet=now), units(kubelet=before), elapsed)
    assert found(verdict) == [("UnitRepeatedRestart", "kubelet.service")] * count


def test_a_unit_that_appears_later_starts_from_its_first_sample() -> None:
    assert found(judged(unit_states, units(kubelet=9), units(), 60.0)) == []
    assert found(judged(unit_states, units(kubelet=9))) == []


def test_three_restarts_within_an_hour_become_a_problem_that_stays_for_an_hour() -> None:
    reasons = {reason.name: reason for reason in unit_states.REASONS}
    state = State(reasons, boot_id="b")

    def passed(before: int, now: int, at: float) -> list[str]:
        findings = judged(unit_states, units(kubelet=now), units(kubelet=before), 60.0).findings
        state.checked(reasons.values(), findings, "check:units", Moment(at, at))
        state.tick(Moment(at, at))
        return [problem.reason.name for problem in state.problems.values() if problem.active]

    assert passed(0, 1, 0.0) == []
    assert passed(1, 2, 1800.0) == []
    assert passed(2, 3, 3660.0) == [], "the first one was more than an hour ago"
    assert passed(3, 4, 5000.0) == ["UnitRepeatedRestart"]
    assert passed(4, 4, 5060.0) == ["UnitRepeatedRestart"]
    assert passed(4, 4, 8601.0) == []


@pytest.mark.parametrize(
    ("others", "reason"),
    [
        ((), "EssentialUnitFailed"),
        (("kubelet",), "SystemdUnitFailed"),
        (("kubelet", "cri-docker"), "EssentialUnitFailed"),
    ],
)
def test_docker_is_essential_where_it_runs_the_containers(others: tuple[str, ...], reason: str) -> None:
    sample = units(**dict.fromkeys(others, 0))
    sample["units"]["docker.service"] = ["failed", "exit-code", 0]
    assert found(judged(unit_states, sample)) == [(reason, "docker.service")]


def test_the_fabric_manager_matters_where_there_is_a_fabric(tmp_path: Path) -> None:
    shutil.copytree(WELL, tmp_path, dirs_exist_ok=True, symlinks=True)
    device = tmp_path / "sys/bus/pci/devices/0000:c1:00.0"
    device.mkdir(parents=True)
    for name, value in (("vendor", "0x10de"), ("device", "0x22a3"), ("class", "0x068000")):
        (device / name).write_text(f"{value}\n")
    assert found(judged(unit_states, sampled(unit_states, Host(tmp_path)))) == [
        ("SystemdUnitFailed", "nvidia-fabricmanager.service")
    ]


def test_no_systemd_is_absent(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="systemd does not run here"):
        sampled(unit_states, Host(tmp_path))


def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Host:
    """A host below a root of its own and a `systemctl` that does what the script says."""
    (tmp_path / "root/run/systemd/system").mkdir(parents=True)
    tool = tmp_path / "bin/systemctl"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    return Host(tmp_path / "root")


def test_systemctl_is_asked_at_the_bus_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = 'printf "%s\\n" "$DBUS_SYSTEM_BUS_ADDRESS" "$*" >&2; printf "Id=kubelet.service\\nLoadState=loaded\\nActiveState=active\\nNRestarts=2\\n"'
    host = systemctl(tmp_path, monkeypatch, f'{{ {script}; }} 2>"{tmp_path}/asked"')
    assert sampled(unit_states, host)["units"] == {"kubelet.service": ["active", "", 2]}
    address, arguments = (tmp_path / "asked").read_text().splitlines()
    assert address == f"unix:path={tmp_path}/root/run/dbus/system_bus_socket"
    assert arguments.startswith("show *.service --all --no-pager --property=Id,")


def test_a_systemctl_that_fails_or_hangs_is_a_failed_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = systemctl(tmp_path, monkeypatch, "echo no bus >&2; exit 1")
    with pytest.raises(OSError, match="ended with 1: no bus"):
        sampled(unit_states, host)
    monkeypatch.setattr(unit_states, "_SECONDS", 0.1)
    (tmp_path / "bin/systemctl").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    with pytest.raises(subprocess.TimeoutExpired):
        sampled(unit_states, host)


def test_no_systemctl_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = systemctl(tmp_path, monkeypatch, "")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Absent, match="systemctl is not installed"):
        sampled(unit_states, host)


# -- the kubelet -------------------------------------------------------------------------------------------------------


def test_a_kubelet_that_is_not_well() -> None:
    verdict = judged(kubelet_health, sampled(kubelet_health, Host(SICK)))
    assert found(verdict) == [("KubeletUnhealthy", "")]
    assert verdict.findings[0].detail == "/healthz answered with status 500"
    assert measured(verdict) == {"kubelet_healthy": 0.0}


def test_a_kubelet_that_is_well() -> None:
    verdict = judged(kubelet_health, sampled(kubelet_health, Host(WELL)))
    assert found(verdict) == []
    assert measured(verdict) == {"kubelet_healthy": 1.0}


def node(root: Path, port: int | None = None, unit: str = "kubelet") -> Host:
    """A host on which a kubelet has run, in the network namespace of this test."""
    (root / "var/lib/kubelet/pods").mkdir(parents=True)
    (root / "etc/systemd/system").mkdir(parents=True)
    (root / f"etc/systemd/system/{unit}.service").write_text("[Service]\n")
    (root / "proc/1/ns").mkdir(parents=True)
    (root / "proc/1/ns/net").symlink_to(Path("/proc/self/ns/net").readlink())
    if port is not None:
        (root / "var/lib/kubelet/config.yaml").write_text(f"kind: KubeletConfiguration\nhealthzPort: {port}\n")
    return Host(root)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def replies(server: socket.socket, text: bytes) -> threading.Thread:
    def serve() -> None:
        stream, _ = server.accept()
        with stream:
            stream.recv(1024)
            stream.sendall(text)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nok", {"status": 200, "error": ""}),
        (b"HTTP/1.0 500 Internal Server Error\r\n\r\n[-]syncloop failed", {"status": 500, "error": ""}),
        (b"SSH-2.0-OpenSSH_9.6\r\n", {"status": 0, "error": "the answer is not HTTP"}),
        (b"", {"status": 0, "error": "the answer is not HTTP"}),
    ],
)
def test_the_kubelet_is_asked(tmp_path: Path, listener: socket.socket, text: bytes, expected: dict[str, Any]) -> None:
    thread = replies(listener, text)
    assert sampled(kubelet_health, node(tmp_path, listener.getsockname()[1])) == expected
    thread.join(5)


def test_a_kubelet_that_hangs_or_is_gone(tmp_path: Path, listener: socket.socket) -> None:
    host = node(tmp_path, listener.getsockname()[1])
    sample = kubelet_health.read(host, {"timeout": 0.05})
    assert sample == {"status": 0, "error": "no answer within 0.05 s"}
    listener.close()
    sample = sampled(kubelet_health, host)
    assert sample == {"status": 0, "error": "Connection refused"}
    assert judged(kubelet_health, sample).findings[0].detail == "/healthz: Connection refused"


def test_where_no_kubelet_can_answer_it_is_absent(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="never run"):
        sampled(kubelet_health, Host(tmp_path))
    with pytest.raises(Absent, match="switched off"):
        sampled(kubelet_health, node(tmp_path / "off", 0))
    with pytest.raises(Absent, match="no kubelet unit"):
        sampled(kubelet_health, node(tmp_path / "other", 0, unit="sshd"))
    apart = node(tmp_path / "apart")
    (apart.root / "proc/1/ns/net").unlink()
    (apart.root / "proc/1/ns/net").symlink_to("net:[1]")
    with pytest.raises(Absent, match="network namespace"):
        sampled(kubelet_health, apart)


def test_a_kubelet_without_a_unit_is_known_by_its_process(tmp_path: Path) -> None:
    host = node(tmp_path, 0, unit="sshd")
    (tmp_path / "proc/77").mkdir()
    (tmp_path / "proc/77/comm").write_text("kubelet\n")
    with pytest.raises(Absent, match="switched off"):
        sampled(kubelet_health, host)


# -- the container runtimes --------------------------------------------------------------------------------------------


@pytest.fixture
def short() -> Iterator[Path]:
    """A root with a short name: a socket's path has at most 108 characters."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


def unix(root: Path, path: str) -> socket.socket:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(place))
    server.listen(1)
    return server


def test_runtimes_that_answer_hang_and_are_gone(short: Path) -> None:
    answers, hangs, gone = (unix(short, path) for _, path, _ in runtime_sockets.SOCKETS[:3])
    thread = replies(answers, b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00")
    gone.close()
    sample = runtime_sockets.read(Host(short), {"timeout": 0.2})
    assert sample == {"containerd": "", "k3s-containerd": "no answer within 0.2 s", "crio": "Connection refused"}
    thread.join(5)
    verdict = judged(runtime_sockets, sample)
    assert found(verdict) == [
        ("ContainerRuntimeNotResponding", "k3s-containerd"),
        ("ContainerRuntimeNotResponding", "crio"),
    ]
    assert measured(verdict) == {
        "socket_responding/containerd": 1.0,
        "socket_responding/k3s-containerd": 0.0,
        "socket_responding/crio": 0.0,
    }
    answers.close()
    hangs.close()


def test_a_runtime_that_hangs_up_does_not_answer(short: Path) -> None:
    with unix(short, "/run/crio/crio.sock") as server:
        thread = replies(server, b"")
        assert runtime_sockets.read(Host(short), {"timeout": 2.0}) == {"crio": "it closed the connection"}
        thread.join(5)


def test_docker_is_asked_only_while_it_runs(short: Path) -> None:
    with unix(short, "/run/docker.sock") as server:
        with pytest.raises(Absent):
            sampled(runtime_sockets, Host(short))
        (short / "run/docker.pid").write_text("4711")
        with pytest.raises(Absent):
            sampled(runtime_sockets, Host(short))
        (short / "proc/4711").mkdir(parents=True)
        thread = replies(server, b"HTTP/1.0 200 OK\r\n\r\nOK")
        assert sampled(runtime_sockets, Host(short)) == {"docker": ""}
        thread.join(5)


def test_no_runtime_is_absent(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="no socket"):
        sampled(runtime_sockets, Host(tmp_path))


# -- certificates ------------------------------------------------------------------------------------------------------


def certificate_findings(host: Path, now: float) -> list[tuple[str, str]]:
    return found(judged(certificates, sampled(certificates, Host(host, Still(now)))))


def test_certificates_of_a_sick_node() -> None:
    verdict = judged(certificates, sampled(certificates, Host(SICK, Still(CLIENT_END - 2 * DAY))))
    assert found(verdict) == [("KubeletCertificateExpiring", "client"), ("KubeletCertificateExpired", "serving")]
    assert verdict.findings[0].detail == "it ends in 2.0 days and was not renewed"
    assert measured(verdict) == {
        "kubelet_certificate_expiry_timestamp_seconds/client": CLIENT_END,
        "kubelet_certificate_expiry_timestamp_seconds/serving": SERVING_END,
    }


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (7 * DAY, []),
        (7 * DAY - 1, ["KubeletCertificateExpiring"]),
        (1.0, ["KubeletCertificateExpiring"]),
        (0.0, ["KubeletCertificateExpired"]),
        (-DAY, ["KubeletCertificateExpired"]),
    ],
)
def test_the_edges_of_a_certificate_of_a_year(left: float, expected: list[str]) -> None:
    sample = {"now": CLIENT_END - left, "certificates": {"client": [BEGIN, CLIENT_END]}}
    assert [name for name, _ in found(judged(certificates, sample))] == expected


def test_a_short_certificate_is_late_only_in_its_last_tenth() -> None:
    lifetime = SERVING_END - BEGIN  # 45 days
    assert certificate_findings(WELL, BEGIN + 0.899 * lifetime) == []
    assert certificate_findings(WELL, BEGIN + 0.901 * lifetime) == [("KubeletCertificateExpiring", "serving")]


@pytest.mark.parametrize(
    ("path", "end"),
    [
        (RECORDED / "rsa.pem", CLIENT_END),
        (RECORDED / "late.pem", 2697969600.0),
        (WELL / "var/lib/kubelet/pki/kubelet-server-2026-01-01-00-00-00.pem", SERVING_END),
    ],
)
def test_times_are_read_from_real_certificates(path: Path, end: float) -> None:
    assert certificates.validity(certificates.first_certificate(path.read_text())) == (BEGIN, end)


def test_the_first_certificate_counts_and_keys_are_left_alone() -> None:
    client, other = ((RECORDED / name).read_text() for name in ("rsa.pem", "late.pem"))
    key = "-----BEGIN X PRIVATE " + "KEY-----\nAAAA\n-----END X PRIVATE " + "KEY-----\n"
    assert certificates.validity(certificates.first_certificate(key + client + other))[1] == CLIENT_END


def test_what_is_no_certificate_is_refused() -> None:
    der = certificates.first_certificate((RECORDED / "rsa.pem").read_text())
    for text in ("", "-----BEGIN CERTIFICATE-----\nMIIB"):
        with pytest.raises(ValueError, match="no certificate"):
            certificates.first_certificate(text)
    for length in range(0, len(der), 7):
        with pytest.raises(ValueError, match=r"cut|no X\.509"):
            certificates.validity(der[:length])
    for wrong in (b"\x30\x03\x02\x01\x05", b"\x30\x00", bytes(40), binascii.a2b_hex("30820004300002")):
        with pytest.raises(ValueError, match=r"cut|no X\.509"):
            certificates.validity(wrong)


def test_no_certificate_is_absent(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="no rotated certificate"):
        sampled(certificates, Host(tmp_path))


# -- all of them -------------------------------------------------------------------------------------------------------

TOPICS = (unit_states, kubelet_health, runtime_sockets, certificates)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.CHECKS[0].name)
def test_the_check_runs_on_this_machine(topic: ModuleType) -> None:
    (check,) = topic.CHECKS
    request = {"topic": topic.__name__, "check": check.name, "thresholds": dict(check.thresholds)}
    reply = worker.answer(request, Host(Path("/")))
    assert "failed" not in reply
    if "sample" in reply:
        judged(topic, json.loads(json.dumps(reply["sample"])))


def test_what_a_boot_can_cause_is_confirmed() -> None:
    unconfirmed = {reason.name for topic in TOPICS for reason in topic.REASONS if reason.repeats is None}
    assert unconfirmed == {"SystemdUnitFailed", "KubeletCertificateExpiring", "KubeletCertificateExpired"}
