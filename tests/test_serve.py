"""The exporter as a process: life, death, restart, configuration, one state directory for one exporter."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import needs_promtool
from exporter import Exporter, exporter, value
from nodehealth import catalog as catalogs
from nodehealth.commands import serve as serving
from nodehealth.engine import Engine
from nodehealth.settings import Settings
from nodehealth.sources.host import Host
from nodehealth.store import Lock
from nodehealth.view import View
from nodehealth.wiring import Wiring

BOOT = "11111111-2222-3333-4444-555555555555"
REASON = "NvidiaXIDErrorRebootNode"


class RecordedHost:
    """A host with a kernel log that the test writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sequence = 0
        self._write("proc/sys/kernel/random/boot_id", BOOT)
        self._write("proc/uptime", "5000.00 100.00")
        self._write("etc/machine-id", "0123456789abcdef0123456789abcdef")
        self._write("dev/kmsg", "")

    def _write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def log(self, *texts: str, priority: int = 4, at: float = 4990.0) -> None:
        with (self.root / "dev/kmsg").open("a") as file:
            for text in texts:
                file.write(f"{priority},{self.sequence},{int((at + self.sequence / 1e6) * 1e6)},-;{text}\n")
                self.sequence += 1

    def reboot(self) -> None:
        self.sequence = 0
        self._write("proc/sys/kernel/random/boot_id", "99999999-2222-3333-4444-555555555555")
        self._write("dev/kmsg", "")


@pytest.fixture
def host(tmp_path: Path) -> RecordedHost:
    return RecordedHost(tmp_path / "host")


def xid(address: str, code: int = 79) -> str:
    return f"NVRM: Xid (PCI:{address}): {code}, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


def lost_gpu(page: dict, address: str = "0000:3b:00.0") -> float:  # type: ignore[type-arg]
    return value(page, "nodehealth_problem_object_active", reason=REASON, object=address)


def test_a_lost_gpu_makes_the_subsystem_unhealthy_until_the_driver_is_loaded(host: RecordedHost, tmp_path: Path) -> None:
    with exporter(tmp_path / "state", root=host.root) as running:
        assert value(running.page(), "nodehealth_subsystem_healthy", subsystem="kernel") == 1
        host.log(xid("0000:3b:00"))
        running.wait(lambda: lost_gpu(running.page()) == 1)
        page = running.page()
        assert value(page, "nodehealth_subsystem_state", subsystem="accelerated_hardware", state="unhealthy") == 1
        assert ("nodehealth_subsystem_healthy", frozenset({("subsystem", "accelerated_hardware")})) in page
        assert value(page, "nodehealth_subsystem_healthy", subsystem="accelerated_hardware") == 0
        host.log("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024")
        running.wait(lambda: value(running.page(), "nodehealth_subsystem_healthy", subsystem="accelerated_hardware") == 1)
        page = running.page()
        assert value(page, "nodehealth_gpu_xid_errors_total", xid="79") == 1
        assert (
            "nodehealth_problem_active",
            frozenset(
                {
                    ("subsystem", "accelerated_hardware"),
                    ("reason", REASON),
                    ("severity", "critical"),
                    ("action", "reboot_node"),
                }
            ),
        ) in page, "a cleared problem stays on the page"
        assert lost_gpu(page) == 0


def test_restart_keeps_counters_and_active_problems_and_counts_what_came_meanwhile_once(
    host: RecordedHost, tmp_path: Path
) -> None:
    host.log(xid("0000:3b:00"))
    with exporter(tmp_path / "state", root=host.root) as running:
        assert lost_gpu(running.page()) == 1
    host.log(xid("0000:5e:00", 48))
    with exporter(tmp_path / "state", root=host.root) as running:
        page = running.page()
        assert lost_gpu(page) == 1
        assert value(page, "nodehealth_gpu_xid_errors_total", xid="79") == 1
        assert value(page, "nodehealth_gpu_xid_errors_total", xid="48") == 1
        assert value(page, "nodehealth_source_lost_records_total", source="kmsg") == 0


def test_reboot_ends_what_a_reboot_ends_and_keeps_the_counters(host: RecordedHost, tmp_path: Path) -> None:
    host.log(xid("0000:3b:00"))
    with exporter(tmp_path / "state", root=host.root) as running:
        assert lost_gpu(running.page()) == 1
    host.reboot()
    with exporter(tmp_path / "state", root=host.root) as running:
        page = running.page()
        assert lost_gpu(page) == 0
        assert value(page, "nodehealth_gpu_xid_errors_total", xid="79") == 1
        assert value(page, "nodehealth_source_lost_records_total", source="kmsg") == 0


