"""What an engine works with, and which followers the catalog's streams need.  Nobody wires a stream by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nodehealth.catalog import Catalog
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
    """What the engine works with; `load` reads the configuration again (raises SettingsError)."""

    host: Host
    settings: Settings
    catalog: Catalog
    store: Store | None = None
    saved: Saved = field(default_factory=Saved)
    load: Callable[[], tuple[Settings, Catalog]] | None = None
    note: str = ""


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


def plan(wiring: Wiring, positions: Mapping[str, Position]) -> dict[str, tuple[Follower, frozenset[str]]]:
    """The followers that the catalog's streams need, by name, and which streams each one serves."""
    host, disabled = wiring.host, wiring.settings.disabled_sources
    streams = set(wiring.catalog.streams)
    journal_streams = {stream for stream in streams if stream.startswith("journal:")}
    found: dict[str, tuple[Follower, frozenset[str]]] = {}
    if KERNEL_LOG in streams and KERNEL_LOG not in disabled:
        kmsg = KmsgFollower(host)
        if kmsg.probe() and JournalFollower(host, ()).files() and JOURNAL not in disabled:
            journal_streams.add(KERNEL_LOG)
        found[KERNEL_LOG] = (kmsg, frozenset({KERNEL_LOG}))
    if journal_streams and JOURNAL not in disabled:
        follower = JournalFollower(host, journal_streams, kernel=positions.get(KERNEL_LOG))
        found[JOURNAL] = (follower, frozenset(journal_streams))
    for stream in streams:
        if stream.startswith("file:") and stream not in disabled:
            found[stream] = (FileFollower(host, stream.removeprefix("file:")), frozenset({stream}))
    return found
