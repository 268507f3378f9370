"""AWS Elastic Fabric Adapter: what the `efa` driver prints when the card no longer answers its administration commands.

ENA, Amazon's Ethernet driver, prints several of these sentences word for word; only the device in front tells them apart.
"""

from __future__ import annotations

from nodehealth import pci
from nodehealth.model import (
    REBOOT,
    Action,
    Clear,
    Example,
    Hardware,
    Reason,
    Repetition,
    Severity,
    Subsystem,
    kernel_line,
    quiet,
)

_DEVICE = rf"^(?:(?:(?:infiniband|efa {pci.ADDRESS}) )?(?P<object>(?:rdma[pP]|efa_)\w{{1,40}})|efa (?P<pci>{pci.ADDRESS})(?: \(null\))?): "
_TEST = "NVSentinel test"
_SOURCE = "composed from drivers/infiniband/hw/efa/efa_com.c"


def _fault(
    name: str,
    summary: str,
    text: str,
    *examples: Example,
    lookalikes: tuple[str, ...],
    remedy: str = "Drain the node and reboot it; if it comes again, replace the instance. `ibv_devinfo` shows which adapter is gone.",
    severity: Severity = Severity.CRITICAL,
    action: Action = Action.REPLACE_NODE,
    clears: tuple[Clear, ...] = (REBOOT,),
    repeats: Repetition | None = None,
) -> Reason:
    return Reason(
        name=name,
        subsystem=Subsystem.NETWORKING,
        severity=severity,
        action=action,
        summary=summary,
        remedy=remedy,
        clears=clears,
        needs=Hardware.EFA,
        object_kind="EFA",
        joins=0 if repeats else 60,
        repeats=repeats,
        patterns=(kernel_line(f"{_DEVICE}(?:{text})", *examples, lookalikes=lookalikes),),
    )


REASONS = (
    _fault(
        "EFACommandTimeout",
        "An EFA network adapter did not answer a command of its driver; it serves no new connections from then on.",
        r"Wait for completion \(polling\) timeout"
        r"|The device didn't send any completion for admin cmd "
        r"|The device sent a completion but the driver didn't receive any MSI-X interrupt for admin cmd ",
        Example("infiniband rdmap0s6: Wait for completion (polling) timeout", "rdmap0s6", _TEST),
        Example("infiniband efa_0: Wait for completion (polling) timeout", "efa_0", _TEST),
        Example("efa 0000:00:06.0: Wait for completion (polling) timeout", "0000:00:06.0", _TEST),
        Example(
            "infiniband rdmap16s27: The device didn't send any completion for admin cmd CREATE_QP(6) status 0 (ctx 0x000000001d2f9d31, sq producer: 12, sq consumer: 11, cq consumer: 11)",
            "rdmap16s27",
            "NVSentinel test",
        ),
        Example(
            "efa 0000:c6:00.0 rdmap198s0: The device sent a completion but the driver didn't receive any MSI-X interrupt for admin cmd GET_STATS(11) status 1 (ctx: 0x00000000c9f3a4de, sq producer: 91, sq consumer: 91, cq consumer: 91)",
            "rdmap198s0",
            _SOURCE,
        ),
        lookalikes=(
            "ena 0000:00:05.0 eth0: Wait for completion (polling) timeout",
            "infiniband mlx5_0: Wait for completion (polling) timeout",
            "efa 0000:00:06.0: enabling device (0010 -> 0012)",
            "efa 0000:00:06.0 efa_0: IB device registered",
            "ena 0000:00:05.0: The device didn't send any completion for admin cmd 9",
        ),
    ),
    _fault(
        "EFAAdminQueueClosed",
        "An EFA network adapter's command queue is closed after an earlier failure; applications cannot use the adapter.",
        r"Admin queue is closed|comp_ctx is NULL\. Changing the admin queue running state",
        Example("infiniband rdmap0s6: Admin queue is closed", "rdmap0s6", _TEST),
        Example("efa 0000:00:06.0 rdmap0s6: Admin queue is closed", "rdmap0s6", _SOURCE),
        Example("infiniband efa_0: comp_ctx is NULL. Changing the admin queue running state", "efa_0", _SOURCE),
        lookalikes=(
            "ena 0000:00:05.0: Admin queue is closed",
            "ena 0000:00:05.0 eth0: comp_ctx is NULL. Changing the admin queue running state",
            "infiniband mlx5_1: Admin queue is closed",
            "Elastic Fabric Adapter (EFA) v2.13.0g",
        ),
    ),
    _fault(
        "EFAResetFailed",
        "An EFA network adapter is not ready or does not finish its reset; the driver cannot use it.",
        r"Device isn't ready, (?:abort com init|can't reset device)"
        r"|Reset indication didn't turn o(?:n|ff)\b"
        r"|Reading register timed out\. expected: req id"
        r"|Reading register failed: wrong offset provided",
        Example("efa 0000:00:06.0: Device isn't ready, abort com init", "0000:00:06.0", _TEST),
        Example("efa 0000:00:06.0: Reset indication didn't turn off", "0000:00:06.0", _TEST),
        Example("efa 0000:00:06.0 (null): Device isn't ready, abort com init 0x0", "0000:00:06.0", _SOURCE),
        Example("infiniband rdmap0s6: Reset indication didn't turn on", "rdmap0s6", _SOURCE),
        Example("efa 0000:9f:00.0: Device isn't ready, can't reset device", "0000:9f:00.0", _SOURCE),
        Example(
            "infiniband rdmap0s6: Reading register timed out. expected: req id[12] offset[0x58] actual: req id[154] offset[0x0]",
            "rdmap0s6",
            _SOURCE,
        ),
        lookalikes=(
            "ena 0000:00:05.0: Reset indication didn't turn on",
            "ena 0000:00:05.0: Device isn't ready, abort com init",
            "ena 0000:00:05.0 ens5: Reading reg failed for timeout. expected: req id[10] offset[88] actual: req id[57006] offset[0]",
            "ena 0000:00:05.0 ens5: Device reset completed successfully, Driver info: Elastic Network Adapter (ENA) v2.12.0g",
        ),
    ),
    _fault(
        "EFACommandFailed",
        "An EFA network adapter refused many commands of its driver in a short time.",
        r"Failed to (?:submit|process) command ",
        Example("infiniband rdmap0s6: Failed to submit command REG_MR (opcode 9) err -12", "rdmap0s6", _TEST),
        Example(
            "infiniband rdmap0s6: Failed to process command CREATE_QP (opcode 6) comp_status 1 err -22", "rdmap0s6", _TEST
        ),
        Example("efa 0000:00:06.0 efa_0: Failed to process command GET_STATS (opcode 11) err -62", "efa_0", _SOURCE),
        lookalikes=(
            "ena 0000:00:05.0: Failed to process command. comp_status = 1 err = -22",
            "ena 0000:00:05.0: Failed to submit command [-19]",
            "infiniband mlx5_0: Failed to process command CREATE_QP (opcode 6)",
            "nvme nvme0: Failed to submit command",
        ),
        remedy=(
            "Mostly an application asks for more queue pairs or memory regions than the adapter has: look at the command and `err` in "
            "`dmesg | grep efa`. With -19 or -62 the adapter itself is stuck: drain the node and reboot it."
        ),
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        clears=(quiet(hours=1), REBOOT),
        repeats=Repetition(10, 600),
    ),
)