def test_a_ring_that_overflowed_while_stopped_counts_as_lost(host: RecordedHost, tmp_path: Path) -> None:
    host.log(xid("0000:3b:00"))
    with exporter(tmp_path / "state", root=host.root):
        pass
    (host.root / "dev/kmsg").write_text("")
    host.sequence += 1000
    host.log("usb 1-1: new high-speed USB device number 2")
    with exporter(tmp_path / "state", root=host.root) as running:
        page = running.page()
        assert value(page, "nodehealth_source_lost_records_total", source="kmsg") == 1000
        assert lost_gpu(page) == 1, "nothing critical is forgotten"
    with exporter(tmp_path / "state", root=host.root) as running:
        assert running.value("nodehealth_source_lost_records_total", source="kmsg") == 1000


def test_kill_at_100_random_instants_neither_loses_nor_doubles(host: RecordedHost, tmp_path: Path) -> None:
    chance = random.Random(20)  # noqa: S311 - a repeatable test
    writing, done, written = threading.Event(), threading.Event(), [0]
    host.log(xid("0000:3b:00"))

    def load() -> None:
        while not done.wait(0.002):
            if writing.is_set():
                host.log("eth0: link is up", xid("0000:5e:00", 31))
                written[0] += 1

    writer = threading.Thread(target=load)
    writer.start()
    try:
        seen = 0.0
        for round_ in range(100):
            writing.set()
            running = Exporter(tmp_path / "state", root=host.root)
            if round_ % 10 == 0:
                page = running.ready().page()
                assert value(page, "nodehealth_gpu_xid_errors_total", xid="31") >= seen, "a counter never goes backwards"
                assert lost_gpu(page) == 1, "an active fault stays active"
                seen = value(page, "nodehealth_gpu_xid_errors_total", xid="31")
            time.sleep(chance.uniform(0.0, 0.6))
            running.kill()
    finally:
        done.set()
        writer.join()
    with exporter(tmp_path / "state", root=host.root) as running:
        page = running.page()
        assert written[0] > 1000, "there was load"
        assert value(page, "nodehealth_gpu_xid_errors_total", xid="31") == written[0]
        assert value(page, "nodehealth_gpu_xid_errors_total", xid="79") == 1
        assert lost_gpu(page) == 1


def test_sigterm_ends_within_two_seconds_with_the_state_saved(host: RecordedHost, tmp_path: Path) -> None:
    running = Exporter(tmp_path / "state", root=host.root).ready()
    host.log(xid("0000:3b:00"))
    running.wait(lambda: lost_gpu(running.page()) == 1)
    began = time.monotonic()
    assert running.stop() == 0
    assert time.monotonic() - began < 2.0
    with exporter(tmp_path / "state", root=host.root) as again:
        assert lost_gpu(again.page()) == 1


def test_reload_takes_a_good_configuration_and_refuses_a_bad_one(host: RecordedHost, tmp_path: Path) -> None:
    file = tmp_path / "nodehealth.yaml"
    file.write_text("xids: {31: {severity: critical, action: reset_gpu}}\n")
    with exporter(tmp_path / "state", f"--config.file={file}", root=host.root) as running:
        host.log(xid("0000:3b:00", 31))
        running.wait(lambda: running.value("nodehealth_problem_object_active", reason="NvidiaXIDError") == 1)
        file.write_text("reasons: {NvidiaXIDEror: {enabled: false}}\n")
        running.process.send_signal(signal.SIGHUP)
        running.wait(lambda: running.value("nodehealth_config_last_reload_success") == 0)
        assert 'no reason is named \\"NvidiaXIDEror\\"; did you mean \\"NvidiaXIDError\\"?' in running.log
        assert running.value("nodehealth_problem_object_active", reason="NvidiaXIDError") == 1
        file.write_text(
            "reasons: {NvidiaXIDError: {enabled: false}}\nxids: {31: {severity: critical, action: reset_gpu}}\n"
        )
        running.process.send_signal(signal.SIGHUP)
        running.wait(lambda: running.page()["nodehealth_config_last_reload_success", frozenset()] == 1)
        assert running.value("nodehealth_problem_object_active", reason="NvidiaXIDError") == 0


def test_reload_opens_the_stream_of_a_new_rule(host: RecordedHost, tmp_path: Path) -> None:
    log = host.root / "var/log/app.log"
    log.parent.mkdir(parents=True)
    log.write_text("old: disk array degraded\n")
    file = tmp_path / "nodehealth.yaml"
    file.write_text("")
    with exporter(tmp_path / "state", f"--config.file={file}", root=host.root) as running:
        file.write_text(
            "rules:\n- {name: ArrayDegraded, source: 'file:/var/log/app.log', pattern: 'disk array degraded',"
            " subsystem: storage, severity: critical, examples: ['new: disk array degraded']}\n"
        )
        running.process.send_signal(signal.SIGHUP)
        running.wait(lambda: running.value("nodehealth_source_up", source="file:/var/log/app.log") == 1)
        with log.open("a") as lines:
            lines.write("new: disk array degraded\n")
        running.wait(lambda: running.value("nodehealth_problems_total", reason="ArrayDegraded") == 1)
        assert running.value("nodehealth_subsystem_healthy", subsystem="storage") == 0


