"""The commands as a person or a script runs them: output, exit status, and what they leave behind."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nodehealth import __version__
from nodehealth import catalog as catalogs
from nodehealth.sources.host import Host
from nodehealth.state import Change
from nodehealth.store import Store, Transaction
from nodehealth.view import Happening
from views import NOW, occurrence

SCRIPT = Path(sys.executable).with_name("nodehealth")
BOOT = "11111111-2222-3333-4444-555555555555"
XID_79 = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


def run(*argv: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nodehealth", *argv],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )


def refused(found: subprocess.CompletedProcess[str]) -> str:
    """The one line that says why the command was refused."""
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("nodehealth: ")
    assert found.stderr.count("\n") == 1, "one line, no traceback"
    return found.stderr


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host whose kernel log holds one ordinary line."""
    root = tmp_path / "host"
    for path, text in (
        ("proc/sys/kernel/random/boot_id", BOOT),
        ("proc/uptime", "5000.00 100.00"),
        ("etc/machine-id", "0123456789abcdef0123456789abcdef"),
        ("dev/kmsg", "6,1,4990000000,-;usb 1-1: new device\n"),
    ):
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return root


@pytest.fixture
def state(tmp_path: Path, host: Path) -> Path:
    """A state directory that an exporter of that host left behind, with a short history."""
    directory = tmp_path / "state"
    directory.mkdir()
    store = Store(directory, Host(host).machine)
    rows = [occurrence(time=NOW + index, text=f"line {index} \x1b[31m") for index in range(60)]
    rows.append(
        occurrence(
            time=NOW + 60, happening=Happening.CLEARED, how="the node was rebooted", text="", unsaid=4, injected=True
        )
    )
    store.commit(Transaction(change=Change(history=rows), meta={"boot_id": BOOT}), 10.0)
    store.close(10.0)
    return directory


# -- the command itself ------------------------------------------------------------------------------------------------


def test_module_and_script_are_the_same_command() -> None:
    script = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=False)
    assert (script.returncode, script.stderr) == (0, "")
    assert script.stdout == run("--help").stdout


def test_version() -> None:
    assert run("--version").stdout == f"nodehealth {__version__}\n"


def test_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m nodehealth reasons | head -n 1"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert found.stdout.count("\n") == 1
    assert found.stderr == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--state.pth=STATE"], "did you mean --state.path?"),
        (["srve"], "did you mean serve?"),
        (["--log.level=loud"], '--log.level: "loud" is not valid'),
        (["--web.listen-address=here"], '--web.listen-address: "here" is no address'),
        (["--path.rootfs=/no/such/place"], "is no directory"),
        (["--config.file=/no/such/file"], "cannot read /no/such/file: No such file or directory"),
        (["--config.file=CONFIG"], 'CONFIG: unknown key "ruels"; did you mean "rules"?'),
        (["--config.file=REASON"], 'reasons: no reason is named "OOMKil"; did you mean "OOMKill"?'),
        (["--config.file=RULE"], "rules[0].pattern: does not match its own example 'x'"),
        (["check", "--config.file=CONFIG"], 'unknown key "ruels"'),
        (["explain", "--config.file=CONFIG", "x"], 'unknown key "ruels"'),
        (["clear", "OOMKil"], 'no reason is named "OOMKil"; did you mean "OOMKill"?'),
        (["clear", "oomkill"], 'did you mean "OOMKill"?'),
        (["clear", "Zzzzzz"], "; the nearest of "),
    ],
)
def test_what_is_refused_changes_nothing(argv: list[str], message: str, tmp_path: Path) -> None:
    directory = tmp_path / "state"
    rule = "{name: Abc, source: kmsg, pattern: abcdef, subsystem: kernel, severity: info, examples: [x]}"
    for name, text in (
        ("CONFIG", "ruels: []\n"),
        ("REASON", "reasons: {OOMKil: {enabled: false}}\n"),
        ("RULE", f"rules: [{rule}]\n"),
    ):
        (tmp_path / name).write_text(text)
    words = [re.sub("STATE|CONFIG|REASON|RULE", lambda found: str(tmp_path / found[0]), word) for word in argv]
    found = run(*words, env={"NODEHEALTH_STATE_PATH": str(directory)}, cwd=tmp_path)
    assert message in refused(found)
    assert not directory.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CONFIG", "REASON", "RULE"]


def test_address_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = run(f"--web.listen-address=127.0.0.1:{port}", f"--state.path={tmp_path / 'state'}")
    assert found.returncode == 1
    assert (
        f"nodehealth: cannot listen on 127.0.0.1:{port}: Address already in use; choose another --web.listen-address\n"
        in found.stderr
    )
    assert not (tmp_path / "state").exists()


# -- reasons -----------------------------------------------------------------------------------------------------------


def test_reasons_as_json_have_the_fields_of_the_contract() -> None:
    rows = [json.loads(row) for row in run("reasons", "--json").stdout.splitlines()]
    catalog = catalogs.load().reasons
    assert {row["name"] for row in rows} == set(catalog)
    for row in rows:
        reason = catalog[row["name"]]
        assert row.keys() >= {"name", "subsystem", "severity", "action", "clears", "sources"}
        assert (row["subsystem"], row["severity"], row["action"]) == (reason.subsystem, reason.severity, reason.action)
        assert row["clears"] == [str(clear) for clear in reason.clears]
        assert row["sources"], row["name"]


