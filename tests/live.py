"""The real kernel log: write to it, know its end, start an exporter behind it.

A record must end in a newline, or readers do not see it before the next one.  With `printk_devkmsg=ratelimit` only ten
writes in five seconds pass for each open file, so the device is opened anew for each line.  The ring is shared and keeps
old lines, so tests start behind its end and use addresses that are not in it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from nodehealth.sources.follower import Batch, Stop
from nodehealth.sources.host import Host
from nodehealth.sources.kmsg import KmsgFollower
from nodehealth.store import Store, Transaction


def write(text: str) -> None:
    descriptor = os.open("/dev/kmsg", os.O_WRONLY)
    try:
        os.write(descriptor, f"{text}\n".encode())
    finally:
        os.close(descriptor)


def records(position: dict[str, object] | None = None) -> list[Batch]:
    """Everything in the ring behind a position."""
    found: list[Batch] = []
    KmsgFollower(Host()).run(position, found.append, Stop(once=True))
    return found


def end_of_ring() -> dict[str, object]:
    """The position behind the newest record."""
    return dict(next(batch.position for batch in reversed(records()) if batch.position))


def start_behind_the_ring(state: Path) -> dict[str, object]:
    """Prepare a state directory so that an exporter starts behind everything that is in the ring now."""
    state.mkdir(parents=True)
    position = end_of_ring()
    host = Host()
    store = Store(state, host.machine)
    assert store.commit(Transaction(positions={"kmsg": position}, meta={"boot_id": host.boot_id, "begun": "1"}), 5.0)
    store.close()
    return position


def new_address() -> str:
    """A PCI address, in the driver's form, that is in no earlier line."""
    return f"{secrets.randbelow(0xEFFF) + 0x1000:04x}:{secrets.randbelow(256):02x}:1f"
