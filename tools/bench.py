"""`make bench`: memory, CPU, latency and throughput of this checkout on this machine, with the goal beside each figure.

Everything is measured on the real exporter in a process of its own.  Parts that need root and /dev/kmsg say so when they
are left out.  `--write` puts the table into docs/performance.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import re
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import live  # noqa: E402 - a helper of the tests
from exporter import Exporter, value  # noqa: E402
from nodehealth import catalog as catalogs  # noqa: E402
from nodehealth.model import Record  # noqa: E402
from nodehealth.state import Moment, State  # noqa: E402

DEMO = ROOT / "tests/hosts/gpu-node-sick"
TICKS = os.sysconf("SC_CLK_TCK")
BUSES = 24  # a thousand series on the page of this host
HAS_KMSG = os.geteuid() == 0 and os.access("/dev/kmsg", os.W_OK)


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    what: str
    found: str
    goal: str


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--idle", type=float, default=60.0, metavar="SECONDS", help="length of the idle measurement")
    arguments.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    chosen = arguments.parse_args()
    figures: list[Figure] = []
    for measure in (throughput, matching, start, memory_and_idle(chosen.idle), scrapes, latency):
        for figure in measure():
            figures.append(figure)
            print(f"{figure.what:<66} {figure.found:>22}   goal {figure.goal}", flush=True)
    if chosen.write:
        write(figures)


def machine() -> str:
    """What it was measured on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    model = cpu[1] if cpu else platform.machine()
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"


def write(figures: list[Figure]) -> None:
    """The table between the markers of docs/performance.md."""
    page = ROOT / "docs/performance.md"
    rows = "\n".join(f"| {each.what} | {each.found} | {each.goal} |" for each in figures)
    head = f"Measured with `make bench` on {time.strftime('%Y-%m-%d')}: {machine()}."
    table = f"{head}\n\n| what | found | goal |\n|---|---|---|\n{rows}\n"
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(r"(?s)(<!-- bench -->\n).*(<!-- /bench -->)", rf"\1{table}\2", text), encoding="utf-8")


# -- in this process -------------------------------------------------------------------------------------------------


def throughput() -> Iterator[Figure]:
    """Ordinary lines through the full catalog."""
    catalog = catalogs.load()
    lines = (ROOT / "tests/data/ordinary_lines.txt").read_text(encoding="utf-8").splitlines()
    records = [Record("kmsg", ("kmsg",), line, 0.0, 0.0) for line in lines]
    for record in records:
        catalog.read(record)
    rounds = 20
    spent = cpu(lambda: [catalog.read(record) for _ in range(rounds) for record in records])
    yield Figure(
        "ordinary lines through the full catalog, per second of CPU", f"{rounds * len(records) / spent:,.0f}", "≥ 100,000"
    )


def matching() -> Iterator[Figure]:
    """Matching lines through catalog and state, without the commit."""
    catalog = catalogs.load()
    state = State(catalog.reasons, boot_id="b", first_start=False)
    records = [
        Record(
            "kmsg", ("kmsg",), f"NVRM: Xid (PCI:0000:{bus:02x}:00): {code}, pid=1, name=x, text", 1e9 + n, 10.0 + n, "b", n
        )
        for n, (bus, code) in enumerate((bus, code) for bus in range(40) for code in (13, 31, 48, 63, 74, 79, 94, 119))
    ]
    moment = Moment(2e9, 2e9)

    def fold() -> None:
        for record in records:
            for match in catalog.read(record):
                for event in match.events:
                    state.apply(event, record, moment)

    fold()
    spent = cpu(lambda: [fold() for _ in range(10)])
    yield Figure("CPU per matching line, without the commit", f"{spent / 10 / len(records) * 1e6:.0f} µs", "≤ 60 µs")