def test_reasons_for_people_are_one_row_each() -> None:
    rows = run("reasons").stdout.splitlines()
    assert len(rows) == len(catalogs.load().reasons)
    assert any(re.match(r"accelerated_hardware +NvidiaXIDError +critical +reset_gpu +A GPU reported", row) for row in rows)


def test_reasons_follow_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("reasons: {OOMKill: {enabled: false}, SoftLockup: {severity: info}}\n")
    rows = {
        row["name"]: row for row in map(json.loads, run("reasons", "--json", f"--config.file={config}").stdout.splitlines())
    }
    assert rows["OOMKill"]["enabled"] is False
    assert rows["SoftLockup"]["severity"] == "info"
    assert "(disabled)" in run("reasons", f"--config.file={config}").stdout


# -- events ------------------------------------------------------------------------------------------------------------


def test_events_for_people_are_the_last_ones_oldest_first(state: Path) -> None:
    found = run("events", f"--state.path={state}")
    rows = found.stdout.splitlines()
    assert (found.returncode, len(rows)) == (0, 50)
    assert rows[0].startswith("2023-11-14 22:13:31Z  found   critical NvidiaXIDErrorRebootNode")
    assert "line 11 \\x1b[31m" in rows[0], "no terminal escape"
    assert rows[-1].endswith("the node was rebooted (and 4 more) [injected]")


def test_events_as_json(state: Path) -> None:
    rows = [json.loads(row) for row in run("events", "--json", "--limit=2", f"--state.path={state}").stdout.splitlines()]
    assert [row["happening"] for row in rows] == ["found", "cleared"]
    assert rows[0]["object"] == "0000:3b:00.0"
    assert rows[1]["how"] == "the node was rebooted"


@pytest.mark.parametrize("argv", [["events"], ["events", "--json"], ["clear", "OOMKill"]])
def test_without_a_state_there_is_nothing_and_nothing_is_made(argv: list[str], tmp_path: Path) -> None:
    directory = tmp_path / "state"
    found = run(*argv, f"--state.path={directory}")
    assert (found.returncode, found.stdout) == (1, "")
    assert f"there is no {directory}/nodehealth.db; has an exporter run with this --state.path?" in found.stderr
    assert not directory.exists()


@pytest.mark.parametrize("argv", [["events"], ["clear", "OOMKill"]])
def test_empty_state_path_is_no_state(argv: list[str], tmp_path: Path) -> None:
    found = run(*argv, "--state.path=", cwd=tmp_path)
    assert found.returncode == 1
    assert found.stderr.endswith(": --state.path is empty\n")


def test_damaged_state_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "nodehealth.db").write_bytes(b"no database" * 500)
    found = run("events", f"--state.path={tmp_path}")
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr == "nodehealth: file is not a database\n"


# -- clear -------------------------------------------------------------------------------------------------------------


def test_clear_without_a_running_exporter_waits_for_it(state: Path) -> None:
    found = run("clear", "NvidiaXIDError", "3B:00.0", f"--state.path={state}")
    assert found.returncode == 0
    assert found.stdout == f"no exporter is running with {state}: NvidiaXIDError will be cleared when it starts\n"
    store = Store(state, "0123456789abcdef0123456789abcdef/")
    assert [(each.reason, each.object) for each in store.commands()] == [("NvidiaXIDError", "0000:3b:00.0")]
    store.close()


# -- check -------------------------------------------------------------------------------------------------------------


def check(host: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return run("check", f"--path.rootfs={host}", *argv)


def test_check_of_a_healthy_host(host: Path, tmp_path: Path) -> None:
    found = check(host, f"--state.path={tmp_path / 'state'}")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.endswith("healthy: nothing critical holds\n")
    assert re.search(r"^kmsg +up +1 records read, 0 recognised$", found.stdout, re.MULTILINE)
    assert not (tmp_path / "state").exists(), "a look leaves nothing behind"


def test_check_of_an_unhealthy_host(host: Path) -> None:
    with (host / "dev/kmsg").open("a") as log:
        log.write(f"4,2,4990000001,-;{XID_79}\n")
    found = check(host, "--state.path=")
    assert found.returncode == 1
    assert re.search(r"^accelerated_hardware +unhealthy +1$", found.stdout, re.MULTILINE)
    assert re.search(r"^CRITICAL +NvidiaXIDErrorRebootNode on 0000:3b:00\.0, Xid 79 since 20", found.stdout, re.MULTILINE)
    answer = json.loads(check(host, "--json", "--state.path=").stdout)
    assert answer["status"] == "unhealthy"
    assert answer["subsystems"]["accelerated_hardware"] == "unhealthy"
    assert [(p["reason"], p["object"], p["variant"]) for p in answer["problems"]] == [
        ("NvidiaXIDErrorRebootNode", "0000:3b:00.0", "79")
    ]
    assert answer["sources"]["kmsg"]["state"] == "up"


def test_check_of_a_host_that_cannot_be_observed(tmp_path: Path) -> None:
    found = check(tmp_path, "--state.path=")
    assert found.returncode == 3
    assert found.stdout.endswith("not observed: a source that should be read cannot be read\n")


def test_check_moves_no_position_and_does_not_trip_over_a_damaged_state(host: Path, state: Path) -> None:
    before = (state / "nodehealth.db").read_bytes()
    assert check(host, f"--state.path={state}").returncode == 0
    assert (state / "nodehealth.db").read_bytes() == before
    (state / "nodehealth.db").write_bytes(b"no database" * 500)
    assert check(host, f"--state.path={state}").returncode == 0
