"""Command-line options and their environment variables; what is wrong is said with the nearest valid name."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from nodehealth import __version__

DEFAULT_ADDRESS = "127.0.0.1:10841"
DEFAULT_STATE = "/var/lib/nodehealth"
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("logfmt", "json")
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]]*)):(?P<port>\d{1,5})\Z")


class UsageError(Exception):
    """An option or its value cannot be used; ends with exit status 2."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option: what it means, its default, and its choices."""

    name: str
    help: str
    default: str
    metavar: str
    choices: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable with the same meaning."""
        return "NODEHEALTH_" + re.sub(r"[.-]", "_", self.name).upper()

    @property
    def key(self) -> str:
        """The attribute of the parsed arguments."""
        return re.sub(r"[.-]", "_", self.name)


OPTIONS = (
    Option("config.file", "configuration (YAML); SIGHUP reads it again", "", "FILE"),
    Option("path.rootfs", "root of the host's files, /host in a container", "/", "DIRECTORY"),
    Option("state.path", "directory that keeps counters and problems over restarts", DEFAULT_STATE, "DIRECTORY"),
    Option("log.level", "least important lines of the exporter's own log", "info", "LEVEL", LEVELS),
    Option("log.format", "form of that log, which goes to standard error", "logfmt", "FORMAT", FORMATS),
)
SERVE_OPTIONS = (Option("web.listen-address", "address and port of the web server", DEFAULT_ADDRESS, "HOST:PORT"),)


@dataclass(frozen=True, slots=True)
class Arguments:
    """What was asked for."""

    command: str
    values: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.values[name]


class _Parser(argparse.ArgumentParser):
    """argparse with errors that name the nearest option of the command that was given."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse what this command does not know here, where its own options are known.

        A misspelt option comes first: argparse would take its value for the command.
        """
        end = {"--", *self._choices()}
        for word in takewhile(lambda each: each not in end, args or ()):
            if word.startswith("--") and word.partition("=")[0] not in self._option_string_actions:
                self.error(f"unrecognized arguments: {word}")
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        found = re.search(r"unrecognized arguments: (\S+)", message) or re.search(r"invalid choice: '([^']*)'", message)
        near = difflib.get_close_matches(found[1].partition("=")[0], self._words(), n=1, cutoff=0.6) if found else []
        raise UsageError(f"{message}{f'; did you mean {near[0]}?' if near else ''} (see {self.prog} --help)")

    def _words(self) -> list[str]:
        return [*self._option_string_actions, *self._choices()]

    def _choices(self) -> list[str]:
        return [str(choice) for action in self._actions for choice in action.choices or ()]


_EPILOG = "Every option is also an environment variable: --state.path is NODEHEALTH_STATE_PATH."
_EXPLAIN = """\
nodehealth explain "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."
dmesg | nodehealth explain -     one answer for each line, in order
"""
_CLEAR = """\
nodehealth clear NvidiaXIDError                end it on every GPU
nodehealth clear NvidiaXIDError 0000:3b:00.0   end it on this GPU alone
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    common, serving = _parent(OPTIONS), _parent(SERVE_OPTIONS)
    main = _Parser(
        prog="nodehealth",
        description="Says whether this node can still be trusted with work, why not, and what to do.",
        epilog=_EPILOG,
        parents=[common, serving],
        allow_abbrev=False,
    )
    main.add_argument("--version", action="version", version=f"nodehealth {__version__}")
    add = _Adder(main.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser), common)
    add("serve", "run the exporter (the default)", parents=[serving])
    add("check", "look once at everything: exit 0 healthy, 1 unhealthy, 3 not observed", json="one object")
    explain = add(
        "explain",
        "say which reason a log line matches and what it would do",
        json="one object for each line",
        examples=_EXPLAIN,
    )
    explain.add_argument(
        "--source",
        metavar="SOURCE",
        help="try the rules of this source alone: kmsg, journal:UNIT or file:PATH (default: of all)",
    )
    explain.add_argument(
        "line",
        nargs="?",
        default="-",
        metavar="LINE|-",
        help="a line as any tool printed it; - reads lines from standard input",
    )
    add("reasons", "list the catalog: everything that can be found, and what to do then", json="one object for each reason")
    events = add("events", "list what happened, oldest first, from the stored history", json="one object for each event")
    events.add_argument("--limit", type=_rows, default=50, metavar="N", help="only the last N (default 50)")
    clear = add("clear", "end a problem by hand; the running exporter does it within 2 s", examples=_CLEAR)
    clear.add_argument("reason", metavar="REASON", help="name of the reason, as `nodehealth check` shows it")
    clear.add_argument("object", metavar="OBJECT", nargs="?", help="only on this device (default: on every one)")
    return main


def _rows(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'"{text}" is no whole number of at least 1')
    return int(text)


class _Adder:
    """Adds commands that share the common options."""

    def __init__(self, commands: Any, common: argparse.ArgumentParser) -> None:
        self._commands = commands
        self._common = common

    def __call__(
        self, name: str, text: str, *, json: str = "", examples: str = "", parents: Sequence[argparse.ArgumentParser] = ()
    ) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = self._commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"{examples}\n{_EPILOG}" if examples else _EPILOG,
            parents=[self._common, *parents],
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if json:
            made.add_argument("--json", action="store_true", help=f"print JSON, {json}, instead of text")
        return made


def _parent(options: Sequence[Option]) -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    for option in options:
        choices = f": {', '.join(option.choices)}" if option.choices else ""
        default = f" (default {option.default})" if option.default else ""
        text = f"{option.help}{choices}{default}"
        parent.add_argument(f"--{option.name}", dest=option.key, metavar=option.metavar, help=text)
    return parent


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> Arguments:
    """What argv and the environment ask for; argv wins.  Raises UsageError."""
    found = vars(parser().parse_args(argv))
    command = found.pop("command") or "serve"
    for option in (*OPTIONS, *SERVE_OPTIONS):
        origin = f"--{option.name}" if option.key in found else option.variable
        value = found.get(option.key, environment.get(option.variable, option.default))
        if option.choices and value not in option.choices:
            near = difflib.get_close_matches(str(value), option.choices, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else f"; valid: {', '.join(option.choices)}"
            raise UsageError(f'{origin}: "{value}" is not valid{hint}')
        found[option.key] = value
    if not Path(found["path_rootfs"]).is_dir():
        raise UsageError(f'--path.rootfs: "{found["path_rootfs"]}" is no directory')
    found["web_listen_address"] = address(found["web_listen_address"])
    return Arguments(command, found)


def address(text: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:10841`, `[::1]:10841` or `:10841` (every address).  Raises UsageError."""
    match = _ADDRESS.match(text)
    if match is None or int(match["port"]) > 65535:  # noqa: PLR2004 - the largest port
        raise UsageError(f'--web.listen-address: "{text}" is no address; write for example 127.0.0.1:10841 or :10841')
    return match["six"] or match["host"] or "::", int(match["port"])
