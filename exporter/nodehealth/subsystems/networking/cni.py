"""The pod network as the kubelet sees it: whether the runtime says that its CNI plugin is ready.

A node that joins a cluster prints these lines for a minute or two until its CNI pod runs; only going on for long is a fault.
"""

from __future__ import annotations

from nodehealth.model import Action, Example, Pattern, Reason, Repetition, Severity, Subsystem, journal, quiet

REASONS = (
    Reason(
        name="CNINotReady",
        subsystem=Subsystem.NETWORKING,
        severity=Severity.CRITICAL,
        action=Action.INVESTIGATE,
        summary="For minutes the pod network (CNI plugin) has not been ready, so that no new pod can start on this node.",
        remedy=(
            "Look whether the network plugin's pod runs on this node (`kubectl -n kube-system get pods -o wide`) and whether "
            "`/etc/cni/net.d` holds a configuration; restart that pod."
        ),
        clears=(quiet(minutes=5),),  # the kubelet says it again every five seconds while it lasts
        repeats=Repetition(100, 600),
        patterns=(
            Pattern(
                (journal("kubelet.service"),),
                r"untime network not ready(?:: |\" networkReady=\")NetworkReady=false"
                r"|Unable to update cni config(?:: |\" err=\")[Nn]o (?:valid )?networks found in ",
                (
                    Example(
                        '"Container runtime network not ready" networkReady="NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"',
                        origin="kubelet 1.27 journal",
                    ),
                    Example(
                        'E0817 06:18:01.123456    2345 kubelet.go:3002] "Container runtime network not ready" networkReady="NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized"',
                        origin="composed from kubelet 1.31 pkg/kubelet/kubelet.go",
                    ),
                    Example(
                        "E0112 09:14:55.210938    3121 kubelet.go:2183] Container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:docker: network plugin is not ready: cni config uninitialized",
                        origin="composed from kubelet 1.18 pkg/kubelet/kubelet.go",
                    ),
                    Example(
                        'E0817 06:18:01.123456    2345 pod_workers.go:1298] "Error syncing pod, skipping" err="network is not ready: container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized" pod="kube-system/coredns-5d78c9869d-x2x7b" podUID="0f3d"',
                        origin="composed from kubelet 1.27 pkg/kubelet/kubelet.go",
                    ),
                    Example(
                        "W0112 09:14:50.901237    3121 cni.go:237] Unable to update cni config: no networks found in /etc/cni/net.d",
                        origin="composed from kubelet 1.18 pkg/kubelet/dockershim/network/cni/cni.go",
                    ),
                    Example(
                        'I0817 06:18:01.123456    2345 cni.go:239] "Unable to update cni config" err="no networks found in /etc/cni/net.d"',
                        origin="composed from kubelet 1.22 pkg/kubelet/dockershim/network/cni/cni.go",
                    ),
                ),
                lookalikes=(
                    'I0817 06:19:11.000001    2345 kubelet.go:2999] "Container runtime status" status="Runtime Conditions: RuntimeReady=true reason: message:, NetworkReady=true reason: message:"',
                    'E0817 06:18:01.123456    2345 kubelet.go:2412] "Skipping pod synchronization" err="container runtime status check may not have completed yet"',
                    'I0817 06:18:01.123456    2345 kubelet_node_status.go:696] "Recording event message for node" node="n1" event="NodeReady"',
                    'I0817 06:18:01.123456    2345 kuberuntime_manager.go:1523] "Updating runtime config through cri with podcidr" CIDR="10.0.1.0/24"',
                ),
            ),
        ),
    ),
)
