"""The web server: paths, formats, compression, connections; every answer from memory."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.client import HTTPConnection, HTTPResponse

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text_format

from nodehealth.reporters import http
from nodehealth.reporters.families import metrics
from nodehealth.reporters.http import HEARTBEAT_SECONDS, MAX_CONNECTIONS, Server, Site
from nodehealth.reporters.metrics import Page
from views import ADDRESS, CATALOG, SELF, problem, sick, view

PROMETHEUS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.2"
SECONDS = 20.0


class Running:
    """A server on a free loopback port and what it shows."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.age = 0.0
        self.site = Site(Page(metrics(CATALOG.families.values())), lambda: self.age)
        self.server = Server(host, 0, self.site)
        self.port = self.server.server_address[1]
        self.server.start()

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
        connection = self.connect()
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def started() -> Iterator[Running]:
    """One server for all: to stop one takes half a second."""
    made = Running()
    yield made
    made.close()


@pytest.fixture
def running(started: Running) -> Running:
    """The server as it shows a sick node."""
    started.age = 0.0
    started.site.publish(sick())
    return started


def samples(families: Iterable[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


XID = ("nodehealth_gpu_xid_errors_total", (("pci_bus_id", ADDRESS), ("xid", "79")))


# -- /metrics ----------------------------------------------------------------------------------------------------------


def test_text_format_is_what_a_plain_client_gets(running: Running) -> None:
    answer, body = running.ask("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    found = samples(text_format(body.decode()))
    assert found[XID] == 4
    assert found["nodehealth_subsystem_healthy", (("subsystem", "accelerated_hardware"),)] == 0


def test_openmetrics_is_what_prometheus_gets(running: Running) -> None:
    answer, body = running.ask("/metrics", Accept=PROMETHEUS)
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    assert body.count(b"# EOF") == 1
    assert samples(openmetrics(body.decode()))[XID] == 4


def test_both_formats_say_the_same(running: Running) -> None:
    plain = samples(text_format(running.ask("/metrics")[1].decode()))
    assert samples(openmetrics(running.ask("/metrics", Accept=PROMETHEUS)[1].decode())) == plain


@pytest.mark.parametrize("accept", ["", PROMETHEUS])
def test_gzip_is_the_same_page(running: Running, accept: str) -> None:
    plain = running.ask("/metrics", Accept=accept)[1]
    answer, body = running.ask("/metrics", Accept=accept, Accept_Encoding="gzip")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == plain
    assert len(body) < len(plain) / 4


@pytest.mark.parametrize(
    ("encoding", "compressed"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.8", True),
        ("gzip ; q=0.5", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.0", False),
        ("xgzip", False),
    ],
)
def test_encoding_is_negotiated(running: Running, encoding: str, compressed: bool) -> None:  # noqa: FBT001 - a table
    answer, _ = running.ask("/metrics", Accept_Encoding=encoding)
    assert (answer.headers["Content-Encoding"] == "gzip") == compressed


def test_page_changes_with_what_is_published(running: Running) -> None:
    before = running.ask("/metrics")[1]
    assert running.ask("/metrics")[1] == before
    running.site.publish(view())
    assert XID not in samples(text_format(running.ask("/metrics")[1].decode()))


# -- other paths -------------------------------------------------------------------------------------------------------


def test_status_page(running: Running) -> None:
    answer, body = running.ask("/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"This node is unhealthy" in body


def test_status_page_survives_text_that_cannot_be_encoded(running: Running) -> None:
    running.site.publish(view(problems=(problem(text="lone \ud800 surrogate"),)))
    assert b"lone ? surrogate" in running.ask("/")[1]


def test_unknown_path_names_those_that_exist(running: Running) -> None:
    answer, body = running.ask("/metricz")
    assert (answer.status, body) == (404, b"there are / /metrics /healthz /livez /readyz\n")


@pytest.mark.parametrize("path", ["/metrics?a=b", "/?x", "/livez?verbose"])
def test_query_is_ignored(running: Running, path: str) -> None:
    assert running.ask(path)[0].status == 200


@pytest.mark.parametrize("path", ["/", "/metrics", "/readyz", "/livez", "/healthz", "/nothing"])
def test_head_is_get_without_the_body(running: Running, path: str) -> None:
    whole, body = running.ask(path)
    answer, nothing = running.ask(path, "HEAD")
    assert (answer.status, nothing) == (whole.status, b"")
    assert int(answer.headers["Content-Length"]) == len(body)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "TRACE"])
def test_other_methods_are_refused(running: Running, method: str) -> None:
    assert running.ask("/metrics", method)[0].status == 501


@pytest.mark.parametrize("path", ["/", "/metrics", "/nothing"])
def test_answer_allows_no_scripts_and_names_no_version(running: Running, path: str) -> None:
    headers = running.ask(path)[0].headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "Python" not in headers["Server"]


# -- readiness and life ------------------------------------------------------------------------------------------------


def test_before_ready_the_page_is_503_and_the_process_alive() -> None:
    made = Running()
    try:
        for shown in (None, view(self_=replace(SELF, ready=False))):
            if shown:
                made.site.publish(shown)
            assert made.ask("/metrics")[0].status == made.ask("/readyz")[0].status == 503
            assert b"reading the backlog" in made.ask("/metrics")[1]
            assert made.ask("/livez")[0].status == made.ask("/healthz")[0].status == made.ask("/")[0].status == 200
        made.site.publish(view())
        assert made.ask("/readyz")[1] == b"ready\n"
    finally:
        made.close()


@pytest.mark.parametrize("path", ["/livez", "/healthz"])
def test_life_is_the_heartbeat_and_nothing_else(running: Running, path: str) -> None:
    assert running.ask(path)[1] == b"ok\n"
    running.age = HEARTBEAT_SECONDS + 1
    answer, body = running.ask(path)
    assert (answer.status, body) == (503, b"the main loop has not gone round for 31 s\n")
    assert running.ask("/metrics")[0].status == 200, "what is known is still shown"


# -- connections -------------------------------------------------------------------------------------------------------


def test_connection_is_kept_alive(running: Running) -> None:
    connection = running.connect()
    used = []
    for path in ("/metrics", "/", "/nothing", "/metrics"):
        connection.request("GET", path)
        connection.getresponse().read()
        used.append(connection.sock)
    connection.close()
    assert used[0] is not None
    assert all(each is used[0] for each in used)


def test_requests_in_one_go_are_answered_in_order(running: Running) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS) as client:
        client.sendall(
            b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        received = b"".join(iter(lambda: client.recv(4096), b""))
    assert received.index(b"\r\n\r\nok\n") < received.index(b"\r\n\r\nready\n")


def wait_for_room(server: Server) -> None:
    """A slot is free again once its thread has seen the end of its connection."""
    assert all(server._room.acquire(timeout=SECONDS) for _ in range(MAX_CONNECTIONS))
    for _ in range(MAX_CONNECTIONS):
        server._room.release()


def test_where_too_many_connections_are_open_the_oldest_makes_room(running: Running) -> None:
    wait_for_room(running.server)
    silent = [socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS) for _ in range(MAX_CONNECTIONS)]
    try:
        assert running.ask("/livez")[0].status == 200, "silent clients keep nobody out"
        assert silent[0].recv(1) == b"", "the oldest was ended"
    finally:
        for each in silent:
            each.close()
    wait_for_room(running.server)
    assert running.ask("/livez")[0].status == 200


def test_silent_client_is_let_go(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http._Handler, "timeout", 0.05)
    with socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS) as client:
        assert client.recv(1) == b""


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET\r\n\r\n", b"\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70_000]
)
def test_garbage_ends_its_own_connection_only(running: Running, garbage: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS) as client, suppress(OSError):
        client.sendall(garbage)
        client.shutdown(socket.SHUT_WR)
        assert b"200" not in b"".join(iter(lambda: client.recv(65536), b"")).split(b"\r\n")[0]
    assert running.ask("/livez")[0].status == 200
    assert capfd.readouterr() == ("", ""), "no news for the log"


