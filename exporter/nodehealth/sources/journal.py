"""The journal, through `journalctl --follow`, for the units and identifiers that the catalog mentions.

An entry is identified by its cursor.  Whether there is a journal is decided by its files, never by an exit code.  The
same process also delivers the kernel's lines where /dev/kmsg may not be opened (`_TRANSPORT=kernel`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodehealth.model import KERNEL_LOG, Record, journal
from nodehealth.sources.follower import Absent, Batch, Down, Emit, Position, Stop
from nodehealth.sources.host import Host

JOURNAL = "journal"
DIRECTORIES = ("/var/log/journal", "/run/log/journal")
MAX_LINE = 4096
MAX_JSON = 1024 * 1024
CHUNK = 256 * 1024
MAX_BATCH = 512
PROBE_SECONDS = 10.0
QUIET_SECONDS = 0.3  # so long after the last entry the backlog is taken as read
LOG_KERN = 0

FIELDS = (
    "MESSAGE,PRIORITY,SYSLOG_FACILITY,SYSLOG_IDENTIFIER,_SYSTEMD_UNIT,"
    "_TRANSPORT,_SOURCE_MONOTONIC_TIMESTAMP,_KERNEL_DEVICE,_BOOT_ID"
)
_SMALL = re.compile(r"[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One journal entry; times in seconds."""

    cursor: str
    time: float
    received: float  # on the monotonic clock of its boot
    monotonic: float  # the kernel's own stamp where it has one
    boot_id: str
    message: str
    fields: Mapping[str, str]

    @property
    def from_kernel(self) -> bool:
        """Whether journald read it from the kernel log."""
        return self.fields.get("_TRANSPORT") == "kernel"


def parse(line: bytes) -> Entry:
    """One line of `journalctl --output=json`.  Raises ValueError where it is no entry."""
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one kind of error for one kind of garbage
    cursor, micros = found.get("__CURSOR"), found.get("__REALTIME_TIMESTAMP")
    if not isinstance(cursor, str) or not isinstance(micros, str):
        raise ValueError("no cursor or time")  # noqa: TRY004
    fields = {name: _text(value) for name, value in found.items() if not name.startswith("__") and name != "MESSAGE"}
    received = _text(found.get("__MONOTONIC_TIMESTAMP")) or "0"
    stamp = fields.get("_SOURCE_MONOTONIC_TIMESTAMP") or received
    boot, message = _dashed(fields.get("_BOOT_ID", "")), _text(found.get("MESSAGE"))
    return Entry(cursor, int(micros) / 1e6, int(received) / 1e6, int(stamp) / 1e6, boot, message, fields)


