"""A log file through everything that rotation does to it: no line lost, none twice."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from followers import NOW, UPTIME, Read, Script, Step, append, follow, host, nothing, write
from nodehealth.sources import tail
from nodehealth.sources.follower import Absent, Batch, Down, Position, Stop
from nodehealth.sources.tail import FileFollower

LOG = "/var/log/app.log"
WATCHED: Position = {"absent": True}  # there was no file before: everything is new


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write(tmp_path / "var/log/app.log", "")


def follower(log: Path) -> FileFollower:
    return FileFollower(host(log.parents[2]), f"/var/log/{log.name}")


def read(log: Path, position: Position | None = None, *steps: Step, stop: Stop | None = None) -> Read:
    return follow(follower(log), position, *steps, stop=stop)


def adds(log: Path, content: str | bytes) -> Step:
    return lambda: append(log, content)


def rolled(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")


def shift(log: Path) -> None:
    """`app.log.1` becomes `app.log.2` and so on."""
    number = 1
    while rolled(log, number).exists():
        number += 1
    for each in range(number, 1, -1):
        rolled(log, each - 1).rename(rolled(log, each))


def rotate(log: Path) -> None:
    """Rename and create anew."""
    shift(log)
    log.rename(rolled(log, 1))
    log.touch()


def copytruncate(log: Path) -> None:
    shift(log)
    shutil.copyfile(log, rolled(log, 1))
    os.truncate(log, 0)


# -- lines -----------------------------------------------------------------------------------------------------------------


def test_first_start_begins_at_the_end(log: Path) -> None:
    write(log, "old\nolder\n")
    got = read(log, None, adds(log, "new\n"), nothing)
    assert got.texts == ["new"]
    assert got.batches[0].caught_up
    assert got.batches[0].position


@pytest.mark.parametrize("old", ["", "old\n", "old\n" * 5000])
def test_first_start_in_the_middle_of_a_line_waits_for_its_end(log: Path, old: str) -> None:
    write(log, old + "half a ")
    assert read(log, None, adds(log, "line\n"), nothing).texts == ["half a line"]


def test_first_start_inside_a_line_that_is_too_long_skips_its_rest(log: Path) -> None:
    write(log, "x" * (tail.MAX_LINE + 10))
    assert read(log, None, adds(log, "the rest\nnext\n"), nothing).texts == ["next"]


def test_record_names_its_file_and_arrival_time(log: Path) -> None:
    write(log, "line\n")
    (record,) = read(log, WATCHED).records
    assert (record.source, record.streams) == (f"file:{LOG}", (f"file:{LOG}",))
    assert (record.time, record.clock, record.live, record.user) == (NOW, UPTIME, True, False)


def test_partial_line_waits_for_its_end(log: Path) -> None:
    got = read(log, WATCHED, adds(log, "one\ntw"), adds(log, "o"), nothing, adds(log, "\nthree"), nothing)
    assert got.texts == ["one", "two"]


def test_partial_line_is_read_whole_after_a_restart(log: Path) -> None:
    first = read(log, WATCHED, adds(log, "one\ntw"), nothing)
    append(log, "o\n")
    assert (first.texts, read(log, first.position).texts) == (["one"], ["two"])


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"dos\r\n", "dos"),
        (b"broken \xff\xfe utf\n", "broken \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER} utf"),
        (b"\0\0\0after a hole\n", "after a hole"),
        (b"caf\xc3\xa9\n", "café"),
    ],
)
def test_odd_bytes_are_made_good(log: Path, raw: bytes, text: str) -> None:
    write(log, raw)
    assert read(log, WATCHED).texts == [text]


def test_empty_lines_are_no_records(log: Path) -> None:
    write(log, b"\n\r\n\0\n\none\n\n")
    assert read(log, WATCHED).texts == ["one"]


@pytest.mark.parametrize("length", [tail.MAX_LINE + 1, tail.CHUNK - 1, tail.CHUNK, tail.CHUNK + 1, 1024 * 1024])
def test_long_line_is_cut_and_counted_once(log: Path, length: int) -> None:
    write(log, "before\n" + "x" * length + "\nafter\n")
    got = read(log, WATCHED)
    assert got.texts == ["before", "x" * tail.MAX_LINE, "after"]
    assert got.total("cut") == 1


def test_line_of_exactly_the_cap_is_whole(log: Path) -> None:
    write(log, "x" * tail.MAX_LINE + "\n")
    got = read(log, WATCHED)
    assert (got.texts, got.total("cut")) == (["x" * tail.MAX_LINE], 0)


def test_long_line_is_handed_over_before_its_end_and_not_again_after_a_restart(log: Path) -> None:
    write(log, "x" * 10_000)
    first = read(log, WATCHED)
    append(log, "y" * 10_000)
    second = read(log, first.position)
    append(log, "z\nnext\n")
    third = read(log, second.position)
    assert [first.texts, second.texts, third.texts] == [["x" * tail.MAX_LINE], [], ["next"]]
    assert [each.total("cut") for each in (first, second, third)] == [1, 0, 0]


def test_restart_reads_what_was_written_meanwhile(log: Path) -> None:
    first = read(log, WATCHED, adds(log, "one\n"), nothing)
    append(log, "two\n")
    second = read(log, first.position)
    assert (second.texts, second.total("gaps")) == (["two"], 0)
    assert read(log, second.position).texts == []


# -- rotation while following ----------------------------------------------------------------------------------------------


def test_rename_rotation_reads_the_tail_before_the_new_file(log: Path) -> None:
    def rotation() -> None:
        append(log, "two\n")
        rotate(log)
        append(log, "three\n")

    got = read(log, WATCHED, adds(log, "one\n"), rotation, *[nothing] * 6)
    assert (got.texts, got.total("gaps")) == (["one", "two", "three"], 0)


def test_writer_may_go_on_in_the_renamed_file_for_a_while(log: Path) -> None:
    late = [adds(rolled(log, 1), "two\nthr"), adds(rolled(log, 1), "ee\nno end")]
    got = read(log, WATCHED, adds(log, "one\n"), lambda: rotate(log), *late, adds(log, "four\n"), *[nothing] * 5)
    assert got.texts == ["one", "two", "three", "no end", "four"]


def test_two_renames_between_two_polls_lose_nothing(log: Path) -> None:
    def rotations() -> None:
        for text in ("two\n", "three\n"):
            rotate(log)
            append(log, text)

    got = read(log, WATCHED, adds(log, "one\n"), rotations, *[nothing] * 6)
    assert (got.texts, got.total("gaps")) == (["one", "two", "three"], 0)


def test_new_file_is_the_stored_place_even_while_it_is_empty(log: Path) -> None:
    """Else a restart after the old file was compressed would report a gap that is none."""
    first = read(log, WATCHED, adds(log, "one\n"), lambda: rotate(log), *[nothing] * 6)
    rolled(log, 1).unlink()
    append(log, "two\n")
    second = read(log, first.position)
    assert (second.texts, second.total("gaps")) == (["two"], 0)


@pytest.mark.parametrize(
    "name", ["app.log.1", "app.log-20240101", "app.log.old", "app-20240101.log", "app-2024-01-02T03-04-05.678.log"]
)
def test_copytruncate_reads_the_tail_from_the_copy(log: Path, name: str) -> None:
    def rotation() -> None:
        append(log, "two\nthree")
        shutil.copyfile(log, log.with_name(name))
        os.truncate(log, 0)

    got = read(log, WATCHED, adds(log, "one\n"), rotation, nothing, adds(log, "four\n"), nothing)
    assert (got.texts, got.total("gaps")) == (["one", "two", "three", "four"], 0)


def test_truncated_without_a_copy_is_a_gap(log: Path) -> None:
    got = read(log, WATCHED, adds(log, "one\n"), lambda: os.truncate(log, 0), adds(log, "two\n"), nothing)
    assert (got.texts, got.total("gaps")) == (["one", "two"], 1)


def test_gap_is_counted_once_over_a_restart(log: Path) -> None:
    first = read(log, WATCHED, adds(log, "one\n"), lambda: os.truncate(log, 0), nothing)
    second = read(log, first.position)
    assert (first.total("gaps"), second.total("gaps")) == (1, 0)


@pytest.mark.parametrize(("copy", "gaps"), [(True, 0), (False, 1)])
def test_truncated_and_grown_past_the_place_between_two_polls(log: Path, *, copy: bool, gaps: int) -> None:
    def rotation() -> None:
        if copy:
            copytruncate(log)
        write(log, "entirely new and longer\nthan what was there before\n")

    got = read(log, WATCHED, adds(log, "one\ntwo\n"), rotation, nothing)
    assert got.texts == ["one", "two", "entirely new and longer", "than what was there before"]
    assert got.total("gaps") == gaps


def test_several_copies_between_two_polls_are_all_read(log: Path) -> None:
    def rotations() -> None:
        for each in ("two", "three"):
            append(log, f"{each} with a tail\n")
            copytruncate(log)
        append(log, "four\n")

    got = read(log, WATCHED, adds(log, "one\n"), rotations, nothing)
    assert got.texts == ["one", "two with a tail", "three with a tail", "four"]


def test_deleted_file_is_read_to_its_end_and_then_absent(log: Path) -> None:
    def delete() -> None:
        append(log, "two\nthree")
        log.unlink()

    got = read(log, WATCHED, adds(log, "one\n"), delete, nothing)
    assert got.texts == ["one", "two", "three"]
    assert isinstance(got.error, Absent)
    write(log, "four\n")
    again = read(log, got.position)
    assert (again.texts, again.total("gaps")) == (["four"], 0)


def test_deleted_and_created_anew_at_once(log: Path) -> None:
    def replace() -> None:
        append(log, "two\n")
        log.unlink()
        write(log, "three\n")

    got = read(log, WATCHED, adds(log, "one\n"), replace, *[nothing] * 6)
    assert got.texts == ["one", "two", "three"]


def test_renamed_away_without_a_new_file_is_still_followed(log: Path) -> None:
    old = rolled(log, 1)
    steps = [lambda: log.rename(old), adds(old, "two\n"), nothing, lambda: write(log, "three\n"), *[nothing] * 6]
    assert read(log, WATCHED, adds(log, "one\n"), *steps).texts == ["one", "two", "three"]


def test_late_file_is_read_from_its_start(log: Path) -> None:
    log.unlink()
    first = read(log)
    assert isinstance(first.error, Absent)
    write(log, "one\n")
    assert read(log, first.position).texts == ["one"]


def test_missing_directory_is_absent(tmp_path: Path) -> None:
    assert isinstance(follow(FileFollower(host(tmp_path), LOG)).error, Absent)


def test_rotations_leave_no_file_open(log: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    rotations = [
        adds(log, "one\n"),
        lambda: rotate(log),
        *[nothing] * 6,
        adds(log, "two\n"),
        lambda: copytruncate(log),
        nothing,
    ]
    first = read(log, WATCHED, *rotations, *rotations)
    assert first.texts == ["one", "two", "one", "two"]
    rotate(log)
    read(log, first.position)
    assert descriptors() == before


# -- rotation while stopped ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("roll", [rotate, copytruncate])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_rotations_while_stopped_are_read_in_order(log: Path, roll: Callable[[Path], None], times: int) -> None:
    write(rolled(log, 1), "was read long ago\n")
    first = read(log, WATCHED, adds(log, "0 read\n"), nothing)
    expected = []
    for each in range(times):
        append(log, f"{each} tail\n{each} end")
        expected += [f"{each} tail", f"{each} end"]
        roll(log)
    append(log, "new\n")
    second = read(log, first.position)
    assert (second.texts, second.total("gaps")) == ([*expected, "new"], 0)
    assert read(log, second.position).texts == []


def test_rotated_and_not_created_anew_while_stopped(log: Path) -> None:
    first = read(log, WATCHED, adds(log, "one\n"), nothing)
    append(log, "two\n")
    log.rename(rolled(log, 1))
    second = read(log, first.position)
    assert isinstance(second.error, Absent)
    write(log, "three\n")
    assert read(log, second.position).texts == ["two", "three"]


def test_rolled_file_that_is_gone_is_a_gap(log: Path) -> None:
    first = read(log, WATCHED, adds(log, "one\n"), nothing)
    rotate(log)
    write(log.with_name("app.log.1.gz"), os.urandom(500))
    rolled(log, 1).unlink()
    append(log, "two\n")
    second = read(log, first.position)
    assert (second.texts, second.total("gaps")) == (["two"], 1)


def test_inode_of_the_old_file_in_use_again_is_another_file(log: Path) -> None:
    first = read(log, WATCHED, adds(log, "one\ntwo\n"), nothing)
    assert first.position
    write(log, "a new file with more text in it\nand a second line\n")  # same inode, other bytes
    second = read(log, {**first.position, "inode": log.stat().st_ino})
    assert second.texts == ["a new file with more text in it", "and a second line"]
    assert second.total("gaps") == 1


def test_older_rolled_file_with_the_same_beginning_is_not_taken_for_the_copy(log: Path) -> None:
    old = write(rolled(log, 1), "-- log begins\nlong ago\n")
    os.utime(old, (1, 1))
    first = read(log, WATCHED, adds(log, "-- log begins\n"), nothing)
    append(log, "tail\n")
    copytruncate(log)
    os.utime(rolled(log, 2), (1, 1))
    append(log, "new\n")
    assert read(log, first.position).texts == ["tail", "new"]


def test_compressed_and_foreign_files_are_not_read(log: Path) -> None:
    first = read(log, WATCHED, adds(log, "one\n"), nothing)
    rotate(log)
    for name in ("app.log.2.gz", "app.log.1.zst", "app.log.pos", "app.log-lock", "app-other.log"):
        write(log.with_name(name), "not ours\n")
    log.with_name("app.log.9").symlink_to("nowhere")
    os.mkfifo(log.with_name("app.log.8"))
    append(log, "two\n")
    second = read(log, first.position)
    assert (second.texts, second.total("gaps")) == (["two"], 0)


def test_stop_in_the_middle_of_a_rolled_file_goes_on_there(log: Path) -> None:
    first = read(log, WATCHED, adds(log, "0 read\n"), nothing)
    expected = [f"{number} {'x' * 100}" for number in range(3000)]
    append(log, "\n".join(expected) + "\n")
    rotate(log)
    append(log, "new\n")
    stop = Script()
    second = Read(first.position)

    def emit(batch: Batch) -> None:
        second.emit(batch)
        stop.set()

    follower(log).run(first.position, emit, stop)
    third = read(log, second.position)
    assert 0 < len(second.texts) < 3000
    assert second.texts + third.texts == [*expected, "new"]


# -- what is no log file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path), lambda path: path.symlink_to("/dev/zero")]
)
def test_what_is_no_file_or_cannot_be_opened_is_down(log: Path, make: Callable[[Path], object]) -> None:
    log.unlink()
    make(log)
    error = read(log).error
    assert isinstance(error, Down)
    assert str(log) in str(error)


def test_unreadable_file_is_down_and_says_why(monkeypatch: pytest.MonkeyPatch, log: Path) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    subject = follower(log)
    monkeypatch.setattr(os, "open", refuse)
    error = follow(subject).error
    assert isinstance(error, Down)
    assert "Permission denied" in str(error)


def test_file_replaced_by_a_directory_is_down_and_recovers(log: Path) -> None:
    def replace() -> None:
        append(log, "two\n")
        log.rename(rolled(log, 1))
        log.mkdir()

    first = read(log, WATCHED, adds(log, "one\n"), replace, *[nothing] * 6)
    assert isinstance(first.error, Down)
    log.rmdir()
    write(log, "three\n")
    second = read(log, first.position)
    assert first.texts + second.texts == ["one", "two", "three"]


# -- any order of events ---------------------------------------------------------------------------------------------------


class World:
    """A log file that lines are written to, in pieces, while it is rotated; what was written must be what is read.

    Rolled files stay.  A file that was empty when it was last seen is not rotated by copying: nothing tells such a copy.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.written: list[str] = []
        self.lines: list[str] = []
        self.position: Position | None = WATCHED
        self._tick = 1_600_000_000
        self._partial = ""
        self._running = False
        self._stamp(log)

    def _stamp(self, path: Path) -> None:
        """Time passes between two changes, which the file system's clock does not always show."""
        self._tick += 1
        os.utime(path, (self._tick, self._tick))

    def _append(self, text: str) -> None:
        append(self.log, text)
        self._stamp(self.log)

    def _new_line(self, text: str) -> str:
        """Every line differs from its first character on, as lines with a time stamp do from an early one on."""
        return f"{chr(0x4E00 + len(self.written))}{text}"

    def write(self, padding: int) -> None:
        self.finish_line()
        self.written.append(self._new_line("x" * padding))
        self._append(self.written[-1] + "\n")

    def start_line(self, length: int) -> None:
        self.finish_line()
        self.written.append(self._new_line("partial line"))
        self._append(self.written[-1][:length])
        self._partial = self.written[-1][length:]

    def finish_line(self, _: int = 0) -> None:
        if self._partial:
            self._append(self._partial + "\n")
            self._partial = ""

    def _leave_line(self) -> None:
        """Rotation makes a line without an end the last one of its file."""
        if self._partial:
            self.written[-1] = self.written[-1].removesuffix(self._partial)
            self._partial = ""

    def rotate(self, _: int) -> None:
        self._leave_line()
        rotate(self.log)
        self._stamp(self.log)

    def copytruncate(self, _: int) -> None:
        if self.log.stat().st_size and (self._running or not self._was_empty()):
            self._leave_line()
            copytruncate(self.log)
            self._stamp(rolled(self.log, 1))
            self._stamp(self.log)

    def _was_empty(self) -> bool:
        assert self.position
        return self.position["inode"] == self.log.stat().st_ino and str(self.position["fingerprint"]).startswith("0:")

    def do(self, name: str, value: int) -> None:
        getattr(self, name)(value)

    def run(self, operations: list[tuple[str, int]]) -> None:
        """Follow through these operations, then stop; the next run goes on at the stored place."""
        steps: list[Step] = []
        for operation in operations:
            steps += [nothing] * (SETTLE if operation[0] == "copytruncate" else 0)
            steps.append(lambda operation=operation: self.do(*operation))  # type: ignore[misc]
        self._running = True
        got = read(self.log, self.position, *steps, *[nothing] * SETTLE)
        self._running = False
        assert got.error is None
        self.lines += got.texts
        self.position = got.position


SETTLE = tail.ROLLED_GRACE_POLLS + 2  # so many polls and everything is read
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from([0, 10, 300, 3000])),
    st.tuples(st.just("start_line"), st.integers(1, 12)),
    st.tuples(st.sampled_from(["rotate", "copytruncate", "finish_line"]), st.just(0)),
)
HISTORY = st.lists(st.tuples(st.lists(OPERATIONS, max_size=8), st.lists(OPERATIONS, max_size=5)), min_size=1, max_size=4)


@given(HISTORY)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_line_is_lost_or_doubled_whatever_happens(tmp_path_factory: pytest.TempPathFactory, history: object) -> None:
    """Each round: some operations between the polls of a running follower, then some while it is stopped."""
    world = World(write(tmp_path_factory.mktemp("tail") / "var/log/app.log", ""))
    for running, stopped in history:  # type: ignore[attr-defined]
        world.run(running)
        for name, value in stopped:
            world.do(name, value)
    world.finish_line()
    world.run([])
    assert world.lines == world.written
