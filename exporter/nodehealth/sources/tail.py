"""A log file, line by line, through rename rotation, copytruncate, deletion and late creation.

A place in a file is (inode, offset, fingerprint of its first bytes), so that the same bytes are never read twice and the
unread tail of a rolled file is read before the new one.  A line counts when its newline is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from nodehealth.model import Record, log_file
from nodehealth.sources.follower import Absent, Batch, Down, Emit, Position, Stop
from nodehealth.sources.host import Host

CHUNK = 64 * 1024
MAX_LINE = 4096
POLL_SECONDS = 0.5
FINGERPRINT_BYTES = 256
_DATE = r"\d[\dTZ:+._-]*"  # or a number; the name of a compressed file ends otherwise
ROLLED_GRACE_POLLS = 4  # how long a writer may go on in a file that was renamed under it


@dataclass(frozen=True, slots=True)
class Place:
    """Where reading goes on: the file by inode and first bytes, and the offset behind the last complete line.

    `skipping` says that the offset is inside a line that was too long and has been handed over already.  `modified` is the
    file's time stamp when it was read; a copy of the file cannot be older.
    """

    inode: int
    offset: int
    fingerprint: str  # "<length>:<sha256 of that many first bytes>"
    skipping: bool = False
    modified: int = 0

    @classmethod
    def of(cls, position: Position | None) -> Place | None:
        """The place in a stored position; None where it holds none."""
        if not position or "inode" not in position:
            return None
        return cls(
            int(position["inode"]),
            int(position["offset"]),
            str(position["fingerprint"]),
            bool(position.get("skipping")),
            int(position.get("modified", 0)),
        )

    def position(self) -> Position:
        """The place as it is stored."""
        return asdict(self)

    def is_in(self, descriptor: int) -> bool:
        """Whether the file still holds what was read, and perhaps more: the same one, renamed, or a copy of it."""
        info = os.fstat(descriptor)
        if info.st_ino != self.inode and (self.fingerprint.startswith("0:") or info.st_mtime_ns < self.modified):
            return False  # an empty file looks like any other
        return info.st_size >= self.offset and begins_as(os.pread(descriptor, FINGERPRINT_BYTES, 0), self.fingerprint)


NO_FILE: Position = {"absent": True}
"""Stored while there is no file, so that one that appears later is read from its start."""


def fingerprint(first: bytes) -> str:
    """Of a file's first bytes."""
    return f"{len(first)}:{hashlib.sha256(first).hexdigest()[:32]}"


def begins_as(first: bytes, known: str) -> bool:
    """Whether a file's first bytes are those of a fingerprint that was taken when it may have been shorter."""
    return fingerprint(first[: int(known.partition(":")[0])]) == known


class LineCutter:
    """Bytes in, complete lines out; a line over MAX_LINE is handed over cut at once and its rest is skipped."""

    def __init__(self, *, skipping: bool = False) -> None:
        self.partial = b""
        self.skipping = skipping

    def feed(self, chunk: bytes) -> tuple[list[bytes], int]:
        """The lines that ended in this chunk, and how many were cut."""
        *complete, rest = (self.partial + chunk).split(b"\n")
        if complete and self.skipping:
            del complete[0]
            self.skipping = False
        if len(rest) > MAX_LINE:
            if not self.skipping:
                complete.append(rest)
            self.skipping, rest = True, b""
        elif self.skipping:
            rest = b""
        self.partial = rest
        return [line[:MAX_LINE] for line in complete], sum(len(line) > MAX_LINE for line in complete)