def _text(value: Any) -> str:
    """Of a field: bytes that are no UTF-8 come as an array of integers, several values as an array of texts."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()  # a lone surrogate cannot be stored
    if isinstance(value, list):
        if all(isinstance(each, int) and 0 <= each <= 255 for each in value):  # noqa: PLR2004 - a byte
            return bytes(value).decode("utf-8", "replace")
        return _text(value[0])
    return ""


def _small(text: str) -> int:
    """A priority or facility; -1 where it is none: any program may write these fields as it likes."""
    return int(text) if _SMALL.fullmatch(text) else -1


def _dashed(boot_id: str) -> str:
    """The boot id as procfs writes it."""
    if len(boot_id) != 32:  # noqa: PLR2004 - the length of a UUID without dashes
        return boot_id
    return "-".join((boot_id[:8], boot_id[8:12], boot_id[12:16], boot_id[16:20], boot_id[20:]))


class JournalFollower:
    """Follows the journal of a host for a set of streams (`journal:kubelet.service`, `journal:systemd`, `kmsg`)."""

    name = JOURNAL

    def __init__(
        self, host: Host, streams: Iterable[str], *, kernel: Position | None = None, command: str | None = None
    ) -> None:
        """`kernel` is how far the kernel's lines were read from /dev/kmsg before."""
        self._host = host
        self._kernel = kernel
        self._streams = frozenset(streams)
        self._command = command
        self._gap: Position | None = None

    def run(self, position: Position | None, emit: Emit, stop: Stop) -> None:
        """See Follower.  Raises Down when journalctl ends."""
        command = self._find()
        stored = position if position and "cursor" in position else None
        lost = stored if stored is not None and not self._still_there(command, stored, stop) else None
        if lost is not None and lost != self._gap:
            self._gap = lost  # one gap, however often journalctl has to be started before the next entry comes
            emit(Batch(JOURNAL, gaps=1, caught_up=False))
        process = subprocess.Popen(  # noqa: S603 - an argument list, never a shell
            [*command, *self._arguments(stored, follow=not stop.once, everything=lost is not None)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_ENVIRONMENT,
        )  # fmt: skip
        try:
            _Reader(self._host, self._streams, lost, self._kernel).follow(process, emit, stop)
        finally:
            _end(process)

    def files(self) -> list[Path]:
        """The journal's files; none means that there is no journal."""
        return [file for directory in self._directories() for file in directory.glob("*/*.journal")]

    def _directories(self) -> list[Path]:
        return [path for path in map(self._host.path, DIRECTORIES) if path.is_dir()]

    def _find(self) -> list[str]:
        files = self.files()
        if not files:
            raise Absent(f"no journal files below {' or '.join(str(self._host.path(each)) for each in DIRECTORIES)}")
        journalctl = self._command or shutil.which("journalctl")
        if journalctl is None:
            raise Down("there is a journal but no journalctl to read it: install systemd (Debian: apt-get install systemd)")
        if not any(os.access(file, os.R_OK) for file in files):
            raise Down("the journal's files may not be read: run as root or in the group systemd-journal")
        command = [journalctl, "--output=json", "--all", "--quiet", "--no-pager", f"--output-fields={FIELDS}"]
        if self._host.root == Path("/"):
            return command
        return [*command, f"--directory={files[0].parent.parent}"]

    def _arguments(self, stored: Position | None, *, follow: bool, everything: bool) -> list[str]:
        """A lost cursor is not handed on: journalctl would also skip the entry that happens to be nearest to it."""
        after = [f"--after-cursor={stored['cursor']}"] if stored else self._first_start()
        return [*(("--follow", "--no-tail") if follow else ()), *([] if everything else after), *self._matches()]

    def _first_start(self) -> list[str]:
        boot = self._host.boot_id.replace("-", "")
        return [f"--boot={boot}"] if boot and any(self._has_boot(boot)) else []

    def _has_boot(self, boot: str) -> Sequence[str]:
        listed = self._output(["--list-boots", "--output=short"])
        return [line for line in listed.splitlines() if boot in line]

    def _matches(self) -> list[str]:
        """Match terms of different fields are ANDed unless `+` stands between them."""
        terms: list[str] = []
        for stream in sorted(self._streams):
            name = stream.partition(":")[2]
            if stream == KERNEL_LOG:
                terms += ["+", "_TRANSPORT=kernel"]
            elif name.endswith(".service"):
                terms += ["+", f"_SYSTEMD_UNIT={name}"]
            else:
                terms += ["+", f"SYSLOG_IDENTIFIER={name}"]
        return terms[1:]

    def _still_there(self, command: list[str], position: Position, stop: Stop) -> bool:
        """Whether the entry of the stored cursor still exists; a foreign cursor would replay everything silently."""
        if stop:
            return True
        found = self._output([f"--cursor={position['cursor']}", "--lines=1"], command)
        try:
            return bool(found) and parse(found.encode()).cursor == position["cursor"]
        except ValueError:
            return False

    def _output(self, arguments: list[str], command: list[str] | None = None) -> str:
        try:
            return subprocess.run(  # noqa: S603 - an argument list, never a shell
                [*(command or self._find()), *arguments],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_SECONDS, check=False, env=_ENVIRONMENT,
            ).stdout.decode("utf-8", "replace")  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Down(f"journalctl did not answer within {PROBE_SECONDS:g} s") from None


_ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}


