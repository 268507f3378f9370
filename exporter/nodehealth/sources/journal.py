"""The journal, through `journalctl --follow`, for the units and identifiers that the catalog mentions.

An entry is identified by its cursor.  Whether there is a journal is decided by its files, never by an exit code.  The
same process also delivers the kernel's lines where /dev/kmsg may not be opened (`_TRANSPORT=kernel`).
"""

from __future__ import annotations

import contextlib
import json
import os
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
        return value
    if isinstance(value, list):
        if all(isinstance(each, int) and 0 <= each <= 255 for each in value):  # noqa: PLR2004 - a byte
            return bytes(value).decode("utf-8", "replace")
        return _text(value[0])
    return ""


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
        self._command = command or shutil.which("journalctl")

    def run(self, position: Position | None, emit: Emit, stop: Stop) -> None:
        """See Follower.  Raises Down when journalctl ends."""
        command = self._find()
        lost_cursor = position is not None and "cursor" in position and not self._still_there(command, position, stop)
        if lost_cursor:
            emit(Batch(JOURNAL, gaps=1, caught_up=False))
        process = subprocess.Popen(  # noqa: S603 - an argument list, never a shell
            [*command, *self._arguments(position, follow=not stop.once)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_ENVIRONMENT,
        )  # fmt: skip
        try:
            _Reader(self._host, self._streams, position, self._kernel).follow(process, emit, stop)
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
        if self._command is None:
            raise Down("there is a journal but no journalctl to read it: install systemd (Debian: apt-get install systemd)")
        if not any(os.access(file, os.R_OK) for file in files):
            raise Down("the journal's files may not be read: run as root or in the group systemd-journal")
        command = [self._command, "--output=json", "--all", "--quiet", "--no-pager", f"--output-fields={FIELDS}"]
        if self._host.root == Path("/"):
            return command
        return [*command, f"--directory={files[0].parent.parent}"]

    def _arguments(self, position: Position | None, *, follow: bool) -> list[str]:
        start = [f"--after-cursor={position['cursor']}"] if position and "cursor" in position else self._first_start()
        return [*(("--follow", "--no-tail") if follow else ()), *start, *self._matches()]

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
                terms.append("_TRANSPORT=kernel")
            elif name.endswith(".service"):
                terms.append(f"_SYSTEMD_UNIT={name}")
            else:
                terms.append(f"SYSLOG_IDENTIFIER={name}")
        return " + ".join(terms).split(" ") if terms else []

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
    """Reads one journalctl's output."""

    def __init__(self, host: Host, streams: frozenset[str], position: Position | None, kernel: Position | None) -> None:
        self._host = host
        self._kernel = kernel or {}
        self._streams = streams
        self._stored = position if position and "cursor" in position else None
        self._rest = b""
        self._oversized = False
        self._live = False

    def follow(self, process: subprocess.Popen[bytes], emit: Emit, stop: Stop) -> None:
        assert process.stdout is not None  # Popen was asked for it
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not stop:
                timeout = 0.5 if self._live else QUIET_SECONDS
                if selector.select(timeout):
                    chunk = os.read(process.stdout.fileno(), CHUNK)
                    if not chunk:
                        self._ended(process, emit, stop)
                        return
                    self._hand_over(chunk, emit)
                elif not self._live:
                    self._live = True
                    emit(Batch(JOURNAL))

    def _ended(self, process: subprocess.Popen[bytes], emit: Emit, stop: Stop) -> None:
        code = process.wait(timeout=PROBE_SECONDS)
        if stop.once:
            emit(Batch(JOURNAL))
            return
        assert process.stderr is not None  # Popen was asked for it
        said = process.stderr.read(2048).decode("utf-8", "replace").strip().splitlines()
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
            except (ValueError, RecursionError):
                malformed += bool(line.strip())
                continue
            if self._read_before(entry):
                continue
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
        """Whether the entry is at or before the stored one; in the same boot the clock that never steps decides."""
        if self._stored is None or self._live:
            return False
        if entry.boot_id == self._stored.get("boot"):
            return entry.received <= float(self._stored["received"])
        return entry.time <= float(self._stored["time"])

    def _record(self, entry: Entry) -> Record:
        kernel = entry.from_kernel and KERNEL_LOG in self._streams
        facility = entry.fields.get("SYSLOG_FACILITY", "")
        return Record(
            source=JOURNAL,
            streams=(KERNEL_LOG,) if kernel else self._names(entry),
            text=entry.message[:MAX_LINE],
            time=min(entry.time, self._host.clock.now()),
            clock=entry.monotonic,
            boot_id=entry.boot_id,
            priority=int(entry.fields["PRIORITY"]) if entry.fields.get("PRIORITY", "").isdigit() else -1,
            user=kernel and facility.isdigit() and int(facility) != LOG_KERN,
            live=self._live,
            device=entry.fields.get("_KERNEL_DEVICE", "").removeprefix("+"),
        )

    def _names(self, entry: Entry) -> tuple[str, ...]:
        names = (entry.fields.get("_SYSTEMD_UNIT", ""), entry.fields.get("SYSLOG_IDENTIFIER", ""))
        return tuple(dict.fromkeys(journal(name) for name in names if journal(name) in self._streams))


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
