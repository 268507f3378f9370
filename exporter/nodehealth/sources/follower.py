"""What every follower of text has in common: batches of records, a position to go on from, and how it ends.

A follower's `run` blocks in a thread of its own and hands each batch to `emit`.  It raises Absent where its input cannot
exist on this host (positive evidence) and Down where it should be there and cannot be read; both say why.  The engine
starts it again after a pause.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from nodehealth.model import Record

Position = Mapping[str, Any]
"""Where a follower goes on after a restart; JSON."""


class SourceError(Exception):
    """Base of what a follower raises; its text is for people."""


class Absent(SourceError):
    """The input cannot exist on this host; `position` is stored, so that what appears later is read from its start."""

    def __init__(self, text: str, position: Position | None = None) -> None:
        super().__init__(text)
        self.position = position


class Down(SourceError):
    """The input should be there and cannot be read; the text says why and what would help."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a follower read in one go.

    `lost` counts records known to be lost; `gaps` counts places where an unknown number may be; `malformed` counts
    skipped records, `cut` shortened ones.  `kernel` is how far the kernel's lines were read where this source delivers
    them.  `caught_up` says that nothing older waits.
    """

    source: str
    records: tuple[Record, ...] = ()
    position: Position | None = None
    kernel: Position | None = None
    lost: int = 0
    gaps: int = 0
    malformed: int = 0
    cut: int = 0
    caught_up: bool = True


Emit = Callable[[Batch], None]


class Follower(Protocol):
    """One input."""

    @property
    def name(self) -> str:
        """The value of the label `source`."""

    def run(self, position: Position | None, emit: Emit, stop: Stop) -> None:
        """Follow until `stop` is set.  Raises Absent, Down or OSError."""


@dataclass(slots=True)
class Stop:
    """Tells a follower to end; `wait` sleeps until then at the most."""

    event: threading.Event = field(default_factory=threading.Event)
    once: bool = False  # end as soon as everything that is there has been read

    def __bool__(self) -> bool:
        return self.event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep; true where it is time to end."""
        return self.event.wait(seconds)

    def set(self) -> None:
        """End."""
        self.event.set()
