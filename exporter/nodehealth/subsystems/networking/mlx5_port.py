"""Ports of NVIDIA (Mellanox) network cards: cable, link and stalled queues, as the `mlx5_core` driver prints them."""

from __future__ import annotations

from nodehealth import pci
from nodehealth.model import (
    LINE,
    REBOOT,
    Action,
    Clear,
    Example,
    Hardware,
    Pattern,
    Reason,
    Severity,
    Subsystem,
    kernel_line,
    quiet,
)

_CARD = (
    rf"^(?:mlx5_core(?: (?P<pci>{pci.ADDRESS}))?(?: [^\s:]{{1,15}})?: )?"
    r"(?:\w{1,64}:\d{1,6}:\(pid \d{1,10}\): |mlx5_\w{1,60}: )?"
)
"""The driver's start, in every build: `mlx5_core 0000:5c:00.0: function:line:(pid n): `, each part of which may be absent."""

_INTERFACE = rf"^mlx5_core {pci.ADDRESS} (?P<object>[^\s:()/]{{1,15}})(?: \([\w ]{{1,32}}\))?: "
_SENTINEL = "NVSentinel test"


def _reason(
    name: str,
    severity: Severity,
    action: Action,
    summary: str,
    remedy: str,
    pattern: Pattern,
    *recoveries: Pattern,
    clears: tuple[Clear, ...] = (REBOOT,),
    kind: str = "NIC",
    joins: float = 60,
) -> Reason:
    return Reason(
        name=name,
        subsystem=Subsystem.NETWORKING,
        severity=severity,
        action=action,
        summary=summary,
        remedy=remedy,
        clears=clears,
        needs=Hardware.MLX5,
        object_kind=kind,
        joins=joins,
        patterns=(pattern,),
        recoveries=recoveries,
    )


