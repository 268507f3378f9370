"""Runs the checks: one at a time, each when it is due, each read in the worker with its deadline.

A worker that does not answer in time is killed and replaced.  One that cannot be killed (uninterruptible sleep) is left
alone and reported, and the check that hung it rests until it is gone: at most one such process for each check.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from nodehealth import worker
from nodehealth.checks import Planned, Sample
from nodehealth.sources.host import Host

KILL_SECONDS = 2.0
JOIN_SECONDS = 0.5
FIRST_DELAY = 0.5  # the backlog of the logs comes first
IDLE_SECONDS = 1.0

log = logging.getLogger("nodehealth")


@dataclass(frozen=True, slots=True)
class Inspected:
    """The outcome of one pass: a sample, or why there is none."""

    check: str
    time: float
    clock: float
    duration: float
    sample: Sample = None
    absent: str = ""
    failed: str = ""


Ask = Callable[[Planned], Mapping[str, Any]]


class Worker:
    """The worker process of this exporter, started when it is first asked."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: socket.socket | None = None
        self._stuck: dict[str, subprocess.Popen[bytes]] = {}

    def ask(self, planned: Planned) -> Mapping[str, Any]:
        """The worker's answer, or `failed` where it did not come in time."""
        name = planned.check.name
        if name in self._stuck and self._stuck[name].poll() is None:
            return {"failed": f"the process {self._stuck[name].pid} that read it hangs in the kernel and cannot be killed"}
        self._stuck.pop(name, None)
        try:
            stream = self._connected()
            stream.settimeout(planned.check.deadline)
            worker.send(stream, {"topic": planned.topic, "check": name, "thresholds": dict(planned.thresholds)})
            return worker.receive(stream)
        except TimeoutError:
            self._replace(name)
            return {"failed": f"no answer within {planned.check.deadline:g} s"}
        except (OSError, EOFError, ValueError) as error:
            self._replace(name)
            return {"failed": f"its process died: {error or type(error).__name__}"}

    def _connected(self) -> socket.socket:
        if self._stream is None:
            ours, theirs = socket.socketpair()
            with theirs:
                words = (str(theirs.fileno()), str(self._host.root), str(os.getpid()))
                command = [sys.executable, "-m", "nodehealth.worker", *words]
                self._process = subprocess.Popen(  # noqa: S603 - an argument list, never a shell
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
                )
            self._stream = ours
        return self._stream

    def _replace(self, check: str) -> None:
        """Give this worker up; the next question starts another one."""
        process = self._process
        self.close()
        if process is not None and process.poll() is None:
            self._stuck[check] = process
            log.error("a check's process cannot be killed", extra={"check": check, "pid": process.pid})

    def interrupt(self) -> None:
        """Kill the process, so that whoever waits for its answer goes on; safe from another thread."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the worker."""
        process, stream, self._process, self._stream = self._process, self._stream, None, None
        if stream is not None:
            stream.close()
        if process is not None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(KILL_SECONDS)


class Inspector:
    """One thread that asks the worker for each check when it is due."""

    def __init__(
        self, host: Host, plan: Iterable[Planned], queue: SimpleQueue[object], *, once: bool, ask: Ask | None
    ) -> None:
        self._host = host
        self._queue = queue
        self._once = once
        self._worker = Worker(host)
        self._ask = ask or self._worker.ask
        now = host.clock.monotonic()
        grace = [(max(0.0, each.check.boot_grace - host.uptime()), each) for each in plan]
        wait = 0.0 if once else FIRST_DELAY
        self._due = [(now + wait + (0.0 if once else rest), each.check.name, each) for rest, each in grace]
        heapq.heapify(self._due)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name="checks", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether more may come."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Tell it to end, also in the middle of a check."""
        self._stop.set()
        self._worker.interrupt()

    def join(self) -> None:
        """Wait for its end, but not for a check that hangs: its process dies with ours."""
        self._thread.join(JOIN_SECONDS)

    def _live(self) -> None:
        while self._due and not self._stop.is_set():
            due, name, planned = self._due[0]
            wait = due - self._host.clock.monotonic()
            if wait > 0:
                self._stop.wait(min(wait, IDLE_SECONDS))
                continue
            heapq.heappop(self._due)
            inspected = self._inspect(planned)
            if self._stop.is_set():
                break  # it failed because it was told to end
            self._queue.put(inspected)
            if not self._once:
                heapq.heappush(self._due, (self._host.clock.monotonic() + planned.period, name, planned))
        self._worker.close()

    def _inspect(self, planned: Planned) -> Inspected:
        clock = self._host.clock
        began = clock.monotonic()
        reply = self._ask(planned)
        now = clock.monotonic()
        said = {key: reply[key] for key in ("sample", "absent", "failed") if key in reply}
        return Inspected(planned.check.name, clock.now(), now, now - began, **said)