def test_an_operator_clears_a_problem_by_hand(host: RecordedHost, tmp_path: Path) -> None:
    host.log(xid("0000:3b:00"))
    with exporter(tmp_path / "state", root=host.root) as running:
        assert lost_gpu(running.page()) == 1
        clear = [sys.executable, "-m", "nodehealth", "clear", f"--state.path={tmp_path / 'state'}", REASON, "3B:00"]
        done = subprocess.run(clear, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "1 problem ended" in done.stdout
        running.wait(lambda: lost_gpu(running.page()) == 0)
    with exporter(tmp_path / "state", root=host.root) as running:
        assert lost_gpu(running.page()) == 0


def test_state_of_another_machine_is_set_aside(host: RecordedHost, tmp_path: Path) -> None:
    host.log(xid("0000:3b:00"))
    with exporter(tmp_path / "state", root=host.root) as running:
        assert lost_gpu(running.page()) == 1
    other = RecordedHost(tmp_path / "other")
    (other.root / "etc/machine-id").write_text("ffffffffffffffffffffffffffffffff")
    with exporter(tmp_path / "state", root=other.root) as running:
        assert running.value("nodehealth_gpu_xid_errors_total") == 0
        assert "belongs to another machine" in running.log
    assert list((tmp_path / "state").glob("nodehealth.db.aside-*"))


def test_a_second_exporter_waits_and_then_takes_over(host: RecordedHost, tmp_path: Path) -> None:
    first = Exporter(tmp_path / "state", root=host.root).ready()
    second = Exporter(tmp_path / "state", root=host.root)
    try:
        second.wait(lambda: second.get("/livez")[0] == 200)
        assert second.get("/metrics")[0] == 503
        first.stop()
        second.ready()
        assert second.value("nodehealth_state_persistent") == 1
    finally:
        first.kill()
        second.kill()


def test_the_backlog_answers_503_until_it_is_read(host: RecordedHost, tmp_path: Path) -> None:
    host.log(*(xid("0000:3b:00", 31) for _ in range(20_000)))
    running = Exporter(tmp_path / "state", root=host.root)
    try:
        assert running.get("/metrics")[0] == 503
        running.ready()
        assert running.value("nodehealth_gpu_xid_errors_total", xid="31") == 20_000
    finally:
        running.kill()


def test_without_a_writable_state_directory_everything_works_and_says_so(host: RecordedHost, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    host.log(xid("0000:3b:00"))
    running = Exporter(tmp_path / "logs", f"--state.path={tmp_path / 'file' / 'state'}", root=host.root)
    try:
        page = running.ready().page()
        assert value(page, "nodehealth_state_persistent") == 0
        assert lost_gpu(page) == 1
        assert "not kept" in running.get("/")[1].decode()
    finally:
        running.kill()


@needs_promtool
def test_promtool_has_nothing_to_say_about_an_empty_host(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with exporter(tmp_path / "state", root=tmp_path / "empty") as running:
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=running.get("/metrics")[1], capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_second_exporter_that_waited_in_vain_names_the_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "LOCK_SECONDS", 0.2)
    first, second = Lock(tmp_path), Lock(tmp_path)
    assert first.take()
    with pytest.raises(serving.ServeError, match=rf"{tmp_path} is held by process {os.getpid()} \("):
        serving._wait_for(second, tmp_path, serving._Run())
    first.release()
    second.release()


def test_a_rule_that_fails_costs_its_record_and_nothing_else(host: RecordedHost) -> None:
    def broken(*_: object) -> tuple[()]:
        raise KeyError("a fault of ours")

    host.log("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.15", xid("0000:3b:00"))
    catalog = catalogs.load()
    rules = tuple(replace(rule, read=broken) if rule.name == "NVIDIA driver loaded" else rule for rule in catalog.rules)
    views: list[View] = []
    Engine(Wiring(Host(host.root), Settings(), replace(catalog, rules=rules, checks={})), views.append, once=True).run()
    [kmsg] = [source for source in views[-1].sources if source.name == "kmsg"]
    assert (kmsg.records, kmsg.errors) == (2, 1)
    assert [problem.reason.name for problem in views[-1].active()] == [REASON]


def test_every_five_minutes_each_source_says_what_it_read(host: RecordedHost, caplog: pytest.LogCaptureFixture) -> None:
    host.log(xid("0000:3b:00"), "NVRM: a wording that nobody has seen", "usb 1-1: new device")
    engine = Engine(Wiring(Host(host.root), Settings(), replace(catalogs.load(), checks={})), lambda _: None, once=True)
    engine.run()
    logger = logging.getLogger("nodehealth")
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    try:
        engine._summary_due = 0.0
        engine._tick()
    finally:
        logger.removeHandler(caplog.handler)
    said = next(vars(each) for each in caplog.records if each.msg == "source summary" and vars(each)["source"] == "kmsg")
    assert {key: said[key] for key in ("read", "matched", "unmatched_driver_lines", "lost")} == {
        "read": 3,
        "matched": 1,
        "unmatched_driver_lines": 1,
        "lost": 0,
    }
    assert engine._summary_due > 0
