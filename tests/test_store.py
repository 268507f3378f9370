"""The state on disk: all of a batch or nothing, damaged and foreign files, a disk that does not answer."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from nodehealth import catalog as catalogs
from nodehealth import store as stores
from nodehealth.state import Change
from nodehealth.store import (
    FILE,
    MAX_HISTORY_ROWS,
    Lock,
    Saved,
    Store,
    StoreError,
    Transaction,
    command_result,
    connect,
    leave_command,
    read_history,
)
from nodehealth.view import Count, Happening, Occurrence, Problem

REASONS = catalogs.load().reasons
MACHINE = "machine/uuid"


def problem(cleared: float | None = None) -> Problem:
    return Problem(
        REASONS["NvidiaXIDError"], "0000:3b:00.0", "48", 1.0, 2.0, "kmsg", "text", "boot", 7, injected=True, cleared=cleared
    )


def occurrence(number: int = 0) -> Occurrence:
    return Occurrence(
        time=float(number),
        happening=Happening.FOUND,
        reason="NvidiaXIDError",
        severity="critical",
        action="reset_gpu",
        object="0000:3b:00.0",
        variant="48",
        injected=False,
        source="kmsg",
        boot_id="boot",
        sequence=7,
        text="text",
    )


def transaction(**more: object) -> Transaction:
    change = Change(
        counts={"NvidiaXIDError": Count(3, 9.5)},
        numbers={("xid", "0000:3b:00.0", "48"): Count(4, 9.5)},
        problems={problem().key: problem()},
        recent={"key": (1.0, 2.0)},
        history=[occurrence()],
    )
    return Transaction(
        change, {"kmsg": {"boot": "b", "sequence": 5}}, {("lost", "kmsg"): 2}, meta={"boot_id": "b", "begun": "1"}, **more
    )  # type: ignore[arg-type]


def reopened(path: Path) -> Saved:
    """What a new exporter would read."""
    store = Store(path, MACHINE)
    try:
        return store.load(REASONS)
    finally:
        store.close()


def test_everything_that_is_committed_comes_back(tmp_path: Path) -> None:
    store = Store(tmp_path, MACHINE)
    assert store.load(REASONS).fresh
    assert store.commit(transaction(), 5.0)
    store.close()
    saved = reopened(tmp_path)
    assert not saved.fresh
    assert saved.counts == {"NvidiaXIDError": Count(3, 9.5)}
    assert saved.numbers == {("xid", "0000:3b:00.0", "48"): Count(4, 9.5)}
    assert saved.problems == (problem(),)
    assert saved.recent == {"key": (1.0, 2.0)}
    assert saved.positions == {"kmsg": {"boot": "b", "sequence": 5}}
    assert saved.losses == {("lost", "kmsg"): 2}
    assert saved.history == (occurrence(),)


def test_a_forgotten_problem_is_deleted(tmp_path: Path) -> None:
    store = Store(tmp_path, MACHINE)
    store.commit(transaction(), 5.0)
    assert store.commit(Transaction(Change(problems={problem().key: None})), 5.0)
    assert store.load(REASONS).problems == ()
    store.close()


def test_a_failing_transaction_leaves_nothing_and_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "POLL_SECONDS", 0.01)
    store = Store(tmp_path, MACHINE)
    write, fails = stores._write, threading.Event()
    fails.set()

    def failing(connection: sqlite3.Connection, each: Transaction) -> None:
        if fails.is_set():
            raise sqlite3.OperationalError("database or disk is full")
        write(connection, each)

    monkeypatch.setattr(stores, "_write", failing)
    assert not store.commit(transaction(), 5.0)
    assert store.error == "database or disk is full"
    assert not store.saved
    later = Transaction(Change(counts={"NvidiaXIDError": Count(9, 10.0)}))
    assert not store.commit(later), "it does not wait for a disk that is known to fail"
    fails.clear()
    for _ in range(500):
        if store.saved:
            break
        threading.Event().wait(0.01)
    assert store.saved
    store.close()
    saved = reopened(tmp_path)
    assert saved.counts == {"NvidiaXIDError": Count(9, 10.0)}
    assert saved.positions == {"kmsg": {"boot": "b", "sequence": 5}}


def test_a_disk_that_does_not_answer_delays_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    write = stores._write

    def stuck(connection: sqlite3.Connection, each: Transaction) -> None:
        answers.wait(30)
        write(connection, each)

    store = Store(tmp_path, MACHINE)
    monkeypatch.setattr(stores, "_write", stuck)
    assert not store.commit(transaction(), 0.01)
    assert not store.saved
    assert not store.commit(Transaction(Change(counts={"SoftLockup": Count(1, 1.0)})), 3600.0), "no second wait"
    answers.set()
    store.close(10.0)
    saved = reopened(tmp_path)
    assert set(saved.counts) == {"NvidiaXIDError", "SoftLockup"}


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path, MACHINE)
    bad = transaction()
    bad.meta["key"] = None  # type: ignore[assignment] - NOT NULL fails after everything else was written
    assert not store.commit(bad, 5.0)
    connection = connect(tmp_path / FILE, read_only=True)
    assert connection.execute("SELECT count(*) FROM counts").fetchone() == (0,)
    assert connection.execute("SELECT count(*) FROM positions").fetchone() == (0,)
    connection.close()
    store.close()


@pytest.mark.parametrize("content", [b"not a database" * 1000, b"SQLite format 3\0" + b"\xff" * 8192])
def test_a_damaged_database_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    store = Store(tmp_path, MACHINE)
    assert store.load(REASONS).fresh
    assert "damaged" in store.notes[0]
    assert [path.read_bytes() for path in tmp_path.glob("*.aside-*")] == [content]
    store.close()


def test_state_of_another_machine_is_set_aside(tmp_path: Path) -> None:
    store = Store(tmp_path, MACHINE)
    store.commit(transaction(), 5.0)
    store.close()
    other = Store(tmp_path, "another/machine")
    assert other.load(REASONS).fresh
    assert "another machine" in other.notes[0]
    other.close()


def test_state_of_a_newer_release_is_set_aside(tmp_path: Path) -> None:
    store = Store(tmp_path, MACHINE)
    store.commit(Transaction(meta={"schema": "99"}), 5.0)
    store.close()
    again = Store(tmp_path, MACHINE)
    assert "newer release" in again.notes[0]
    again.close()


def test_a_directory_in_place_of_the_database_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(StoreError, match="cannot use"):
        Store(tmp_path, MACHINE)


def test_history_is_bounded(tmp_path: Path) -> None:
    store = Store(tmp_path, MACHINE)
    rows = [occurrence(number) for number in range(MAX_HISTORY_ROWS + 100)]
    assert store.commit(Transaction(Change(history=rows)), 30.0)
    store.close()
    connection = connect(tmp_path / FILE, read_only=True)
    assert connection.execute("SELECT count(*), min(time) FROM history").fetchone() == (MAX_HISTORY_ROWS, 100.0)
    assert [row.time for row in read_history(connection, 2)] == [MAX_HISTORY_ROWS + 98.0, MAX_HISTORY_ROWS + 99.0]
    connection.close()


def test_a_command_is_done_once(tmp_path: Path) -> None:
    Store(tmp_path, MACHINE).close()
    number = leave_command(tmp_path / FILE, "NvidiaXIDError", None)
    store = Store(tmp_path, MACHINE)
    assert [command.reason for command in store.commands()] == ["NvidiaXIDError"]
    assert command_result(tmp_path / FILE, number) is None
    assert store.commit(Transaction(commands={number: 2}), 5.0)
    assert command_result(tmp_path / FILE, number) == 2
    store.close()
    again = Store(tmp_path, MACHINE)
    assert again.commands() == ()
    again.close()


def test_one_holder_of_a_directory(tmp_path: Path) -> None:
    first, second = Lock(tmp_path), Lock(tmp_path)
    assert first.take()
    assert not second.take()
    assert not second.is_free()
    assert "python" in second.holder() or "pytest" in second.holder()
    first.release()
    assert second.is_free()
    assert second.take()
    second.release()
