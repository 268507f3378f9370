"""The kernel log, record by record, from /dev/kmsg (Documentation/ABI/testing/dev-kmsg) or from a recording of it.

A record is `priority,sequence,microseconds,flags[,more];text`, then lines ` KEY=value`.  A record is identified by (boot
id, sequence); what is lost shows as a difference of sequences.  EPIPE says that records were overwritten but not how many.
"""

from __future__ import annotations

import errno
import os
import re
import select
import stat
from dataclasses import dataclass
from itertools import pairwise

from nodehealth.model import KERNEL_LOG, Record
from nodehealth.sources.follower import Absent, Batch, Down, Emit, Position, Stop
from nodehealth.sources.host import Host

BUFFER = 32 * 1024  # a buffer smaller than the record gets EINVAL and eats the record; records are at most 8 KiB
MAX_BATCH = 512
MAX_LINE = 4096
POLL_SECONDS = 0.5  # a recording has no poll()
MAX_RECORDING_RECORD = 1024 * 1024

_DEVICE = os.makedev(1, 11)  # a container may have /dev/null or a console under the name of the kernel log
_HEADER = re.compile(rb"(\d{1,10}),(\d{1,18}),(\d{1,18}),[^;]*;")  # 18 digits: what every counter can hold
_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")
_FACILITY_KERNEL = 0


class Malformed(ValueError):
    """The bytes are no kmsg record."""


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """One parsed record; `microseconds` since boot, `device` as in `DEVICE=+pci:0000:3b:00.0` without the `+`."""

    priority: int
    facility: int
    sequence: int
    microseconds: int
    text: str
    device: str = ""

    @property
    def user(self) -> bool:
        """Whether user space wrote it: the kernel does not let it use its own facility."""
        return self.facility != _FACILITY_KERNEL


def parse(raw: bytes) -> KernelRecord:
    """One record.  Raises Malformed."""
    header = _HEADER.match(raw)
    if header is None:
        raise Malformed(repr(raw[:64]))
    text, _, more = raw[header.end() :].partition(b"\n")
    level = int(header[1])
    return KernelRecord(level & 7, level >> 3, int(header[2]), int(header[3]), decode(text), _device(more))


def decode(text: bytes) -> str:
    r"""The text with `\xNN` escapes undone (the kernel escapes what is not printable ASCII) and bad UTF-8 replaced."""
    if b"\\x" in text:
        text = _ESCAPE.sub(lambda escape: bytes((int(escape[1], 16),)), text)
    return text.decode("utf-8", "replace")


def _device(more: bytes) -> str:
    for line in more.split(b"\n"):
        if line.startswith(b" DEVICE="):
            return decode(line[len(b" DEVICE=") :]).removeprefix("+")
    return ""


class KmsgFollower:
    """Follows the kernel log of a host from (boot id, sequence) on, or from the start of the ring.

    A stored position may hold a `clock` (seconds since boot) alone, where the journal delivered the kernel's lines before.
    """

    name = KERNEL_LOG

    def __init__(self, host: Host, path: str = "/dev/kmsg") -> None:
        self._host = host
        self._path = host.path(path)

    def run(self, position: Position | None, emit: Emit, stop: Stop) -> None:
        """See Follower.  Reads until EAGAIN, then waits in poll()."""
        descriptor, is_device = self._open()
        try:
            reader = _Reader(self._host, descriptor, position)
            follow = reader.follow_device if is_device else reader.follow_recording
            follow(emit, stop)
        finally:
            os.close(descriptor)

    def probe(self) -> str:
        """Why the kernel log cannot be opened; "" where it can."""
        try:
            descriptor, _ = self._open()
        except (Absent, Down) as error:
            return str(error)
        os.close(descriptor)
        return ""

    def _open(self) -> tuple[int, bool]:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Absent(f"{self._path} does not exist") from None
        except OSError as error:
            raise Down(
                f"cannot open {self._path}: {error.strerror} (needs root; in a container, a privileged one)"
            ) from error
        info = os.fstat(descriptor)
        is_device = stat.S_ISCHR(info.st_mode) and info.st_rdev == _DEVICE
        if is_device or stat.S_ISREG(info.st_mode):
            return descriptor, is_device
        os.close(descriptor)
        raise Down(f"{self._path} is neither the kernel's log device nor a recording of it")


