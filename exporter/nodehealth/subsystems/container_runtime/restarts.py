"""Starts of kubelet, containerd and Docker as systemd reports them: one after each boot is usual, many are a sign."""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Pattern, Reason, Repetition, Severity, Subsystem, journal, quiet

_SYSTEMD = (journal("systemd"),)
_FROM = r"^(?:(?:\S{1,253} )?systemd\[\d{1,10}\]: )?"
_KUBELET = r"(?:snap\.kubelet-eks\.daemon|kubelet)\.service"
_TITLE = r"(?: - [^\n]{1,160})?"


def _start(name: str, what: str, regex: str, *examples: Example, lookalikes: tuple[str, ...]) -> Reason:
    return Reason(
        name=name,
        subsystem=Subsystem.CONTAINER_RUNTIME,
        severity=Severity.INFO,
        action=Action.INVESTIGATE,
        summary=f"{what} was started often; once after each boot or update is usual.",
        remedy=f"If it restarts again and again, read why in `journalctl -u {what.lower()} -e`.",
        clears=(quiet(minutes=20), REBOOT),
        repeats=Repetition(5, 1200),
        patterns=(Pattern(_SYSTEMD, f"{_FROM}{regex}", examples, lookalikes),),
    )


REASONS = (
    _start(
        "KubeletStart",
        "Kubelet",
        rf"Started (?:{_KUBELET}{_TITLE}|(?:Kubernetes )?[Kk]ubelet(?: Server)?|kubelet: The Kubernetes Node Agent)\.$",
        Example("Started kubelet.service - Kubernetes Kubelet.", origin="systemd 255"),
        Example("Started Kubernetes kubelet.", origin="node-problem-detector"),
        Example("Started kubelet.service - kubelet: The Kubernetes Node Agent.", origin="systemd 252, kubeadm"),
        Example(
            "Jan 12 09:14:55 ip-10-0-1-2 systemd[1]: Started kubelet: The Kubernetes Node Agent.",
            origin="systemd 245, kubeadm",
        ),
        lookalikes=(
            "Starting kubelet.service - Kubernetes Kubelet...",
            "Stopped kubelet.service - Kubernetes Kubelet.",
            "Started Kubernetes systemd probe.",
            "Started kubelet-configuration.service - Kubelet configuration.",
        ),
    ),
    _start(
        "ContainerdStart",
        "Containerd",
        rf"Starting (?:containerd\.service{_TITLE}|containerd container runtime)(?:\.\.\.|…)$",
        Example("Starting containerd.service - containerd container runtime...", origin="systemd 255"),
        Example("Starting containerd container runtime...", origin="node-problem-detector"),
        lookalikes=(
            "Stopping containerd.service - containerd container runtime...",
            "Started containerd.service - containerd container runtime.",
            "Starting host-containerd.service - Host containerd...",
        ),
    ),
    _start(
        "DockerStart",
        "Docker",
        rf"Starting (?:docker\.service{_TITLE}|Docker Application Container Engine)(?:\.\.\.|…)$",
        Example("Starting Docker Application Container Engine...", origin="node-problem-detector"),
        Example("Starting docker.service - Docker Application Container Engine...", origin="systemd 255"),
        lookalikes=(
            "Stopping Docker Application Container Engine...",
            "Started Docker Application Container Engine.",
            "Starting docker.socket - Docker Socket for the API...",
        ),
    ),
)

CONTEXT = (
    Pattern(
        _SYSTEMD,
        rf"{_FROM}Stopp(?:ing|ed) (?:{_KUBELET}|(?:containerd|docker)\.service|containerd container runtime"
        r"|Docker Application Container Engine|(?:Kubernetes )?[Kk]ubelet\b)",
        (Example("Stopping containerd.service - containerd container runtime...", origin="systemd 255"),),
    ),
    Pattern(
        _SYSTEMD,
        rf"{_FROM}[\w:.@\\-]{{1,200}}: (?:Scheduled restart job, restart counter is at |Main process exited, code=)",
        (Example("kubelet.service: Scheduled restart job, restart counter is at 3.", origin="systemd 255"),),
    ),
)
