"""Processes that the kernel killed because memory ran out.

One kill prints up to five lines.  Every one of them proves `OOMKill`, and they join to one event; only those that say that
the whole node was out of memory prove `SystemOOM` as well.  A kill in a container's own limit is `OOMKill` alone.
"""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

_JOINS = 10.0
_GPUD = "GPUd test"
_NPD = "node-problem-detector test"

_SYSTEM_KILL = r"^Out of memory(?: \(oom_kill_allocating_task\))?: Kill(?:ed)? process \d{1,10}\b"
_SYSTEM_SUMMARY = r"^oom-kill:constraint=(?:CONSTRAINT_NONE\b|[^\n]{1,250},global_oom,)"

_SYSTEM_EXAMPLES = (
    Example("Out of memory: Kill process 1234 (Plex Media Server) score 1000 or sacrifice child", origin=_NPD),
    Example("Out of memory: Killed process 123, UID 48, (httpd).", origin=_GPUD),
    Example("Out of memory: Killed process 9876 (nginx).", origin=_GPUD),
    Example(
        "Out of memory (oom_kill_allocating_task): Kill process 77 (a.out) score 0 or sacrifice child",
        origin="composed from mm/oom_kill.c",
    ),
)
_GLOBAL = Example(
    "oom-kill:constraint=CONSTRAINT_CPUSET,nodemask=(null),cpuset=gpu,mems_allowed=1,global_oom,task_memcg=/a,task=b,pid=7,uid=0",
    origin="composed from mm/oom_kill.c",
)