class _Reader:
    """Reads one journalctl's output.

    `lost` is the stored position where its cursor is gone: everything is replayed, and what is not newer is skipped.
    """

    def __init__(self, host: Host, streams: frozenset[str], lost: Position | None, kernel: Position | None) -> None:
        self._host = host
        self._kernel = kernel or {}
        self._streams = streams
        self._lost = lost
        self._boot = host.boot_id
        self._rest = b""
        self._said = b""
        self._oversized = False
        self._live = False
        self._began = host.clock.monotonic()

    def follow(self, process: subprocess.Popen[bytes], emit: Emit, stop: Stop) -> None:
        with selectors.DefaultSelector() as selector:
            for pipe in filter(None, (process.stdout, process.stderr)):
                selector.register(pipe, selectors.EVENT_READ)
            while not stop and process.stdout in selector.get_map():
                ready = selector.select(0.5 if self._live else QUIET_SECONDS)
                for key, _ in ready:
                    chunk = os.read(key.fd, CHUNK)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stdout:
                        self._hand_over(chunk, emit)
                    else:  # a full pipe would stop journalctl
                        self._said = (self._said + chunk)[-2048:]
                if not ready and not self._live:
                    self._live = True
                    emit(Batch(JOURNAL))
        if not stop:
            self._ended(process, emit, stop)

    def _ended(self, process: subprocess.Popen[bytes], emit: Emit, stop: Stop) -> None:
        code = process.wait(timeout=PROBE_SECONDS)
        if stop.once and code == 0:
            emit(Batch(JOURNAL))
            return
        assert process.stderr is not None  # Popen was asked for it
        said = (self._said + process.stderr.read(2048)).decode("utf-8", "replace").strip().splitlines()
        raise Down(f"journalctl ended with {code}{': ' + said[-1] if said else ''}")

    def _hand_over(self, chunk: bytes, emit: Emit) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        malformed = 0
        if lines and self._oversized:
            del lines[0]
            self._oversized = False
        if len(self._rest) > MAX_JSON:
            malformed += not self._oversized
            self._oversized, self._rest = True, b""
        for start in range(0, len(lines), MAX_BATCH):
            self._batch(lines[start : start + MAX_BATCH], malformed, emit)
            malformed = 0
        if malformed:
            emit(Batch(JOURNAL, malformed=malformed, caught_up=self._live))

    def _batch(self, lines: list[bytes], malformed: int, emit: Emit) -> None:
        records: list[Record] = []
        position = kernel = None
        cut = 0
        for line in lines:
            try:
                entry = parse(line)
            except (ValueError, OverflowError, RecursionError):
                malformed += bool(line.strip())
                continue
            if self._read_before(entry):
                continue
            self._live |= entry.boot_id == self._boot and entry.received >= self._began  # the backlog is behind us
            position = {"cursor": entry.cursor, "time": entry.time, "boot": entry.boot_id, "received": entry.received}
            record = self._record(entry)
            if KERNEL_LOG in record.streams:
                if self._read_by_kmsg(record):
                    continue
                kernel = {"boot": record.boot_id, "clock": record.clock}
            cut += len(entry.message) > MAX_LINE
            records.append(record)
        emit(Batch(JOURNAL, tuple(records), position, kernel, malformed=malformed, cut=cut, caught_up=self._live))

    def _read_by_kmsg(self, record: Record) -> bool:
        """Whether this kernel line was read from /dev/kmsg before the journal had to take over."""
        same_boot = self._kernel.get("boot") == record.boot_id
        return same_boot and record.clock <= float(self._kernel.get("clock", -1.0))

    def _read_before(self, entry: Entry) -> bool:
        """Whether the entry is at or before a stored one whose cursor is lost; wall time decides only between old boots.

        With a cursor nothing is skipped: all lines that a service wrote in one go carry the same time.
        """
        if self._lost is None:
            return False
        if entry.boot_id == self._lost.get("boot"):
            return entry.received <= float(self._lost.get("received", -1.0))
        return entry.boot_id != self._boot and entry.time <= float(self._lost.get("time", -1.0))

    def _record(self, entry: Entry) -> Record:
        kernel = entry.from_kernel and KERNEL_LOG in self._streams
        user = kernel and _small(entry.fields.get("SYSLOG_FACILITY", "")) > LOG_KERN
        return Record(
            source=JOURNAL,
            streams=(KERNEL_LOG,) if kernel else self._names(entry),
            text=(_as_written(entry) if user else entry.message)[:MAX_LINE],
            time=min(entry.time, self._host.clock.now()),
            clock=entry.monotonic,
            boot_id=entry.boot_id,
            priority=_small(entry.fields.get("PRIORITY", "")),
            user=user,
            live=self._live,
            device=entry.fields.get("_KERNEL_DEVICE", "").removeprefix("+"),
        )

    def _names(self, entry: Entry) -> tuple[str, ...]:
        names = (entry.fields.get("_SYSTEMD_UNIT", ""), entry.fields.get("SYSLOG_IDENTIFIER", ""))
        return tuple(dict.fromkeys(journal(name) for name in names if journal(name) in self._streams))


def _as_written(entry: Entry) -> str:
    """What user space wrote to the kernel log: journald takes `NVRM: ` off such a line as if it were a program's name."""
    program = entry.fields.get("SYSLOG_IDENTIFIER", "")
    return f"{program}: {entry.message}" if program else entry.message


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1.0)
    if process.poll() is None:
        process.kill()
        process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