REASONS = (
    _reason(
        "Mlx5CableError",
        Severity.WARNING,
        Action.INVESTIGATE,
        "A network card cannot use the cable or module in one of its ports.",
        "Reseat the cable or module, then replace it by one that the card supports; `ethtool -m INTERFACE` shows what the card sees.",
        kernel_line(
            rf"{_CARD}Port module event(?:\[\w{{1,16}}\])?: (?:module \d{{1,3}}, )?Cable error, (?!(?:Severe )?High [Tt]emperature)",
            Example(
                "mlx5_core 0000:5c:00.0: Port module event[error]: module 0, Cable error, Bad or shorted cable/module",
                "0000:5c:00.0",
                "composed from mlx5/core/events.c",
            ),
            Example(
                "mlx5_core 0000:e1:00.1: Port module event[error]: module 1, Cable error, Power budget exceeded",
                "0000:e1:00.1",
                "composed from mlx5/core/events.c",
            ),
            lookalikes=(
                "mlx5_core 0000:5c:00.0: Port module event[error]: module 0, Cable error, High Temperature",
                "mlx5_core 0000:5c:00.0: Port module event: module 0, Cable unplugged",
                "app: Cable error, Bad or shorted cable/module",
            ),
        ),
        clears=(quiet(hours=1), REBOOT),
    ),
    _reason(
        "Mlx5CableUnplugged",
        Severity.INFO,  # a port that nobody uses prints it at every start
        Action.INVESTIGATE,
        "A port of a network card has no cable or module.",
        "If the port is in use, reseat or replace its cable; a port without a cable by design prints this at every start.",
        kernel_line(
            rf"{_CARD}Port module event(?:\[\w{{1,16}}\])?: module \d{{1,3}}, Cable unplugged",
            Example(
                "kernel: [    8.951695] mlx5_core 0000:63:00.1: Port module event: module 1, Cable unplugged",
                "0000:63:00.1",
                _SENTINEL,
            ),
            Example(
                "mlx5_core 0000:17:00.0: mlx5_port_module_event:1042:(pid 0): Port module event: module 0, Cable unplugged",
                "0000:17:00.0",
                "composed from kernel 4.18 mlx5/core/port.c",
            ),
            lookalikes=(
                "mlx5_core 0000:63:00.1: Port module event: module 1, Cable plugged",
                "mlx5_core 0000:63:00.1: Port module event[error]: module 1, Cable error, Unknown identifier",
                "usb 1-1: Cable unplugged",
            ),
        ),
        kernel_line(
            rf"{_CARD}Port module event(?:\[\w{{1,16}}\])?: module \d{{1,3}}, Cable plugged",
            Example(
                "mlx5_core 0000:63:00.1: Port module event: module 1, Cable plugged",
                "0000:63:00.1",
                "kernel 5.4 mlx5/core/events.c",
            ),
        ),
        clears=(LINE, REBOOT),
        joins=0,
    ),
    _reason(
        "Mlx5TxTimeout",
        Severity.WARNING,
        Action.INVESTIGATE,
        "A network card stopped sending on one of its queues and the driver had to recover it.",
        "Look at `ethtool -S INTERFACE` and `dmesg | grep mlx5_core`; if it comes again, drain the node and update firmware and driver.",
        kernel_line(
            rf"{_INTERFACE}TX timeout (?:detected|on queue: \d)",
            Example("mlx5_core 0000:65:00.0 eth0: TX timeout detected", "eth0", _SENTINEL),
            Example(
                "mlx5_core 0000:08:00.1 enp8s0f1: TX timeout on queue: 1, SQ: 0x11ec, CQ: 0x146d, SQ Cons: 0x0 SQ Prod: 0x1, usecs since last trans: 21565000",
                "enp8s0f1",
                "kernel commit message",
            ),
            lookalikes=(
                "virtio_net virtio1 enp9s0: TX timeout on queue: 0, sq: output.0, vq: 0x1, name: output.0, 5172000 usecs ago",
                "bnxt_en 0000:19:00.0 eth0: TX timeout detected, starting reset task!",
                "mlx5_core 0000:65:00.0 eth0: Recovered 1 eqes on EQ 0x7",
            ),
        ),
        clears=(quiet(hours=1), REBOOT),
        kind="interface",
    ),
    _reason(
        "Mlx5RxTimeout",
        Severity.WARNING,
        Action.INVESTIGATE,
        "A network card stopped receiving on one of its queues and the driver had to recover it.",
        "Look at `ethtool -S INTERFACE` and `dmesg | grep mlx5_core`; if it comes again, drain the node and update firmware and driver.",
        kernel_line(
            rf"{_INTERFACE}RX timeout on channel: \d",
            Example(
                "mlx5_core 0000:65:00.0 eth0: RX timeout on channel: 3, ICOSQ: 0x1123 RQ: 0x1124, CQ: 0x1089",
                "eth0",
                _SENTINEL,
            ),
            Example(
                "mlx5_core 0000:3b:00.1 ens1f1np1: RX timeout on channel: 12, RQ: 0x1124, CQ: 0x1089",
                "ens1f1np1",
                "composed from kernel 6.1 mlx5/core/en/reporter_rx.c",
            ),
            lookalikes=(
                "mlx5_core 0000:65:00.0 eth0: Link up",
                "mlx5_core 0000:65:00.0: E-Switch: RX timeout on channel: none",
                "e1000e 0000:00:1f.6 eno1: RX timeout on channel: 3",
            ),
        ),
        clears=(quiet(hours=1), REBOOT),
        kind="interface",
    ),
    _reason(
        "Mlx5LinkDown",
        Severity.WARNING,
        Action.INVESTIGATE,
        "A port of a network card lost its link.",
        "Check `ip link show dev INTERFACE`, cable, transceiver and switch port; several ports at once point at the switch.",
        kernel_line(
            rf"{_INTERFACE}(?:Link down|Port: \d{{1,3}} Link DOWN)\s*$",
            Example("mlx5_core 0000:5c:00.0 ib0: Link down", "ib0", _SENTINEL),
            Example("[   15.312871] mlx5_core 0000:41:00.0 enp65s0f0: Link down", "enp65s0f0", "user report, ConnectX-5"),
            Example(
                "mlx5_core 0000:08:00.0 rdmap8s0f0: Port: 1 Link DOWN",
                "rdmap8s0f0",
                "kernel 6.13 drivers/infiniband/core/cache.c",
            ),
            lookalikes=(
                "mlx5_core 0000:08:00.0 mlx5_0: Port: 1 Link INIT",
                "mlx5_core 0000:5c:00.0 ib0: Link up",
                "igb 0000:01:00.0 eno1: igb: eno1 NIC Link is Down",
                "mlx5_core 0000:5c:00.0 eth0: Link down on close is enabled",
            ),
        ),
        kernel_line(
            rf"{_INTERFACE}(?:Link up|Port: \d{{1,3}} Link ACTIVE)\s*$",
            Example("[   18.753532] mlx5_core 0000:41:00.1 enp65s0f1: Link up", "enp65s0f1", "user report, ConnectX-5"),
            Example("mlx5_core 0000:08:00.0 mlx5_0: Port: 1 Link ACTIVE", "mlx5_0", "kernel 6.13 core/cache.c"),
        ),
        clears=(LINE, quiet(hours=1), REBOOT),
        kind="interface",
        joins=0,
    ),
)
