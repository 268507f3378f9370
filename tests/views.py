"""Views for tests of the reporters, without an engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nodehealth import catalog as catalogs
from nodehealth.model import Hardware
from nodehealth.sources.host import Gpu
from nodehealth.view import Count, Happening, Occurrence, Problem, SelfView, SourceState, SourceView, View

CATALOG = catalogs.load()
ADDRESS = "0000:3b:00.0"
LINE = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
NOW = 1_700_000_000.0
SELF = SelfView("1.2.3", NOW, persistent=True, ready=True)


def problem(reason: str = "NvidiaXIDErrorRebootNode", object_: str = ADDRESS, **changes: Any) -> Problem:
    made = Problem(
        reason=CATALOG.reasons[reason],
        object=object_,
        variant="79",
        since=NOW,
        last_seen=NOW,
        source="kmsg",
        text=LINE,
        boot_id="boot",
        sequence=7,
        injected=False,
    )
    return replace(made, **changes)


def occurrence(**changes: Any) -> Occurrence:
    made = Occurrence(
        time=NOW,
        happening=Happening.FOUND,
        reason="NvidiaXIDErrorRebootNode",
        severity="critical",
        action="reboot_node",
        object=ADDRESS,
        variant="79",
        injected=False,
        source="kmsg",
        boot_id="boot",
        sequence=7,
        text=LINE,
    )
    return replace(made, **changes)


def view(**changes: Any) -> View:
    """A node with one GPU and an observed kernel log on which nothing is wrong."""
    made = View(
        reasons=CATALOG.reasons,
        hardware=frozenset({Hardware.NVIDIA_GPU}),
        gpus=(Gpu(0, ADDRESS, "GPU-1234", "NVIDIA H100"),),
        self_=SELF,
        sources=(SourceView("kmsg", SourceState.UP, serves=frozenset({"kmsg"}), records=12, matched=1),),
    )
    return replace(made, **changes)


def sick(**changes: Any) -> View:
    """The same node after an Xid 79."""
    return view(
        problems=(problem(),),
        counts={"NvidiaXIDErrorRebootNode": Count(3, NOW)},
        numbers={("xid", ADDRESS, "79"): Count(4, NOW)},
        history=(occurrence(),),
        **changes,
    )
