"""`nodehealth serve`: the web server first, then the state directory, then the engine until a signal ends it."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nodehealth.catalog import Catalog
from nodehealth.engine import Engine
from nodehealth.model import Hardware
from nodehealth.reporters.families import metrics
from nodehealth.reporters.http import Server, Site
from nodehealth.reporters.metrics import Page
from nodehealth.settings import Settings
from nodehealth.sources.host import Host
from nodehealth.store import Lock, Saved, Store, StoreError
from nodehealth.view import View
from nodehealth.wiring import Wiring, hardware_of

LOCK_SECONDS = 30.0
GC_ALLOCATIONS = 50_000
SWITCH_SECONDS = (
    0.0005  # how long a scrape's rendering may keep a waiting kernel record from being read; Python's own is 5 ms
)

log = logging.getLogger("nodehealth")


class ServeError(Exception):
    """The command cannot go on; the text says why and what would help."""


class Stopped(Exception):
    """A signal ended the wait."""


class _Run:
    """The parts that the web server and the signals need before the engine exists."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.stopped = False

    def age(self) -> float:
        return time.monotonic() - self.engine.heartbeat if self.engine else 0.0

    def stop(self, *_: object) -> None:
        self.stopped = True
        if self.engine:
            self.engine.stop()

    def reload(self, *_: object) -> None:
        if self.engine:
            self.engine.reload()


def serve(
    host: Host,
    settings: Settings,
    catalog: Catalog,
    *,
    load: Callable[[], tuple[Settings, Catalog]],
    address: tuple[str, int],
    directory: Path | None,
) -> None:
    """Serve until SIGTERM or SIGINT.  Raises ServeError."""
    run = _Run()
    for number, handler in ((signal.SIGTERM, run.stop), (signal.SIGINT, run.stop), (signal.SIGHUP, run.reload)):
        signal.signal(number, handler)
    site = Site(page_of(catalog), run.age)
    server = _listen(address, site)
    log.info("listening", extra={"url": server.url})
    _say_what_is_missing(host)
    try:
        lock, store, note = _open_state(directory, host, run)
    except Stopped:
        log.info("stopped")
        return
    wiring = Wiring(host, settings, catalog, store, store.load(catalog.reasons) if store else Saved(), load, note)
    run.engine = Engine(wiring, _publisher(site, catalog, wiring))
    if run.stopped:
        run.engine.stop()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()  # the catalog lives as long as the process: no collection needs to look at it again
    gc.set_threshold(GC_ALLOCATIONS)  # rendering allocates thousands of tuples, and none of them is in a cycle
    run.engine.run()
    server.shutdown()
    if lock:
        lock.release()
    log.info("stopped")


def page_of(catalog: Catalog) -> Page:
    """The metrics page of a catalog."""
    measures = [metric for planned in catalog.checks.values() for metric in planned.check.metrics]
    return Page(metrics(catalog.families.values(), dict.fromkeys(measures)))


def _publisher(site: Site, catalog: Catalog, wiring: Wiring) -> Callable[[View], None]:
    """Shows each View; after a reload the number tables of the page are those of the new configuration."""
    shown = [catalog]

    def publish(view: View) -> None:
        if wiring.catalog is not shown[0]:
            shown[0] = wiring.catalog
            site.metrics = page_of(wiring.catalog)
        site.publish(view)

    return publish


def _listen(address: tuple[str, int], site: Site) -> Server:
    try:
        server = Server(*address, site)
    except OSError as error:
        host, port = address
        raise ServeError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --web.listen-address"
        ) from error
    server.start()
    return server


def _say_what_is_missing(host: Host) -> None:
    if os.geteuid() != 0:
        log.info("not root: what only root may read is absent or down, each with its reason")
    if Hardware.NVIDIA_GPU not in hardware_of(host):
        log.info("no NVIDIA GPU on the PCI bus: GPU reasons stay off until a driver's own line proves one")


def _open_state(directory: Path | None, host: Host, run: _Run) -> tuple[Lock | None, Store | None, str]:
    """Lock and store, or why the state is not kept."""
    if directory is None:
        return None, None, "state is not kept: --state.path is empty"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = Lock(directory)
    except OSError as error:
        note = f"state is not kept: cannot write {directory}: {error.strerror}"
        log.warning("%s", note)
        return None, None, note
    _wait_for(lock, directory, run)
    try:
        store = Store(directory, host.machine)
    except StoreError as error:
        log.warning("state is not kept", extra={"why": str(error)})
        return lock, None, f"state is not kept: {error}"
    for note in store.notes:
        log.warning("%s", note)
    log.info("state is kept", extra={"directory": str(directory)})
    return lock, store, "; ".join(store.notes)


def _wait_for(lock: Lock, directory: Path, run: _Run) -> None:
    """A rolling update starts the new exporter before the old one is gone: wait for it, alive and answering 503."""
    deadline = time.monotonic() + LOCK_SECONDS
    while not lock.take():
        if run.stopped:
            raise Stopped
        if time.monotonic() > deadline:
            raise ServeError(f"{directory} is held by {lock.holder()}: one exporter for one --state.path")
        time.sleep(0.1)
