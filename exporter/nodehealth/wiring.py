"""What an engine works with, and which followers the catalog's streams need.  Nobody wires a stream by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nodehealth.catalog import Catalog
from nodehealth.inspector import Ask
from nodehealth.model import KERNEL_LOG, Hardware
from nodehealth.settings import Settings
from nodehealth.sources.follower import Follower, Position
from nodehealth.sources.host import Host
from nodehealth.sources.journal import JOURNAL, JournalFollower
from nodehealth.sources.kmsg import KmsgFollower
from nodehealth.sources.tail import FileFollower
from nodehealth.store import Saved, Store


@dataclass(slots=True)
class Wiring:
    """What the engine works with.

    `load` reads the configuration again (raises SettingsError); `ask` stands in for the worker of the checks.
    """

    host: Host
    settings: Settings
    catalog: Catalog
    store: Store | None = None
    saved: Saved = field(default_factory=Saved)
    load: Callable[[], tuple[Settings, Catalog]] | None = None
    note: str = ""
    ask: Ask | None = None


def hardware_of(host: Host) -> frozenset[Hardware]:
    """What the PCI bus proves to be there."""
    found: set[Hardware] = set()
    for device in host.pci_devices():
        kinds = {
            Hardware.NVIDIA_GPU: device.is_gpu,
            Hardware.NVSWITCH: device.is_nvswitch,
            Hardware.NEURON: device.is_neuron,
            Hardware.EFA: device.is_efa,
            Hardware.MLX5: device.is_mellanox,
        }
        found |= {kind for kind, present in kinds.items() if present}
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Plan:
    """The followers by name with the streams that each one serves, and why a source is not read although it could be."""

    followers: Mapping[str, tuple[Follower, frozenset[str]]]
    replaced: Mapping[str, str]


def plan(wiring: Wiring, positions: Mapping[str, Position]) -> Plan:
    """What the catalog's streams need on this host.

    The kernel's lines come from /dev/kmsg, or from the journal where that cannot be opened; never from both.
    """
    host = wiring.host
    streams = {stream for stream in wiring.catalog.streams if stream not in wiring.settings.disabled_sources}
    journal_streams = {stream for stream in streams if stream.startswith("journal:")}
    if JOURNAL in wiring.settings.disabled_sources:
        journal_streams = set()
    found: dict[str, tuple[Follower, frozenset[str]]] = {}
    replaced: dict[str, str] = {}
    if KERNEL_LOG in streams:
        kmsg = KmsgFollower(host)
        why = kmsg.probe()
        if why and journal_streams and JournalFollower(host, ()).files():
            journal_streams.add(KERNEL_LOG)
            replaced[KERNEL_LOG] = f"{why}; the kernel's lines come from the journal"
        else:
            found[KERNEL_LOG] = (kmsg, frozenset({KERNEL_LOG}))
    if journal_streams:
        follower = JournalFollower(host, journal_streams, kernel=positions.get(KERNEL_LOG))
        found[JOURNAL] = (follower, frozenset(journal_streams))
    for stream in streams:
        if stream.startswith("file:"):
            found[stream] = (FileFollower(host, stream.removeprefix("file:")), frozenset({stream}))
    return Plan(found, replaced)
