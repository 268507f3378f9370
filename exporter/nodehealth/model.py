"""The words that every part of nodehealth speaks.

Three nouns carry the design: a *Reason* is one row of the catalog, a *Finding* is a Reason on an object with its evidence,
and a *Recovery* ends findings.  This module knows nothing of files, threads, metrics or disks; it imports the standard
library only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum


class Subsystem(StrEnum):
    """What part of the node can be trusted or not; the value is the metric label."""

    KERNEL = "kernel"
    NETWORKING = "networking"
    STORAGE = "storage"
    CONTAINER_RUNTIME = "container_runtime"
    ACCELERATED_HARDWARE = "accelerated_hardware"


class Severity(StrEnum):
    """`critical` makes a subsystem unhealthy, `warning` degraded, `info` neither."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class Action(StrEnum):
    """What a person or a repair controller should do about it."""

    NONE = "none"
    RESTART_APP = "restart_app"
    RESET_GPU = "reset_gpu"
    REBOOT_NODE = "reboot_node"
    RESET_FABRIC = "reset_fabric"
    REPLACE_NODE = "replace_node"
    CHECK_CONFIG = "check_config"
    INVESTIGATE = "investigate"


class Health(StrEnum):
    """The state of a subsystem; exactly one holds."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Hardware(StrEnum):
    """What a reason needs to be possible at all on a node."""

    NVIDIA_GPU = "nvidia_gpu"
    NVSWITCH = "nvswitch"
    NEURON = "neuron"
    EFA = "efa"
    MLX5 = "mlx5"


class ClearKind(StrEnum):
    """How a finding ends."""

    CHECK = "check"  # the next pass of its check says that it is gone
    LINE = "line"  # a recovery line in the same log
    GPU_RESET = "gpu_reset"  # Xid 154 to None, NVML, or the driver's load line
    REBOOT = "reboot"  # a new boot id
    QUIET = "quiet"  # a time without a new occurrence
    OPERATOR = "operator"  # `nodehealth clear`, which always works


@dataclass(frozen=True, slots=True)
class Clear:
    """One way in which a finding ends; `seconds` is the quiet time and 0 for every other kind."""

    kind: ClearKind
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.kind}:{self.seconds:g}s" if self.kind is ClearKind.QUIET else str(self.kind)


CHECK = Clear(ClearKind.CHECK)
LINE = Clear(ClearKind.LINE)
GPU_RESET = Clear(ClearKind.GPU_RESET)
REBOOT = Clear(ClearKind.REBOOT)
OPERATOR = Clear(ClearKind.OPERATOR)


def quiet(*, minutes: float = 0, hours: float = 0) -> Clear:
    """Ends after this long without a new occurrence."""
    return Clear(ClearKind.QUIET, minutes * 60 + hours * 3600)


KERNEL_LOG = "kmsg"


def journal(name: str) -> str:
    """The source of one unit's (`kubelet.service`) or identifier's (`systemd`) journal entries."""
    return f"journal:{name}"


def log_file(path: str) -> str:
    """The source of one log file, by its absolute path on the host."""
    return f"file:{path}"


@dataclass(frozen=True, slots=True)
class Example:
    """A recorded line, the object that a reason must read from it, and where the line was seen."""

    line: str
    object: str = ""
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Pattern:
    """The shape of a log line together with its proof.

    `regex` is searched in the text without its wrapper (time stamps, host name, `kernel:`), so `^` is the start of what
    the driver printed.  A named group `object` says which device the line is about.  It must contain a literal of four
    characters (the prefilter derives it) and no nested or unbounded adjacent repeats.
    """

    sources: tuple[str, ...]
    regex: str
    examples: tuple[Example, ...]
    lookalikes: tuple[str, ...] = ()


def kernel_line(regex: str, *examples: Example, lookalikes: tuple[str, ...] = ()) -> Pattern:
    """A pattern of the kernel log."""
    return Pattern((KERNEL_LOG,), regex, examples, lookalikes)


@dataclass(frozen=True, slots=True)
class Record:
    """One line of one source, parsed but not judged.

    `time` is when it happened (Unix seconds), `clock` the same on a clock that never steps (seconds, for windows).
    `streams` are the names under which patterns may ask for it.  `user` marks what user space wrote to the kernel log.
    `live` is false for what was there before the exporter looked.  `device` is the kernel's `DEVICE=` address.
    """

    source: str
    streams: tuple[str, ...]
    text: str
    time: float
    clock: float
    boot_id: str = ""
    sequence: int = -1
    priority: int = -1
    user: bool = False
    live: bool = True
    device: str = ""


@dataclass(frozen=True, slots=True)
class Join:
    """Says that several lines are one fault: those with the same key within `seconds` of the one before.

    A *head* (the line that names the fault) starts a new fault once the running one has its head; any other line joins.
    """

    key: str
    seconds: float
    head: bool = False


@dataclass(frozen=True, slots=True)
class Repetition:
    """`count` occurrences within `seconds` on one object."""

    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Override:
    """What the configuration says of one Xid or SXid; None keeps the built-in value.

    With `repetition` the number has this class only from that many occurrences on one GPU within that time.
    """

    severity: Severity | None = None
    action: Action | None = None
    repetition: Repetition | None = None


@dataclass(frozen=True, slots=True)
class Escalation:
    """The stronger reason that a finding becomes when it repeats."""

    repetition: Repetition
    reason: Reason


class Counts(StrEnum):
    """What a driver message adds to the counter of its number."""

    MESSAGE = "message"  # each message counts (Xid)
    FAULT = "fault"  # the lines of one fault count once (SXid)
    NEVER = "never"  # the message carries no number of its own


@dataclass(frozen=True, slots=True)
class Number:
    """An Xid or SXid as one driver message carries it.

    `family` is `xid` or `sxid`; `name` is None where NVIDIA's catalog does not know the number; severity and action are
    those of this message, which may differ from the catalog row where the line says so itself.
    """

    family: str
    code: int
    pci_bus_id: str
    name: str | None
    severity: Severity
    action: Action
    counts: Counts = Counts.MESSAGE
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A Reason on an object.  Only `Reason.found` makes one.

    `variant` tells apart faults of the same reason and object that end separately (the Xid's number).
    `latest` makes the finding replace every other of the same object and variant (a state that the driver reports).
    `lasting` is false for what happened but does not hold (an application's fault): counted and listed, never active.
    `detail` is what a check saw, for people.
    """

    reason: Reason
    object: str = ""
    variant: str = ""
    join: Join | None = None
    escalation: Escalation | None = None
    number: Number | None = None
    latest: bool = False
    lasting: bool = True
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Recovery:
    """Ends earlier findings that name this kind of clear; None stands for every reason, object or variant."""

    kind: ClearKind
    object: str | None = None
    reason: str | None = None
    variant: str | None = None
    number: Number | None = None


