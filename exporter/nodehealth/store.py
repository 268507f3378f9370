"""The state on disk: counters, problems, positions, history.  One SQLite file (WAL), crash-safe.

Everything that one batch changed, and the position behind it, is one transaction.  A thread of its own writes, so that a
disk that does not answer delays nobody: the caller waits 50 ms at most and then goes on without it.  `synchronous=NORMAL`
survives the death of this process at any instant; a power loss may take the last transactions together with the positions
that belong to them, never one without the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from nodehealth.checks import Sample
from nodehealth.model import Reason
from nodehealth.sources.follower import Position
from nodehealth.state import Change
from nodehealth.view import Count, Happening, NumberKey, Occurrence, Problem

FILE = "nodehealth.db"
LOCK = "nodehealth.lock"
SCHEMA = 1
COMMIT_SECONDS = 0.05
POLL_SECONDS = 1.0
MAX_WRITTEN = 2_000  # transactions between two checkpoints where there is no quiet second
MAX_PAGES = 16_384  # of 4 KiB: 64 MiB
MAX_HISTORY_ROWS = 10_000
MAX_PENDING_HISTORY = 1_000

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counts (
  kind TEXT, first TEXT, second TEXT, value INTEGER NOT NULL, last_seen REAL NOT NULL,
  PRIMARY KEY (kind, first, second)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS problems (
  reason TEXT, object TEXT, variant TEXT, since REAL, last_seen REAL, source TEXT, text TEXT, boot_id TEXT,
  sequence INTEGER, injected INTEGER, cleared REAL, detail TEXT, PRIMARY KEY (reason, object, variant)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS samples (name TEXT PRIMARY KEY, time REAL NOT NULL, sample TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS recent (key TEXT PRIMARY KEY, times TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (source TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS history (
  id INTEGER PRIMARY KEY, time REAL, happening TEXT, reason TEXT, severity TEXT, action TEXT, object TEXT, variant TEXT,
  injected INTEGER, source TEXT, boot_id TEXT, sequence INTEGER, text TEXT, how TEXT, unsaid INTEGER
);
CREATE TABLE IF NOT EXISTS commands (
  id INTEGER PRIMARY KEY, time REAL NOT NULL, reason TEXT NOT NULL, object TEXT, ended INTEGER
);
"""


_PROBLEM = tuple(each.name for each in fields(Problem))
_OCCURRENCE = tuple(each.name for each in fields(Occurrence))


class StoreError(Exception):
    """The state directory cannot be used; the text says why."""


@dataclass(slots=True)
class Transaction:
    """One batch's effect together with the positions behind it, and the losses that belong to the same positions."""

    change: Change = field(default_factory=Change)
    positions: dict[str, Position] = field(default_factory=dict)
    losses: dict[tuple[str, str], int] = field(default_factory=dict)
    commands: dict[int, int] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)
    samples: dict[str, tuple[float, Sample]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.change or self.positions or self.losses or self.commands or self.meta or self.samples)

    def followed_by(self, later: Transaction) -> Transaction:
        """Both as one; values are absolute, so the later one wins."""
        change = Change(
            counts=self.change.counts | later.change.counts,
            numbers=self.change.numbers | later.change.numbers,
            problems=self.change.problems | later.change.problems,
            recent=self.change.recent | later.change.recent,
            history=(self.change.history + later.change.history)[-MAX_PENDING_HISTORY:],
        )
        return Transaction(
            change,
            self.positions | later.positions,
            self.losses | later.losses,
            self.commands | later.commands,
            self.meta | later.meta,
            self.samples | later.samples,
        )


