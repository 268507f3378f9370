"""Whatever lies in an input: it is counted and skipped, what is good in it is read, and nothing ends."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from followers import BOOT, Read, Script, append, follow, host, nothing, write
from nodehealth import catalog as catalogs
from nodehealth.engine import Engine
from nodehealth.settings import Settings
from nodehealth.sources import journal, kmsg, tail
from nodehealth.sources.follower import Position, Stop
from nodehealth.sources.kmsg import KmsgFollower
from nodehealth.sources.tail import FileFollower
from nodehealth.store import Store
from nodehealth.view import SourceState, View
from nodehealth.wiring import Wiring

CATALOG = catalogs.load()
FABRIC_MANAGER = "/var/log/fabricmanager.log"
XID = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
WATCHED: Position = {"absent": True}
SLOW = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))

BYTES = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=50).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [
            b"\n",
            b"\n\n",
            b"\0",
            b"\r\n",
            b"6,",
            b"6,5,5,-;",
            b" DEVICE=+",
            b"\\x",
            b"\\xf",
            b";",
            b"\n ",
            b"x" * 5000,
            b"\xff" * 300,
        ]
    ),
)
PIECES = st.lists(BYTES, max_size=12)


@contextmanager
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="nodehealth-test-"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


# -- the followers ---------------------------------------------------------------------------------------------------------


@given(PIECES)
@SLOW
def test_recording_with_garbage_is_read_to_its_last_record(pieces: list[bytes]) -> None:
    with folder() as root:
        path = write(root / "dev/kmsg", b"6,1,1,-;first good one\n")
        steps = [lambda piece=piece: append(path, piece) for piece in pieces]
        last = b"\n6,999999999,9,-;last good one\n"
        got = follow(KmsgFollower(host(root)), None, *steps, lambda: append(path, last), nothing)
    assert got.error is None
    assert [got.texts[0].split("\n")[0][:14], got.texts[-1]] == ["first good one", "last good one"]
    sequences = [record.sequence for record in got.records]
    assert sequences == sorted(set(sequences))
    assert got.total("lost") == 999_999_998 - (len(sequences) - 1)


@given(st.lists(st.one_of(BYTES, st.just(errno.EPIPE), st.just(errno.EINVAL)), max_size=20))
@SLOW
def test_device_with_garbage_is_read_to_its_last_record(answers: list[bytes | int]) -> None:
    waiting = iter([*answers, b"6,999999999999999999,9,-;last good one\n", errno.EAGAIN])
    got = Read()

    def answer(*_: object) -> bytes:
        given = next(waiting)
        if isinstance(given, int):
            raise OSError(given, os.strerror(given))
        return given

    with pytest.MonkeyPatch.context() as patch, folder() as root:
        reader = kmsg._Reader(host(root), 0, None)
        patch.setattr(os, "read", answer)
        reader.follow_device(got.emit, Stop(once=True))
    assert got.texts[-1] == "last good one"
    assert got.total("gaps") == answers.count(errno.EPIPE)


@given(st.binary(max_size=300))
@SLOW
def test_parsing_a_kernel_record_gives_a_record_or_is_refused(raw: bytes) -> None:
    for candidate in (raw, b"6,1,2,-;" + raw):
        try:
            found = kmsg.parse(candidate)
        except kmsg.Malformed:
            assert candidate is raw
        else:
            assert found.text.encode().decode() == found.text
            assert found.sequence >= 0


def expected_lines(whole: bytes) -> list[str]:
    """What a log file means, without any chunks."""
    cut = [line[: tail.MAX_LINE] for line in whole.split(b"\n")[:-1]]
    texts = [line.decode("utf-8", "replace").replace("\0", "").rstrip("\r") for line in cut]
    return [text for text in texts if text]


@given(st.lists(PIECES, min_size=1, max_size=3))
@SLOW
def test_any_bytes_in_a_file_give_the_same_lines_however_they_come(runs: list[list[bytes]]) -> None:
    """Written piece by piece, read between the pieces, with a restart after each list of pieces."""
    texts: list[str] = []
    position: Position | None = WATCHED
    with folder() as root:
        path = write(root / "var/log/app.log", b"")
        for pieces in runs:
            steps = [lambda piece=piece: append(path, piece) for piece in pieces]
            got = follow(FileFollower(host(root), "/var/log/app.log"), position, *steps, nothing)
            assert (got.error, got.total("gaps")) == (None, 0)
            texts, position = texts + got.texts, got.position
    # a too long line that has no end yet is handed over at once
    whole = b"".join(b"".join(pieces) for pieces in runs)
    waiting = whole.rpartition(b"\n")[2]
    assert texts == expected_lines(whole + (b"\n" if len(waiting) > tail.MAX_LINE else b""))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["9" * 5000, "-1", "\ud800", "²"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = ("__CURSOR", "__REALTIME_TIMESTAMP", "__MONOTONIC_TIMESTAMP", *journal.FIELDS.split(","))
ENTRIES = (
    st.dictionaries(st.sampled_from(NAMES), JSON | st.just("1700000000000000"), max_size=8).map(json.dumps).map(str.encode)
)


@given(st.lists(BYTES | ENTRIES | ENTRIES.map(lambda entry: entry + b"\n"), max_size=12))
@SLOW
def test_journalctl_that_prints_garbage_is_read_to_its_last_entry(pieces: list[bytes]) -> None:
    good = json.dumps({"__CURSOR": "c", "__REALTIME_TIMESTAMP": "1", "MESSAGE": "last good one", "_TRANSPORT": "kernel"})
    got = Read()
    with folder() as root:
        reader = journal._Reader(host(root), frozenset({"kmsg", "journal:systemd"}), None, {"boot": BOOT, "clock": 1.0})
    for piece in [*pieces, b"\n" + good.encode() + b"\n"]:
        reader._hand_over(piece, got.emit)
    assert got.texts[-1] == "last good one"
    for record in got.records:
        assert len(record.text.encode()) <= 4 * journal.MAX_LINE
    assert json.dumps([batch.position for batch in got.batches]).encode()


# -- much of it ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filler", [b"x", b"\0", b"\xff", b" ", b"\\x41"])
def test_line_of_a_mebibyte_is_survived(tmp_path: Path, filler: bytes) -> None:
    line = filler * (1024 * 1024 // len(filler))
    write(tmp_path / "dev/kmsg", b"6,1,1,-;" + line + b"\n6,2,2,-;after\n")
    write(tmp_path / "var/log/app.log", line + b"\nafter\n")
    for follower, position in (
        (KmsgFollower(host(tmp_path)), None),
        (FileFollower(host(tmp_path), "/var/log/app.log"), WATCHED),
    ):
        got = follow(follower, position)
        assert got.texts[-1] == "after"
        assert max(map(len, got.texts)) <= tail.MAX_LINE
        assert got.total("cut") == 1


def test_endless_line_takes_bounded_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "var/log/app.log", b"")
    with path.open("r+b") as file:
        file.truncate(64 * 1024 * 1024)  # a hole: 64 MiB of NUL without a newline
    append(path, b"\nafter\n")
    got = follow(FileFollower(host(tmp_path), "/var/log/app.log"), WATCHED)
    assert (got.texts, got.total("cut")) == (["after"], 1)


def test_a_million_lines_are_all_read_in_bounded_batches(tmp_path: Path) -> None:
    write(tmp_path / "var/log/app.log", b"x\n" * 1_000_000)
    sizes: list[int] = []
    follower = FileFollower(host(tmp_path), "/var/log/app.log")
    follower.run(WATCHED, lambda batch: sizes.append(len(batch.records)), Stop(once=True))
    assert sum(sizes) == 1_000_000
    assert max(sizes) <= tail.CHUNK


def test_many_malformed_records_are_all_counted(tmp_path: Path) -> None:
    write(tmp_path / "dev/kmsg", b"rubbish\n" * 200_000 + b"6,1,1,-;after\n")
    got = follow(KmsgFollower(host(tmp_path)))
    assert (got.texts, got.total("malformed")) == (["after"], 200_000)


# -- the whole exporter ----------------------------------------------------------------------------------------------------


def exporter(root: Path) -> View:
    """One pass over everything on a host; what it shows is also what it saved."""
    views: list[View] = []
    on = host(root)
    (root / "state").mkdir()
    store = Store(root / "state", on.machine)
    Engine(Wiring(on, Settings(), CATALOG, store, saved=store.load(CATALOG.reasons)), views.append, once=True).run()
    again = Store(root / "state", on.machine)
    assert again.load(CATALOG.reasons).numbers == views[-1].numbers
    again.close()
    return views[-1]


@given(PIECES, PIECES)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_fault_between_garbage_is_counted(kernel: list[bytes], fabric: list[bytes]) -> None:
    with folder() as root:
        write(root / "dev/kmsg", b"\n".join([*kernel, f"3,99999999,1000000,-;{XID}\n".encode()]))
        write(root / FABRIC_MANAGER.lstrip("/"), b"".join(fabric))
        view = exporter(root)
    assert {name: count.value for name, count in view.numbers.items() if name[2] == "79"} == {
        ("xid", "0000:3b:00.0", "79"): 1
    }
    assert {source.name: source.state for source in view.sources}["kmsg"] is SourceState.UP


@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path), lambda path: path.symlink_to("/dev/zero")]
)
def test_inputs_that_are_no_inputs_are_down_and_stop_nothing(make: Callable[[Path], object], tmp_path: Path) -> None:
    for name in ("dev/kmsg", FABRIC_MANAGER.lstrip("/"), "var/log/journal"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
    states = {source.name: source.state for source in exporter(tmp_path).sources}
    assert states["kmsg"] is states[f"file:{FABRIC_MANAGER}"] is SourceState.DOWN
    assert states["journal"] is SourceState.ABSENT


def test_file_that_vanishes_between_two_polls_is_absent_and_others_go_on(tmp_path: Path) -> None:
    path = write(tmp_path / "var/log/app.log", b"")
    steps = [lambda: append(path, b"last words"), lambda: shutil.rmtree(path.parent), nothing]
    got = follow(FileFollower(host(tmp_path), "/var/log/app.log"), WATCHED, stop=Script(*steps))
    assert got.texts == ["last words"]
    assert "was deleted" in str(got.error)
