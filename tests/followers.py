"""Followers of text without threads: between two polls a scripted step runs instead of a sleep.

A step changes the world (writes, rotates, truncates); after the last one the follower is told to end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nodehealth.model import Record
from nodehealth.sources.follower import Batch, Follower, Position, SourceError, Stop
from nodehealth.sources.host import Clock, Host

BOOT = "0a1b2c3d-0000-4000-8000-000000000001"
NOW = 1_700_000_000.0
UPTIME = 5000.0

Step = Callable[[], object]


class StillClock(Clock):
    """Time that stands still."""

    def now(self) -> float:
        return NOW

    def monotonic(self) -> float:
        return UPTIME


class Script(Stop):
    """Runs the next step where a follower would sleep."""

    def __init__(self, *steps: Step) -> None:
        super().__init__()
        self.steps = list(steps)

    def wait(self, seconds: float) -> bool:
        assert seconds > 0
        if self.event.is_set() or not self.steps:
            self.set()
            return True
        self.steps.pop(0)()
        return self.event.is_set()


@dataclass
class Read:
    """What a follower handed over, the last position (as the engine would store it), and how it ended."""

    position: Position | None = None
    batches: list[Batch] = field(default_factory=list)
    error: Exception | None = None

    def emit(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.position = batch.position or self.position

    @property
    def records(self) -> list[Record]:
        return [record for batch in self.batches for record in batch.records]

    @property
    def texts(self) -> list[str]:
        return [record.text for record in self.records]

    def total(self, name: str) -> int:
        """The sum of a counter (`lost`, `gaps`, `malformed`, `cut`) over all batches."""
        return sum(getattr(batch, name) for batch in self.batches)


def follow(follower: Follower, position: Position | None = None, *steps: Step, stop: Stop | None = None) -> Read:
    """Run a follower through the steps; without any, once over what is there."""
    read = Read(position)
    try:
        follower.run(position, read.emit, stop if stop is not None else Script(*steps) if steps else Stop(once=True))
    except (SourceError, OSError) as error:
        read.error = error
        read.position = getattr(error, "position", None) or read.position
    return read


def nothing() -> None:
    """The step of a poll in which nothing happens."""


def host(root: Path, boot: str = BOOT) -> Host:
    """A host below `root` that has been up for UPTIME seconds."""
    write(root / "proc/sys/kernel/random/boot_id", f"{boot}\n")
    write(root / "proc/uptime", f"{UPTIME} 0.0\n")
    return Host(root, StillClock())


def write(path: Path, content: str | bytes) -> Path:
    """A new file with its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def append(path: Path, content: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for a real process; fails where it takes far too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "took far too long"
        time.sleep(0.02)