class _OpenFile:
    """One open log file and how far it was read."""

    def __init__(self, descriptor: int, offset: int = 0, *, skipping: bool = False) -> None:
        self.descriptor = descriptor
        self._read = offset
        self._lines = LineCutter(skipping=skipping)
        self._known = fingerprint(os.pread(descriptor, FINGERPRINT_BYTES, 0))
        self._modified = self.info().st_mtime_ns
        os.lseek(descriptor, offset, os.SEEK_SET)

    def close(self) -> None:
        os.close(self.descriptor)

    def info(self) -> os.stat_result:
        return os.fstat(self.descriptor)

    def place(self) -> Place:
        offset = self._read - len(self._lines.partial)
        return Place(self.info().st_ino, offset, self._known, self._lines.skipping, self._modified)

    def truncated(self, unread: int = 0) -> bool:
        """Whether the bytes that were read are no longer those of the file (copytruncate); if not, knows it better."""
        info, first = self.info(), os.pread(self.descriptor, FINGERPRINT_BYTES, 0)
        if info.st_size < self._read + unread or not begins_as(first, self._known):
            return True
        self._known, self._modified = fingerprint(first), info.st_mtime_ns
        return False

    def read(self) -> tuple[list[bytes], int, bool]:
        """Complete lines of the next chunk, how many were cut, and whether there may be more."""
        chunk = os.read(self.descriptor, CHUNK)
        if chunk and self.truncated(len(chunk)):  # grown again past this place: these bytes are from the middle of others
            return [], 0, False
        self._read += len(chunk)
        lines, cut = self._lines.feed(chunk)
        return lines, cut, bool(chunk)

    def last_words(self) -> list[bytes]:
        """The line without an end of a file that is finished."""
        partial, self._lines.partial = self._lines.partial, b""
        return [partial] if partial else []


