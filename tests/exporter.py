"""The real exporter as a child process, and its page as numbers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.error import HTTPError

from prometheus_client.parser import text_string_to_metric_families

T = TypeVar("T")
DEADLINE = 30.0
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Exporter:
    """A running `nodehealth serve` on a free loopback port."""

    def __init__(self, state: Path, *options: str, root: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self.log_path = state / f"log-{time.monotonic_ns()}"
        arguments = [f"--state.path={state}", "--web.listen-address=127.0.0.1:0", *options]
        if root is not None:
            arguments.append(f"--path.rootfs={root}")
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "nodehealth", "serve", *arguments],
                stderr=log,
                stdout=log,
                env={**os.environ, **(env or {})},
            )
        self._url = ""

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    @property
    def url(self) -> str:
        if not self._url:
            self._url = self.wait(lambda: (found := re.search(r"url=(\S+)/", self.log)) and found[1])
        return self._url

    def wait(self, ask: Callable[[], T | None]) -> T:
        """The first true answer, asked again until the deadline."""
        deadline = time.monotonic() + DEADLINE
        while True:
            answer = ask()
            if answer:
                return answer
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        request = urllib.request.Request(f"{self.url}{path}", headers=headers)  # noqa: S310 - our own address
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                return answer.status, answer.read()
        except HTTPError as error:
            with error:
                return error.code, error.read()

    def ready(self) -> Exporter:
        self.wait(lambda: self.get("/readyz")[0] == 200)
        return self

    def page(self) -> Series:
        status, body = self.get("/metrics")
        assert status == 200, body
        return series(body.decode())

    def value(self, name: str, **labels: str) -> float:
        return value(self.page(), name, **labels)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=10)


@contextmanager
def exporter(state: Path, *options: str, root: Path | None = None) -> Iterator[Exporter]:
    running = Exporter(state, *options, root=root)
    try:
        yield running.ready()
    finally:
        running.kill()


def series(text: str) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(page: Series, name: str, **labels: str) -> float:
    """The sum of the series of that name with those labels; 0 where there is none."""
    wanted = frozenset(labels.items())
    return sum(number for (each, has), number in page.items() if each == name and wanted <= has)
