"""Limits of the whole node that were reached: open files, processes and threads.

Measured shares of the limits are a check's matter; these are the lines of what already failed.
"""

from __future__ import annotations

from nodehealth.model import (
    REBOOT,
    Action,
    Example,
    Pattern,
    Reason,
    Repetition,
    Severity,
    Subsystem,
    journal,
    kernel_line,
    quiet,
)

_KUBELET = (journal("kubelet.service"),)

REASONS = (
    Reason(
        name="FileMaxReached",
        subsystem=Subsystem.KERNEL,
        severity=Severity.WARNING,
        action=Action.CHECK_CONFIG,
        summary="The node has no file handle left: programs can not open files or connections.",
        remedy=(
            "Compare `cat /proc/sys/fs/file-nr` with `sysctl fs.file-max` and find who holds most of them: "
            "`for p in /proc/[0-9]*; do echo $(ls $p/fd | wc -l) $p; done | sort -n | tail`."
        ),
        clears=(quiet(hours=1), REBOOT),
        patterns=(
            kernel_line(
                r"^VFS: file-max limit \d{1,20} reached\b",
                Example("VFS: file-max limit 500000 reached", origin="EKS Node Monitoring Agent test"),
                Example("[Sun Dec  1 14:54:40 2024] VFS: file-max limit 1000000 reached", origin="GPUd test"),
                lookalikes=(
                    "VFS: Disk quotas dquot_6.6.0",
                    "VFS: file-max limit raised to 1000000",
                    "proxy[8]: VFS: file-max limit 500000 reached",
                ),
            ),
        ),
    ),
    Reason(
        name="ForkFailedOutOfPIDs",
        subsystem=Subsystem.KERNEL,
        severity=Severity.CRITICAL,
        action=Action.CHECK_CONFIG,
        summary="The kubelet repeatedly could not start a process or thread: the node has no process ids left.",
        remedy=(
            "Compare `ps -eLf | wc -l` with `sysctl kernel.pid_max kernel.threads-max` and the kubelet's `TasksMax`, "
            "and stop the pod that has most threads; set `podPidsLimit` to keep it from coming back."
        ),
        clears=(quiet(hours=1), REBOOT),
        repeats=Repetition(3, 600),
        patterns=(
            Pattern(
                _KUBELET,
                r"failed to create new OS thread \([^\n]{0,80}errno=11\)",
                (
                    Example("failed to create new OS thread (foo; errno=11)", origin="EKS Node Monitoring Agent test"),
                    Example(
                        "runtime: failed to create new OS thread (have 312 already; errno=11)",
                        origin="composed from Go runtime/os_linux.go",
                    ),
                ),
                (
                    "runtime: failed to create new OS thread (have 3 already; errno=12)",
                    'E0101 1 x.go:1] "could not create new OS thread pool"',
                ),
            ),
            Pattern(
                _KUBELET,
                r"\bfork/exec (?!/proc/self/)[^\s:]{1,240}: resource temporarily unavailable",
                (
                    Example(
                        "fork/exec /opt/cni/bin/x: resource temporarily unavailable",
                        origin="EKS Node Monitoring Agent test",
                    ),
                    Example(
                        'E0212 10:11:12.131415    4711 mount_linux.go:232] "Mount failed" err="fork/exec /usr/bin/systemd-run:'
                        ' resource temporarily unavailable"',
                        origin="composed from k8s.io/mount-utils",
                    ),
                ),
                (
                    'E0212 10:11:12.1 4711 remote_runtime.go:536] "ExecSync cmd failed" err="OCI: fork/exec /proc/self/exe: resource temporarily unavailable"',
                    "fork/exec /opt/cni/bin/x: no such file or directory",
                    "read unix /run/x.sock: resource temporarily unavailable",
                ),
            ),
            Pattern(
                _KUBELET,
                r"^runtime/cgo: pthread_create failed: Resource temporarily unavailable",
                (
                    Example(
                        "runtime/cgo: pthread_create failed: Resource temporarily unavailable",
                        origin="composed from Go runtime/cgo/gcc_util.c",
                    ),
                ),
                (
                    "runtime/cgo: pthread_create failed: Operation not permitted",
                    "container app said runtime/cgo: pthread_create failed: Resource temporarily unavailable",
                ),
            ),
        ),
    ),
    Reason(
        name="PidsLimitReached",
        subsystem=Subsystem.KERNEL,
        severity=Severity.INFO,
        action=Action.CHECK_CONFIG,
        summary="A pod or service reached its own limit of processes and could not start another one.",
        remedy=(
            "The node itself is well. Find the leak in the workload that the line names, "
            "or raise `podPidsLimit` of the kubelet or `TasksMax=` of the service."
        ),
        clears=(quiet(hours=1), REBOOT),
        patterns=(
            kernel_line(
                r"^cgroup: fork rejected by pids controller in \S",
                Example(
                    "cgroup: fork rejected by pids controller in /kubepods/burstable/pod1234/abcd",
                    origin="composed from kernel/cgroup/pids.c",
                ),
                lookalikes=(
                    "cgroup: Disabling memory control group subsystem",
                    'cgroup: cgroup2: unknown option "pids"',
                ),
            ),
        ),
    ),
)
