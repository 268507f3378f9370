"""SXid messages of the NVSwitch driver: every number, the line's own Fatal word, and its two detail lines as one fault.

The numbers are those of the fabric manager user guide (docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide).  One
fault prints the line with its meaning, then `Severity ...` and `Data {...}` lines with the same number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files

from nodehealth import pci
from nodehealth.model import (
    KERNEL_LOG,
    Action,
    ClearKind,
    Counts,
    Event,
    Example,
    Hardware,
    Join,
    Number,
    Override,
    Pattern,
    Reason,
    Record,
    Recovery,
    Rule,
    Severity,
)
from nodehealth.numbers import Family, NumberReader, believed, load_table, with_examples

SXID = rf"^nvidia-nvswitch\d{{1,4}}: SXid \((?:PCI:)?(?P<pci>{pci.ADDRESS})\): (?P<code>\d{{1,9}})\b"

THERMAL_END = {10005: "10004", 28002: "28001", 28004: "28003"}
_SPOKEN_WORD = re.compile(r",? *(?P<word>Fatal|Non-fatal|Nonfatal)\b(?:, Link (?P<link>\d+))?")
_DETAIL = re.compile(r",? *(?:Severity|Data)\b")
_UNITS = {
    10: "host interface or thermal", 11: "ingress port", 12: "egress port", 13: "fstate", 14: "transaction state", 15: "routing",
    16: "port", 17: "NVLink control ECC", 18: "NVLink IP top", 19: "transport layer", 20: "data or physical link",
    21: "AFS crossbar", 22: "MINION", 23: "crossbar", 24: "source tracking", 25: "link state machine", 26: "SOE",
    27: "optical cable or module", 28: "OSFP thermal", 29: "multicast", 30: "reduction",
}  # fmt: skip
"""The unit of the switch by the number's thousands, so that an unknown number still says where."""


def family(overrides: Mapping[int, Override]) -> Family:
    """The SXid family under a configuration."""
    return Family(
        name="sxid",
        stem="NvidiaSXID",
        device="An NVSwitch",
        needs=Hardware.NVSWITCH,
        plain={Severity.CRITICAL: Action.RESET_FABRIC, Severity.WARNING: Action.NONE, Severity.INFO: Action.NONE},
        unknown=(Severity.WARNING, Action.INVESTIGATE),
        table=load_table(files(__package__) / "data" / "sxid.csv"),
        overrides=overrides,
        remedies={
            Action.RESET_GPU: "Drain the GPUs behind the named link of this NVSwitch and reset them, or reboot the node.",
        },
    )


class SxidReader(NumberReader):
    """Turns matches into findings and recoveries."""

    def read(self, match: re.Match[str], _record: Record) -> Iterable[Event]:
        """The events of one `SXid` message."""
        address, code, rest = pci.normalise(match["pci"]), int(match["code"]), match.string[match.end() :]
        spoken = _SPOKEN_WORD.match(rest)
        said = None if spoken is None else Severity.CRITICAL if spoken["word"] == "Fatal" else Severity.WARNING
        graded, escalation = self._grade(code, believed(said, self._family.class_of(code)))
        link = f", link {spoken['link']}" if spoken and spoken["link"] else ""
        row = self._family.table.get(code)
        detail = f"NVSwitch error, {row.area if row else _UNITS.get(code // 1000, 'unknown unit')}{link}"
        yield self._reason(graded).found(
            address,
            str(code),
            join=Join(f"sxid/{code}/{address}", 1.0, head=not _DETAIL.match(rest)),
            escalation=escalation,
            number=Number("sxid", code, address, row.name or None if row else None, *graded, Counts.FAULT, detail),
            lasting=code not in THERMAL_END,
        )
        if code in THERMAL_END:
            yield Recovery(ClearKind.LINE, address, variant=THERMAL_END[code])


_EXAMPLES = tuple(
    Example(line, address, "recorded; GPUd and NVSentinel tests")
    for address, line in (
        (
            "0000:05:00.0",
            "[6781753.408138] nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 62 LTSSM Fault Up",
        ),
        (
            "0000:c3:00.0",
            "[ 1108.858286] nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 24007, Fatal, Link 28 sourcetrack timeout error (First)",
        ),
        (
            "0000:06:00.0",
            "[73309.599396] nvidia-nvswitch0: SXid (PCI:0000:06:00.0): 20009, Non-fatal, Link 04 RX Short Error Rate",
        ),
        (
            "0000:c3:00.0",
            "[38889.018130] nvidia-nvswitch0: SXid (PCI:0000:c3:00.0): 12033, Severity 1 Engine instance 00 Sub-engine instance 00",
        ),
        (
            "0000:05:00.0",
            "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error",
        ),
        ("0004:00:00.0", "nvidia-nvswitch0: SXid (PCI:0004:00:00.0): 26006, SOE HALT data[0] = 0x               0"),
        ("0000:05:00.0", "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 99999, Some error"),
    )
) + tuple(
    Example(f"nvidia-nvswitch1: SXid (PCI:0000:0a:00.0): {text}", "0000:0a:00.0", "composed from the fabric manager guide")
    for text in (
        "10005, Non-fatal, Host_thermal_event_end",
        "10005, thermal event end",
        "28002, Fatal, module over temperature",
        "27001, cable",
        "19036, Fatal, receive header overflow",
    )
)
_LOOKALIKES = (
    "nvidia-nvswitch2: open (major=510)",
    "nvidia-nvswitch0: SXid handling enabled",
    "nv-fabricmanager[812]: nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 62",
)
PATTERN = Pattern((KERNEL_LOG,), SXID, _EXAMPLES, _LOOKALIKES)


def build(
    overrides: Mapping[int, Override], grade: Callable[[Reason], Reason]
) -> tuple[tuple[Reason, ...], tuple[Rule, ...]]:
    """The reasons and rules of the SXids under a configuration."""
    sxids = family(overrides)
    words = (Severity.CRITICAL, Severity.WARNING)
    spoken = sxids.reasons(lambda code: [believed(word, sxids.class_of(code)) for word in words], PATTERN)
    bare = {reason.name: grade(reason) for reason in spoken}
    reasons = with_examples(bare, PATTERN, SxidReader(sxids, bare).read)
    return tuple(reasons.values()), (Rule("SXid", (KERNEL_LOG,), SXID, SxidReader(sxids, reasons).read),)
