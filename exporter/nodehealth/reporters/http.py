"""The web server: /metrics, /healthz, /livez, /readyz and the status page.

Standard library only.  Every answer comes from memory; a slow or silent client holds one of a bounded number of threads
for a bounded time and nothing else.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from nodehealth.reporters import page
from nodehealth.reporters.metrics import Format, Page, negotiate
from nodehealth.view import View

MAX_CONNECTIONS = 64
IDLE_SECONDS = 60.0  # a kept-alive connection of Prometheus rests for one scrape interval
HEARTBEAT_SECONDS = 30.0
ROOM_SECONDS = 0.2
PREPARE_SECONDS = 0.01
EVERY_ADDRESS = "::"  # of IPv4 too
BACKLOG = "reading the backlog: what was logged before the start is not counted yet"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path answers."""

    status: HTTPStatus
    content_type: str
    body: bytes
    compressed: bool = False


class Site:
    """The answers, by path; holds the published View."""

    def __init__(self, metrics: Page, age: Callable[[], float]) -> None:
        """`age` is how many seconds ago the engine's loop last went round."""
        self.metrics = metrics
        self._age = age
        self._view: View | None = None
        self._prepared = 0.0

    def publish(self, view: View) -> None:
        """Show this from now on, and have its page ready unless changes come too fast for that to pay."""
        self._view = view
        now = time.monotonic()
        if now - self._prepared >= PREPARE_SECONDS:
            self._prepared = now
            self.metrics.prepare(view)

    def answer(self, path: str, accept: str, encoding: str) -> Answer:
        """The answer to a GET."""
        view = self._view
        ready = view is not None and view.self_.ready
        if path == "/":
            return Answer(HTTPStatus.OK, "text/html; charset=utf-8", page.render(view).encode("utf-8", "replace"))
        if path in {"/healthz", "/livez"}:
            return self._alive()
        if path in {"/metrics", "/readyz"} and (view is None or not ready):
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE, BACKLOG)
        if path == "/readyz":
            return _plain(HTTPStatus.OK, "ready")
        if path == "/metrics" and view is not None:
            return self._metrics(view, negotiate(accept), compressed=_takes_gzip(encoding))
        return _plain(HTTPStatus.NOT_FOUND, "there are / /metrics /healthz /livez /readyz")

    def _metrics(self, view: View, style: Format, *, compressed: bool) -> Answer:
        return Answer(HTTPStatus.OK, style.content_type, self.metrics.body(view, style, compressed=compressed), compressed)

    def _alive(self) -> Answer:
        age = self._age()
        if age > HEARTBEAT_SECONDS:
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE, f"the main loop has not gone round for {age:.0f} s")
        return _plain(HTTPStatus.OK, "ok")


def _plain(status: HTTPStatus, text: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())


def _takes_gzip(encoding: str) -> bool:
    """Whether an Accept-Encoding header lists gzip and does not forbid it (`gzip;q=0`)."""
    words = [each.replace(" ", "").lower() for each in encoding.split(",")]
    return any(word.partition(";")[0] == "gzip" and not word.endswith((";q=0", ";q=0.0")) for word in words)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    site: ClassVar[Site]
    protocol_version = "HTTP/1.1"
    server_version = "nodehealth"
    sys_version = ""
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True  # without it a kept-alive scrape waits 40 ms for a delayed ACK
    wbufsize = -1  # head and body leave in one segment where they fit

    def do_GET(self) -> None:
        self._send(with_body=True)

    def do_HEAD(self) -> None:
        self._send(with_body=False)

    def _send(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        answer = self.site.answer(path, self.headers.get("Accept", ""), self.headers.get("Accept-Encoding", ""))
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:")
        if answer.compressed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: scrapes are no news."""


def _has_ipv6() -> bool:
    """Whether this kernel knows IPv6 (it can be switched off at boot)."""
    try:
        socket.socket(socket.AF_INET6).close()
    except OSError:
        return False
    return True


class Server(ThreadingHTTPServer):
    """A threading server with a bounded number of connections."""

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, host: str, port: int, site: Site) -> None:
        """Raises OSError where the address cannot be bound."""
        if host == EVERY_ADDRESS and not _has_ipv6():
            host = "0.0.0.0"  # noqa: S104 - every address was asked for
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._room = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._connections: dict[socket.socket, None] = {}
        super().__init__((host, port), type("Handler", (_Handler,), {"site": site}))

    def server_bind(self) -> None:
        """Bind, also for IPv4 where the address is the IPv6 wildcard."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve in a thread of its own; where too many are open, the oldest connection makes room.

        A client that opens connections and is silent could else keep Prometheus and the kubelet's probe out.
        """
        if not self._room.acquire(blocking=False):
            self._end_oldest()
            if not self._room.acquire(timeout=ROOM_SECONDS):
                self.shutdown_request(request)
                return
        self._connections[request] = None
        super().process_request(request, client_address)

    def _end_oldest(self) -> None:
        for connection in list(self._connections)[:1]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # its thread reads an end and gives its room back

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection until it ends."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.pop(request, None)
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away is no news."""

    def start(self) -> None:
        """Serve from a thread."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.5}, name="http", daemon=True).start()

    @property
    def url(self) -> str:
        """Where a person finds it."""
        host, port = self.server_address[:2]
        return f"http://{f'[{host!s}]' if ':' in str(host) else host!s}:{port}/"
