"""Network interfaces of any driver: a stalled transmit queue, a lost carrier, an interface that cannot be removed.

Knows nothing of single drivers; the kernel's watchdog and systemd-networkd print the same for all of them.
"""

from __future__ import annotations

from nodehealth.model import (
    LINE,
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

_NAME = r"[^\s:()/]{1,15}"
_STALLED = r"transmit (?:queue (?:\d{1,6} )?)?timed out"

_OF_PODS = (
    r"(?!lo\b|veth|cali|eni[0-9a-f]{11}|vlan[0-9a-f]{10,11}\b|lxc|docker|br-|cni|cbr0|flannel|cilium|tunl|vnet|tap|tun|dummy|kube|nodelocaldns"
    r"|azv|gke|vxlan|geneve|genev_sys|antrea|ovn|ovs|wg|virbr|ifb|podman|tailscale|weave|nerdctl|vmtap)"
)
"""Interfaces that come and go with pods, containers and machines: their lost carrier is how they end."""

_NETWORKD = (journal("systemd-networkd.service"),)
_FROM = r"^(?:(?:\S{1,253} )?systemd-networkd\[\d{1,10}\]: )?"
_CARD = rf"{_FROM}(?P<object>{_OF_PODS}{_NAME}) {{0,15}}: "

REASONS = (
    Reason(
        name="TransmitQueueTimeout",
        subsystem=Subsystem.NETWORKING,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="A network card stopped sending: its transmit queue stood still until the kernel reset it.",
        remedy=(
            "Look at `ip -s link show dev INTERFACE` and at the driver's lines before it in `dmesg`; if it comes again, drain the "
            "node and update or replace the card, its firmware or its driver."
        ),
        clears=(quiet(hours=1), REBOOT),
        object_kind="interface",
        joins=5,  # every queue of the card has its own line
        patterns=(
            kernel_line(
                rf"^NETDEV WATCHDOG: (?P<object>{_NAME})(?: \([^)\n]{{0,32}}\))?: {_STALLED}",
                Example("NETDEV WATCHDOG: enp10s0 (r8169): transmit queue 0 timed out", "enp10s0", "NVSentinel test"),
                Example(
                    "kernel: [123.456792] NETDEV WATCHDOG: eth0 (mlx5_core): transmit queue timed out",
                    "eth0",
                    "NVSentinel test",
                ),
                Example("NETDEV WATCHDOG: eth2 (igb): transmit queue 4 timed out", "eth2", "kernel mailing list"),
                Example("NETDEV WATCHDOG: eth0: transmit timed out", "eth0", "kernel 2.6 net/sched/sch_generic.c"),
                Example(
                    "NETDEV WATCHDOG: bond0.100 (ena): transmit queue 3 timed out 5008 ms",
                    "bond0.100",
                    "composed from kernel 6.5 net/sched/sch_generic.c",
                ),
                lookalikes=(
                    "WARNING: CPU: 5 PID: 0 at net/sched/sch_generic.c:525 dev_watchdog+0x207/0x210",
                    "NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
                    "mlx5_core 0000:65:00.0 eth0: TX timeout detected",
                    "collectd: NETDEV WATCHDOG: eth0 (mlx5_core): transmit queue 0 timed out",
                ),
            ),
            kernel_line(
                rf"^(?:\S{{1,40}} \S{{1,64}} )?(?P<object>{_NAME})(?: \([\w ]{{1,32}}\))?: NETDEV WATCHDOG: (?:CPU: \d{{1,6}}: )?{_STALLED}",
                Example(
                    "mlx5_core 0000:65:00.0 eth0: NETDEV WATCHDOG: CPU: 5: transmit queue 0 timed out 5032 ms",
                    "eth0",
                    "NVSentinel test",
                ),
                Example(
                    "virtio_net virtio1 enp9s0: NETDEV WATCHDOG: CPU: 2: transmit queue 0 timed out 5172 ms",
                    "enp9s0",
                    "kernel mailing list",
                ),
                Example(
                    "wlan0: NETDEV WATCHDOG: CPU: 11: transmit queue 2 timed out 6016 ms",
                    "wlan0",
                    "composed from kernel 6.8 net/sched/sch_generic.c",
                ),
                lookalikes=(
                    "virtio_net virtio1 enp9s0: TX timeout on queue: 0, sq: output.0, vq: 0x1, name: output.0, 5172000 usecs ago",
                    "bnxt_en 0000:19:00.0 eth0: TX timeout detected, starting reset task!",
                    "seen in dmesg: mlx5_core 0000:65:00.0 eth0: NETDEV WATCHDOG: CPU: 5: transmit queue 0 timed out",
                ),
            ),
        ),
    ),
    Reason(
        name="UnregisterNetDevice",
        subsystem=Subsystem.NETWORKING,
        severity=Severity.WARNING,
        action=Action.REBOOT_NODE,
        summary="The kernel cannot remove a network interface that something still uses; starting containers may hang.",
        remedy=(
            "If it goes on, drain and reboot the node: a lost reference does not come back. A newer kernel often has the fix; the "
            "line's `ref_tracker` details in `dmesg` name the culprit."
        ),
        clears=(quiet(minutes=30), REBOOT),
        repeats=Repetition(3, 1200),  # printed every ten seconds while it lasts; a busy moment gives one or two
        patterns=(
            kernel_line(
                r"^unregister_netdevice: waiting for \S{1,15} to become free\. Usage count = -?\d{1,10}",
                Example(
                    "unregister_netdevice: waiting for eth0 to become free. Usage count = 2",
                    origin="node-problem-detector test",
                ),
                Example(
                    "[66421.013347] unregister_netdevice: waiting for lo to become free. Usage count = 1", origin="kernel"
                ),
                Example(
                    "unregister_netdevice: waiting for vethd3f1c2a to become free. Usage count = -1",
                    origin="composed from net/core/dev.c",
                ),
                lookalikes=(
                    "unregister_netdevice: device eth0/00000000a4b1c2d3 never was registered",
                    "device veth1a2b3c4 left promiscuous mode",
                    "docker0: port 1(vethf67fbb9) entered disabled state",
                    "ref_tracker: eth0@00000000 has 1/1 users at",
                ),
            ),
        ),
    ),
    Reason(
        name="LinkLostCarrier",
        subsystem=Subsystem.NETWORKING,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="A network interface lost its link: cable, transceiver, switch port or card.",
        remedy=(
            "Check `ip link show dev INTERFACE` and `ethtool INTERFACE`; if the link comes and goes, clean or replace cable and "
            "transceiver and look at the switch port."
        ),
        clears=(LINE, quiet(hours=1), REBOOT),
        object_kind="interface",
        patterns=(
            Pattern(
                _NETWORKD,
                rf"{_CARD}[Ll]ost carrier",
                (
                    Example("ib1: Lost carrier", "ib1", "azurehpc-health-checks"),
                    Example(
                        "Aug 17 06:18:01 jplc7eb7-vm-0 systemd-networkd[5398]: ib6: lost carrier",
                        "ib6",
                        "azurehpc-health-checks",
                    ),
                    Example(
                        "Oct 05 17:31:32 host systemd-networkd[2160]: ens2f1np1: Lost carrier", "ens2f1np1", "OpenStack log"
                    ),
                    Example("enp0s20f6       : lost carrier", "enp0s20f6", "systemd 215"),
                    Example("eth0.100: Lost carrier", "eth0.100", "composed from systemd src/network/networkd-link.c"),
                ),
                lookalikes=(
                    "ib1: Gained carrier",
                    "eth0: Link DOWN",
                    "eth0: DHCP lease lost",
                    "docker0: Lost carrier",
                    "veth5f3a2b1: Lost carrier",
                    "calif6a2d3b1c0e: Lost carrier",
                    "eni0a1b2c3d4e5: Lost carrier",
                    "lxc1a2b3c4d5e6f: Lost carrier",
                    "Could not bring up interface, ignoring: eth0: Lost carrier",
                ),
            ),
        ),
        recoveries=(
            Pattern(
                _NETWORKD,
                rf"{_CARD}[Gg]ained carrier",
                (
                    Example("ib1: Gained carrier", "ib1", "azurehpc-health-checks"),
                    Example(
                        "Oct 05 17:31:29 host systemd-networkd[2160]: ens2f1np1: Gained carrier",
                        "ens2f1np1",
                        "OpenStack log",
                    ),
                ),
            ),
        ),
    ),
)
