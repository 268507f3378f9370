"""The journal: what an entry says, how journalctl is asked, and a real systemd-journald read to its last entry."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import journald
import live
from conftest import needs_journald, needs_kmsg
from followers import BOOT, NOW, Read, append, follow, host, until, write
from journald import Journald
from nodehealth.sources import journal
from nodehealth.sources.follower import Absent, Down, Position, SourceError, Stop
from nodehealth.sources.host import Clock, Host
from nodehealth.sources.journal import JournalFollower, parse

OTHER_BOOT = "0a1b2c3d-0000-4000-8000-000000000002"
KUBELET = "journal:kubelet.service"
SYSTEMD = "journal:systemd"
KERNEL = "kmsg"


def entry(number: int, message: object = None, *, boot: str = BOOT, at: int | None = None, **fields: object) -> str:
    """A line of journalctl; entry `number` is that many seconds after boot unless `at` says otherwise."""
    seconds = number if at is None else at
    found: dict[str, object] = {
        "__CURSOR": f"c{number}",
        "__REALTIME_TIMESTAMP": str(int((NOW - 1000 + seconds) * 1e6)),
        "__MONOTONIC_TIMESTAMP": str(seconds * 1_000_000),
        "_BOOT_ID": boot.replace("-", ""),
        "_TRANSPORT": "journal",
        "_SYSTEMD_UNIT": "kubelet.service",
        "MESSAGE": f"entry {number}" if message is None else message,
        **fields,
    }
    return json.dumps({name: value for name, value in found.items() if value != "-"}) + "\n"


def stored(number: int, boot: str = BOOT) -> Position:
    return {"cursor": f"c{number}", "time": NOW - 1000 + number, "boot": boot, "received": float(number)}


# -- one entry -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("plain", "plain"),
        ([112, 195, 169, 255], "pé\N{REPLACEMENT CHARACTER}"),
        (["first", "second"], "first"),
        ([[104, 105], [0]], "hi"),
        ([], ""),
        ([None], ""),
        ([300, 1], ""),
        (7, ""),
        ({"a": 1}, ""),
        ("lone \ud800 surrogate", "lone ? surrogate"),
    ],
)
def test_message_of_any_kind_is_text(message: object, text: str) -> None:
    assert parse(entry(1, message).encode()).message == text


def test_null_and_missing_message_are_empty() -> None:
    found = json.loads(entry(1))
    assert parse(json.dumps({**found, "MESSAGE": None}).encode()).message == ""
    del found["MESSAGE"]
    assert parse(json.dumps(found).encode()).message == ""


def test_entry_has_its_times_and_boot() -> None:
    found = parse(entry(50, _SOURCE_MONOTONIC_TIMESTAMP="49500000", _TRANSPORT="kernel").encode())
    assert (found.cursor, found.time, found.received, found.monotonic) == ("c50", NOW - 950, 50.0, 49.5)
    assert (found.boot_id, found.from_kernel) == (BOOT, True)


def test_entry_with_only_cursor_and_time_is_read() -> None:
    found = parse(b'{"__CURSOR": "c", "__REALTIME_TIMESTAMP": "1000000"}')
    assert (found.time, found.monotonic, found.boot_id, found.message, found.from_kernel) == (1.0, 0.0, "", "", False)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"null", b"[]", b"7", b"{}", b"\xff", b'{"__CURSOR": "c"}', b'{"__CURSOR": 1, "__REALTIME_TIMESTAMP": "1"}',
        b'{"__CURSOR": "c", "__REALTIME_TIMESTAMP": "x"}', b'{"__CURSOR": "c", "__REALTIME_TIMESTAMP": 5}',
        b'{"__CURSOR": "c", "__REALTIME_TIMESTAMP": "1", "__MONOTONIC_TIMESTAMP": "x"}',
    ],
)  # fmt: skip
def test_what_is_no_entry_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse(line)


# -- a journalctl of our own -----------------------------------------------------------------------------------------------

PROGRAM = """#!/bin/sh
here=$(dirname "$0")
printf '%s\\n' "$*" >>"$here/asked"
case "$*" in
*--list-boots*) cat "$here/boots" ;;
*--lines=1*) cat "$here/cursor" ;;
*) cat "$here/entries"; echo "$$" >"$here/pid"; . "$here/then" ;;
esac
"""


@dataclass
class Fake:
    """A journalctl that answers from files and notes how it was asked."""

    root: Path
    journalctl: Path

    def says(self, *, entries: str = "", cursor: str = "", boots: str = "", then: str = "") -> None:
        for name, content in {"entries": entries, "cursor": cursor, "boots": boots, "then": then}.items():
            write(self.journalctl.with_name(name), content)

    @property
    def asked(self) -> list[list[str]]:
        return [line.split(" ") for line in self.journalctl.with_name("asked").read_text(encoding="utf-8").splitlines()]

    def follower(self, *streams: str, kernel: Position | None = None) -> JournalFollower:
        return JournalFollower(host(self.root), streams or (KUBELET,), kernel=kernel, command=str(self.journalctl))

    def read(self, position: Position | None = None, *streams: str, kernel: Position | None = None) -> Read:
        return follow(self.follower(*streams, kernel=kernel), position)


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    write(tmp_path / "host/var/log/journal/0123456789abcdef/system.journal", "")
    program = write(tmp_path / "bin/journalctl", PROGRAM)
    program.chmod(0o755)
    made = Fake(tmp_path / "host", program)
    made.says()
    return made


def test_record_names_unit_and_identifier_that_are_asked_for(fake: Fake) -> None:
    fake.says(
        entries=entry(1, SYSLOG_IDENTIFIER="kubelet", PRIORITY="3")
        + entry(2, _SYSTEMD_UNIT="init.scope", SYSLOG_IDENTIFIER="systemd")
        + entry(3, SYSLOG_IDENTIFIER="systemd")
    )
    got = fake.read(None, KUBELET, SYSTEMD)
    assert [record.streams for record in got.records] == [(KUBELET,), (SYSTEMD,), (KUBELET, SYSTEMD)]
    first = got.records[0]
    assert (first.source, first.text, first.priority, first.user, first.boot_id) == ("journal", "entry 1", 3, False, BOOT)
    assert (first.time, first.clock) == (NOW - 999, 1.0)
    assert got.position == stored(3)
    assert got.batches[-1].caught_up


@pytest.mark.parametrize("priority", ["", "\N{SUPERSCRIPT TWO}", "9" * 5000, "-1", "high", None, ["3", "4"]])
def test_any_priority_that_a_program_writes_is_survived(fake: Fake, priority: object) -> None:
    fake.says(entries=entry(1, PRIORITY=priority, SYSLOG_FACILITY=priority, _TRANSPORT="kernel") + entry(2, PRIORITY="6"))
    got = fake.read(None, KUBELET, KERNEL)
    assert (got.error, got.texts) == (None, ["entry 1", "entry 2"])
    assert [record.priority for record in got.records] == [3 if isinstance(priority, list) else -1, 6]


def test_malformed_entries_are_counted_and_skipped(fake: Fake) -> None:
    deep = "[" * 100_000 + "\n"
    huge = entry(2, __REALTIME_TIMESTAMP="9" * 400)
    fake.says(entries=entry(1) + "rubbish\n" + deep + huge + "\n" + entry(3))
    got = fake.read()
    assert (got.texts, got.total("malformed"), got.error) == (["entry 1", "entry 3"], 3, None)


def test_oversized_entry_is_counted_once_and_skipped(fake: Fake) -> None:
    fake.says(entries=entry(1) + entry(2, "x" * (3 * journal.MAX_JSON)) + entry(3))
    got = fake.read()
    assert (got.texts, got.total("malformed")) == (["entry 1", "entry 3"], 1)


def test_long_message_is_cut_and_counted(fake: Fake) -> None:
    fake.says(entries=entry(1, "x" * 5000) + entry(2, "y" * journal.MAX_LINE))
    got = fake.read()
    assert ([len(text) for text in got.texts], got.total("cut")) == ([journal.MAX_LINE, journal.MAX_LINE], 1)


def test_many_entries_come_in_bounded_batches(fake: Fake) -> None:
    fake.says(entries="".join(map(entry, range(2000))))
    got = fake.read()
    assert len(got.records) == 2000
    assert max(len(batch.records) for batch in got.batches) <= journal.MAX_BATCH


# -- how journalctl is asked -----------------------------------------------------------------------------------------------


def ended(fake: Fake, position: Position | None = None, *streams: str, kernel: Position | None = None) -> Read:
    """Follow until this journalctl has ended."""
    return follow(fake.follower(*streams, kernel=kernel), position, stop=Stop())


def test_following_asks_for_every_entry_of_every_stream(fake: Fake) -> None:
    ended(fake, None, KUBELET, SYSTEMD, KERNEL, "journal:a name with spaces")
    (asked,) = [" ".join(words) for words in fake.asked if "--follow" in words]
    for wanted in ("--output=json", "--follow", "--no-tail", "--all", f"--directory={fake.root}/var/log/journal"):
        assert wanted in asked.split()
    assert asked.endswith(
        "SYSLOG_IDENTIFIER=a name with spaces + _SYSTEMD_UNIT=kubelet.service + SYSLOG_IDENTIFIER=systemd + _TRANSPORT=kernel"
    )


def test_match_terms_are_single_arguments(fake: Fake) -> None:
    follower = fake.follower("journal:a name with spaces", SYSTEMD)
    assert follower._matches() == ["SYSLOG_IDENTIFIER=a name with spaces", "+", "SYSLOG_IDENTIFIER=systemd"]


def test_one_pass_does_not_follow(fake: Fake) -> None:
    fake.read()
    assert not any("--follow" in words for words in fake.asked)


def test_first_start_reads_this_boot_where_the_journal_has_it(fake: Fake) -> None:
    boot = BOOT.replace("-", "")
    fake.says(boots=f" 0 {boot} Mon 2024-01-01\n")
    fake.read()
    assert f"--boot={boot}" in fake.asked[-1]


def test_first_start_reads_everything_where_the_journal_has_other_boots(fake: Fake) -> None:
    fake.says(boots=" 0 ffffffffffffffffffffffffffffffff Mon 2024-01-01\n")
    fake.read()
    assert not any(word.startswith("--boot") for word in fake.asked[-1])


def test_restart_goes_on_behind_the_stored_cursor(fake: Fake) -> None:
    fake.says(cursor=entry(2), entries=entry(3))
    got = fake.read(stored(2))
    assert (got.texts, got.total("gaps")) == (["entry 3"], 0)
    assert "--after-cursor=c2" in fake.asked[-1]
    assert not any(word.startswith("--boot") for word in fake.asked[-1])


def test_entries_of_one_time_behind_a_good_cursor_are_all_read(fake: Fake) -> None:
    """Lines that a service writes in one go carry the same time."""
    fake.says(cursor=entry(2), entries=entry(3, at=2) + entry(4, at=2))
    assert fake.read(stored(2)).texts == ["entry 3", "entry 4"]


@pytest.mark.parametrize("answer", ["", "rubbish\n", entry(77)])
def test_lost_cursor_is_a_gap_and_old_entries_are_skipped(fake: Fake, answer: str) -> None:
    fake.says(cursor=answer, entries="".join(entry(each) for each in (0, 1, 2, 3, 4)))
    got = fake.read(stored(2))
    assert (got.texts, got.total("gaps")) == (["entry 3", "entry 4"], 1)
    assert not any(word.startswith(("--after-cursor", "--boot")) for word in fake.asked[-1])
    assert got.position == stored(4)


def test_lost_cursor_of_an_earlier_boot_keeps_every_entry_of_this_one(fake: Fake) -> None:
    """The wall clock may be behind after a boot; in the boot of the stored entry the clock that never steps decides."""
    old = [entry(1, boot=OTHER_BOOT), entry(60, boot=OTHER_BOOT)]
    fake.says(entries="".join([*old, entry(3), entry(4)]))
    assert fake.read(stored(50, OTHER_BOOT)).texts == ["entry 60", "entry 3", "entry 4"]


def test_lost_cursor_is_one_gap_however_often_journalctl_is_started(fake: Fake) -> None:
    fake.says(cursor="", entries="")
    follower, got = fake.follower(), Read()
    for _ in range(3):
        follower.run(stored(2), got.emit, Stop(once=True))
    assert got.total("gaps") == 1


def test_slow_replay_after_a_lost_cursor_skips_to_its_end(fake: Fake) -> None:
    fake.says(entries=entry(1), then=f"sleep {2 * journal.QUIET_SECONDS}\ncat $here/late\n")
    write(fake.journalctl.with_name("late"), entry(2) + entry(3))
    assert ended(fake, stored(2)).texts == ["entry 3"]


# -- kernel lines ----------------------------------------------------------------------------------------------------------


def kernel_entry(number: int, message: str = "NVRM: Xid", **fields: object) -> str:
    given: dict[str, Any] = {"SYSLOG_FACILITY": "0", "SYSLOG_IDENTIFIER": "kernel", "_SYSTEMD_UNIT": "-", **fields}
    return entry(number, message, _TRANSPORT="kernel", _SOURCE_MONOTONIC_TIMESTAMP=str(number * 1_000_000 - 1), **given)


def test_kernel_line_is_a_record_of_the_kernel_log(fake: Fake) -> None:
    fake.says(entries=kernel_entry(5, PRIORITY="3", _KERNEL_DEVICE="+pci:0000:3b:00.0"))
    (record,) = fake.read(None, KUBELET, KERNEL).records
    assert (record.source, record.streams, record.user) == ("journal", ("kmsg",), False)
    assert (record.clock, record.device, record.priority) == (4.999999, "pci:0000:3b:00.0", 3)


def test_kernel_line_of_user_space_is_marked_and_whole(fake: Fake) -> None:
    """Journald takes the part before the colon for a program's name."""
    line = kernel_entry(5, "Xid (PCI:0000:3b:00): 79", SYSLOG_FACILITY="1", SYSLOG_IDENTIFIER="NVRM")
    fake.says(entries=line + kernel_entry(6, "no name", SYSLOG_FACILITY="1", SYSLOG_IDENTIFIER="-") + kernel_entry(7))
    found = [(record.text, record.user) for record in fake.read(None, KERNEL).records]
    assert found == [("NVRM: Xid (PCI:0000:3b:00): 79", True), ("no name", True), ("NVRM: Xid", False)]


