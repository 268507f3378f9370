"""Xid messages of the NVIDIA driver: every number, every wording, the NVLink5 sub-codes and the recovery action.

The message is printed by nvErrorLog_va (open-gpu-kernel-modules, src/nvidia/src/kernel/diagnostics/nvlog.c); the
numbers are NVIDIA's catalog (docs.nvidia.com/deploy/xid-errors).  Reading only: what holds now is `state`'s matter.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from nodehealth import pci
from nodehealth.model import (
    KERNEL_LOG,
    Action,
    ClearKind,
    Counts,
    Event,
    Example,
    Finding,
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
    journal,
    kernel_line,
)
from nodehealth.numbers import Class, Family, NumberReader, believed, load_table, with_examples

_DATA = files(__package__) / "data"

LOST = 79  # GPU has fallen off the bus
RECOVERY_ACTION = 154
SM_EXCEPTION = 13  # prints one line for each streaming multiprocessor
RECOVERS = {162: "163"}  # power smoothing re-engaged ends power smoothing disengaged

XID = rf"^NVRM: Xid \((?:PCI:)?(?P<pci>{pci.ADDRESS})(?: [^)\n]{{1,64}})?\): (?P<code>\d{{1,9}})\b"
LOST_WITHOUT_NUMBER = (
    rf"^NVRM: (?:GPU (?:at )?(?:PCI:)?(?P<pci>{pci.ADDRESS})(?:: GPU)? has fallen off the bus"
    rf"|The NVIDIA GPU (?:PCI:)?(?P<multi>{pci.ADDRESS})\b[\s\S]{{1,160}}fallen off the bus and is not responding)"
)
DRIVER_LOAD = r"^NVRM: loading NVIDIA UNIX "
RESET_BY_NVSENTINEL = r"^GPU reset executed: (?P<uuid>GPU-[0-9a-f-]{36})\b"

_NVLINK5 = re.compile(
    r", (?P<unit>[A-Z][A-Z0-9_/]{1,63}) +(?P<word>Fatal|Nonfatal|Non-fatal|NonFatal) +XC\d+ +i\d+ +Link +(?P<link>-?\d+)"
    r"(?: +\((?P<intrinfo>0x[0-9a-fA-F]{1,8})(?: +(?P<status>0x[0-9a-fA-F]{1,8}))?)?"
)
_NVLINK5_CODES = range(144, 151)
_CHANGED_TO = re.compile(
    r"recovery action changed from [^\n]{1,64} to (?P<value>0x[0-9a-fA-F]{1,8}) ?\((?P<words>[^)\n]{1,64})\)"
)

RECOVERY_ACTIONS: Mapping[int, Class] = {
    1: (Severity.CRITICAL, Action.RESET_GPU),
    2: (Severity.CRITICAL, Action.REBOOT_NODE),
    3: (Severity.WARNING, Action.RESTART_APP),  # drain the peer-to-peer traffic
    4: (Severity.CRITICAL, Action.RESET_GPU),  # drain and reset
}
"""nvmlDeviceGpuRecoveryAction_t of nvml.h; 0 is None and ends what came before."""

_NVLINK5_CLASSES: tuple[Class, ...] = (
    (Severity.CRITICAL, Action.RESET_GPU),
    (Severity.CRITICAL, Action.INVESTIGATE),
    (Severity.WARNING, Action.INVESTIGATE),
    (Severity.WARNING, Action.NONE),
)


@dataclass(frozen=True, slots=True)
class NvlinkError:
    """The decoded part of an Xid 144-150: which unit, which link (-1: none), the line's word, the error's sub-code."""

    unit: str
    link: int
    severity: Severity
    subcode: int | None
    status: int | None


@dataclass(frozen=True, slots=True)
class NvlinkRow:
    """One row of NVIDIA's NVLink5 table: what to do for a sub-code of a unit."""

    units: frozenset[str]
    subcode: int
    status: int
    severity: Severity
    action: Action


def decode_nvlink5(rest: str) -> NvlinkError | None:
    """What follows the number of an Xid 144-150; None where the driver printed something else.

    The sub-code is bits 20-25 of the first word (intrinfo), the error status is the second word.
    """
    match = _NVLINK5.search(rest)
    if match is None:
        return None
    intrinfo, status = match["intrinfo"], match["status"]
    return NvlinkError(
        unit=match["unit"],
        link=int(match["link"]),
        severity=Severity.CRITICAL if match["word"] == "Fatal" else Severity.WARNING,
        subcode=int(intrinfo, 16) >> 20 & 0x3F if intrinfo else None,
        status=int(status, 16) if status else None,
    )


