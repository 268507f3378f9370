"""The kernel log: what a record says, what is lost, where reading goes on."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import live
from conftest import needs_kmsg
from followers import BOOT, NOW, UPTIME, Read, append, follow, host, nothing, write
from nodehealth.sources import kmsg
from nodehealth.sources.follower import Absent, Batch, Down, Stop
from nodehealth.sources.host import Host
from nodehealth.sources.kmsg import KernelRecord, KmsgFollower, Malformed, parse

OTHER_BOOT = "0a1b2c3d-0000-4000-8000-000000000002"
GPU = " SUBSYSTEM=pci\n DEVICE=+pci:0000:3b:00.0\n"


def line(sequence: int, text: str = "text", *, micros: int = 1_000_000, priority: int = 6, flags: str = "-") -> str:
    return f"{priority},{sequence},{micros},{flags};{text}\n"


def lines(*sequences: int) -> str:
    return "".join(line(each, f"line {each}", micros=each * 1_000_000) for each in sequences)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "dev/kmsg", "")


def read(
    recording: Path, position: dict[str, object] | None = None, *steps: Callable[[], object], boot: str = BOOT
) -> Read:
    return follow(KmsgFollower(host(recording.parent.parent, boot)), position, *steps)


# -- one record ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"6,339,5140900,-;NET: Registered", KernelRecord(6, 0, 339, 5140900, "NET: Registered")),
        (b"3,1,2,-;error\n", KernelRecord(3, 0, 1, 2, "error")),
        (b"12,1,2,-;written by a user\n", KernelRecord(4, 1, 1, 2, "written by a user")),
        (b"30,1,2,-;a daemon\n", KernelRecord(6, 3, 1, 2, "a daemon")),
        (b"190,1,2,-;local7\n", KernelRecord(6, 23, 1, 2, "local7")),
        (b"6,1,2,-,caller=T1234;with a caller\n", KernelRecord(6, 0, 1, 2, "with a caller")),
        (b"6,1,2,-,caller=C7,more=x,and=y;fields to come\n", KernelRecord(6, 0, 1, 2, "fields to come")),
        (b"6,1,2,c;fragment\n", KernelRecord(6, 0, 1, 2, "fragment")),
        (b"6,1,2,+;its rest\n", KernelRecord(6, 0, 1, 2, "its rest")),
        (b"6,1,2,-;a; b, c;\n", KernelRecord(6, 0, 1, 2, "a; b, c;")),
        (b"6,1,2,-;\n", KernelRecord(6, 0, 1, 2, "")),
        (
            b"6,1,2,-;text\n SUBSYSTEM=pci\n DEVICE=+pci:0000:3b:00.0\n",
            KernelRecord(6, 0, 1, 2, "text", "pci:0000:3b:00.0"),
        ),
        (b"6,1,2,-;text\n DEVICE=b8:0\n", KernelRecord(6, 0, 1, 2, "text", "b8:0")),
        (b"6,1,2,-;text\n SUBSYSTEM=cpu\n", KernelRecord(6, 0, 1, 2, "text")),
        (b"6,1,2,-;DEVICE=+pci:no\n", KernelRecord(6, 0, 1, 2, "DEVICE=+pci:no")),
    ],
)
def test_record_is_parsed(raw: bytes, expected: KernelRecord) -> None:
    assert parse(raw) == expected
    assert parse(raw).user == (expected.facility != 0)


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (rb"tab\x09here", "tab\there"),
        (rb"two\x0alines", "two\nlines"),
        (rb"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "café € 😀"),
        (rb"back\x5cslash", "back\\slash"),
        (rb"no escape: \x5cx41", r"no escape: \x41"),
        (rb"upper \x4A\x4a", "upper JJ"),
        (rb"not hex \xzz \x4", r"not hex \xzz \x4"),
        (rb"broken \xff\xc3", "broken \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"),
        (b"raw broken \xff", "raw broken \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_escapes_are_decoded(escaped: bytes, text: str) -> None:
    assert parse(b"6,1,2,-;" + escaped + b"\n").text == text


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\n", b"text", b"6,1,2,-", b"6,1;text", b",1,2,-;text", b"-6,1,2,-;text", b"6,x,2,-;text", b" 6,1,2,-;text",
        b"6," + b"9" * 19 + b",2,-;more than any counter holds",
    ],
)  # fmt: skip
def test_what_is_no_record_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse(raw)


# -- a recording -----------------------------------------------------------------------------------------------------------


def test_record_carries_the_kernels_time_and_identity(recording: Path) -> None:
    write(recording, line(7, "NVRM: Xid", micros=4_000_000_000, priority=3) + GPU)
    (record,) = read(recording).records
    assert (record.boot_id, record.sequence, record.clock) == (BOOT, 7, 4000.0)
    assert record.time == NOW - UPTIME + 4000.0
    assert (record.source, record.streams, record.text, record.priority) == ("kmsg", ("kmsg",), "NVRM: Xid", 3)
    assert (record.device, record.user, record.live) == ("pci:0000:3b:00.0", False, False)


def test_record_of_the_future_is_of_now(recording: Path) -> None:
    write(recording, line(7, micros=int((UPTIME + 3600) * 1e6)))
    assert [record.time for record in read(recording).records] == [NOW]


def test_live_record_has_its_arrival_time(recording: Path) -> None:
    write(recording, lines(1))
    got = read(recording, None, lambda: append(recording, lines(2)), nothing)
    assert [(record.live, record.time) for record in got.records] == [(False, NOW - UPTIME + 1), (True, NOW)]


def test_user_records_are_marked(recording: Path) -> None:
    write(recording, line(1, priority=3) + line(2, priority=8 + 3) + line(3, priority=23 * 8))
    assert [record.user for record in read(recording).records] == [False, True, True]


def test_embedded_newlines_stay_one_record(recording: Path) -> None:
    write(recording, line(1, r"first\x0asecond") + GPU + line(2, "next"))
    assert read(recording).texts == ["first\nsecond", "next"]


def test_continuation_lines_belong_to_their_record(recording: Path) -> None:
    write(recording, line(1) + line(2) + GPU + line(3))
    assert [record.device for record in read(recording).records] == ["", "pci:0000:3b:00.0", ""]


def test_malformed_record_is_counted_and_skipped(recording: Path) -> None:
    write(recording, lines(1) + "rubbish\n" + lines(2) + "6,x;\n" + lines(3))
    got = read(recording)
    assert (got.texts, got.total("malformed"), got.total("lost")) == (["line 1", "line 2", "line 3"], 2, 0)


def test_long_record_is_cut_and_counted(recording: Path) -> None:
    write(recording, line(1, "x" * 5000) + line(2, "y" * kmsg.MAX_LINE))
    got = read(recording)
    assert ([len(text) for text in got.texts], got.total("cut")) == ([kmsg.MAX_LINE, kmsg.MAX_LINE], 1)


def test_recording_written_in_pieces_gives_whole_records(recording: Path) -> None:
    whole = line(1, "first") + GPU + line(2, "second") + GPU
    pieces = [whole[start : start + 7] for start in range(0, len(whole), 7)]
    steps = [lambda piece=piece: append(recording, piece) for piece in pieces]
    got = read(recording, None, *steps, nothing)
    assert (got.texts, got.total("malformed"), got.total("lost")) == (["first", "second"], 0, 0)


def test_record_without_its_end_waits(recording: Path) -> None:
    write(recording, lines(1) + "6,2,2000000,-;line")
    assert read(recording).texts == ["line 1"]
    got = read(recording, None, lambda: append(recording, " 2\n"), nothing)
    assert got.texts == ["line 1", "line 2"]


def test_backlog_is_announced_as_read(recording: Path) -> None:
    assert [(batch.caught_up, batch.position) for batch in read(recording).batches] == [(True, None)]


# -- what is lost ----------------------------------------------------------------------------------------------------------


def test_gap_between_sequences_is_lost(recording: Path) -> None:
    write(recording, lines(10, 11, 15, 16, 20))
    assert read(recording).total("lost") == 6


def test_what_precedes_the_first_record_is_history(recording: Path) -> None:
    write(recording, lines(1000, 1001))
    assert read(recording).total("lost") == 0


def test_gap_to_the_stored_sequence_is_lost(recording: Path) -> None:
    write(recording, lines(100, 101))
    got = read(recording, {"boot": BOOT, "sequence": 89, "clock": 89.0})
    assert (got.texts, got.total("lost")) == (["line 100", "line 101"], 10)


def test_restart_reads_only_what_is_new(recording: Path) -> None:
    write(recording, lines(1, 2))
    first = read(recording)
    append(recording, lines(3))
    second = read(recording, dict(first.position or {}))
    assert (first.position, second.texts) == ({"boot": BOOT, "sequence": 2, "clock": 2.0}, ["line 3"])
    assert read(recording, dict(second.position or {})).records == []
    assert second.total("lost") == 0


def test_other_boot_is_read_from_its_start_without_loss(recording: Path) -> None:
    write(recording, lines(5, 6))
    got = read(recording, {"boot": BOOT, "sequence": 5000, "clock": 9000.0}, boot=OTHER_BOOT)
    assert (got.texts, got.total("lost")) == (["line 5", "line 6"], 0)
    assert got.position == {"boot": OTHER_BOOT, "sequence": 6, "clock": 6.0}


def test_after_the_journal_reading_goes_on_by_the_kernels_clock(recording: Path) -> None:
    write(recording, lines(5, 6, 7))
    got = read(recording, {"boot": BOOT, "clock": 6.0})
    assert (got.texts, got.total("lost")) == (["line 7"], 0)


# -- the device ------------------------------------------------------------------------------------------------------------


def device(monkeypatch: pytest.MonkeyPatch, root: Path, *answers: bytes | int) -> Read:
    """A log device that gives these records and error numbers, then has nothing more."""
    waiting: Iterator[bytes | int] = iter((*answers, errno.EAGAIN))

    def answer(_descriptor: int, size: int) -> bytes:
        assert size >= 16 * 1024, "a smaller buffer gets EINVAL and eats the record"
        given = next(waiting)
        if isinstance(given, int):
            raise OSError(given, os.strerror(given))
        return given

    got = Read()
    monkeypatch.setattr(os, "read", answer)
    try:
        kmsg._Reader(host(root), 0, None).follow_device(got.emit, Stop(once=True))
    except Down as error:
        got.error = error
    return got


def test_overwritten_records_are_a_gap_beside_the_lost_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    got = device(monkeypatch, tmp_path, lines(1).encode(), errno.EPIPE, lines(7).encode())
    assert (got.texts, got.total("gaps"), got.total("lost")) == (["line 1", "line 7"], 1, 5)


def test_overwritten_records_alone_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert device(monkeypatch, tmp_path, errno.EPIPE).total("gaps") == 1


def test_eaten_record_is_malformed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    got = device(monkeypatch, tmp_path, lines(1).encode(), errno.EINVAL, lines(3).encode())
    assert (got.texts, got.total("malformed"), got.total("lost")) == (["line 1", "line 3"], 1, 1)


def test_other_errors_are_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "Input/output error" in str(device(monkeypatch, tmp_path, errno.EIO).error)


def test_many_records_come_in_bounded_batches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    got = device(monkeypatch, tmp_path, *(lines(each).encode() for each in range(1200)))
    assert len(got.records) == 1200
    assert max(len(batch.records) for batch in got.batches) <= kmsg.MAX_BATCH
    assert [batch.caught_up for batch in got.batches] == [False, False, True]


# -- what is there to open -------------------------------------------------------------------------------------------------


def test_no_kernel_log_is_absent(tmp_path: Path) -> None:
    assert isinstance(follow(KmsgFollower(host(tmp_path))).error, Absent)


@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path), lambda path: path.symlink_to("/dev/null")]
)
def test_what_is_no_kernel_log_is_down(make: Callable[[Path], object], tmp_path: Path) -> None:
    """A container may have /dev/null under the name of the kernel log: an endless source of nothing."""
    (tmp_path / "dev").mkdir()
    make(tmp_path / "dev/kmsg")
    follower = KmsgFollower(host(tmp_path))
    assert isinstance(follow(follower).error, Down)
    assert str(tmp_path) in follower.probe()


def test_forbidden_kernel_log_is_down_and_says_what_helps(monkeypatch: pytest.MonkeyPatch, recording: Path) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    follower = KmsgFollower(host(recording.parent.parent))
    monkeypatch.setattr(os, "open", refuse)
    error = follow(follower).error
    assert isinstance(error, Down)
    assert "needs root" in str(error)
    assert follower.probe() == str(error)


def test_probe_finds_nothing_wrong_with_a_recording(recording: Path) -> None:
    assert KmsgFollower(host(recording.parent.parent)).probe() == ""


# -- the real one ----------------------------------------------------------------------------------------------------------


@needs_kmsg
@pytest.mark.live
def test_line_written_to_the_real_log_is_read_once_and_known_as_injected() -> None:
    before = live.end_of_ring()
    text = f"NVRM: Xid (PCI:{live.new_address()}): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
    live.write(f"<3>{text}")
    found = follow(KmsgFollower(Host()), before)
    (record,) = [each for each in found.records if each.text == text]
    assert (record.user, record.live, record.priority, record.boot_id) == (True, False, 3, Host().boot_id)
    assert record.sequence > int(str(before["sequence"]))
    sequences = [each.sequence for each in found.records]
    assert sequences == sorted(set(sequences))
    assert len(sequences) + found.total("lost") == sequences[-1] - int(str(before["sequence"]))
    assert text not in follow(KmsgFollower(Host()), found.position).texts


@needs_kmsg
@pytest.mark.live
def test_line_written_while_following_arrives_live() -> None:
    text = f"helper line of a test {live.new_address()}"
    stop, got = Stop(), Read()

    def emit(batch: Batch) -> None:
        got.emit(batch)
        if batch.caught_up and len(got.batches) == 1:
            live.write(text)
        if text in got.texts:
            stop.set()

    timer = threading.Timer(30, stop.set)
    timer.start()
    KmsgFollower(Host()).run(live.end_of_ring(), emit, stop)
    timer.cancel()
    (record,) = [each for each in got.records if each.text == text]
    assert (record.live, record.user) == (True, True)


@needs_kmsg
def test_a_root_without_procfs_still_knows_the_boot_of_the_real_log(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kmsg").symlink_to("/dev/kmsg")
    assert Host(tmp_path).log_boot_id == Host().boot_id
    assert Host(tmp_path / "dev").log_boot_id == ""
