"""The process in which checks read the host: a fresh interpreter that answers requests on its own descriptor.

It speaks length-prefixed JSON, imports only what a request names, and dies with its parent.  A read that hangs hangs here;
the parent gives it up, kills this process and starts another one.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nodehealth.checks import Check
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

LENGTH = struct.Struct("<I")
NICE = 10  # a walk over /proc does not delay the kernel log
MAX_MESSAGE = 16 * 1024 * 1024
_PR_SET_PDEATHSIG = 1


def send(stream: socket.socket, message: Mapping[str, Any]) -> None:
    """One message."""
    body = json.dumps(message).encode()
    stream.sendall(LENGTH.pack(len(body)) + body)


def receive(stream: socket.socket) -> dict[str, Any]:
    """One message.  Raises EOFError where the other side is gone, TimeoutError as the socket is set."""
    (length,) = LENGTH.unpack(_exactly(stream, LENGTH.size))
    if length > MAX_MESSAGE:
        raise ValueError(f"a message of {length} bytes")
    found: dict[str, Any] = json.loads(_exactly(stream, length))
    return found


def _exactly(stream: socket.socket, length: int) -> bytes:
    chunks: list[bytes] = []
    while length:
        chunk = stream.recv(min(length, 1 << 16))
        if not chunk:
            raise EOFError
        chunks.append(chunk)
        length -= len(chunk)
    return b"".join(chunks)


def answer(request: Mapping[str, Any], host: Host) -> dict[str, Any]:
    """What a check's reader says: a sample, `absent` with the reason, or `failed` with it."""
    try:
        return {"sample": find(request["topic"], request["check"]).read(host, request["thresholds"])}
    except Absent as absent:
        return {"absent": str(absent)}
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is the check's failure and not the worker's
        return {"failed": f"{type(error).__name__}: {error}"}


def find(topic: str, name: str) -> Check:
    """The check of that name in that topic module."""
    found: Check = next(check for check in importlib.import_module(topic).CHECKS if check.name == name)
    return found


def main(descriptor: int, root: str, parent: int) -> None:
    """Answer until the parent is gone; in a container the parent may well be process 1."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
    host = Host(Path(root))
    with socket.socket(fileno=descriptor) as stream:
        while True:
            try:
                request = receive(stream)
            except (EOFError, ConnectionError):
                return
            send(stream, answer(request, host))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
