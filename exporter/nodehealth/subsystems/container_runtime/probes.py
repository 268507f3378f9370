"""Readiness and liveness probes as the kubelet reports them, in its structured and in its older wording."""

from __future__ import annotations

from nodehealth.model import Action, Example, Pattern, Reason, Repetition, Severity, Subsystem, journal, quiet

_KUBELET = (journal("kubelet.service"),)


def _probe(name: str, probe: str, what: str, remedy: str) -> Reason:
    """Single failures are an application's matter; this many at once are the node's."""
    return Reason(
        name=name,
        subsystem=Subsystem.CONTAINER_RUNTIME,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary=f"Many {what} probes of containers on this node failed within two minutes.",
        remedy=remedy,
        clears=(quiet(minutes=15),),
        repeats=Repetition(60, 120),
        patterns=(
            Pattern(
                _KUBELET,
                rf"\"Probe failed\" probeType=\"{probe}\""
                rf"|\"Probe errored\"(?: err=\"[^\n]{{0,250}}\")? probeType=\"{probe}\""
                rf"|\b{probe} probe for \"[^\"\n]{{1,250}}\" (?:failed|errored)\b",
                (
                    Example(f'{probe} probe for "foo:bar" failed', origin="EKS Node Monitoring Agent test"),
                    Example(
                        f'I0817 06:18:01.123456    2345 prober.go:107] "Probe failed" probeType="{probe}" pod="default/web-0" podUID="9b0c1d2e-3f40-4a5b-8c6d-7e8f90a1b2c3" containerName="web" probeResult="failure" output="HTTP probe failed with statuscode: 503"',
                        origin="composed from kubelet 1.29 pkg/kubelet/prober/prober.go",
                    ),
                    Example(
                        f'E0507 11:59:29.725681    4734 prober.go:104] "Probe errored" err="rpc error: code = NotFound desc = failed to exec in container: failed to load task: no running task found: task 5d1e not found: not found" probeType="{probe}" pod="hosted/g-0" podUID="b1" containerName="grafana"',
                        origin="Grafana Loki test",
                    ),
                    Example(
                        f'I0112 09:14:55.210938    3121 prober.go:111] {probe} probe for "web-0_default(9b0c1d2e):web" failed (failure): Get http://10.0.3.4:8080/healthz: dial tcp 10.0.3.4:8080: connect: connection refused',
                        origin="composed from kubelet 1.17 pkg/kubelet/prober/prober.go",
                    ),
                ),
                lookalikes=(
                    'I0817 06:18:01.123456    2345 prober.go:107] "Probe failed" probeType="Startup" pod="default/web-0" podUID="9b" containerName="web" probeResult="failure" output="not yet"',
                    f'I0817 06:18:01.123456    2345 prober.go:120] "Probe succeeded" probeType="{probe}" pod="default/web-0" podUID="9b" containerName="web"',
                    f'I0817 06:18:01.123456    2345 kubelet.go:2461] "SyncLoop (probe)" probe="{probe.lower()}" status="ready" pod="default/web-0"',
                    f'I0112 09:14:55.210938    3121 prober.go:125] {probe} probe for "web-0_default(9b0c1d2e):web" succeeded',
                ),
            ),
        ),
    )


REASONS = (
    _probe(
        "ReadinessProbeFailures",
        "Readiness",
        "readiness",
        "See which pods are concerned (`journalctl -u kubelet | grep 'Probe failed'`); several applications at once point at the node's CPU, disk or network.",
    ),
    _probe(
        "LivenessProbeFailures",
        "Liveness",
        "liveness",
        "See which pods are restarted (`kubectl get pods -A -o wide`); several applications at once point at the node's CPU, disk or network.",
    ),
)