@cache
def nvlink5_table() -> Mapping[int, tuple[NvlinkRow, ...]]:
    """NVIDIA's sub-code table by Xid."""
    found: dict[int, list[NvlinkRow]] = {}
    with (_DATA / "nvlink5.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            units = frozenset(row["unit"].split("/"))
            found.setdefault(int(row["xid"]), []).append(
                NvlinkRow(
                    units,
                    int(row["subcode"]),
                    int(row["error_status"], 16),
                    Severity(row["severity"]),
                    Action(row["action"]),
                )
            )
    return {code: tuple(rows) for code, rows in found.items()}


def classify_nvlink5(code: int, error: NvlinkError) -> Class:
    """Severity by the line's word; action by the table's row, by the word alone where no row fits."""
    rows = [
        row
        for row in nvlink5_table().get(code, ())
        if row.units & set(error.unit.split("/"))
        and row.subcode == error.subcode
        and _status_fits(row.status, error.status)
    ]
    same = [row for row in rows if row.severity is error.severity]
    if same:
        action = max((row.action for row in same), key=lambda each: each is Action.RESET_GPU)
        return believed(error.severity, (error.severity, action))
    if error.severity is Severity.CRITICAL:
        return Severity.CRITICAL, Action.RESET_GPU
    return Severity.WARNING, Action.INVESTIGATE if rows else Action.NONE


def _status_fits(row: int, status: int | None) -> bool:
    """Status words are bit masks with single-bit rows, or small enumerations."""
    return status is not None and (row == status or bool(row & status))


def recovery_action(rest: str) -> Class | None:
    """The class of the action that an Xid 154 says is needed now; None where the line does not say.

    (INFO, NONE) means that no recovery is needed any more.
    """
    match = _CHANGED_TO.search(rest)
    if match is None:
        return None
    value = int(match["value"], 16)
    if value == 0:
        return Severity.INFO, Action.NONE
    return RECOVERY_ACTIONS.get(value, (Severity.WARNING, Action.INVESTIGATE))


def spoken_classes(code: int) -> tuple[Class, ...]:
    """The classes that a line of this number can name itself."""
    if code == RECOVERY_ACTION:
        return (*RECOVERY_ACTIONS.values(), (Severity.WARNING, Action.INVESTIGATE))
    return _NVLINK5_CLASSES if code in _NVLINK5_CODES else ()


def family(overrides: Mapping[int, Override]) -> Family:
    """The Xid family under a configuration."""
    return Family(
        name="xid",
        stem="NvidiaXID",
        device="A GPU",
        needs=Hardware.NVIDIA_GPU,
        plain={
            Severity.CRITICAL: Action.RESET_GPU,
            Severity.WARNING: Action.INVESTIGATE,
            Severity.INFO: Action.NONE,
        },
        unknown=(Severity.WARNING, Action.INVESTIGATE),
        table=load_table(_DATA / "xid.csv"),
        overrides=overrides,
    )


class XidReader(NumberReader):
    """Turns matches into findings and recoveries."""

    def read(self, match: re.Match[str], _record: Record) -> Iterable[Event]:
        """The events of one `NVRM: Xid` message."""
        address, code, rest = pci.normalise(match["pci"]), int(match["code"]), match.string[match.end() :]
        built_in, detail = self._spoken(code, rest)
        if code == RECOVERY_ACTION and built_in == (Severity.INFO, Action.NONE):
            number = self._number(code, address, built_in, Counts.MESSAGE, "no recovery is needed any more")
            yield Recovery(ClearKind.GPU_RESET, address, number=number)
            return
        yield self._found(code, address, built_in, Counts.MESSAGE, detail)
        if code in RECOVERS:
            yield Recovery(ClearKind.LINE, address, variant=RECOVERS[code])

    def read_lost(self, match: re.Match[str], _record: Record) -> Iterable[Event]:
        """A GPU lost without an Xid: the same fault as Xid 79, which the counter of Xids does not count."""
        address = pci.normalise(match["pci"] or match["multi"])
        yield self._found(LOST, address, self._family.class_of(LOST), Counts.NEVER, "GPU lost without an Xid")

    def _spoken(self, code: int, rest: str) -> tuple[Class, str]:
        if code in _NVLINK5_CODES and (error := decode_nvlink5(rest)):
            subcode = "" if error.subcode is None else f", sub-code {error.subcode}"
            return classify_nvlink5(code, error), f"NVLink error in unit {error.unit} on link {error.link}{subcode}"
        if code == RECOVERY_ACTION and (spoken := recovery_action(rest)):
            return spoken, "The driver itself says that this is needed"
        return self._family.class_of(code), ""

    def _found(self, code: int, address: str, built_in: Class, counts: Counts, detail: str) -> Finding:
        graded, escalation = self._grade(code, built_in)
        row = self._family.table.get(code)
        passing = code in RECOVERS or (row is not None and row.application)
        regraded = escalation is None and graded[0] is not built_in[0]
        return self._reason(graded).found(
            address,
            str(code),
            join=_join(code, address, counts),
            escalation=escalation,
            number=self._number(code, address, graded, counts, detail),
            latest=code == RECOVERY_ACTION,
            lasting=not passing or regraded,
        )

    def _number(self, code: int, address: str, graded: Class, counts: Counts, detail: str) -> Number:
        row = self._family.table.get(code)
        return Number(
            "xid", code, address, row.name if row else None, *graded, counts, detail or (row.description if row else "")
        )


def _join(code: int, address: str, counts: Counts) -> Join | None:
    if code == SM_EXCEPTION:
        return Join(f"xid/{code}/{address}", 1.0)
    if code == LOST:
        return Join(f"xid/{code}/{address}", 10.0, head=counts is Counts.MESSAGE)
    return None


def _read_driver_load(_match: re.Match[str], _record: Record) -> Iterator[Event]:
    yield Recovery(ClearKind.GPU_RESET)


def _read_reset(match: re.Match[str], _record: Record) -> Iterator[Event]:
    yield Recovery(ClearKind.GPU_RESET, match["uuid"])


_NVLINK = "0x00000000 0x00000000 0x00000000 0x00000000"
_EXAMPLES = tuple(
    Example(line, address, "recorded; GPUd, NVSentinel and DCGM tests")
    for address, line in (
        ("0000:3b:00.0", "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."),
        (
            "0000:9b:00.0",
            "NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout after 6s of waiting for RPC response from GPU4 GSP! Expected function 10 (FREE) (0xa55a0210 0x0).",
        ),
        (
            "0000:d8:00.0",
            "[449410.332316] NVRM: Xid (PCI:0000:D8:00): 74, pid='<unknown>', name=<unknown>, NVLink: fatal error detected on link 14(0x100000, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)",
        ),
        ("0000:03:00.0", "NVRM: Xid (0000:03:00): 14, Channel 00000001"),
        (
            "0000:04:00.0",
            "NVRM: Xid (PCI:0000:04:00): 63, Row remapping event: Rows 0x1a and 0x2b have been remapped on GPU 00000000:04:00.0",
        ),
        ("0000:05:00.0", "NVRM: Xid (PCI:0000:05:00): 94, Contained ECC error"),
        (
            "0000:dc:00.0",
            "[  +0.000012] NVRM: Xid (PCI:0000:dc:00): 45, pid=18, name=python3, Ch 00000001 caused by previous Xid 149",
        ),
        (
            "0000:3b:00.0",
            "[ 812.567890 <    0.000123>] NVRM: Xid (PCI:0000:3b:00 GPU-I:05): 95, pid=1234, name=python3, Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No",
        ),
        (
            "000d:00:00.0",
            "[Fri Oct 14 14:56:49 2022] NVRM: Xid (PCI:000d:00:00): 31, pid=3234, Graphics SM Warp Exception on (GPC 2, TPC 2, SM 1): Out Of Range Address",
        ),
        ("0000:66:00.0", "NVRM: Xid (PCI:0000:66:00): 999, pid=1234, name=test"),
        (
            "0018:01:00.0",
            f"NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 09 (0x004525c6 {_NVLINK} 0x00000000)",
        ),
        (
            "0009:01:00.0",
            "[171167.621162] NVRM: Xid (PCI:0009:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)",
        ),
    )
) + tuple(
    Example(
        f"NVRM: Xid (PCI:0000:3b:00): {code}, pid='<unknown>', name=<unknown>, {text}",
        "0000:3b:00.0",
        "composed from NVIDIA's catalog",
    )
    for code, text in (
        (78, "vGPU start error"),
        (163, "PSHC disengaged"),
        (49, "silent running level"),
        (154, "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"),
    )
)
_LOOKALIKES = (
    "NVRM: Xid (invalid): some error",
    "NVRM: Xid : 32, pid=2280636",
    "NVRM: Xid error: xyz, invalid data",
    "NVRM: GPU at PCI:0000:66:00: GPU-12345678-1234-5678-9abc-def012345678",
    "kubelet[1422]: NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.",
    'myapp: last driver message was "NVRM: Xid (PCI:0000:3b:00): 79"',
)
PATTERN = Pattern((KERNEL_LOG,), XID, _EXAMPLES, _LOOKALIKES)

CONTEXT = (
    kernel_line(
        r"^NVRM: (?:\(PCI ID: [0-9a-f:]{9}\) installed in this system has|fallen off the bus and is not responding to commands)",
        Example("NVRM: (PCI ID: 10de:26b5) installed in this system has"),
        Example("NVRM: fallen off the bus and is not responding to commands."),
    ),
)


def build(
    overrides: Mapping[int, Override], grade: Callable[[Reason], Reason]
) -> tuple[tuple[Reason, ...], tuple[Rule, ...]]:
    """The reasons and rules of the Xids under a configuration."""
    xids = family(overrides)
    bare = {reason.name: grade(reason) for reason in xids.reasons(spoken_classes, PATTERN)}
    reasons = with_examples(bare, PATTERN, XidReader(xids, bare).read)
    reader = XidReader(xids, reasons)
    rules = (
        Rule("Xid", (KERNEL_LOG,), XID, reader.read),
        Rule("GPU lost without an Xid", (KERNEL_LOG,), LOST_WITHOUT_NUMBER, reader.read_lost),
        Rule("NVIDIA driver loaded", (KERNEL_LOG,), DRIVER_LOAD, _read_driver_load),
        Rule("GPU reset by NVSentinel", (journal("nvsentinel-gpu-reset"),), RESET_BY_NVSENTINEL, _read_reset),
    )
    return tuple(reasons.values()), rules