def test_scrapes_at_the_same_time_get_the_same_page(running: Running) -> None:
    pages: list[bytes] = []
    threads = [threading.Thread(target=lambda: pages.append(running.ask("/metrics")[1])) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert len(pages) == 16
    assert len(set(pages)) == 1


# -- addresses ---------------------------------------------------------------------------------------------------------


def test_url_is_what_a_person_opens(running: Running) -> None:
    assert running.server.url == f"http://127.0.0.1:{running.port}/"


def test_every_address_without_ipv6_is_every_address_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_has_ipv6", lambda: False)
    monkeypatch.setattr(Server, "server_bind", lambda _: None)
    monkeypatch.setattr(Server, "server_activate", lambda _: None)
    server = Server(http.EVERY_ADDRESS, 0, Site(Page(()), lambda: 0.0))
    server.server_close()
    assert (server.address_family, server.server_address[0]) == (socket.AF_INET, "0.0.0.0")  # noqa: S104 - that is the point


def test_ipv6_address() -> None:
    if not http._has_ipv6():
        pytest.skip("this machine has no IPv6")
    try:
        server = Server("::1", 0, Site(Page(()), lambda: 0.0))
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    assert server.url.startswith("http://[::1]:")
    server.server_close()


def test_address_that_is_taken_is_an_error(running: Running) -> None:
    with pytest.raises(OSError, match="in use"):
        Server("127.0.0.1", running.port, running.site)