@dataclass(frozen=True, slots=True)
class Saved:
    """What the store holds; `fresh` where it holds nothing yet."""

    fresh: bool = True
    boot_id: str = ""
    counts: Mapping[str, Count] = field(default_factory=dict)
    numbers: Mapping[NumberKey, Count] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    recent: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    positions: Mapping[str, Position] = field(default_factory=dict)
    losses: Mapping[tuple[str, str], int] = field(default_factory=dict)
    history: tuple[Occurrence, ...] = ()
    samples: Mapping[str, tuple[float, Sample]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Command:
    """An operator's clear that the running exporter has to do."""

    id: int
    time: float
    reason: str
    object: str | None


class Lock:
    """Says that this process uses the state directory; freed by the kernel when the process ends, however it ends."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def take(self) -> bool:
        """Whether the directory is ours now."""
        if not self._try():
            return False
        with contextlib.suppress(OSError):  # a full disk: who holds it is then not written down
            os.truncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        return True

    def _try(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_free(self) -> bool:
        """Whether nobody holds it; does not keep it."""
        if not self._try():
            return False
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return True

    def holder(self) -> str:
        """The process that holds it, for people."""
        pid = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
        import psutil  # 1 MiB that only who asks this pays  # noqa: PLC0415

        with contextlib.suppress(psutil.Error, ValueError):
            return f"process {pid} ({psutil.Process(int(pid)).name()})"
        return f"process {pid or 'unknown'}"

    def release(self) -> None:
        """Give it back."""
        os.close(self._descriptor)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection with the settings that the store relies on."""
    how = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    connection = sqlite3.connect(how, uri=True, timeout=2.0, isolation_level=None, check_same_thread=False)
    try:
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint=0")  # the store does it when nothing waits for the disk
            connection.execute(f"PRAGMA max_page_count={MAX_PAGES}")
        connection.execute("PRAGMA cache_size=-512")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class Store:
    """The open state of this machine, written by its own thread."""

    def __init__(self, directory: Path, machine: str) -> None:
        """Open or create; set aside what belongs to another machine or is damaged.  Raises StoreError."""
        self.notes: list[str] = []
        self._path = directory / FILE
        try:
            self._connection = self._open(machine)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot use {self._path}: {error}") from error
        self.error = ""
        """Why the last transaction could not be written; "" where it was."""
        self._condition = threading.Condition()
        self._waiting: Transaction | None = None
        self._writing = False
        self._closing = False
        self._commands: tuple[Command, ...] = ()
        self._looked = 0.0
        self._written = 0
        self._identity = self._path.stat().st_ino
        self._look_for_commands()
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._thread.start()

    def _open(self, machine: str) -> sqlite3.Connection:
        """The connection to this machine's state."""
        for _ in range(2):
            why = self._try_open(machine)
            if isinstance(why, sqlite3.Connection):
                return why
            self._set_aside(why)
        raise StoreError(f"cannot start a new state in {self._path.parent}")

    def _try_open(self, machine: str) -> sqlite3.Connection | str:
        """The connection, or why the file has to be set aside."""
        try:
            connection = connect(self._path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            return f"it is damaged ({error})"
        try:
            why = _refusal(connection, machine)
        except sqlite3.OperationalError:
            connection.close()
            raise
        except sqlite3.DatabaseError as error:
            why = f"it is damaged ({error})"
        if not why:
            return connection
        connection.close()
        return why

    def _set_aside(self, why: str) -> None:
        aside = f"{FILE}.aside-{int(time.time())}"
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self._path.with_name(FILE + suffix).rename(self._path.with_name(aside + suffix))
        self.notes.append(f"the state in {self._path} was set aside as {aside}: {why}")

    def load(self, reasons: Mapping[str, Reason]) -> Saved:
        """Everything that was saved."""
        return read_saved(self._connection, reasons)

    def commit(self, transaction: Transaction, seconds: float = COMMIT_SECONDS) -> bool:
        """Write it; false where the disk did not answer in time.  It is then written when the disk does."""
        with self._condition:
            stuck = bool(self.error) or self._waiting is not None or self._writing
            self._waiting = transaction if self._waiting is None else self._waiting.followed_by(transaction)
            self._condition.notify_all()
            return not stuck and self._condition.wait_for(self._is_saved, seconds) and not self.error

    @property
    def saved(self) -> bool:
        """Whether everything is on disk."""
        with self._condition:
            return self._is_saved() and not self.error

    def _is_saved(self) -> bool:
        return bool(self.error) or (self._waiting is None and not self._writing)

    def commands(self) -> tuple[Command, ...]:
        """Clears that nobody has done yet, as of the last second."""
        with self._condition:
            found, self._commands = self._commands, ()
            return found

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._waiting is not None or self._closing, POLL_SECONDS)
                transaction, self._waiting = self._waiting, None
                if transaction is None and self._closing:
                    return
                self._writing = transaction is not None
            if transaction is not None:
                self._write(transaction)
                self._written += 1
            if self._written > MAX_WRITTEN or (transaction is None and self._written):
                self._checkpoint()
            if time.monotonic() - self._looked >= POLL_SECONDS:  # also while there is something to write all the time
                self._look_for_commands()

    def _write(self, transaction: Transaction) -> None:
        try:
            _write(self._connection, transaction)
            error = self._missing()
        except (sqlite3.Error, ValueError, OverflowError) as caught:
            error = str(caught)
        with self._condition:
            last = self._closing
            self.error, self._writing = error, False
            if error and not last:  # what could not be written goes before what came since, and is tried again
                self._waiting = transaction if self._waiting is None else transaction.followed_by(self._waiting)
            self._condition.notify_all()
            if error and not last:
                self._condition.wait_for(lambda: self._closing, POLL_SECONDS)

    def _checkpoint(self) -> None:
        """Move what was written from the log into the database; the only time that a commit waits for the disk itself."""
        self._written = 0
        with contextlib.suppress(sqlite3.Error):  # the next commit says what is wrong with the disk
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _missing(self) -> str:
        """Why what was written is not kept all the same: SQLite goes on in a file that was removed."""
        try:
            return "" if self._path.stat().st_ino == self._identity else f"{self._path} was exchanged"
        except OSError as error:
            return f"{self._path}: {error.strerror}"

    def _look_for_commands(self) -> None:
        self._looked = time.monotonic()
        query = "SELECT id, time, reason, object FROM commands WHERE ended IS NULL ORDER BY id"
        found: tuple[Command, ...] = ()
        error = self._missing()
        try:
            found = tuple(Command(*row) for row in self._connection.execute(query))
        except sqlite3.Error as caught:
            error = str(caught)
        with self._condition:
            self._commands = found
            if self._waiting is None:  # else the outcome of the next write says it
                self.error = error

    def close(self, seconds: float = 1.0) -> None:
        """Write what waits, if the disk lets us, and end."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._thread.join(seconds)
        if not self._thread.is_alive():
            self._connection.close()


def _refusal(connection: sqlite3.Connection, machine: str) -> str:
    """Why this database is not ours; "" where it is.  Makes the tables and signs it."""
    connection.executescript(_TABLES)
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        return f"it is damaged ({damage})"
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    if int(meta.get("schema", SCHEMA)) > SCHEMA:
        return "a newer release wrote it"
    if meta.get("machine", machine) != machine:
        return "it belongs to another machine"
    signed = [("schema", str(SCHEMA)), ("machine", machine)]
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", signed)
    return ""


def _write(connection: sqlite3.Connection, transaction: Transaction) -> None:
    """One transaction: all of it or nothing."""
    change = transaction.change
    connection.execute("BEGIN IMMEDIATE")
    try:
        counts = [("problem", name, "", each.value, each.last_seen) for name, each in change.counts.items()]
        counts += [(*key, each.value, each.last_seen) for key, each in change.numbers.items()]
        counts += [(kind, source, "", value, 0.0) for (kind, source), value in transaction.losses.items()]
        connection.executemany("INSERT OR REPLACE INTO counts VALUES (?, ?, ?, ?, ?)", counts)
        for key, problem in change.problems.items():
            _write_problem(connection, key, problem)
        connection.executemany(
            "INSERT OR REPLACE INTO recent VALUES (?, ?)",
            [(key, json.dumps(times)) for key, times in change.recent.items() if times],
        )
        forgotten = [(key,) for key, times in change.recent.items() if not times]
        connection.executemany("DELETE FROM recent WHERE key = ?", forgotten)
        connection.executemany(
            "INSERT OR REPLACE INTO positions VALUES (?, ?)",
            [(source, json.dumps(position)) for source, position in transaction.positions.items()],
        )
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", transaction.meta.items())
        samples = [(name, at, json.dumps(sample)) for name, (at, sample) in transaction.samples.items()]
        connection.executemany("INSERT OR REPLACE INTO samples VALUES (?, ?, ?)", samples)
        connection.executemany(
            "UPDATE commands SET ended = ? WHERE id = ?", [(n, id_) for id_, n in transaction.commands.items()]
        )
        _write_history(connection, change.history)
        connection.execute("COMMIT")
    except sqlite3.Error:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _write_problem(connection: sqlite3.Connection, key: tuple[str, str, str], problem: Problem | None) -> None:
    if problem is None:
        connection.execute("DELETE FROM problems WHERE reason = ? AND object = ? AND variant = ?", key)
    else:
        row = {name: getattr(problem, name) for name in _PROBLEM} | {"reason": problem.reason.name}
        connection.execute(f"INSERT OR REPLACE INTO problems ({', '.join(row)}) VALUES (:{', :'.join(row)})", row)  # noqa: S608


def _write_history(connection: sqlite3.Connection, rows: list[Occurrence]) -> None:
    if rows:
        values = [{name: getattr(row, name) for name in _OCCURRENCE} for row in rows]
        names = f"({', '.join(_OCCURRENCE)}) VALUES (:{', :'.join(_OCCURRENCE)})"
        connection.executemany(f"INSERT INTO history {names}", values)
        connection.execute("DELETE FROM history WHERE id <= (SELECT max(id) FROM history) - ?", (MAX_HISTORY_ROWS,))


def read_saved(connection: sqlite3.Connection, reasons: Mapping[str, Reason]) -> Saved:
    """Everything in the database; problems of reasons that the catalog does not have are left out."""
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    rows = connection.execute("SELECT kind, first, second, value, last_seen FROM counts").fetchall()
    return Saved(
        fresh="begun" not in meta,  # killed while it read the backlog of a first start: the next one is a first start too
        boot_id=meta.get("boot_id", ""),
        counts={first: Count(value, seen) for kind, first, _, value, seen in rows if kind == "problem"},
        numbers={(kind, a, b): Count(value, seen) for kind, a, b, value, seen in rows if kind in {"xid", "sxid"}},
        losses={(kind, first): value for kind, first, _, value, _ in rows if kind in {"lost", "gaps"}},
        problems=tuple(_problems(connection, reasons)),
        recent={key: tuple(json.loads(times)) for key, times in connection.execute("SELECT key, times FROM recent")},
        positions={
            source: json.loads(text) for source, text in connection.execute("SELECT source, position FROM positions")
        },
        history=tuple(read_history(connection, 50)),
        samples={
            name: (at, json.loads(sample))
            for name, at, sample in connection.execute("SELECT name, time, sample FROM samples")
        },
    )


def _problems(connection: sqlite3.Connection, reasons: Mapping[str, Reason]) -> Iterator[Problem]:
    for row in connection.execute(f"SELECT {', '.join(_PROBLEM)} FROM problems"):  # noqa: S608 - our own column names
        values = dict(zip(_PROBLEM, row, strict=True))
        reason = reasons.get(values["reason"])
        if reason is not None:  # one of a disabled reason ends in the state
            yield Problem(**values | {"reason": reason, "injected": bool(values["injected"])})


def read_history(connection: sqlite3.Connection, limit: int) -> list[Occurrence]:
    """The last rows of the history, oldest first."""
    query = f"SELECT {', '.join(_OCCURRENCE)} FROM history ORDER BY id DESC LIMIT ?"  # noqa: S608 - our own column names
    rows = [dict(zip(_OCCURRENCE, row, strict=True)) for row in connection.execute(query, (limit,))]
    return [
        Occurrence(**row | {"happening": Happening(row["happening"]), "injected": bool(row["injected"])})
        for row in rows[::-1]
    ]


def leave_command(path: Path, reason: str, object_: str | None) -> int:
    """Write an operator's clear for the exporter that holds the store; its id.  Raises sqlite3.Error."""
    connection = connect(path)
    try:
        cursor = connection.execute(
            "INSERT INTO commands (time, reason, object) VALUES (?, ?, ?)", (time.time(), reason, object_)
        )
        return int(cursor.lastrowid or 0)
    finally:
        connection.close()


def command_result(path: Path, id_: int) -> int | None:
    """How many problems the clear ended; None where nobody has done it yet."""
    connection = connect(path, read_only=True)
    try:
        row = connection.execute("SELECT ended FROM commands WHERE id = ?", (id_,)).fetchone()
        return None if row is None else row[0]
    finally:
        connection.close()
