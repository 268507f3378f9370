"""On the real /dev/kmsg: what the exporter is for."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

import live
from conftest import needs_kmsg
from exporter import Exporter, exporter, value
from nodehealth.pci import normalise

pytestmark = [needs_kmsg, pytest.mark.live]


def xid(address: str, code: int = 79) -> str:
    return f"NVRM: Xid (PCI:{address}): {code}, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


def counted(running: Exporter, address: str, code: int = 79) -> float:
    return running.value("nodehealth_gpu_xid_errors_total", pci_bus_id=normalise(address), xid=str(code))


def test_a_lost_gpu_is_on_the_page_and_marked_as_injected(tmp_path: Path) -> None:
    live.start_behind_the_ring(tmp_path / "state")
    address = live.new_address()
    with exporter(tmp_path / "state") as running:
        live.write(xid(address))
        running.wait(lambda: counted(running, address) == 1)
        page = running.page()
        assert page["nodehealth_subsystem_healthy", frozenset({("subsystem", "accelerated_hardware")})] == 0
        assert value(page, "nodehealth_problem_object_active", object=normalise(address), severity="critical") == 1
        assert value(page, "nodehealth_problem_injected", object=normalise(address)) == 1
        assert "injected=true" in running.log
        assert "injected" in running.get("/")[1].decode()


def test_kill_under_load_neither_loses_nor_doubles(tmp_path: Path) -> None:
    live.start_behind_the_ring(tmp_path / "state")
    chance, address, written = random.Random(7), live.new_address(), 0  # noqa: S311 - a repeatable test
    for _ in range(10):
        running = Exporter(tmp_path / "state")
        until = time.monotonic() + chance.uniform(0.2, 0.7)
        while time.monotonic() < until:
            live.write(xid(address, 31))
            written += 1
            time.sleep(0.002)
        running.kill()
    with exporter(tmp_path / "state") as running:
        assert counted(running, address, 31) == written
        assert running.value("nodehealth_source_lost_records_total", source="kmsg") == 0


def test_100_000_records_as_fast_as_possible_are_read_or_counted_as_lost(tmp_path: Path) -> None:
    first = live.start_behind_the_ring(tmp_path / "state")
    address = live.new_address()
    with exporter(tmp_path / "state") as running:
        for number in range(100_000):
            live.write(xid(address, 31) if number % 100 == 0 else f"test: ordinary line {number}")
        live.write(xid(address, 79))
        running.wait(lambda: counted(running, address, 79) == 1)
        last = live.end_of_ring()["sequence"]
        page = running.page()
        read = value(page, "nodehealth_source_records_total", source="kmsg")
        lost = value(page, "nodehealth_source_lost_records_total", source="kmsg")
        assert read + lost == int(str(last)) - int(str(first["sequence"]))
        assert 1000 - lost <= counted(running, address, 31) <= 1000


def test_a_ring_that_overflowed_while_stopped_counts_as_lost(tmp_path: Path) -> None:
    first = live.start_behind_the_ring(tmp_path / "state")
    address = live.new_address()
    live.write(xid(address))
    with exporter(tmp_path / "state") as running:
        assert counted(running, address) == 1
    for number in range(40_000):
        live.write(f"test: a line of eighty characters that fills the ring while nobody reads it {number:06d}")
    oldest = live.records()[0].records[0].sequence
    assert oldest > int(str(first["sequence"])) + 1, "the ring overflowed"
    with exporter(tmp_path / "state") as running:
        page = running.page()
        lost = value(page, "nodehealth_source_lost_records_total", source="kmsg")
        assert lost == oldest - int(str(first["sequence"])) - 2
        assert value(page, "nodehealth_problem_object_active", object=normalise(address), severity="critical") == 1
