"""Storage troubles that the kubelet logs: the pod's /etc/hosts mount and slow walks over container directories."""

from __future__ import annotations

from nodehealth.model import Action, Example, Pattern, Reason, Severity, Subsystem, journal, quiet

_KUBELET = (journal("kubelet.service"),)
_QUOTE = r'\\{0,7}"'  # each layer of the log escapes the quotes once more
_NMA = "EKS Node Monitoring Agent test"

REASONS = (
    Reason(
        name="EtcHostsMountFailed",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.RESTART_APP,
        summary="A container could not start because its /etc/hosts file could not be mounted.",
        remedy="Delete the pod so that it is created anew; look for a full or read-only /var/lib/kubelet (`df -h`, `df -i`) when it comes back.",
        clears=(quiet(hours=1),),
        patterns=(
            Pattern(
                _KUBELET,
                rf'mounting {_QUOTE}[^"\n]{{1,250}}/etc-hosts{_QUOTE} to rootfs (?:{_QUOTE}[^"\n]{{1,250}}{_QUOTE} )?at {_QUOTE}/etc/hosts{_QUOTE}',
                (
                    Example(
                        'error mounting "/var/lib/kubelet/pods/c02d9022-7bc8-4df0-b899-f315edce7112/etc-hosts" to rootfs at "/etc/hosts"',
                        "",
                        _NMA,
                    ),
                    Example(
                        r'E0102 10:00:00.000000 3158 pod_workers.go:1301] "Error syncing pod, skipping" err="failed to \"StartContainer\" for \"app\" with RunContainerError: \"failed to create containerd task: OCI runtime create failed: runc create failed: error mounting \\\"/var/lib/kubelet/pods/5f/etc-hosts\\\" to rootfs at \\\"/etc/hosts\\\": no such file or directory: unknown\""',
                        "",
                        "composed from kubelet and runc 1.1",
                    ),
                ),
                (
                    'error mounting "/var/lib/kubelet/pods/5f/volumes/data" to rootfs at "/data"',
                    'Successfully created mount "/var/lib/kubelet/pods/5f/etc-hosts" for "/etc/hosts"',
                    'MountVolume.SetUp failed for volume "etc-hosts" : configmap "etc-hosts" not found',
                ),
            ),
        ),
    ),
    Reason(
        name="KubeletDiskUsageSlow",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="Counting the disk usage of containers takes seconds: the disk is overloaded or a directory holds very many files.",
        remedy="Look at `iostat -x 5` and at the directory that the kubelet names; move or clean a directory with very many files.",
        clears=(quiet(hours=1),),
        patterns=(
            Pattern(
                _KUBELET,
                r"fs: disk usage and inodes count on following dirs took \d",
                (
                    Example("fs: disk usage and inodes count on following dirs took 9.537338572s:", "", _NMA),
                    Example(
                        'I0102 10:00:00.000000 3158 fs.go:703] "fs: disk usage and inodes count on following dirs took 1.2s: [/var/lib/containerd]; will not log again for this container unless duration exceeds 2s"',
                        "",
                        "composed from cadvisor fs handler",
                    ),
                ),
                (
                    "fs: disk usage and inodes count on following dirs: ok",
                    'I0102 10:00:00.000000 3158 fs.go:300] "Filesystem partitions" partitions={}',
                ),
            ),
        ),
    ),
)