def test_kernel_lines_go_on_where_kmsg_was_read_to(fake: Fake) -> None:
    fake.says(entries=kernel_entry(5, "read") + entry(6) + kernel_entry(7, "new"))
    got = fake.read(None, KUBELET, KERNEL, kernel={"boot": BOOT, "sequence": 9, "clock": 4.999999})
    assert got.texts == ["entry 6", "new"]
    assert [batch.kernel for batch in got.batches if batch.kernel] == [{"boot": BOOT, "clock": 6.999999}]


def test_kernel_lines_of_another_boot_are_all_read(fake: Fake) -> None:
    fake.says(entries=kernel_entry(5, "one"))
    assert fake.read(None, KERNEL, kernel={"boot": OTHER_BOOT, "clock": 999.0}).texts == ["one"]


def test_kernel_lines_are_nothing_where_kmsg_is_read(fake: Fake) -> None:
    fake.says(entries=kernel_entry(5, SYSLOG_IDENTIFIER="systemd"))
    (record,) = fake.read(None, SYSTEMD).records
    assert (record.streams, record.user) == ((SYSTEMD,), False)


# -- what can be wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [None, "var/log/journal/0123/system.journal~", "var/log/journal/0123/notes.txt"])
def test_no_journal_files_is_absent(tmp_path: Path, file: str | None) -> None:
    if file:
        write(tmp_path / file, "")
    error = follow(JournalFollower(host(tmp_path), [KUBELET])).error
    assert isinstance(error, Absent)
    assert "no journal files" in str(error)


