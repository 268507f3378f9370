"""Options and environment variables; what is wrong names the option and the nearest valid word, and changes nothing."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from nodehealth.options import OPTIONS, SERVE_OPTIONS, Arguments, Option, UsageError, address, parse, parser

COMMANDS = ("serve", "check", "explain", "reasons", "events", "clear")
EVERY = (*OPTIONS, *SERVE_OPTIONS)


def asked(*argv: str, **environment: str) -> Arguments:
    return parse(argv, environment)


def refused(*argv: str, **environment: str) -> str:
    with pytest.raises(UsageError) as error:
        parse(argv, environment)
    return str(error.value)


def commands() -> Mapping[str, argparse.ArgumentParser]:
    action = next(each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(action.choices)


def test_no_argument_serves_with_the_defaults() -> None:
    found = asked()
    assert found.command == "serve"
    assert found.web_listen_address == ("127.0.0.1", 10841)
    assert (found.config_file, found.path_rootfs, found.state_path) == ("", "/", "/var/lib/nodehealth")
    assert (found.log_level, found.log_format) == ("info", "logfmt")


def test_every_name_of_the_design_is_an_option() -> None:
    assert {option.name for option in EVERY} == {
        "config.file",
        "log.format",
        "log.level",
        "path.rootfs",
        "state.path",
        "web.listen-address",
    }


def good_value(option: Option, tmp_path: Path) -> str:
    return {"path.rootfs": str(tmp_path), "log.level": "debug", "log.format": "json", "web.listen-address": "[::1]:9"}.get(
        option.name, "/some/where"
    )


@pytest.mark.parametrize("option", EVERY, ids=lambda option: option.name)
def test_option_is_read_from_argv_and_environment_and_argv_wins(option: Option, tmp_path: Path) -> None:
    good = good_value(option, tmp_path)
    before, after, variable = (
        asked(f"--{option.name}", good, "serve"),
        asked("serve", f"--{option.name}={good}"),
        {option.variable: good},
    )
    from_environment = asked(**variable)
    assert before.values == after.values == from_environment.values
    assert from_environment.values[option.key] != asked().values[option.key]
    other = option.default or "/elsewhere"
    assert asked(f"--{option.name}={other}", **variable).values[option.key] != from_environment.values[option.key]


def test_variable_is_named_after_the_option() -> None:
    assert {option.variable for option in EVERY} >= {"NODEHEALTH_WEB_LISTEN_ADDRESS", "NODEHEALTH_STATE_PATH"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:10841", ("127.0.0.1", 10841)),
        (":10841", ("::", 10841)),
        ("[::1]:80", ("::1", 80)),
        ("[fe80::1]:1", ("fe80::1", 1)),
        ("10.0.0.1:0", ("10.0.0.1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_listen_addresses(text: str, expected: tuple[str, int]) -> None:
    assert address(text) == expected


@pytest.mark.parametrize(
    "text", ["", "10841", "127.0.0.1", "127.0.0.1:", "::1:80", ":65536", ":x", "[::1]", "http://x:80", ":1 ", "[x]:1"]
)
def test_bad_listen_address_is_refused_with_an_example(text: str) -> None:
    message = f'--web.listen-address: "{text}" is no address; write for example 127.0.0.1:10841 or :10841'
    assert refused(f"--web.listen-address={text}") == message


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--log.levl=x"], "unrecognized arguments: --log.levl=x; did you mean --log.level? (see nodehealth --help)"),
        (["--state-path", "x"], "unrecognized arguments: --state-path; did you mean --state.path? (see nodehealth --help)"),
        (["chek"], "did you mean check?"),
        (["explian", "x"], "did you mean explain?"),
        (
            ["explain", "--sorce=kmsg", "x"],
            "unrecognized arguments: --sorce=kmsg; did you mean --source? (see nodehealth explain --help)",
        ),
        (["events", "--limt=3"], "did you mean --limit?"),
        (["reasons", "--jsn"], "did you mean --json?"),
        (["serve", "--json"], "unrecognized arguments: --json (see nodehealth serve --help)"),
        (["--log.level=debgu"], '--log.level: "debgu" is not valid; did you mean debug?'),
        (["--log.level=7"], '--log.level: "7" is not valid; valid: debug, info, warning, error'),
        (["--log.format=jsn"], '--log.format: "jsn" is not valid; did you mean json?'),
        (["--path.rootfs=/no/such/place"], '--path.rootfs: "/no/such/place" is no directory'),
        (["--config.file"], "expected one argument"),
        (["clear"], "the following arguments are required: REASON (see nodehealth clear --help)"),
        (["clear", "A", "b", "c"], "unrecognized arguments: c (see nodehealth clear --help)"),
        (["events", "--limit=x"], 'argument --limit: "x" is no whole number of at least 1'),
        (["events", "--limit=0"], 'argument --limit: "0" is no whole number of at least 1'),
        (["--log.lev=debug"], "unrecognized arguments: --log.lev=debug; did you mean --log.level?"),
        (["--jsn", "check"], "unrecognized arguments: --jsn (see nodehealth --help)"),
        (["check", "--statepath", "x"], "unrecognized arguments: --statepath; did you mean --state.path?"),
        (["--zzz"], "unrecognized arguments: --zzz (see nodehealth --help)"),
    ],
)
def test_wrong_argument_names_the_nearest(argv: list[str], message: str) -> None:
    assert message in refused(*argv)


def test_wrong_value_names_the_variable_that_it_came_from() -> None:
    assert refused(NODEHEALTH_LOG_LEVEL="loud").startswith('NODEHEALTH_LOG_LEVEL: "loud" is not valid')


def test_variables_of_others_are_not_ours() -> None:
    """Kubernetes sets NODEHEALTH_SERVICE_HOST where a Service has our name."""
    assert asked(NODEHEALTH_SERVICE_HOST="10.0.0.1", NODEHEALTH_PORT="tcp://10.0.0.1:10841").values == asked().values


# -- help --------------------------------------------------------------------------------------------------------------


def test_every_command_is_there() -> None:
    assert tuple(commands()) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_teaches(name: str) -> None:
    command = commands()[name]
    assert re.fullmatch(r"[A-Z][\s\S]{15,}\.", command.description or "")
    assert "environment variable" in (command.epilog or "")
    for action in command._actions:
        assert action.help, action
    text = command.format_help()
    assert all(f"--{option.name}" in text and option.help.split()[0] in text for option in OPTIONS)


@pytest.mark.parametrize("name", COMMANDS)
def test_only_serve_has_options_of_the_web_server(name: str) -> None:
    assert ("--web.listen-address" in commands()[name].format_help()) == (name == "serve")


def test_help_shows_choices_defaults_and_examples() -> None:
    text = re.sub(r"\s+", " ", commands()["explain"].format_help())
    assert "debug, info, warning, error (default info)" in text
    assert "dmesg | nodehealth explain -" in text
    assert "exit 0 healthy, 1 unhealthy, 3 not observed" in re.sub(r"\s+", " ", commands()["check"].format_help())
    assert "NvidiaXIDError 0000:3b:00.0" in commands()["clear"].format_help()


def test_after_two_dashes_everything_is_a_line() -> None:
    assert asked("explain", "--", "--not an option").line == "--not an option"
