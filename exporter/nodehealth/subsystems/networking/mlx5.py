"""NVIDIA (Mellanox) network cards: what the `mlx5_core` driver prints about the card, its firmware, its slot and its temperature."""

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

_HEALTH = r"(?:Health issue observed, |synd 0x[0-9a-f]{1,2}: )"
_SENTINEL = "NVSentinel test"
_GPUD = "GPUd test"


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
        "Mlx5CommandTimeout",
        Severity.CRITICAL,
        Action.REBOOT_NODE,
        "A network card's firmware did not answer a command of its driver for a minute; the command's slot is lost.",
        "Drain the node and reboot it; `dmesg | grep mlx5_core` names the command. If it comes again, update or replace the card.",
        kernel_line(
            rf"{_CARD}(?:cmd\[\d{{1,4}}\]: )?\w{{1,64}}\(0x[0-9a-f]{{1,8}}\) (?:Async, )?"
            r"(?:timeout\. Will cause a leak of a command resource|canceled on out of queue timeout)",
            Example(
                "kernel: [   66.816635] mlx5_core 0000:03:00.0: wait_func:964:(pid 112): ENABLE_HCA(0x104) timeout. Will cause a leak of a command resource",
                "0000:03:00.0",
                _SENTINEL,
            ),
            Example(
                "mlx5_core 0000:41:00.0: cmd[3]: 2ERR_QP(0x507) Async, timeout. Will cause a leak of a command resource",
                "0000:41:00.0",
                "composed from kernel 5.10 drivers/net/ethernet/mellanox/mlx5/core/cmd.c",
            ),
            Example(
                "mlx5_core 0000:d2:00.1: wait_func:1168:(pid 9121): cmd[12]: MODIFY_NIC_VPORT_CONTEXT(0x755) canceled on out of queue timeout.",
                "0000:d2:00.1",
                "composed from kernel 5.10 drivers/net/ethernet/mellanox/mlx5/core/cmd.c",
            ),
            lookalikes=(
                "mlx5_core 0000:41:00.0: cmd[3]: 2ERR_QP(0x507) Async, recovered after timeout",
                "mlx5_core 0000:41:00.0: wait_func_handle_exec_timeout:1062:(pid 77): cmd[0]: QUERY_VPORT_COUNTER(0x770) recovered after timeout",
                "mlx5_core 0000:d2:00.0: mlx5_cmd_out_err:838:(pid 1441871): ACCESS_REG(0x805) op_mod(0x1) failed, status bad operation(0x2), syndrome (0x9a6171), err(-22)",
                "mlx5_core 0000:03:00.0: wait_fw_init:199:(pid 1): Waiting for FW initialization, timeout abort in 100s (0xffffffff)",
            ),
        ),
    ),
    _reason(
        "Mlx5FirmwareFailed",
        Severity.CRITICAL,
        Action.REBOOT_NODE,
        "A network card's firmware stopped or reported an error of its own; the card is out of service until it recovers.",
        "Wait a minute for the driver's own recovery; if this stays, drain the node and reboot it, then update or replace the card.",
        kernel_line(
            rf"{_CARD}(?:device's health compromised|FW is unable to respond to initialization segment reads"
            r"|Firmware over \d{1,9} MS in (?:pre-)?initializing state, aborting"
            r"|(?<=: )(?:Fatal error \d{1,3} detected|health recovery (?:failed|flow aborted))"
            rf"|{_HEALTH}(?:firmware internal error|irisc not responding|firmware CRC error|async EQ buffer overrun|EQ error|Invalid EQ ref))",
            Example(
                "kernel: [   17.982092] mlx5_core 0000:41:00.0: poll_health:852:(pid 0): device's health compromised - reached miss count",
                "0000:41:00.0",
                _SENTINEL,
            ),
            Example("FW is unable to respond to initialization segment reads", origin="kernel 4.14 mlx5/core/health.c"),
            Example(
                "mlx5_core 0000:c1:00.0: Firmware over 120000 MS in pre-initializing state, aborting",
                "0000:c1:00.0",
                "composed from kernel 5.15 mlx5/core/main.c",
            ),
            Example(
                "mlx5_core 0000:61:00.1: mlx5_health_try_recover:381:(pid 1): health recovery flow aborted, PCI reads still not working",
                "0000:61:00.1",
                "user report, ConnectX-6 Dx",
            ),
            Example(
                "mlx5_core 0000:0c:00.0: print_health_info:430:(pid 0): Health issue observed, firmware internal error, severity(3) ERROR:",
                "0000:0c:00.0",
                "composed from kernel 5.15 mlx5/core/health.c",
            ),
            Example(
                "mlx5_core 0000:0c:00.0: synd 0x1: firmware internal error",
                "0000:0c:00.0",
                "composed from kernel 4.4 health.c",
            ),
            Example(
                "mlx5_core 0000:5c:00.0: poll_health:825:(pid 0): Fatal error 3 detected",
                "0000:5c:00.0",
                "composed from health.c",
            ),
            lookalikes=(
                "mlx5_core 0000:0c:00.0: print_health_info:480:(pid 0): synd 0x0: unrecognized error",
                "mlx5_core 0000:0c:00.0: print_health_info:417:(pid 0): fw_ver 20.35.1012",
                "mlx5_core 0000:0c:00.0: firmware version: 28.39.2048",
                "mlx5_core 0000:0c:00.0: mlx5_health_try_recover:339:(pid 880): health recovery succeeded",
                "mlx4_core 0000:0c:00.0: device's health compromised",
                "mlx5_core 0000:c1:00.0: Waiting for FW initialization, timeout abort in 100s (0xffffffff)",
                "Fatal error 3 detected",
            ),
        ),
        kernel_line(
            rf"{_CARD}(?<=: )health re[cv]overy suc?cee?ded",
            Example(
                "mlx5_core 0000:0c:00.0: mlx5_health_try_recover:339:(pid 880): health recovery succeeded",
                "0000:0c:00.0",
                "composed from kernel 5.15 mlx5/core/health.c",
            ),
            Example(
                "mlx5_core 0000:0c:00.0: mlx5_health_try_recover:339:(pid 880): health revovery succeded",
                "0000:0c:00.0",
                "composed from kernel 5.10 mlx5/core/health.c",
            ),
        ),
        clears=(LINE, REBOOT),
        joins=120,
    ),
    _reason(
        "Mlx5HardwareError",
        Severity.CRITICAL,
        Action.REPLACE_NODE,
        "A network card reported a hardware error that it cannot recover from.",
        "Drain the node and power-cycle it; if it comes again, have the card replaced. Keep the `dmesg` dump for the vendor.",
        kernel_line(
            rf"{_CARD}{_HEALTH}(?:unrecoverable hardware error|HW fatal error|ICM fetch PCI (?:data poisoned )?error|FFSER error|Trust lockdown error)",
            Example(
                "kernel: [   17.982217] mlx5_core 0000:41:00.0: print_health_info:458:(pid 0): synd 0x8: unrecoverable hardware error",
                "0000:41:00.0",
                _SENTINEL,
            ),
            Example(
                "mlx5_core 0000:98:00.0: print_health_info:430:(pid 0): Health issue observed, unrecoverable hardware error, severity(3) ERROR:",
                "0000:98:00.0",
                "composed from kernel 5.15 mlx5/core/health.c",
            ),
            Example(
                "mlx5_core 0000:98:00.0: print_health_info:489:(pid 0): synd 0xa: ICM fetch PCI error",
                "0000:98:00.0",
                "composed from kernel 6.1 mlx5/core/health.c",
            ),
            lookalikes=(
                "mlx5_core 0000:41:00.0: print_health_info:458:(pid 0): synd 0x0: unrecognized error",
                "mlx5_core 0000:41:00.0: print_health_info:460:(pid 0): ext_synd 0x8a1d",
                "mlx5_core 0000:41:00.0: print_health_info:449:(pid 0): hw_id 0x0000020d",
                "GHES: unrecoverable hardware error in the log of another device",
            ),
        ),
    ),
    _reason(
        "Mlx5HighTemperature",
        Severity.WARNING,
        Action.INVESTIGATE,
        "A network card or its optical module is too hot; it shuts itself down if that goes on.",
        "Check fans, airflow and room temperature; `mget_temp -d DEVICE` and `ethtool -m INTERFACE` show the values. Reseat or replace the module.",
        kernel_line(
            rf"{_CARD}(?:Port module event(?:\[\w{{1,16}}\])?: (?:module \d{{1,3}}, )?(?:Cable error, )?(?:Severe )?High [Tt]emperature"
            r"|High temperature on sensors with bit set "
            rf"|{_HEALTH}High temp[er]{{1,2}}ature)",
            Example(
                "kernel: [123.456794] mlx5_core 0000:5c:00.0: Port module event[error]: module 0, Cable error, High Temperature",
                "0000:5c:00.0",
                _GPUD,
            ),
            Example(
                "mlx5_port_module_event:1131:(pid 0): Port module event[error]: module 0, Cable error, High Temperature",
                origin=_GPUD,
            ),
            Example("Port module event[error]: Severe High Temperature", origin=_GPUD),
            Example(
                "[   51.227747] mlx5_core 0000:41:00.1: temp_warn:170:(pid 0): High temperature on sensors with bit set 0 1",
                "0000:41:00.1",
                "user report, ConnectX-5",
            ),
            Example(
                "2026-10-03T05:58:06-0400 h kernel: mlx5_core 0000:61:00.0: print_health_info:520:(pid 0): synd 0x10: High temperature",
                "0000:61:00.0",
                "user report, ConnectX-6 Dx",
            ),
            lookalikes=(
                "mlx5_core 0000:5c:00.0: Port module event[error]: module 0, Cable error, Bad or shorted cable/module",
                "mlx5_core 0000:5c:00.0: Port module event: module 0, Cable plugged",
                "coretemp: CPU0: High temperature on sensors with bit set 1",
                "thermal thermal_zone0: High Temperature",
            ),
        ),
        clears=(quiet(hours=1), REBOOT),
    ),
    _reason(
        "Mlx5SlotPowerLow",
        Severity.WARNING,
        Action.CHECK_CONFIG,
        "A network card says that its PCIe slot promises less power than it needs; it may run slower or shut down under load.",
        "Check that the card sits in a slot with enough power and the slot power setting of the firmware; some boards never advertise it and run well.",
        kernel_line(
            rf"{_CARD}Detected insufficient power on the PCIe slot",
            Example(
                "[Sun Dec  1 14:54:40 2024] ny2g1r12hh2 kernel: mlx5_core 0000:5c:00.0: mlx5_pcie_event:299:(pid 268269): Detected insufficient power on the PCIe slot (30W).",
                "0000:5c:00.0",
                _GPUD,
            ),
            Example("mlx5_core: mlx5_pcie_event: Detected insufficient power on the PCIe slot (15W).", origin=_GPUD),
            Example("mlx5_core: Detected insufficient power on the PCIe slot (27 W).", origin=_GPUD),
            Example("Detected insufficient power on the PCIe slot (27W)", origin=_GPUD),
            lookalikes=(
                "mlx5_core 0000:5c:00.0: mlx5_pcie_event:305:(pid 268269): PCIe slot advertised sufficient power (27W).",
                "mlx5_core 0000:5c:00.0: mlx5_pcie_event:294:(pid 268269): PCIe slot power capability was not advertised.",
                "nccl-check: Detected insufficient power on the PCIe slot (27W)",
            ),
        ),
        kernel_line(
            rf"{_CARD}PCIe slot advertised sufficient power",
            Example(
                "mlx5_core 0000:5c:00.0: mlx5_pcie_event:305:(pid 268269): PCIe slot advertised sufficient power (27W).",
                "0000:5c:00.0",
                "composed from kernel 5.4 mlx5/core/events.c",
            ),
        ),
        clears=(LINE, REBOOT),
    ),
)

CONTEXT = (
    kernel_line(  # a register that this function may not read: whoever asks (a monitor) makes the noise
        r"\bmlx5_cmd_out_err\b[^\n]{0,48}: ACCESS_REG(?:\(0x[0-9a-f]{1,8}\))?(?: op_mod\(0x[0-9a-f]{1,8}\))? failed",
        Example("mlx5_cmd_out_err: ACCESS_REG failed", origin=_GPUD),
    ),
    kernel_line(  # a frame of a stack: what the CPU did when something else was found
        r"^[ ?]{0,16}mlx5e_\w{1,64}\+0x[0-9a-f]{1,8}/0x[0-9a-f]",
        Example(" mlx5e_napi_poll+0x1c2/0x6a0 [mlx5_core]", origin=_SENTINEL),
    ),
)
