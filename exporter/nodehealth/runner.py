"""Runs followers in threads of their own: start, back-off, bounded queue, end.  Life-cycle is written once.

A broad `except` stands at the three borders of the house and nowhere else: around a follower here, around one record or
one judge in the engine, around one reader in the worker.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from queue import SimpleQueue

from nodehealth.sources.follower import Absent, Batch, Down, Follower, Position, Stop
from nodehealth.view import SourceState

ABSENT_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 60.0
HEALTHY_SECONDS = 60.0  # a follower that ran so long starts its back-off anew
QUEUED_BATCHES = 8  # of one follower; then it waits, and what it cannot read meanwhile is counted as lost
JOIN_SECONDS = 1.0

log = logging.getLogger("nodehealth")


@dataclass(frozen=True, slots=True)
class Changed:
    """A source is down or absent now; `error` where it failed; `position` is to be stored where it is given."""

    source: str
    state: SourceState
    detail: str = ""
    error: bool = False
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one runner hands over.  After an exchange the name belongs to another runner, which reads it again itself."""

    runner: Runner
    message: Batch | Changed


class Runner:
    """One follower, its thread and its room in the queue."""

    def __init__(self, follower: Follower, position: Position | None, queue: SimpleQueue[object], *, once: bool) -> None:
        self._follower = follower
        self._position = position
        self._queue = queue
        self._stop = Stop(once=once)
        self._room = threading.BoundedSemaphore(QUEUED_BATCHES)
        self._thread = threading.Thread(target=self._live, name=follower.name[:15], daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether more may come."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Tell it to end."""
        self._stop.set()

    def join(self) -> None:
        """Wait for its end, but not for ever: a thread in a stuck read is left alone."""
        self._thread.join(JOIN_SECONDS)

    def handled(self, message: Batch | Changed) -> None:
        """One of its messages has left the queue."""
        if isinstance(message, Batch):
            self._room.release()

    def _emit(self, batch: Batch) -> None:
        if batch.position is not None:
            self._position = batch.position
        while not self._room.acquire(timeout=0.5):
            if self._stop:
                return
        self._queue.put(Delivery(self, batch))

    def _say(self, changed: Changed) -> None:
        self._queue.put(Delivery(self, changed))

    def _live(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stop:
            began = time.monotonic()
            wait = self._run(pause)
            healthy = time.monotonic() - began > HEALTHY_SECONDS
            pause = FIRST_PAUSE_SECONDS if healthy else min(pause * 2, MAX_PAUSE_SECONDS)
            if self._stop.once or self._stop.wait(wait):
                return

    def _run(self, pause: float) -> float:
        """Run the follower until it ends; the seconds after which to try again."""
        name = self._follower.name
        try:
            self._follower.run(self._position, self._emit, self._stop)
        except Absent as absent:
            self._position = absent.position or self._position
            self._say(Changed(name, SourceState.ABSENT, str(absent), position=absent.position))
            return ABSENT_SECONDS
        except Down as down:
            self._say(Changed(name, SourceState.DOWN, str(down), error=True))
        except Exception as error:  # nothing may end a follower for good
            log.exception("follower failed", extra={"source": name})
            self._say(Changed(name, SourceState.DOWN, f"{type(error).__name__}: {error}", error=True))
        return pause