class _Reader:
    """One open kernel log."""

    def __init__(self, host: Host, descriptor: int, position: Position | None) -> None:
        self._host = host
        self._descriptor = descriptor
        self._boot = host.log_boot_id
        same_boot = position is not None and position.get("boot") == self._boot
        known = position if position is not None and same_boot else {}
        self._last = int(known.get("sequence", -1))
        self._clock = float(known.get("clock", -1.0))
        self._live = False
        self._gaps = 0

    def follow_device(self, emit: Emit, stop: Stop) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        while not stop:
            raws, drained = self._read_device()
            self._hand_over(raws, emit, caught_up=drained)
            if drained:
                if stop.once:
                    return
                self._live = True
                poll.poll(500)

    def _read_device(self) -> tuple[list[bytes], bool]:
        """Up to MAX_BATCH records, and whether the ring is empty now."""
        raws: list[bytes] = []
        while len(raws) < MAX_BATCH:
            try:
                raws.append(os.read(self._descriptor, BUFFER))
            except BlockingIOError:
                return raws, True
            except OSError as error:
                if error.errno == errno.EPIPE:
                    self._gaps += 1
                elif error.errno == errno.EINVAL:
                    raws.append(b"")  # the kernel ate a record that it could not hand over: counted as malformed
                else:
                    raise Down(f"reading the kernel log failed: {error.strerror}") from error
        return raws, False

    def follow_recording(self, emit: Emit, stop: Stop) -> None:
        rest = b""
        while not stop:
            chunk = os.read(self._descriptor, BUFFER)
            complete, rest = _split(rest + chunk, at_end=not chunk)
            self._hand_over(complete, emit, caught_up=not chunk)
            if not chunk:
                if stop.once:
                    return
                self._live = True
                stop.wait(POLL_SECONDS)

    def _hand_over(self, raws: list[bytes], emit: Emit, *, caught_up: bool) -> None:
        records: list[Record] = []
        lost = malformed = cut = 0
        offset = self._host.clock.now() - self._host.uptime() if raws and not self._live else 0.0
        for raw in raws:
            try:
                parsed = parse(raw)
            except Malformed:
                malformed += 1
                continue
            if self._read_before(parsed):
                continue
            if self._last >= 0:
                lost += parsed.sequence - self._last - 1
            self._last, self._clock = parsed.sequence, parsed.microseconds / 1e6
            cut += len(parsed.text) > MAX_LINE
            records.append(self._record(parsed, offset))
        gaps, self._gaps = self._gaps, 0
        if records or lost or malformed or gaps or (caught_up and not self._live):
            position = {"boot": self._boot, "sequence": self._last, "clock": self._clock} if self._last >= 0 else None
            emit(
                Batch(
                    KERNEL_LOG,
                    tuple(records),
                    position,
                    lost=lost,
                    gaps=gaps,
                    malformed=malformed,
                    cut=cut,
                    caught_up=caught_up,
                )
            )

    def _read_before(self, parsed: KernelRecord) -> bool:
        """Whether the record was read already; by its stamp where the journal delivered the kernel's lines before."""
        if self._last >= 0:
            return parsed.sequence <= self._last
        return parsed.microseconds / 1e6 <= self._clock

    def _record(self, parsed: KernelRecord, offset: float) -> Record:
        now = self._host.clock.now()
        stamp = parsed.microseconds / 1e6
        return Record(
            source=KERNEL_LOG,
            streams=(KERNEL_LOG,),
            text=parsed.text[:MAX_LINE],
            time=now if self._live else min(stamp + offset, now),
            clock=stamp,
            boot_id=self._boot,
            sequence=parsed.sequence,
            priority=parsed.priority,
            user=parsed.user,
            live=self._live,
            device=parsed.device,
        )


def _split(recorded: bytes, *, at_end: bool) -> tuple[list[bytes], bytes]:
    """The complete records of a recording, and what may still grow.

    A record ends where a line begins that does not begin with a space, or at the end of the file after a newline.
    """
    if len(recorded) > MAX_RECORDING_RECORD:
        recorded, at_end = recorded + b"\n", True
    lines = recorded.split(b"\n")
    starts = [index for index, line in enumerate(lines) if line and not line.startswith(b" ")]
    if at_end and recorded.endswith(b"\n"):
        return [b"\n".join(lines[start:end]) for start, end in pairwise([*starts, len(lines) - 1])], b""
    if not starts:
        return [], recorded
    return [b"\n".join(lines[start:end]) for start, end in pairwise(starts)], b"\n".join(lines[starts[-1] :])
