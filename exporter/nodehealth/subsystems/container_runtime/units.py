"""What systemd says about services that failed or could not be started.  Only systemd's own words, never the services'."""

from __future__ import annotations

from nodehealth.model import REBOOT, Action, Example, Pattern, Reason, Severity, Subsystem, journal, quiet

_SYSTEMD = (journal("systemd"),)
_FROM = r"^(?:(?:\S{1,253} )?systemd\[\d{1,10}\]: )?"
_KUBELET = r"(?:snap\.kubelet-eks\.daemon|kubelet)\.service"

_HOUSEKEEPING = (
    r"(?:apt-daily|apt-daily-upgrade|apt-news|esm-cache|ua-timer|motd-news|update-notifier-download|update-notifier-motd|fwupd-refresh"
    r"|man-db|dnf-makecache|plocate-updatedb|updatedb|mlocate-updatedb|phpsessionclean|apport-autoreport|packagekit|unattended-upgrades)\.service"
)
"""They fetch news and indexes; on a node without a way to the internet they fail every day and nothing is wrong."""

_TRANSIENT = r"(?:run-|user@|user-runtime-dir@|systemd-coredump@|session-|cri-containerd-|crio-|docker-[0-9a-f]{12})"
_UNIT = rf"(?P<object>(?!{_KUBELET}|{_HOUSEKEEPING}|{_TRANSIENT})[\w:.@\\-]{{1,200}}\.(?:service|socket))"
_STARTED = (
    rf"(?!{_HOUSEKEEPING}|{_TRANSIENT}|\S{{1,200}}\.(?:scope|slice|mount|automount|swap|device|timer|path|target)\b|Session |User Manager |User Runtime |transient |Refresh fwupd metadata|Message of the Day|Daily apt |Daily man-db )"
    r"(?:(?P<object>[\w:.@\\-]{1,200}\.(?:service|socket))(?: - [^\n]{1,240}|\.)$|[^\s.][^\n]{0,240}\.$)"
)
_LOOKALIKES = (
    "containerd.service: Succeeded.",
    "containerd.service: Deactivated successfully.",
    "containerd.service: Main process exited, code=exited, status=1/FAILURE",
    "Started containerd.service - containerd container runtime.",
    "motd-news.service: Failed with result 'exit-code'.",
    "run-u4711.service: Failed with result 'exit-code'.",
    "cri-containerd-0123abcd.scope: Failed with result 'timeout'.",
)


