"""The command `nodehealth`: argv and environment in, everything wired, exit status out.  The only `sys.exit`."""

from __future__ import annotations

import io
import logging
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from nodehealth import catalog as catalogs
from nodehealth import logs, pci
from nodehealth import settings as configuration
from nodehealth.catalog import Catalog
from nodehealth.commands import check, explain, tables
from nodehealth.commands.serve import ServeError, serve
from nodehealth.engine import Engine
from nodehealth.model import Reason
from nodehealth.options import Arguments, UsageError, parse
from nodehealth.settings import Settings, SettingsError, nearest
from nodehealth.sources.host import Host
from nodehealth.store import FILE, LOCK, Lock, Saved, command_result, connect, leave_command, read_history, read_saved
from nodehealth.view import View
from nodehealth.wiring import Wiring

OK, FAILED, USAGE = 0, 1, 2
CLEAR_SECONDS = 5.0


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit with its status."""
    _accept_any_text()
    try:
        status = run(sys.argv[1:] if argv is None else argv)
    except (UsageError, SettingsError) as error:
        print(f"nodehealth: {error}", file=sys.stderr)
        status = USAGE
    except (ServeError, sqlite3.Error, OSError) as error:
        print(f"nodehealth: {error}", file=sys.stderr)
        status = FAILED
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    sys.exit(status)


def _accept_any_text() -> None:
    """Log lines hold any bytes: what is no text is replaced on the way in and escaped on the way out."""
    for stream, errors in ((sys.stdin, "replace"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def run(argv: Sequence[str]) -> int:
    """The exit status of one command."""
    arguments = parse(argv, os.environ)
    if arguments.command != "serve":  # `nodehealth events | head` ends quietly; an exporter survives clients that go away
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    logs.set_up(arguments.log_level if arguments.command == "serve" else "error", arguments.log_format)
    commands = {
        "serve": _serve,
        "check": _check,
        "explain": _explain,
        "reasons": _reasons,
        "events": _events,
        "clear": _clear,
    }
    return commands[arguments.command](arguments)


def _load(arguments: Arguments) -> tuple[Settings, Catalog]:
    settings = configuration.load(Path(arguments.config_file)) if arguments.config_file else Settings()
    return settings, catalogs.load(settings)


def _host(arguments: Arguments) -> Host:
    return Host(Path(arguments.path_rootfs))


def _serve(arguments: Arguments) -> int:
    settings, catalog = _load(arguments)
    serve(
        _host(arguments),
        settings,
        catalog,
        load=lambda: _load(arguments),
        address=arguments.web_listen_address,
        directory=Path(arguments.state_path) if arguments.state_path else None,
    )
    return OK


def _check(arguments: Arguments) -> int:
    logging.getLogger("nodehealth").setLevel(logging.CRITICAL)
    settings, catalog = _load(arguments)
    views: list[View] = []
    saved = _saved(arguments, catalog)
    Engine(Wiring(_host(arguments), settings, catalog, saved=saved), views.append, once=True).run()
    print(check.as_json(views[-1]) if arguments.json else check.as_text(views[-1]))
    return check.status(views[-1])


def _saved(arguments: Arguments, catalog: Catalog) -> Saved:
    """What an exporter stored, read only; nothing where there is none or it may not be read."""
    try:
        return _read_saved(_database(arguments, "no state"), catalog)
    except (ServeError, sqlite3.Error, OSError):
        return Saved()


def _read_saved(database: Path, catalog: Catalog) -> Saved:
    connection = connect(database, read_only=True)
    try:
        return read_saved(connection, catalog.reasons)
    finally:
        connection.close()


def _explain(arguments: Arguments) -> int:
    settings, catalog = _load(arguments)
    host = _host(arguments)
    if arguments.source and arguments.source not in catalog.streams:
        raise UsageError(f'--source: no rule reads "{arguments.source}"{nearest(arguments.source, catalog.streams)}')
    lines = sys.stdin if arguments.line == "-" else [arguments.line]
    for line in lines:
        found = explain.explain(line.rstrip("\n"), catalog, arguments.source)
        print(
            explain.as_json(found) if arguments.json else explain.as_text(found, host, settings.trust_user_records),
            flush=True,
        )
    return OK


def _reasons(arguments: Arguments) -> int:
    for row in tables.reasons(_load(arguments)[1], as_json=arguments.json):
        print(row)
    return OK


def _events(arguments: Arguments) -> int:
    database = _database(arguments, "no history")
    connection = connect(database, read_only=True)
    try:
        rows = read_history(connection, arguments.limit)
    finally:
        connection.close()
    for row in tables.events(rows, as_json=arguments.json):
        print(row)
    return OK


def _database(arguments: Arguments, lack: str) -> Path:
    """The state of an exporter that ran here.  Raises ServeError where there is none."""
    if not arguments.state_path:
        raise ServeError(f"{lack}: --state.path is empty")
    database = Path(arguments.state_path) / FILE
    if not database.exists():
        raise ServeError(f"{lack}: there is no {database}; has an exporter run with this --state.path?")
    return database


def _clear(arguments: Arguments) -> int:
    reason = _reason(arguments)
    database = _database(arguments, "nothing to clear")
    object_ = pci.normalise(arguments.object) if arguments.object else None
    command = leave_command(database, reason.name, object_)
    if not _is_running(database.with_name(LOCK)):
        print(f"no exporter is running with {database.parent}: {reason.name} will be cleared when it starts")
        return OK
    ended = _await(database, command)
    if ended is None:
        raise ServeError(f"the exporter did not answer within {CLEAR_SECONDS:g} s; it will clear {reason.name} when it can")
    print(f"{reason.name}: {ended} problem{'' if ended == 1 else 's'} ended")
    return OK


def _reason(arguments: Arguments) -> Reason:
    reasons = _load(arguments)[1].reasons
    if arguments.reason not in reasons:
        raise UsageError(f'no reason is named "{arguments.reason}"{nearest(arguments.reason, reasons)}')
    return reasons[arguments.reason]


def _is_running(lock: Path) -> bool:
    probe = Lock(lock.parent)
    try:
        return not probe.is_free()
    finally:
        probe.release()


def _await(database: Path, command: int) -> int | None:
    deadline = time.monotonic() + CLEAR_SECONDS
    while time.monotonic() < deadline:
        ended = command_result(database, command)
        if ended is not None:
            return ended
        time.sleep(0.1)
    return None
