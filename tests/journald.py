"""A real systemd-journald in a mount namespace of its own: its sockets, its files and nothing of the machine's."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from followers import until, write

SCRIPT = """
mount -t tmpfs tmpfs /run/systemd
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/log
cp "$1"/journald.conf /run/systemd/journald.conf.d/
mount --bind "$1"/run/log /run/log
exec /lib/systemd/systemd-journald
"""
CONFIGURATION = (
    "[Journal]\nStorage=volatile\nAudit=\nForwardToWall=no\nForwardToSyslog=no\nRateLimitIntervalSec=0\nReadKMsg={}\n"
)


class Journald:
    """One running daemon; its journal lies below `root`."""

    def __init__(self, root: Path, process: subprocess.Popen[bytes]) -> None:
        self.root = root
        self._process = process
        self._sockets = Path(f"/proc/{process.pid}/root/run/systemd/journal")

    def native(self, **fields: str) -> None:
        """One entry with any fields that a program may write."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(self._sockets / "socket"))
            sender.send(b"".join(_field(name, value) for name, value in fields.items()))

    def raw(self, identifier: str, message: bytes) -> None:
        """One entry with bytes that may be no text."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(self._sockets / "socket"))
            sender.send(
                _field("SYSLOG_IDENTIFIER", identifier)
                + b"MESSAGE\n"
                + len(message).to_bytes(8, "little")
                + message
                + b"\n"
            )

    def stdout(self, identifier: str, text: str) -> None:
        """Lines as a service prints them."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sender:
            sender.connect(str(self._sockets / "stdout"))
            sender.sendall(f"{identifier}\n\n6\n0\n0\n0\n0\n{text}".encode())

    def query(self, *arguments: str) -> str:
        """What journalctl says of this journal."""
        command = ["journalctl", "--quiet", "--no-pager", f"--directory={self.root}/run/log/journal", *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, errors="replace").stdout

    def wait_for(self, identifier: str, text: str) -> None:
        """Return once the entry is in the journal: that a writer succeeded proves nothing."""
        until(lambda: text in self.query("--output=cat", "--all", f"SYSLOG_IDENTIFIER={identifier}"))

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    @property
    def ready(self) -> bool:
        assert self._process.poll() is None, "systemd-journald ended"
        return (self._sockets / "stdout").exists() and any(self.root.glob("run/log/journal/*/system.journal"))


def _field(name: str, value: str) -> bytes:
    return f"{name}\n".encode() + len(value.encode()).to_bytes(8, "little") + value.encode() + b"\n"


@contextlib.contextmanager
def running(root: Path, *, kernel: bool = False) -> Iterator[Journald]:
    """A daemon that writes below `root`/run/log/journal; with `kernel` it reads the machine's kernel log."""
    (root / "run/log").mkdir(parents=True, exist_ok=True)
    write(root / "journald.conf", CONFIGURATION.format("yes" if kernel else "no"))
    command = ["unshare", "--mount", "--propagation=private", "sh", "-e", "-c", SCRIPT, "sh", str(root)]
    daemon = Journald(root, subprocess.Popen(command, stdin=subprocess.DEVNULL))
    try:
        until(lambda: daemon.ready)
        yield daemon
    finally:
        daemon.end()