Event = Finding | Recovery


@dataclass(frozen=True, slots=True)
class Reason:
    """One row of the catalog: what can be wrong, how it is recognised, what to do, how it ends, and its proof.

    `name` is PascalCase, the EKS Node Monitoring Agent's name where that agent has the reason.  `object_kind` is a word
    for people ("GPU", "block device"), empty where the reason is about the node.  `joins` is the time in seconds within
    which further lines on the same object are the same fault.  `repeats` keeps the finding inactive until it was seen
    that often.  `needs` is the hardware without which it cannot occur.
    """

    name: str
    subsystem: Subsystem
    severity: Severity
    action: Action
    summary: str
    remedy: str
    clears: tuple[Clear, ...]
    patterns: tuple[Pattern, ...] = ()
    recoveries: tuple[Pattern, ...] = ()
    object_kind: str = ""
    joins: float = 0.0
    repeats: Repetition | None = None
    needs: Hardware | None = None
    family: str = ""
    engine: str = "re"
    enabled: bool = True

    def found(
        self,
        object: str = "",  # noqa: A002 - the field's own word
        variant: str = "",
        *,
        join: Join | None = None,
        escalation: Escalation | None = None,
        number: Number | None = None,
        latest: bool = False,
        lasting: bool = True,
        detail: str = "",
    ) -> Finding:
        """This reason holds on that object."""
        if join is None and self.joins:
            join = Join(f"{self.name}/{object}", self.joins)
        return Finding(self, object, variant, join, escalation, number, latest, lasting, detail)

    def clears_by(self, kind: ClearKind) -> bool:
        """Whether that kind of recovery ends it; an operator always can."""
        return kind is ClearKind.OPERATOR or any(clear.kind is kind for clear in self.clears)


@dataclass(frozen=True, slots=True)
class Rule:
    """One way from a line to events: a pattern and what its match means.

    `read` is pure.  A rule whose `read` yields nothing recognises a line that means nothing by itself (context, noise).
    """

    name: str
    sources: tuple[str, ...]
    regex: str
    read: Callable[[re.Match[str], Record], Iterable[Event]]
    engine: str = "re"