REASONS = (
    Reason(
        name="KubeletFailed",
        subsystem=Subsystem.CONTAINER_RUNTIME,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="The kubelet ended with an error; while it is down this node starts and reports nothing.",
        remedy="Look at `systemctl status kubelet` and `journalctl -u kubelet -e`.",
        clears=(quiet(minutes=30), REBOOT),
        joins=5,  # up to three lines for one failure
        patterns=(
            Pattern(
                _SYSTEMD,
                rf"{_FROM}(?:Unit {_KUBELET} entered failed state|{_KUBELET}"
                r"(?:: Failed with result '|: Unit entered failed state|: Start request repeated too quickly| failed\.$))"
                rf"|{_FROM}start request repeated too quickly for {_KUBELET}",
                (
                    Example("Unit kubelet.service entered failed state", origin="EKS Node Monitoring Agent test"),
                    Example("kubelet.service: Failed with result 'exit-code'.", origin="systemd 255"),
                    Example("kubelet.service: Failed with result 'oom-kill'.", origin="systemd 249"),
                    Example("kubelet.service: Unit entered failed state.", origin="systemd 229"),
                    Example(
                        "Jan 12 09:14:55 ip-10-0-1-2 systemd[1]: Unit kubelet.service entered failed state.",
                        origin="systemd 219",
                    ),
                    Example("kubelet.service: Start request repeated too quickly.", origin="systemd 255"),
                    Example("snap.kubelet-eks.daemon.service: Failed with result 'exit-code'.", origin="systemd 249"),
                ),
                lookalikes=(
                    "kubelet.service: Deactivated successfully.",
                    "kubelet.service: Main process exited, code=exited, status=1/FAILURE",
                    "kubelet.service: Scheduled restart job, restart counter is at 3.",
                    "Stopped kubelet.service - Kubernetes Kubelet.",
                    "kubelet-healthcheck.service: Failed with result 'exit-code'.",
                    "kubelet.service: Consumed 12min 3.4s CPU time.",
                ),
            ),
        ),
    ),
    Reason(
        name="ServiceFailedToStart",
        subsystem=Subsystem.CONTAINER_RUNTIME,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="A system service of this node failed or could not be started.",
        remedy="Look at `systemctl --failed`, then at `systemctl status UNIT` and `journalctl -u UNIT -e`.",
        clears=(quiet(hours=1), REBOOT),
        object_kind="unit",
        joins=30,  # several lines for one failure
        patterns=(
            Pattern(
                _SYSTEMD,
                rf"{_FROM}{_UNIT}(?:: (?:Failed with result '|Unit entered failed state|Start request repeated too quickly"
                r"|Job \S{1,200}/start failed with result '(?:dependency|timeout|failed))| failed\.$)",
                (
                    Example("containerd.service: Failed with result 'exit-code'.", "containerd.service", "systemd 255"),
                    Example(
                        "nvidia-fabricmanager.service: Failed with result 'timeout'.",
                        "nvidia-fabricmanager.service",
                        "systemd 249",
                    ),
                    Example("docker.socket: Failed with result 'service-start-limit-hit'.", "docker.socket", "systemd 249"),
                    Example(
                        "Oct 12 14:25:38 motorsport systemd[1]: ushare.service: Failed with result 'exit-code'.",
                        "ushare.service",
                        "Debian user report",
                    ),
                    Example("docker.service: Unit entered failed state.", "docker.service", "systemd 229"),
                    Example("docker.service: Start request repeated too quickly.", "docker.service", "systemd 249"),
                    Example("docker.service failed.", "docker.service", "systemd 219"),
                    Example(
                        "docker.service: Job docker.service/start failed with result 'dependency'.",
                        "docker.service",
                        "systemd 249",
                    ),
                ),
                lookalikes=_LOOKALIKES,
            ),
            Pattern(
                _SYSTEMD,
                rf"{_FROM}(?:Unit (?=\S{{1,220}} entered )|Job (?=\S{{1,220}}/start )|Dependency failed for |start request repeated too quickly for )"
                rf"{_UNIT}(?: entered failed state|/start failed with result '(?:dependency|timeout|failed)| - |\.?$)",
                (
                    Example("Unit docker.service entered failed state.", "docker.service", "systemd 219"),
                    Example("start request repeated too quickly for docker.service", "docker.service", "systemd 219"),
                    Example("Job docker.service/start failed with result 'dependency'.", "docker.service", "systemd 219"),
                    Example(
                        "Dependency failed for docker.service - Docker Application Container Engine.",
                        "docker.service",
                        "systemd 255",
                    ),
                ),
                lookalikes=(
                    "Unit docker.service is not needed anymore. Stopping.",
                    "Job docker.service/start canceled.",
                    "Dependency failed for data.mount - /data.",
                    "Unit session-4.scope entered failed state.",
                ),
            ),
            Pattern(
                _SYSTEMD,
                rf"{_FROM}Failed to start {_STARTED}",
                (
                    Example("Failed to start containerd.", origin="EKS Node Monitoring Agent test"),
                    Example("Failed to start Docker Application Container Engine.", origin="systemd 219"),
                    Example("Failed to start Kubernetes Kubelet.", origin="systemd 219"),
                    Example(
                        "Failed to start containerd.service - containerd container runtime.",
                        "containerd.service",
                        "systemd 255",
                    ),
                    Example("Failed to start nvidia-persistenced.service.", "nvidia-persistenced.service", "systemd 245"),
                    Example(
                        "Oct 12 14:25:38 motorsport systemd[1]: Failed to start LSB: uShare.", origin="Debian user report"
                    ),
                ),
                lookalikes=(
                    "Failed to start Session 12 of user root.",
                    "Failed to start User Manager for UID 1000.",
                    "Failed to start run-u4711.service - /bin/false.",
                    "Failed to start cri-containerd-0123abcd.scope - libcontainer container 0123abcd.",
                    "Failed to start fwupd-refresh.service - Refresh fwupd metadata and update motd.",
                    "Failed to start Refresh fwupd metadata and update motd.",
                    "myapp[4711]: Failed to start worker.",
                    "Starting containerd.service - containerd container runtime...",
                ),
            ),
        ),
    ),
)
