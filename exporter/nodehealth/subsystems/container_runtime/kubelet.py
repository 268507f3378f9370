"""What the kubelet, containerd and Docker say about starting, listing and stopping containers.

No finding names a pod or container: these lines count how often, on this node, something does not work.
"""

from __future__ import annotations

from nodehealth.model import Action, Example, Pattern, Reason, Repetition, Severity, Subsystem, journal, quiet

_KUBELET = (journal("kubelet.service"),)
_RUNTIMES = (journal("kubelet.service"), journal("containerd.service"), journal("dockerd"))
_NMA = "EKS Node Monitoring Agent test"


REASONS = (
    Reason(
        name="PodStuckTerminating",
        subsystem=Subsystem.CONTAINER_RUNTIME,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="A pod that should end does not: the runtime cannot stop one of its containers.",
        remedy=(
            "Find it with `kubectl get pods -A --field-selector spec.nodeName=NODE | grep Terminating`; look for processes in state D "
            "(`ps -eo pid,stat,wchan,comm`): a hung mount or GPU driver needs a reboot of the node."
        ),
        clears=(quiet(minutes=30),),
        repeats=Repetition(3, 900),
        patterns=(
            Pattern(
                _KUBELET,
                r"still has one or more containers in the non-exited state(?: and will not be removed from desired state|\. Therefore, it will not be removed from )"
                r"|with Kill(?:Container|PodSandbox)Error: \\{0,3}\"rpc error: code = (?:DeadlineExceeded|Unknown desc = operation timeout)",
                (
                    Example(
                        '"Pod still has one or more containers in the non-exited state and will not be removed from desired state" pod="default/a-pod"',
                        origin=_NMA,
                    ),
                    Example(
                        'I0112 09:14:55.210938    3121 desired_state_of_world_populator.go:226] Pod "web-0_default(9b0c1d2e)" still has one or more containers in the non-exited state. Therefore, it will not be removed from desired state.',
                        origin="composed from kubelet 1.18 desired_state_of_world_populator.go",
                    ),
                    Example(
                        'E0817 06:18:01.123456    2345 pod_workers.go:1298] "Error syncing pod, skipping" err="[failed to \\"KillContainer\\" for \\"train\\" with KillContainerError: \\"rpc error: code = DeadlineExceeded desc = context deadline exceeded\\", failed to \\"KillPodSandbox\\" for \\"37c13c6d\\" with KillPodSandboxError: \\"rpc error: code = DeadlineExceeded desc = context deadline exceeded\\"]" pod="ml/train-0" podUID="37c13c6d"',
                        origin="user report, kubelet 1.27",
                    ),
                    Example(
                        'E1217 23:38:52.832192  142923 kubelet_pods.go:1093] Failed killing the pod "nginx": failed to "KillContainer" for "nginx" with KillContainerError: "rpc error: code = Unknown desc = operation timeout: context deadline exceeded"',
                        origin="user report, kubelet 1.17",
                    ),
                ),
                lookalikes=(
                    'I0817 06:18:01.123456    2345 kuberuntime_container.go:808] "Killing container with a grace period" pod="ml/train-0" podUID="37c1" containerName="train" containerID="containerd://ab" gracePeriod=30',
                    'I0817 06:18:01.123456    2345 kubelet.go:2440] "SyncLoop DELETE" source="api" pods=["ml/train-0"]',
                    'failed to "KillContainer" for "kubia" with KillContainerError: "rpc error: code = Unknown desc = Error response from daemon: No such container: b0e8"',
                    'E0817 06:18:01.123456    2345 pod_workers.go:1298] "Error syncing pod, skipping" err="failed to \\"StartContainer\\" for \\"train\\" with CrashLoopBackOff: \\"back-off 5m0s restarting failed container\\""',
                ),
            ),
        ),
    ),
    Reason(
        name="PLEGNotHealthy",
        subsystem=Subsystem.CONTAINER_RUNTIME,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="The kubelet cannot list the node's containers in time; pods are neither started nor stopped and the node may turn NotReady.",
        remedy=(
            "Time `crictl ps` and `crictl pods`, look at load, disk and memory pressure (`cat /proc/pressure/*`) and at containerd's "
            "journal; restart containerd if it hangs."
        ),
        clears=(quiet(minutes=15),),
        joins=60,
        patterns=(
            Pattern(
                _KUBELET,
                r"PLEG is not healthy: pleg was last seen active "
                r"|GenericPLEG: Unable to retrieve pods(?:: |\" err=\")rpc error: code = (?:DeadlineExceeded|Unknown desc = operation timeout)",
                (
                    Example(
                        '"PLEG is not healthy" err="PLEG is not healthy: pleg was last seen active 3m1.2s ago; threshold is 3m0s"',
                        origin="kubelet journal",
                    ),
                    Example(
                        'E0817 06:18:01.123456    2345 kubelet.go:2412] "Skipping pod synchronization" err="PLEG is not healthy: pleg was last seen active 5m41.2s ago; threshold is 3m0s"',
                        origin="composed from kubelet 1.29 pkg/kubelet/pleg/generic.go",
                    ),
                    Example(
                        "I0112 09:14:55.210938    3121 kubelet.go:1948] skipping pod synchronization - [PLEG is not healthy: pleg was last seen active 3m5.305s ago; threshold is 3m0s]",
                        origin="user report, kubelet 1.13",
                    ),
                    Example(
                        'E1004 14:52:24.281561    3956 generic.go:308] "GenericPLEG: Unable to retrieve pods" err="rpc error: code = DeadlineExceeded desc = context deadline exceeded"',
                        origin="composed from kubelet 1.29 pkg/kubelet/pleg/generic.go",
                    ),
                ),
                lookalikes=(
                    'E0817 06:18:01.123456    2345 kubelet.go:2412] "Skipping pod synchronization" err="[container runtime status check may not have completed yet, PLEG is not healthy: pleg has yet to be successful]"',
                    'I0817 06:18:01.123456    2345 kubelet.go:2477] "SyncLoop (PLEG): event for pod" pod="default/web-0" event={"ID":"9b","Type":"ContainerStarted","Data":"ab"}',
                    'E1004 14:52:24.281561    3956 generic.go:308] "GenericPLEG: Unable to retrieve pods" err="rpc error: code = Unavailable desc = connection error: desc = \\"transport: Error while dialing\\""',
                ),
            ),
        ),
    ),
    Reason(
        name="ContainerRuntimeFailed",
        subsystem=Subsystem.CONTAINER_RUNTIME,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="The container runtime repeatedly failed to create or start containers on this node.",
        remedy=(
            "Read the end of the line in `journalctl -u kubelet -u containerd`: `nvidia-container-cli` means the GPU driver, `no space` "
            "the disk, `executable file not found` only that one image; for the first two drain the node."
        ),
        clears=(quiet(hours=1),),
        joins=2,  # kubelet and runtime report one failure in several lines within the same second
        repeats=Repetition(5, 600),
        patterns=(
            Pattern(
                _RUNTIMES,
                r"\bOCI runtime (?:create|start) failed: |\bfailed to create shim(?: task)?: (?!OCI runtime )|\bfailed to start shim: "
                r"|\boci runtime error: container_linux\.go",
                (
                    Example("OCI runtime create failed: unable to retrieve OCI runtime error", origin=_NMA),
                    Example(
                        "OCI runtime start failed: container process is already dead: unknown",
                        origin="node-problem-detector test",
                    ),
                    Example(
                        'level=error msg="failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process"',
                        origin="containerd journal",
                    ),
                    Example(
                        'time="2024-06-03T08:12:44.901Z" level=error msg="StartContainer for \\"ab12\\" failed" error="failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: error running prestart hook #0: exit status 1, stdout: , stderr: Auto-detected mode as \'legacy\' nvidia-container-cli: initialization error: driver rpc error: timed out: unknown"',
                        origin="user report, containerd 1.7",
                    ),
                    Example(
                        'time="2024-06-03T08:12:44.901Z" level=error msg="RunPodSandbox failed" error="failed to create containerd task: failed to create shim task: context deadline exceeded: unknown"',
                        origin="composed from containerd runtime/v2/shim.go",
                    ),
                    Example(
                        'level=error msg="Handler for POST /v1.24/containers/ab/start returned error: oci runtime error: container_linux.go:247: starting container process caused process_linux.go:359: container init caused"',
                        origin="composed from docker 1.13",
                    ),
                ),
                lookalikes=(
                    'E0817 06:18:01.123456    2345 remote_runtime.go:496] "ExecSync cmd from runtime service failed" err="rpc error: code = Unknown desc = failed to exec in container: failed to start exec: OCI runtime exec failed: exec failed: unable to start container process: exec: \\"cat\\": executable file not found in $PATH: unknown"',
                    'time="2024-06-03T08:12:44.901Z" level=info msg="StartContainer for \\"ab12\\" returns successfully"',
                    'time="2024-06-03T08:12:44.901Z" level=info msg="shim disconnected" id=ab12 namespace=k8s.io',
                    "OCI runtime state failed: runc did not terminate successfully: exit status 1",
                ),
            ),
        ),
    ),
)
