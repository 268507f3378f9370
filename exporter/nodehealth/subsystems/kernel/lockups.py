"""CPUs and kernel workers that make no progress: watchdogs and RCU stalls.

Task names, process ids and CPU numbers stay in the line: there are too many of them to name a finding by.
"""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

_GPUD = "GPUd test"
_NMA = "EKS Node Monitoring Agent test"

REASONS = (
    Reason(
        name="SoftLockup",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="A CPU ran kernel code for many seconds without letting any other task run.",
        remedy=(
            "Read the stack after the line with `dmesg -T | grep -A40 'soft lockup'`. "
            "Reboot the node if the same CPU reports again; on a virtual machine look for steal time first."
        ),
        clears=(quiet(hours=1), REBOOT),
        patterns=(
            kernel_line(
                r"^(?:NMI )?(?:[Ww]atchdog: )?(?:CPU\d{1,5}: )?BUG: soft lockup (?:- CPU#|detected on CPU#)\d{1,5}\b",
                Example("watchdog: BUG: soft lockup - CPU#6 stuck for 23s! [VM Thread:4054]", origin=_NMA),
                Example(
                    "[Sun Jan  5 18:37:06 2025] watchdog: BUG: soft lockup - CPU#0 stuck for 27s! [cuda-EvtHandlr:2255424]",
                    origin=_GPUD,
                ),
                Example(
                    "NMI watchdog: BUG: soft lockup - CPU#127 stuck for 22s! [kworker/127:1:853]",
                    origin="composed from kernel 4.4 kernel/watchdog.c",
                ),
                Example(
                    "BUG: soft lockup - CPU#3 stuck for 67s! [kswapd0:71]",
                    origin="composed from kernel 3.10 kernel/watchdog.c",
                ),
                lookalikes=(
                    "watchdog: CPU#6 Utilization every 4000ms during lockup:",
                    "watchdog: Soft watchdog permanently disabled",
                    "NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
                    "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 32s!",
                    "monitor[812]: saw BUG: soft lockup - CPU#1 stuck for 22s! on another node",
                ),
            ),
        ),
    ),
    Reason(
        name="HardLockup",
        subsystem=Subsystem.KERNEL,
        severity=Severity.CRITICAL,
        action=Action.REBOOT_NODE,
        summary="A CPU took no interrupt for many seconds: it is stuck inside the kernel or the firmware.",
        remedy=(
            "Drain and reboot the node; what the CPU held may be locked for good. "
            "Replace the node if it comes back: firmware and hardware are the usual causes."
        ),
        clears=(REBOOT,),
        joins=10,
        patterns=(
            kernel_line(
                r"^(?:(?:NMI )?[Ww]atchdog: )?(?:CPU ?\d{1,5}: )?Watchdog detected hard LOCKUP on cpu ?\d",
                Example("watchdog: CPU28: Watchdog detected hard LOCKUP on cpu 28", origin="kernel 6.5 kernel/watchdog.c"),
                Example(
                    "NMI watchdog: Watchdog detected hard LOCKUP on cpu 27", origin="kernel 4.18 kernel/watchdog_hld.c"
                ),
                Example("Watchdog detected hard LOCKUP on cpu 3", origin="composed from kernel 3.10 kernel/watchdog.c"),
                lookalikes=(
                    "NMI watchdog: Perf NMI watchdog permanently disabled",
                    "watchdog: Delayed init of the lockup detector failed: -22",
                    "watchdog: Watchdog detected soft LOCKUP on cpu 3",
                ),
            ),
            kernel_line(
                r"^[Ww]atchdog:? CPU[: ]\d{1,5} (?:(?:self-)?detected )?[Hh]ard LOCKUP\b",
                Example(
                    "watchdog: CPU 12 self-detected hard LOCKUP @ plpar_hcall_norets+0x1c/0x28",
                    origin="composed from arch/powerpc/kernel/watchdog.c",
                ),
                Example(
                    "watchdog: CPU 4 detected hard LOCKUP on other CPUs 12",
                    origin="composed from arch/powerpc/kernel/watchdog.c",
                ),
                lookalikes=(
                    "watchdog: CPU 12 became unstuck TB:1234567",
                    "watchdog: CPU 12 TB:88031201, last heartbeat TB:77012 (21502ms ago)",
                ),
            ),
        ),
    ),
    Reason(
        name="RcuStall",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="The kernel's clean-up of shared data waits for a CPU or task that makes no progress.",
        remedy=(
            "Read the stacks after the line with `dmesg -T | grep -A60 'rcu'` for the CPU or driver that is stuck. "
            "Reboot the node if it reports again: memory is not freed meanwhile."
        ),
        clears=(quiet(hours=1), REBOOT),
        joins=10,
        patterns=(
            kernel_line(
                r"^(?:rcu: )?INFO: \w{1,40} (?:self-)?detected (?:expedited )?stalls? on (?:CPU|tasks)",
                Example("rcu: INFO: rcu_sched self-detected stall on CPU", origin="kernel 5.4 kernel/rcu/tree_stall.h"),
                Example(
                    "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 3-... } 21 jiffies s: 1189 root: 0x1/.",
                    origin="kernel 6.1 kernel/rcu/tree_exp.h",
                ),
                Example("INFO: rcu_sched self-detected stall on CPU", origin="kernel 4.14 kernel/rcu/tree.c"),
                Example(
                    "INFO: rcu_sched detected stalls on CPUs/tasks: { 12} (detected by 3, t=60002 jiffies, g=77, c=76, q=0)",
                    origin="composed from kernel 3.10 kernel/rcutree.c",
                ),
                Example("INFO: rcu_tasks detected stalls on tasks:", origin="composed from kernel/rcu/tasks.h"),
                lookalikes=(
                    "rcu: INFO: Stall ended before state dump start",
                    "rcu: Hierarchical RCU implementation.",
                    "rcu: RCU calculated value of scheduler-enlistment delay is 100 jiffies.",
                    "rcu-torture:--- Start of test: stall_cpu=22 stall_cpu_holdoff=10",
                ),
            ),
            kernel_line(
                r"^(?:rcu: )?(?:INFO: )?\w{1,40} kthread (?:starved for \d{1,12} jiffies|timer wakeup didn't happen for )",
                Example(
                    "rcu: rcu_sched kthread starved for 5250 jiffies! g4869 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x402 ->cpu=0",
                    origin="composed from kernel/rcu/tree_stall.h",
                ),
                Example(
                    "rcu: rcu_preempt kthread timer wakeup didn't happen for 5252 jiffies! g177 f0x0 RCU_GP_WAIT_FQS(5)",
                    origin="composed from kernel/rcu/tree_stall.h",
                ),
                lookalikes=(
                    "rcu: \tOffload RCU callbacks from CPUs: (none).",
                    "rcu: RCU grace-period kthread stack dump:",
                ),
            ),
        ),
    ),
    Reason(
        name="WorkqueueLockup",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="Work that the kernel queued on a CPU was not started for half a minute or more.",
        remedy=(
            "Look for a soft lockup or a busy kernel worker on that CPU with `dmesg -T` and `top -H`. "
            "Reboot the node if it does not stop."
        ),
        clears=(quiet(hours=1), REBOOT),
        patterns=(
            kernel_line(
                r"^BUG: workqueue lockup - pool\b",
                Example(
                    "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 32s!",
                    origin="composed from kernel/workqueue.c",
                ),
                lookalikes=(
                    "Showing busy workqueues and worker pools:",
                    "workqueue: drm_fb_helper_damage_work hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND",
                ),
            ),
        ),
    ),
)
