"""Tasks that wait inside the kernel for minutes, and the end of the kernel's reports about them.

The task's name and id stay in the line: a finding is about the node.
"""

from __future__ import annotations

from nodehealth.model import OPERATOR, REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

_GPUD = "GPUd test"
_NMA = "EKS Node Monitoring Agent test"

REASONS = (
    Reason(
        name="AppBlocked",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="A task waits inside the kernel for minutes, mostly for a disk, a network file system or a driver.",
        remedy=(
            "Read the stack after the line with `dmesg -T | grep -A30 'blocked for more'`: it names what the task waits for. "
            "Such a task can not be killed; repair the storage or driver, else reboot the node."
        ),
        clears=(quiet(hours=1), REBOOT),
        patterns=(
            kernel_line(
                r"^(?:INFO: )?task [^\n]{1,80}:\d{1,10} blocked (?:in I/O wait )?for more than \d{1,10} ?s",
                Example("INFO: task jfsmount:136986 blocked for more than 120 seconds.", origin=_GPUD),
                Example("task foo:123 blocked for more than 20s", origin=_NMA),
                Example(
                    "INFO: task kworker/1:1:55 blocked for more than 120 seconds.", origin="kernel 5.10 kernel/hung_task.c"
                ),
                Example(
                    "[228678.600423] INFO: task containerd-shim:931150 blocked for more than 122 seconds.", origin=_GPUD
                ),
                Example(
                    "INFO: task Plex Media Serv:4711 blocked in I/O wait for more than 241 seconds.",
                    origin="composed from kernel 6.18 kernel/hung_task.c",
                ),
                lookalikes=(
                    "INFO: task foo:123 is blocked on a mutex likely owned by task bar:99.",
                    "Future hung task reports are suppressed, see sysctl kernel.hung_task_warnings",
                    '"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.',
                    "scheduler[77]: task build:12 blocked for more than 120 seconds, retrying",
                    "Kernel panic - not syncing: hung_task: blocked tasks",
                ),
            ),
        ),
    ),
    Reason(
        name="HungTaskWarningsExhausted",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.CHECK_CONFIG,
        summary="The kernel printed its last hung-task report: from now on blocked tasks stay unseen in the log.",
        remedy=(
            "Find out what blocked the earlier tasks, then allow further reports with `sysctl kernel.hung_task_warnings=-1` "
            "and clear this finding, or reboot the node."
        ),
        clears=(REBOOT, OPERATOR),
        patterns=(
            kernel_line(
                r"^Future hung task reports are suppressed\b",
                Example(
                    "Future hung task reports are suppressed, see sysctl kernel.hung_task_warnings",
                    origin="kernel 5.10 kernel/hung_task.c",
                ),
                lookalikes=(
                    "INFO: task jfsmount:136986 blocked for more than 120 seconds.",
                    "sysctl: setting key hung_task_warnings: future hung task reports are suppressed",
                ),
            ),
        ),
    ),
)

CONTEXT = (
    kernel_line(
        r"^INFO: task [^\n]{1,80}:\d{1,10} (?:is )?(?:<\w{1,16}> )?blocked on an? [\w -]{1,24}likely ",
        Example(
            "INFO: task foo:123 is blocked on a mutex likely owned by task bar:99.", origin="composed from hung_task.c"
        ),
    ),
    kernel_line(
        r"hung_task_timeout_secs\" disables this message",
        Example('"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.', origin="kernel/hung_task.c"),
    ),
)
