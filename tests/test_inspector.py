"""Checks in their worker: what hangs, dies or fails there stays there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from nodehealth import inspector
from nodehealth.checks import Check, Planned, Sample, Verdict, grown
from nodehealth.inspector import Inspected, Inspector, Worker
from nodehealth.model import Subsystem
from nodehealth.sources.host import Host

TOPIC = """
import os, time
from nodehealth.checks import Check, Verdict
from nodehealth.model import Subsystem
from nodehealth.sources.follower import Absent

def hang(host, thresholds): time.sleep(3600)
def die(host, thresholds): os._exit(3)
def fail(host, thresholds): raise PermissionError(13, "Permission denied", "/proc/x")
def absent(host, thresholds): raise Absent("no such thing here")
def pid(host, thresholds): return {"pid": os.getpid(), "limit": thresholds["limit"]}
def garbage(host, thresholds): return {"not": object()}

def check(read): return Check(read.__name__, Subsystem.KERNEL, read, lambda seen: Verdict(), deadline=0.5)
CHECKS = tuple(map(check, (hang, die, fail, absent, pid, garbage)))
"""


def nothing(_host: Host, _thresholds: Mapping[str, float]) -> Sample:
    return None


def planned(name: str, period: float = 60.0, deadline: float = 0.5) -> Planned:
    check = Check(name, Subsystem.KERNEL, nothing, lambda _: Verdict(), deadline=deadline)
    return Planned("faulty_topic", check, period, {"limit": 7.0})


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    (tmp_path / "faulty_topic.py").write_text(TOPIC)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = Worker(Host(tmp_path))
    yield made
    made.close()


def test_a_sample_comes_back_from_another_process(worker: Worker) -> None:
    first, second = worker.ask(planned("pid", deadline=20.0)), worker.ask(planned("pid", deadline=20.0))
    assert first["sample"]["limit"] == 7.0
    assert first["sample"]["pid"] != os.getpid()
    assert first == second, "one worker answers many questions"


def test_absent_and_failed_are_two_outcomes(worker: Worker) -> None:
    assert worker.ask(planned("absent", deadline=20.0)) == {"absent": "no such thing here"}
    assert worker.ask(planned("fail", deadline=20.0)) == {
        "failed": "PermissionError: [Errno 13] Permission denied: '/proc/x'"
    }


def test_a_read_that_hangs_is_given_up_and_the_next_one_works(worker: Worker) -> None:
    before = worker.ask(planned("pid", deadline=20.0))["sample"]["pid"]
    assert worker.ask(planned("hang")) == {"failed": "no answer within 0.5 s"}
    after = worker.ask(planned("pid", deadline=20.0))["sample"]["pid"]
    assert after != before
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)


def test_a_worker_that_dies_fails_its_check_alone(worker: Worker) -> None:
    assert "died" in worker.ask(planned("die", deadline=20.0))["failed"]
    assert "sample" in worker.ask(planned("pid", deadline=20.0))


def test_a_sample_that_is_no_json_is_a_failed_check(worker: Worker) -> None:
    assert "failed" in worker.ask(planned("garbage", deadline=20.0))
    assert "sample" in worker.ask(planned("pid", deadline=20.0))


def test_a_process_that_cannot_be_killed_is_left_alone_and_not_multiplied(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspector, "KILL_SECONDS", 0.05)
    monkeypatch.setattr("subprocess.Popen.kill", lambda _process: None)
    assert worker.ask(planned("hang")) == {"failed": "no answer within 0.5 s"}
    stuck = worker._stuck["hang"]
    assert "cannot be killed" in worker.ask(planned("hang"))["failed"]
    assert worker._stuck == {"hang": stuck}
    monkeypatch.undo()
    monkeypatch.setenv("PYTHONPATH", str(worker._host.root))
    assert "sample" in worker.ask(planned("pid", deadline=20.0)), "the other checks go on"
    stuck.kill()
    stuck.wait()
    assert worker.ask(planned("hang")) == {"failed": "no answer within 0.5 s"}


def outcomes(queue: SimpleQueue[object], count: int) -> list[Inspected]:
    found = []
    for _ in range(count):
        try:
            each = queue.get(timeout=20.0)
        except Empty:
            pytest.fail(f"only {found}")
        assert isinstance(each, Inspected)
        found.append(each)
    return found


def test_every_check_runs_and_runs_again(tmp_path: Path) -> None:
    queue: SimpleQueue[object] = SimpleQueue()
    plan = [planned("often", period=0.01), planned("once", period=3600.0)]
    running = Inspector(Host(tmp_path), plan, queue, once=False, ask=lambda each: {"sample": each.check.name})
    found = outcomes(queue, 6)
    running.stop()
    running.join()
    assert [each.check for each in found].count("once") == 1
    assert {each.sample for each in found} == {"often", "once"}


def test_a_check_waits_after_boot(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/uptime").write_text("100.00 1.00")
    check = Check("late", Subsystem.KERNEL, nothing, lambda _: Verdict(), boot_grace=300.0)
    queue: SimpleQueue[object] = SimpleQueue()
    running = Inspector(Host(tmp_path), [Planned("x", check, 60.0, {})], queue, once=False, ask=lambda _: {"sample": 1})
    due = running._due[0][0]
    running.stop()
    running.join()
    assert 195 < due - time.monotonic() < 205
    assert queue.empty()


def test_a_counter_that_went_backwards_was_reset() -> None:
    assert grown(10.0, None) == 0.0
    assert grown(10.0, 4.0) == 6.0
    assert grown(3.0, 4.0) == 3.0