class FileFollower:
    """Follows one log file of a host."""

    def __init__(self, host: Host, path: str) -> None:
        self.name = log_file(path)
        self._host = host
        self._path = host.path(path)
        name, stem, suffix = (re.escape(part) for part in (self._path.name, self._path.stem, self._path.suffix))
        self._rolled_name = re.compile(rf"{name}[.-].+|{stem}[.-].+{suffix}")
        self._dated_name = re.compile(rf"{name}[.-]{_DATE}|{stem}[.-]{_DATE}{suffix}")

    def run(self, position: Position | None, emit: Emit, stop: Stop) -> None:
        """See Follower.  Without a position reading starts at the end; raises Absent while there is no file."""
        current = self._resume(position, emit, stop)
        try:
            self._drain(current, emit, stop, announce=True)
            while not (stop or stop.once or stop.wait(POLL_SECONDS)):
                self._drain(current, emit, stop)
                before, current = current, self._rotated(current, emit, stop)
                if before is not current:
                    before.close()
        finally:
            current.close()

    def _resume(self, position: Position | None, emit: Emit, stop: Stop) -> _OpenFile:
        """The file at the stored place; the unread tail of a rolled one is handed over first."""
        place = Place.of(position)
        try:
            descriptor = self._open(self._path)
        except Absent as absent:
            raise Absent(str(absent), position or NO_FILE) from None
        if position is None:
            offset, inside = _end(descriptor)
            return _OpenFile(descriptor, offset, skipping=inside)
        if place is None:  # there was no file before: every line of this one is new
            return _OpenFile(descriptor)
        if place.is_in(descriptor) and os.fstat(descriptor).st_ino == place.inode:
            return _OpenFile(descriptor, place.offset, skipping=place.skipping)
        found = self._read_rolled(place, os.fstat(descriptor).st_ino, emit, stop)
        return self._begin(descriptor, emit, stop, gaps=int(not found))

    def _open(self, path: Path) -> int:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise Absent(f"{path} does not exist; it will be followed from its start when it appears") from None
        except OSError as error:
            raise Down(f"cannot open {path}: {error.strerror}") from error
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise Down(f"{path} is not a regular file")

    def _read_rolled(self, place: Place, successor: int, emit: Emit, stop: Stop) -> bool:
        """Hand over what was unread in the file that rotation renamed or copied, then every newer rolled file.

        Ends before the inode `successor`, which may have been rolled meanwhile.  False where the file is not to be found
        (deleted or compressed).
        """
        with contextlib.ExitStack() as opened:
            rolled = self._rolled(opened)
            inodes = [os.fstat(each).st_ino for _, each in rolled]
            rolled = rolled[: inodes.index(successor)] if successor in inodes else rolled
            alike = [index for index, (_, each) in enumerate(rolled) if place.is_in(each)]
            if not alike:
                return False
            start = next((index for index in alike if inodes[index] == place.inode), alike[0])
            self._drain(_OpenFile(rolled[start][1], place.offset, skipping=place.skipping), emit, stop, finished=True)
            for name, descriptor in rolled[start + 1 :]:
                if self._dated_name.fullmatch(name):
                    self._drain(_OpenFile(descriptor), emit, stop, finished=True)
            return True

    def _rolled(self, opened: contextlib.ExitStack) -> list[tuple[str, int]]:
        """Files that rotation may have made of this one, oldest first: name and descriptor."""
        found: dict[int, tuple[str, int]] = {}
        for name in sorted(os.listdir(self._path.parent)):  # noqa: PTH208 - names are what is needed
            if self._rolled_name.fullmatch(name):
                with contextlib.suppress(Absent, Down):
                    descriptor = self._open(self._path.with_name(name))
                    opened.callback(os.close, descriptor)
                    found.setdefault(os.fstat(descriptor).st_ino, (name, descriptor))
        return sorted(found.values(), key=lambda each: (os.fstat(each[1]).st_mtime_ns, -_number(each[0]), each[0]))

    def _drain(self, file: _OpenFile, emit: Emit, stop: Stop, *, finished: bool = False, announce: bool = False) -> None:
        """Hand over every complete line that is there; of a finished file also the last one."""
        more = True
        while more and not stop:
            lines, cut, more = file.read()
            if finished and not more:
                lines = file.last_words()
            records = tuple(self._records(lines))
            if records or cut or announce:
                emit(Batch(self.name, records, file.place().position(), cut=cut, caught_up=not more and not finished))

    def _rotated(self, current: _OpenFile, emit: Emit, stop: Stop) -> _OpenFile:
        """The file to go on with: the same one, the same from its start, or its successor."""
        if current.truncated():
            found = self._read_rolled(current.place(), current.info().st_ino, emit, stop)
            return self._begin(os.dup(current.descriptor), emit, stop, gaps=int(not found))
        if self._has_successor(current):
            self._let_writer_finish(current, emit, stop)
            descriptor = self._open(self._path)
            self._read_rolled(current.place(), os.fstat(descriptor).st_ino, emit, stop)
            return self._begin(descriptor, emit, stop)
        if not current.info().st_nlink and not self._path.exists():
            self._drain(current, emit, stop, finished=True)
            why = f"{self._path} was deleted; it will be followed from its start when it appears again"
            raise Absent(why, NO_FILE)
        return current

    def _let_writer_finish(self, current: _OpenFile, emit: Emit, stop: Stop) -> None:
        """A writer may go on in the renamed file until it is told to open the new one."""
        for _ in range(ROLLED_GRACE_POLLS):
            self._drain(current, emit, stop)
            stop.wait(POLL_SECONDS)
        self._drain(current, emit, stop, finished=True)

    def _begin(self, descriptor: int, emit: Emit, stop: Stop, *, gaps: int = 0) -> _OpenFile:
        """Go on with a new file; its place is stored at once, because the old file may soon be deleted or compressed."""
        fresh = _OpenFile(descriptor)
        if not stop:
            emit(Batch(self.name, position=fresh.place().position(), gaps=gaps, caught_up=False))
        return fresh

    def _has_successor(self, current: _OpenFile) -> bool:
        """Whether another file has the name now."""
        try:
            return self._path.stat().st_ino != current.info().st_ino
        except OSError:
            return False

    def _records(self, lines: list[bytes]) -> Iterator[Record]:
        now, clock = self._host.clock.now(), self._host.clock.monotonic()
        for line in lines:
            text = line.decode("utf-8", "replace").replace("\0", "").rstrip("\r")
            if text:
                yield Record(self.name, (self.name,), text, now, clock)


def _number(name: str) -> int:
    """The number of a rolled file (`messages.2`), which is higher for older ones; 0 for a date."""
    number = re.search(r"\.(\d{1,5})\Z", name)
    return int(number[1]) if number else 0


def _end(descriptor: int) -> tuple[int, bool]:
    """The end of the file, or the start of a line that is still being written; whether it is inside a too long line."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - MAX_LINE)
    tail = os.pread(descriptor, size - start, start)
    if b"\n" in tail or not start:
        return start + tail.rfind(b"\n") + 1, False
    return size, True