REASONS = (
    Reason(
        name="OOMKill",
        subsystem=Subsystem.KERNEL,
        severity=Severity.INFO,
        action=Action.RESTART_APP,
        summary="The kernel killed a process because its container, or the whole node, had no memory left.",
        remedy=(
            "See the victim and its cgroup with `dmesg -T | grep -iE 'oom|out of memory'`. Without a SystemOOM at the same time "
            "it is the workload's own limit: raise its memory limit or repair its leak."
        ),
        clears=(quiet(hours=1), REBOOT),
        joins=_JOINS,
        patterns=(
            kernel_line(
                r"^[^\n\[]{1,60} invoked oom-killer: ",
                Example("badsysprogram invoked oom-killer: gfp_mask=0x280da, order=0, oom_score_adj=0", origin=_NPD),
                Example("mysqld invoked oom-killer: gfp_mask=0x201d2, order=0, oomkilladj=0", origin=_GPUD),
                Example("python3.4 invoked oom-killer: gfp_mask=0x201da, order=0, oom_score_adj=0", origin=_GPUD),
                Example(
                    "Plex Media Serv invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=-997",
                    origin="composed from kernel 5.15 mm/oom_kill.c",
                ),
                lookalikes=(
                    "sysrq: HELP : loglevel(0-9) reboot(b) crash(c) memory-full-oom-kill(f)",
                    "oom_kill_disable invoked for cgroup /a",
                ),
            ),
            kernel_line(
                r"^oom-kill:constraint=",
                Example("kernel: oom-kill:constraint=CONSTRAINT_NONE", origin=_GPUD),
                Example(
                    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/docker/abc123,"
                    "task_memcg=/docker/abc123,task=postgres,pid=12345,uid=1000",
                    origin=_GPUD,
                ),
                _GLOBAL,
                lookalikes=(
                    "oom-kill: policy is stop",
                    "systemd[1]: x.service: A process has been killed by oom-kill:constraint",
                ),
            ),
            kernel_line(
                _SYSTEM_KILL, *_SYSTEM_EXAMPLES, lookalikes=("Out of memory: no buffer for trace", "Out of memory")
            ),
            kernel_line(
                r"^Memory cgroup out of memory: Kill(?:ed)? process \d",
                Example(
                    "Memory cgroup out of memory: Kill process 19636 (evil-program2) score 1923 or sacrifice child",
                    origin=_NPD,
                ),
                Example(
                    "Memory cgroup out of memory: Killed process 3141 (python3) total-vm:8261736kB, anon-rss:4171340kB,"
                    " file-rss:12kB, shmem-rss:0kB, UID:0 pgtables:8400kB oom_score_adj:985",
                    origin="composed from kernel 5.10 mm/oom_kill.c",
                ),
                lookalikes=(
                    "memory: usage 1048576kB, limit 1048576kB, failcnt 61",
                    "Memory cgroup stats for /docker/abc:",
                ),
            ),
            kernel_line(
                r"^Killed process \d{1,10}(?:, UID \d{1,10},)? \(",
                Example(
                    "Killed process 1532 (badsysprogram) total-vm:1641388kB, anon-rss:1595164kB, file-rss:76kB", origin=_NPD
                ),
                Example("Killed process 12345 (postgres)", origin=_GPUD),
                lookalikes=(
                    "Killed processes: 3",
                    "systemd[1]: kubelet.service: Killing process 1532 (kubelet) with signal SIGKILL.",
                    "monitor[4]: Killed process 1532 (app) on request",
                ),
            ),
            kernel_line(
                r"^Tasks? in [^\n]{1,250} (?:killed as a result of limit of |are going to be killed due to memory\.oom\.group)",
                Example("Task in /mem2 killed as a result of limit of /mem3", origin=_NPD),
                Example(
                    "Tasks in /kubepods.slice/pod1 are going to be killed due to memory.oom.group set",
                    origin="composed from mm/memcontrol.c",
                ),
                lookalikes=("Task in /mem2 moved to /mem3", "Tasks state (memory values in pages):"),
            ),
            kernel_line(
                r"^oom_reaper: (?:reaped process |unable to reap pid:)\d",
                Example(
                    "oom_reaper: reaped process 345646 (vector), now anon-rss:0kB, file-rss:0kB, shmem-rss:0", origin=_GPUD
                ),
                Example("oom_reaper: unable to reap pid:4711 (java)", origin="composed from mm/oom_kill.c"),
                lookalikes=(
                    "oom_reaper: started",
                    "[     42]     0    42        0        0        0        0    0 oom_reaper",
                ),
            ),
        ),
    ),
    Reason(
        name="SystemOOM",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.CHECK_CONFIG,
        summary="The whole node, or a part that tasks are bound to, ran out of memory: any process may be killed.",
        remedy=(
            "Compare `free -m` and the pods' memory limits with the node's allocatable memory, and set limits or larger "
            "`kube-reserved` and `system-reserved` values; check that the kubelet and the runtime still run."
        ),
        clears=(quiet(hours=1), REBOOT),
        joins=_JOINS,
        patterns=(
            kernel_line(
                _SYSTEM_SUMMARY,
                Example("kernel: oom-kill:constraint=CONSTRAINT_NONE", origin=_GPUD),
                _GLOBAL,
                lookalikes=(
                    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,oom_memcg=/a,task_memcg=/a,task=b,pid=1,uid=0",
                    "kern  :warn  : 2025-01-21T08:47:30,287197+00:00 oom-kill:constraint=OTHER_CONSTRAINT",
                ),
            ),
            kernel_line(
                _SYSTEM_KILL,
                *_SYSTEM_EXAMPLES,
                lookalikes=(
                    "Memory cgroup out of memory: Kill process 19636 (evil-program2) score 1923 or sacrifice child",
                    "Kernel panic - not syncing: out of memory. panic_on_oom is selected",
                    "app[5]: Out of memory: Killed process 9 (worker)",
                ),
            ),
            kernel_line(
                r"^Out of memory and no killable processes",
                Example("Out of memory and no killable processes...", origin="composed from mm/oom_kill.c"),
                lookalikes=("no killable processes", "Memory cgroup out of memory: Killed process 3 (a)"),
            ),
        ),
    ),
    Reason(
        name="PageAllocationFailure",
        subsystem=Subsystem.KERNEL,
        severity=Severity.INFO,
        action=Action.INVESTIGATE,
        summary="The kernel found no free memory in one piece of the size that a driver or task asked for.",
        remedy=(
            "Look at the order in the line and at `cat /proc/buddyinfo`: a high order means fragmented memory. "
            "Raise `vm.min_free_kbytes` if drivers report errors at the same time."
        ),
        clears=(quiet(hours=1), REBOOT),
        patterns=(
            kernel_line(
                r"^[^\n\[]{1,60}: page allocation failure[:.] order:\d",
                Example(
                    "kworker/u64:3: page allocation failure: order:5, mode:0x40dc0(GFP_KERNEL|__GFP_COMP|__GFP_ZERO),"
                    " nodemask=(null),cpuset=/,mems_allowed=0-1",
                    origin="composed from mm/page_alloc.c",
                ),
                lookalikes=(
                    "page allocation failure statistics: order:3 count 0",
                    "SLUB: Unable to allocate memory on node -1",
                ),
            ),
        ),
    ),
)

CONTEXT = (
    kernel_line(
        r"^memory(?:\+swap)?: usage \d{1,20}kB, limit ",
        Example("memory: usage 1048576kB, limit 1048576kB, failcnt 61", origin="mm/memcontrol.c"),
    ),
)