def test_volatile_journal_is_a_journal(fake: Fake) -> None:
    (fake.root / "var/log/journal/0123456789abcdef/system.journal").unlink()
    write(fake.root / "run/log/journal/0123456789abcdef/system.journal", "")
    fake.read()
    assert f"--directory={fake.root}/run/log/journal" in fake.asked[-1]


def test_journal_without_journalctl_is_down(monkeypatch: pytest.MonkeyPatch, fake: Fake, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = follow(JournalFollower(host(fake.root), [KUBELET])).error
    assert isinstance(error, Down)
    assert "no journalctl" in str(error)


def test_unreadable_journal_is_down(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    error = fake.read().error
    assert isinstance(error, Down)
    assert "may not be read" in str(error)


def test_hung_journalctl_is_down(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> None:
    monkeypatch.setattr(journal, "PROBE_SECONDS", 0.2)
    write(fake.journalctl, "#!/bin/sh\nexec sleep 60\n")
    assert "did not answer" in str(fake.read(stored(1)).error)


@pytest.mark.parametrize("once", [True, False])
def test_failing_journalctl_is_down_with_its_words(fake: Fake, *, once: bool) -> None:
    fake.says(then="echo 'Failed to open files' >&2; exit 3")
    error = follow(fake.follower(), stop=Stop(once=once)).error
    assert isinstance(error, Down)
    assert "ended with 3: Failed to open files" in str(error)


def test_chatty_journalctl_does_not_block(fake: Fake) -> None:
    """More complaints than a pipe holds."""
    fake.says(
        then="i=0; while [ $i -lt 3000 ]; do echo 'a complaint that is fairly long, about a file' >&2; i=$((i+1)); done; cat $here/late"
    )
    write(fake.journalctl.with_name("late"), entry(9))
    assert ended(fake).texts == ["entry 9"]


class Running:
    """A follower in a thread of its own."""

    def __init__(self, follower: JournalFollower, position: Position | None = None) -> None:
        self.read = Read(position)
        self._stop = Stop()
        self._thread = threading.Thread(target=self._run, args=(follower,), daemon=True)
        self._thread.start()

    def _run(self, follower: JournalFollower) -> None:
        try:
            follower.run(self.read.position, self.read.emit, self._stop)
        except (SourceError, OSError) as error:
            self.read.error = error

    def wait_for(self, *texts: str) -> None:
        until(lambda: self.read.error or all(text in self.read.texts for text in texts))

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()

    def end(self) -> Read:
        self._stop.set()
        self.join()
        return self.read


def test_killed_journalctl_is_down_and_the_next_one_goes_on(fake: Fake) -> None:
    fake.says(entries=entry(1), then="exec sleep 60")
    running = Running(fake.follower())
    running.wait_for("entry 1")
    until(lambda: fake.journalctl.with_name("pid").exists())
    os.kill(int(fake.journalctl.with_name("pid").read_text(encoding="utf-8")), signal.SIGKILL)
    running.join()
    assert isinstance(running.read.error, Down)
    assert "ended with -9" in str(running.read.error)
    fake.says(cursor=entry(1), entries=entry(2))
    assert fake.read(running.read.position).texts == ["entry 2"]


def test_stop_ends_journalctl(fake: Fake) -> None:
    fake.says(entries=entry(1), then="exec sleep 60")
    running = Running(fake.follower())
    running.wait_for("entry 1")
    until(lambda: fake.journalctl.with_name("pid").exists())
    assert running.end().error is None
    with pytest.raises(ProcessLookupError):
        os.kill(int(fake.journalctl.with_name("pid").read_text(encoding="utf-8")), 0)


def test_backlog_and_live_entries_are_told_apart(fake: Fake) -> None:
    fake.says(entries=entry(1), then="while [ ! -s $here/late ]; do sleep 0.05; done; cat $here/late; exec sleep 60")
    running = Running(fake.follower())
    until(lambda: any(batch.caught_up for batch in running.read.batches))
    append(fake.journalctl.with_name("late"), entry(2))
    running.wait_for("entry 2")
    assert [record.live for record in running.end().records] == [False, True]


# -- a real journal --------------------------------------------------------------------------------------------------------


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Journald]:
    with journald.running(host(tmp_path, Host().boot_id).root) as running:
        yield running


def real(daemon: Journald, position: Position | None = None, *streams: str, **more: Any) -> Read:
    return follow(JournalFollower(host(daemon.root, Host().boot_id), streams or ("journal:nh-test",), **more), position)


@needs_journald
@pytest.mark.live
def test_real_journal_is_read_and_goes_on_behind_its_cursor(daemon: Journald) -> None:
    daemon.stdout("nh-test", "one\ntwo\n")
    daemon.stdout("nh-other", "not asked for\n")
    daemon.wait_for("nh-test", "two")
    first = real(daemon)
    assert (first.texts, first.error) == (["one", "two"], None)
    assert {record.boot_id for record in first.records} == {Host().boot_id}
    assert real(daemon, first.position).texts == []
    daemon.stdout("nh-test", "three\n")
    daemon.wait_for("nh-test", "three")
    second = real(daemon, first.position)
    assert (second.texts, second.total("gaps")) == (["three"], 0)


@needs_journald
@pytest.mark.live
def test_real_journal_loses_none_of_the_lines_written_in_one_go(daemon: Journald) -> None:
    """They carry one time; a restart in the middle of them goes on with the next one."""
    written = [f"line {number}" for number in range(20)]
    daemon.stdout("nh-test", "".join(f"{line}\n" for line in written))
    daemon.wait_for("nh-test", "line 19")
    cursors = [json.loads(line) for line in daemon.query("--output=json", "SYSLOG_IDENTIFIER=nh-test").splitlines()]
    middle = parse(json.dumps(cursors[9]).encode())
    position = {"cursor": middle.cursor, "time": middle.time, "boot": middle.boot_id, "received": middle.received}
    assert len({each["__MONOTONIC_TIMESTAMP"] for each in cursors}) < 20
    assert real(daemon, position).texts == written[10:]


@needs_journald
@pytest.mark.live
def test_real_journal_gives_odd_messages(daemon: Journald) -> None:
    daemon.raw("nh-test", b"broken \xff bytes")
    daemon.raw("nh-test", b"two\nlines")
    daemon.native(SYSLOG_IDENTIFIER="nh-test", MESSAGE="long " + "x" * 20_000, PRIORITY="\N{SUPERSCRIPT TWO}")
    daemon.native(SYSLOG_IDENTIFIER="nh-test", MESSAGE="last")
    daemon.wait_for("nh-test", "last")
    got = real(daemon)
    assert got.texts[:2] == ["broken \N{REPLACEMENT CHARACTER} bytes", "two\nlines"]
    assert (len(got.texts[2]), got.texts[3], got.total("cut")) == (journal.MAX_LINE, "last", 1)


@needs_journald
@pytest.mark.live
def test_real_journal_is_followed_live(daemon: Journald) -> None:
    daemon.stdout("nh-test", "old\n")
    daemon.wait_for("nh-test", "old")
    here = host(daemon.root, Host().boot_id)
    here.clock = Clock()  # entries carry the real monotonic clock
    running = Running(JournalFollower(here, ["journal:nh-test"]))
    until(lambda: any(batch.caught_up for batch in running.read.batches))
    daemon.stdout("nh-test", "new\n")
    running.wait_for("new")
    first = running.end()
    assert ([(each.text, each.live) for each in first.records], first.error) == ([("old", False), ("new", True)], None)
    daemon.stdout("nh-test", "meanwhile\n")
    daemon.wait_for("nh-test", "meanwhile")
    again = Running(JournalFollower(host(daemon.root, Host().boot_id), ["journal:nh-test"]), first.position)
    again.wait_for("meanwhile")
    daemon.stdout("nh-test", "later\n")
    again.wait_for("later")
    assert again.end().texts == ["meanwhile", "later"]


@needs_journald
@pytest.mark.live
def test_real_journal_with_a_vacuumed_cursor_is_a_gap_without_doubles(tmp_path: Path) -> None:
    root = host(tmp_path, Host().boot_id).root
    with journald.running(root) as daemon:
        daemon.stdout("nh-test", "one\n")
        daemon.wait_for("nh-test", "one")
        first = real(daemon)
    for file in root.glob("run/log/journal/*/*.journal"):
        file.unlink()
    with journald.running(root) as daemon:
        daemon.stdout("nh-test", "two\n")
        daemon.stdout("nh-test", "three\n")
        daemon.wait_for("nh-test", "three")
        second = real(daemon, first.position)
        third = real(daemon, second.position)
    assert (second.texts, second.total("gaps")) == (["two", "three"], 1)
    assert (third.texts, third.total("gaps")) == ([], 0)


@needs_journald
@pytest.mark.live
def test_foreign_cursor_in_a_real_journal_replays_nothing_old(daemon: Journald) -> None:
    daemon.stdout("nh-test", "one\n")
    daemon.wait_for("nh-test", "one")
    known = real(daemon).position
    assert known
    daemon.stdout("nh-test", "two\n")
    daemon.wait_for("nh-test", "two")
    foreign = {**known, "cursor": "s=" + "f" * 32 + str(known["cursor"])[34:]}
    got = real(daemon, foreign)
    assert (got.texts, got.total("gaps")) == (["two"], 1)


@needs_journald
@needs_kmsg
@pytest.mark.live
def test_kernel_lines_come_through_a_real_journal_marked_as_injected(tmp_path: Path) -> None:
    root = host(tmp_path, Host().boot_id).root
    text = f"NVRM: Xid (PCI:{live.new_address()}): 79, GPU has fallen off the bus."
    with journald.running(root, kernel=True) as daemon:
        live.write(f"<3>{text}")
        daemon.wait_for("NVRM", text.removeprefix("NVRM: "))
        got = real(daemon, None, KERNEL)
    (record,) = [each for each in got.records if each.text == text]
    assert (record.streams, record.user, record.priority) == (("kmsg",), True, 3)
    assert record.boot_id == Host().boot_id