def cpu(work: Callable[[], object]) -> float:
    """Seconds of CPU of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


# -- the exporter as a process ---------------------------------------------------------------------------------------


@contextmanager
def running(root: Path | None = None, *, behind_ring: bool = False) -> Iterator[Exporter]:
    """An exporter on the demo host or on this one."""
    with tempfile.TemporaryDirectory(prefix="nodehealth-bench-") as folder:
        state = Path(folder) / "state"
        if behind_ring:
            live.start_behind_the_ring(state)
        exporter = Exporter(state, root=root)
        try:
            yield exporter.ready()
        finally:
            exporter.kill()


def start() -> Iterator[Figure]:
    """From the command to the first page."""
    found = []
    for _ in range(5):
        began = time.monotonic()
        with running(DEMO):
            found.append(time.monotonic() - began)
    yield Figure("start to first page (median of 5)", f"{statistics.median(found):.2f} s", "≤ 1 s")


def memory_and_idle(seconds: float) -> Callable[[], Iterator[Figure]]:
    """Proportional memory, and CPU while only Prometheus asks every 15 s."""

    def measure() -> Iterator[Figure]:
        with running(DEMO) as exporter:
            client = Client(exporter)
            for _ in range(20):
                client.scrape()
            time.sleep(3.0)  # the first pass of every check
            everybody = [exporter.process.pid, *children(exporter.process.pid)]
            before, all_before = ticks(exporter.process.pid), sum(map(ticks, everybody))
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                client.scrape()
                time.sleep(min(15.0, seconds))
            spent = (ticks(exporter.process.pid) - before) / TICKS
            took = time.monotonic() - began
            share, all_share = spent / took, (sum(map(ticks, everybody)) - all_before) / TICKS / took
            pid, unshared = exporter.process.pid, "≤ 34 MiB"
            yield Figure("proportional memory (PSS) of the serving process", f"{pss(pid) / 1024:.1f} MiB", unshared)
            yield Figure("resident memory (RSS), nothing shared taken off", f"{pss(pid, 'Rss') / 1024:.1f} MiB", unshared)
            together = sum(map(pss, everybody)) / 1024
            yield Figure("proportional memory with the worker of the checks", f"{together:.1f} MiB", "≤ 42 MiB")
            yield Figure("CPU with the worker of the checks, same time", f"{all_share:.2%} of a core", "≤ 1 %")
            yield Figure(
                f"CPU over {seconds:.0f} idle seconds with a scrape every 15 s", f"{share:.2%} of a core", "≤ 0.3 %"
            )
        yield Figure(
            "for comparison: PSS of bare CPython with prometheus-client, psutil, an HTTP thread",
            f"{bare() / 1024:.1f} MiB",
            "-",
        )

    return measure


def bare() -> int:
    """PSS in KiB of the least process that could serve metrics in Python."""
    serve = "import psutil, prometheus_client as p, time; p.start_http_server(0, addr='127.0.0.1')"
    code = f"{serve}; print('up', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = pss(child.pid)
        child.kill()
    return found


def pss(pid: int, which: str = "Pss") -> int:
    """Proportional (or another) set size in KiB."""
    found = re.search(rf"^{which}:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) if found else 0


def children(pid: int) -> list[int]:
    """Processes that it started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()] or [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/stat")
        if path.exists() and path.read_text(encoding="utf-8").rpartition(")")[2].split()[1] == str(pid)
    ]


def ticks(pid: int) -> int:
    """CPU time of a process in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


class Client:
    """A scraper that costs next to nothing, so that what is measured is the server."""

    REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain;version=0.0.4\r\n%s\r\n"

    def __init__(self, exporter: Exporter) -> None:
        host, port = exporter.url.removeprefix("http://").split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def scrape(self, *, compressed: bool = True) -> bytes:
        """One page; compressed as Prometheus asks for it."""
        self._socket.sendall(self.REQUEST % (b"Accept-Encoding: gzip\r\n" if compressed else b""))
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._socket.recv(65536)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length is not None
        chunks = [body]
        while sum(map(len, chunks)) < int(length[1]):
            chunks.append(self._socket.recv(262144))
        return b"".join(chunks)

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


def scrape_anew(exporter: Exporter) -> None:
    """One page over a connection of its own."""
    client = Client(exporter)
    client.scrape()
    client.close()


def scrapes() -> Iterator[Figure]:
    """Latency at the demo's size."""
    with running(DEMO) as exporter:
        count = len(exporter.page())
        kept = Client(exporter)
        yield timed(f"scrape of {count} series, kept-alive, unchanged", kept.scrape)
        yield timed(f"scrape of {count} series, new connection, unchanged", lambda: scrape_anew(exporter))
    if not HAS_KMSG:
        return
    with running(behind_ring=True) as exporter:
        fill(exporter, 8)  # about as many series as the demo has
        count, address = len(exporter.page()), live.new_address()
        kept = Client(exporter)

        def change() -> None:
            live.write(f"NVRM: Xid (PCI:{address}): 31, pid=1, name=x, changed state")
            time.sleep(0.012)

        yield timed(f"scrape of {count} series, kept-alive, changed before each", kept.scrape, change)
        yield timed(f"scrape of {count} series, new connection, changed before each", lambda: scrape_anew(exporter), change)


def timed(what: str, work: Callable[[], object], before: Callable[[], None] = lambda: None, rounds: int = 200) -> Figure:
    """Median and 99th percentile."""
    found = []
    for _ in range(rounds):
        before()
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return Figure(what, f"{percentiles(found)} ms", "≤ 1 / 5 ms")


def percentiles(seconds: list[float]) -> str:
    """p50 / p99 in milliseconds."""
    ordered = sorted(seconds)
    return f"{statistics.median(ordered) * 1e3:.2f} / {ordered[int(len(ordered) * 0.99) - 1] * 1e3:.2f}"


def fill(exporter: Exporter, buses: int) -> None:
    """Grow the page of the real host: seven Xids on each of so many GPUs."""
    base = live.new_address().split(":")[0]
    for bus in range(buses):
        for code in (31, 48, 63, 74, 79, 94, 119):
            live.write(f"NVRM: Xid (PCI:{base}:{bus:02x}:00): {code}, pid=1, name=x, filling the page")
    exporter.wait(lambda: value(exporter.page(), "nodehealth_gpu_xid_errors_total") >= buses * 7)


def latency() -> Iterator[Figure]:
    """From a write to the kernel log to the page, and the bare wake-up of poll() in the same run."""
    if not HAS_KMSG:
        yield Figure("kernel log to page", "left out", "needs root and /dev/kmsg")
        return
    wakeups = bare_wakeups(200)
    yield Figure("bare poll() wake-up on /dev/kmsg, p50 / p99 of 200", f"{percentiles(wakeups)} ms", "-")
    with running(behind_ring=True) as exporter:
        fill(exporter, BUSES)
        time.sleep(3.0)  # the first pass of every check
        count, client, address = len(exporter.page()), Client(exporter), live.new_address()
        pattern = re.compile(rb'errors_total\{pci_bus_id="[^"]*%s[^}]*\} (\d+)' % address.encode())
        found = []
        for number in range(1, 201):
            time.sleep(0.02)
            began = time.perf_counter()
            live.write(f"NVRM: Xid (PCI:{address}): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.")
            while True:
                match = pattern.search(client.scrape(compressed=False))
                if match and int(match[1]) == number:
                    break
                time.sleep(0.0003)  # a client that never rests takes the core that the exporter needs
            found.append(time.perf_counter() - began)
        goal = f"≤ 5 / 10 ms, p50 ≤ {statistics.median(wakeups) * 1e3 + 2:.2f} ms"
        yield Figure(f"kernel log to page of {count} series, p50 / p99 of 200 writes", f"{percentiles(found)} ms", goal)


def bare_wakeups(rounds: int) -> list[float]:
    """Seconds from a write to the return of another process's poll()."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    reader = multiprocessing.get_context("spawn").Process(target=report_wakeups, args=(theirs, rounds), daemon=True)
    reader.start()
    ours.recv()
    found = []
    for number in range(rounds):
        time.sleep(0.02)
        began = time.monotonic()
        live.write(f"bench: bare wake-up {number}")
        found.append(ours.recv() - began)
    reader.join()
    return found


def report_wakeups(pipe: Connection, rounds: int) -> None:
    """The reader's side."""
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    os.lseek(descriptor, 0, os.SEEK_END)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    pipe.send("ready")
    for number in range(rounds):
        woken = 0.0
        while not woken:
            poll.poll()
            now = time.monotonic()
            woken = now if b"bare wake-up %d\n" % number in os.read(descriptor, 32768) else 0.0
        pipe.send(woken)


if __name__ == "__main__":
    main()
