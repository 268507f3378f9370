"""The network's checks: on small recorded hosts, at their thresholds, and for real on this machine."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nodehealth import worker
from nodehealth.checks import Check, Pass, Verdict
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host
from nodehealth.subsystems.networking import carrier, efa_counters, ena, infiniband, interfaces, routes, sysctls, traffic

TOPICS = (carrier, efa_counters, ena, infiniband, interfaces, routes, sysctls, traffic)
CHECKS: dict[str, tuple[str, Check]] = {check.name: (topic.__name__, check) for topic in TOPICS for check in topic.CHECKS}


def read(name: str, root: Path) -> Any:
    check = CHECKS[name][1]
    sample = check.read(Host(root), check.thresholds)
    return json.loads(json.dumps(sample))


def judge(
    name: str, sample: Any, previous: Any = None, elapsed: float | None = None, **thresholds: float
) -> tuple[set[tuple[str, str]], dict[tuple[str, ...], float]]:
    check = CHECKS[name][1]
    verdict = check.judge(Pass(sample, {**check.thresholds, **thresholds}, previous, elapsed))
    return found(verdict), measured(check, verdict)


def found(verdict: Verdict) -> set[tuple[str, str]]:
    assert all(each.detail for each in verdict.findings)
    names = [(each.reason.name, each.object) for each in verdict.findings]
    assert len(set(names)) == len(names)
    return set(names)


def measured(check: Check, verdict: Verdict) -> dict[tuple[str, ...], float]:
    assert all(each.metric in check.metrics for each in verdict.measurements)
    assert all(len(each.labels) == len(each.metric.labels) for each in verdict.measurements)
    return {
        (each.metric.name.removeprefix("nodehealth_networking_"), *each.labels): each.value for each in verdict.measurements
    }


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n", encoding="ascii")
    return root


def virtual(root: Path, name: str, **more: str) -> Path:
    """An interface in sysfs: Ethernet, up, with a link that it always had, unless `more` says otherwise."""
    files = {"type": "1", "flags": "0x1003", "operstate": "up", "carrier": "1", "carrier_up_count": "1", **more}
    return write(root, {f"sys/class/net/{name}/{file}": text for file, text in files.items()})


def interface(root: Path, name: str, **more: str) -> Path:
    """The same with a device."""
    (root / "sys/class/net" / name / "device").mkdir(parents=True)
    return virtual(root, name, **more)


def with_loopback(root: Path) -> Path:
    return virtual(root, "lo", type="772", flags="0x9", operstate="unknown")


DOWN = {"flags": "0x1002", "operstate": "down", "carrier": ""}
NO_LINK = {"operstate": "down", "carrier": "0"}
NEVER = {"carrier_up_count": "0"}


# -- interfaces -----------------------------------------------------------------------------------------------------------


def test_interfaces_sick_and_well(tmp_path: Path) -> None:
    with_loopback(tmp_path)
    interface(tmp_path, "eth0")
    interface(tmp_path, "eth1", **DOWN)
    interface(tmp_path, "eth2", **NO_LINK)
    interface(tmp_path, "eth3", operstate="unknown", **NEVER)
    findings, values = judge("interfaces", read("interfaces", tmp_path))
    assert findings == {("InterfaceNotUp", "eth1"), ("InterfaceNotRunning", "eth2")}
    assert values == {
        **{("interface_up", name): float(name != "eth1") for name in ("eth0", "eth1", "eth2", "eth3")},
        **{("interface_carrier", name): float(name in {"eth0", "eth3"}) for name in ("eth0", "eth1", "eth2", "eth3")},
    }


def test_interfaces_of_no_use_are_not_missed(tmp_path: Path) -> None:
    with_loopback(tmp_path)
    for name in ("veth1", "dummy0", "cni0", "bond0", "docker0"):
        virtual(tmp_path, name, **DOWN)
    interface(tmp_path, "ib0", type="32", **DOWN)
    interface(tmp_path, "eth0v1", **DOWN)
    (tmp_path / "sys/class/net/eth0v1/device/physfn").symlink_to("../0000:00:05.0")
    interface(tmp_path, "eth0_3", phys_port_name="pf0vf3", **DOWN)
    interface(tmp_path, "eth5", **DOWN, **NEVER)  # a spare one, never switched on
    interface(tmp_path, "eth6", **NO_LINK, **NEVER)  # a port without a cable, switched on by the distribution
    interface(tmp_path, "eth7", flags="")  # it went away while it was read
    findings, values = judge("interfaces", read("interfaces", tmp_path))
    assert findings == set()
    assert {labels[1] for labels in values} == {"eth5", "eth6"}


@pytest.mark.parametrize("kind", ["bond", "ipv4", "ipv6"])
def test_an_interface_in_use_that_never_had_a_link_is_missed(tmp_path: Path, kind: str) -> None:
    with_loopback(tmp_path)
    interface(tmp_path, "eth1", **NO_LINK, **NEVER)
    write(
        tmp_path, {"proc/1/net/route": "Iface\tDestination\neth10\t0\t0", "proc/1/net/if_inet6": "fe80 02 40 20 80 eth10"}
    )
    assert judge("interfaces", read("interfaces", tmp_path))[0] == set()
    if kind == "bond":
        (tmp_path / "sys/class/net/eth1/master").symlink_to("../bond0")
    elif kind == "ipv4":
        write(tmp_path, {"proc/1/net/route": "Iface\tDestination\tGateway\neth1\t000200C0\t00000000"})
    else:
        write(tmp_path, {"proc/1/net/if_inet6": "fd000000000000000000000000000002 04 40 00 82     eth1"})
    assert judge("interfaces", read("interfaces", tmp_path))[0] == {("InterfaceNotRunning", "eth1")}


def test_an_old_kernel_counts_changes_only(tmp_path: Path) -> None:
    with_loopback(tmp_path)
    interface(tmp_path, "eth1", **DOWN, carrier_up_count="", carrier_changes="1")
    interface(tmp_path, "eth2", **DOWN, carrier_up_count="", carrier_changes="2")
    assert judge("interfaces", read("interfaces", tmp_path))[0] == {("InterfaceNotUp", "eth2")}


@pytest.mark.parametrize(("flags", "missing"), [("0x9", False), ("0x8", True), (None, True)])
def test_loopback(tmp_path: Path, flags: str | None, missing: bool) -> None:  # noqa: FBT001 - a column of the table
    interface(tmp_path, "eth0")
    if flags:
        virtual(tmp_path, "lo", flags=flags)
    findings = judge("interfaces", read("interfaces", tmp_path))[0]
    assert findings == ({("MissingLoopbackInterface", "")} if missing else set())


@pytest.mark.parametrize("name", ["interfaces", "carrier", "traffic"])
def test_a_host_without_sysfs_has_no_interfaces(tmp_path: Path, name: str) -> None:
    with pytest.raises(Absent):
        read(name, tmp_path)


# -- carrier --------------------------------------------------------------------------------------------------------------


def test_carrier_changes(tmp_path: Path) -> None:
    interface(tmp_path, "eth0", carrier_changes="6")
    interface(tmp_path, "ib0", type="32", carrier_changes="3")
    virtual(tmp_path, "veth0", carrier_changes="9")
    sample = read("carrier", tmp_path)
    assert sample == {"eth0": 6, "ib0": 3}
    findings, values = judge("carrier", sample, {"eth0": 5, "ib0": 3}, 60.0)
    assert findings == {("InterfaceFlapping", "eth0")}
    assert values == {("interface_carrier_changes", "eth0"): 6, ("interface_carrier_changes", "ib0"): 3}


@pytest.mark.parametrize(
    ("now", "before", "limit", "hit"),
    [
        (6, None, 1.0, False),
        (6, 6, 1.0, False),
        (7, 6, 2.0, False),
        (8, 6, 2.0, True),
        (2, 6, 1.0, True),
        (0, 6, 1.0, False),
    ],
)
def test_carrier_edges(now: int, before: int | None, limit: float, hit: bool) -> None:  # noqa: FBT001 - as above
    previous = None if before is None else {"eth0": before}
    findings, _ = judge("carrier", {"eth0": now}, previous, 60.0, changes=limit)
    assert bool(findings) is hit


# -- traffic --------------------------------------------------------------------------------------------------------------


def counters(packets: int, errors: int = 0, dropped: int = 0) -> dict[str, int]:
    return {"packets": packets, "errors": errors, "dropped": dropped}


def test_traffic_is_read(tmp_path: Path) -> None:
    values = {f"statistics/{way}_{kind}": str(at) for way in ("rx", "tx") for at, kind in enumerate(counters(0), len(way))}
    interface(tmp_path, "eth0", **values)
    interface(tmp_path, "eth1", flags="0x1002", **values)
    virtual(tmp_path, "veth0", **values)
    sample = read("traffic", tmp_path)
    assert sample == {"eth0": {"rx": counters(2, 3, 4), "tx": counters(2, 3, 4)}}
    findings, shown = judge("traffic", sample)
    assert findings == set()
    assert shown["interface_errors", "eth0", "rx"] == 3
    assert len(shown) == 6


@pytest.mark.parametrize(
    ("packets", "errors", "dropped", "names"),
    [
        (9_900, 100, 0, {"InterfaceErrors"}),  # 100 of 10,000
        (9_901, 100, 0, set()),
        (0, 99, 0, set()),  # all of them are bad, but 99 are too few
        (9_500, 0, 500, {"InterfaceDrops"}),  # 500 of 10,000
        (9_501, 0, 500, set()),
        (100, 100, 100, {"InterfaceErrors", "InterfaceDrops"}),
        (0, 0, 0, set()),
    ],
)
def test_traffic_edges(packets: int, errors: int, dropped: int, names: set[str]) -> None:
    before = {"eth0": {"rx": counters(1000), "tx": counters(99_000, 999, 100)}}
    after = {"eth0": {"rx": counters(2000), "tx": counters(99_000 + packets, 999 + errors, 100 + dropped)}}
    assert judge("traffic", after, before, 60.0)[0] == {(name, "eth0") for name in names}


def test_traffic_counters_that_were_reset() -> None:
    before = {"eth0": {"rx": counters(1000), "tx": counters(99_000, 999, 100)}}
    after = {"eth0": {"rx": counters(10), "tx": counters(5000, 60, 1)}}
    assert judge("traffic", after, before, 60.0)[0] == set()


def test_an_interface_that_is_new_has_no_rate() -> None:
    assert judge("traffic", {"eth0": {"rx": counters(1, 9999), "tx": counters(0)}}, {}, 60.0)[0] == set()


# -- routes ---------------------------------------------------------------------------------------------------------------

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
DEFAULT = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0"
SUBNET = "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"
HALF = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000080\t0\t0\t0"
REJECT = "*\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0"
ZERO = "0" * 32
DEFAULT6 = f"{ZERO} 00 {ZERO} 00 fd000000000000000000000000000001 00000400 00000003 00000000 00000003     eth0"
NULL6 = f"{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo"


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "counts", "missing"),
    [
        ([DEFAULT, SUBNET], [], (1, 0), False),
        ([SUBNET], [DEFAULT6], (0, 1), False),
        ([DEFAULT, DEFAULT], [DEFAULT6, NULL6], (2, 1), False),
        ([SUBNET, HALF, REJECT], [NULL6], (0, 0), True),
        ([SUBNET], [DEFAULT6.replace(f"{ZERO} 00 fd", f"{ZERO} 40 fd")], (0, 0), True),  # for one source only
        ([], [], (0, 0), True),
    ],
)
def test_routes(tmp_path: Path, ipv4: list[str], ipv6: list[str], counts: tuple[int, int], missing: bool) -> None:  # noqa: FBT001
    interface(tmp_path, "eth0")
    interface(tmp_path, "eth1", carrier="0")
    write(tmp_path, {"proc/1/net/route": "\n".join([HEAD, *ipv4]), "proc/1/net/ipv6_route": "\n".join(ipv6)})
    findings, values = judge("routes", read("routes", tmp_path))
    assert findings == ({("MissingDefaultRoutes", "")} if missing else set())
    assert values == {("default_routes", "ipv4"): counts[0], ("default_routes", "ipv6"): counts[1]}


def test_a_node_without_a_link_misses_no_route(tmp_path: Path) -> None:
    write(interface(tmp_path, "eth0", carrier="0"), {"proc/net/route": HEAD})
    virtual(tmp_path, "veth0")
    assert judge("routes", read("routes", tmp_path))[0] == set()


def test_routes_are_absent_without_procfs(tmp_path: Path) -> None:
    with pytest.raises(Absent):
        read("routes", tmp_path)


# -- sysctls and conntrack ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "names"), [("0", {("NetworkSysctl", "")}), ("1", set())])
def test_forwarding(tmp_path: Path, value: str, names: set[tuple[str, str]]) -> None:
    write(tmp_path, {"proc/sys/net/ipv4/ip_forward": value})
    with pytest.raises(Absent):
        read("sysctls", tmp_path)
    (tmp_path / "var/lib/kubelet").mkdir(parents=True)
    assert judge("sysctls", read("sysctls", tmp_path)) == (names, {("ip_forwarding",): int(value)})


def test_forwarding_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "var/lib/kubelet").mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        read("sysctls", tmp_path)


@pytest.mark.parametrize("name", ["sysctls", "conntrack_use"])
def test_sysctls_of_another_namespace_are_refused(tmp_path: Path, name: str) -> None:
    base = "proc/sys/net"
    files = {f"{base}/ipv4/ip_forward": "0", **{f"{base}/netfilter/nf_conntrack_{each}": "1" for each in ("count", "max")}}
    (write(tmp_path, files) / "proc/1/ns").mkdir(parents=True)
    (tmp_path / "var/lib/kubelet").mkdir(parents=True)
    (tmp_path / "proc/1/ns/net").symlink_to("net:[1]")
    with pytest.raises(OSError, match="hostNetwork"):
        read(name, tmp_path)
    (tmp_path / "proc/1/ns/net").unlink()
    (tmp_path / "proc/1/ns/net").symlink_to(os.readlink("/proc/self/ns/net"))  # noqa: PTH115 - no path but a name
    read(name, tmp_path)


@pytest.mark.parametrize(("entries", "limit", "hit"), [(899, 1000, False), (900, 1000, True), (5, 0, False)])
def test_conntrack(tmp_path: Path, entries: int, limit: int, hit: bool) -> None:  # noqa: FBT001 - as above
    with pytest.raises(Absent):
        read("conntrack_use", tmp_path)
    base = "proc/sys/net/netfilter/nf_conntrack"
    write(tmp_path, {f"{base}_count": str(entries), f"{base}_max": str(limit)})
    findings, values = judge("conntrack_use", read("conntrack_use", tmp_path))
    assert findings == ({("ConntrackNearlyFull", "")} if hit else set())
    assert values == {("conntrack_entries",): entries, ("conntrack_limit",): limit}


# -- InfiniBand -----------------------------------------------------------------------------------------------------------

GOOD = {"state": "4: ACTIVE", "phys_state": "5: LinkUp", "rate": "400 Gb/sec (4X NDR)", "link_layer": "InfiniBand"}
POLLING = {**GOOD, "state": "1: DOWN", "phys_state": "2: Polling"}


def port(root: Path, name: str, files: Mapping[str, str], **values: int) -> Path:
    device, number = name.split("/")
    files = {**files, **{f"counters/{each}": str(value) for each, value in {"link_downed": 0, **values}.items()}}
    return write(root, {f"sys/class/infiniband/{device}/ports/{number}/{each}": text for each, text in files.items()})


def test_infiniband_well(tmp_path: Path) -> None:
    port(tmp_path, "mlx5_0/1", GOOD, symbol_error=7)
    sample = read("infiniband", tmp_path)
    findings, values = judge("infiniband", sample, sample, 60.0, expected_rate_gbps=400.0)
    assert findings == set()
    assert values == {
        ("infiniband_port_active", "mlx5_0", "1"): 1.0,
        ("infiniband_port_rate_bits_per_second", "mlx5_0", "1"): 4e11,
        ("infiniband_port_errors", "mlx5_0", "1", "link_downed"): 0,
        ("infiniband_port_errors", "mlx5_0", "1", "symbol_error"): 7,
    }


def test_infiniband_ports_down(tmp_path: Path) -> None:
    port(tmp_path, "mlx5_0/1", POLLING)  # the only port: it has no cable, or a broken one
    port(tmp_path, "mlx5_1/1", GOOD)
    port(tmp_path, "mlx5_1/2", POLLING)  # the second port of an adapter, without a cable
    port(tmp_path, "mlx5_2/1", {**GOOD, "state": "2: INIT"})
    port(tmp_path, "mlx5_3/1", {**POLLING, "phys_state": "3: Disabled"})
    port(tmp_path, "mlx5_4/1", {**POLLING, "link_layer": "Ethernet", "phys_state": "3: Disabled"})
    port(tmp_path, "mlx5_5/1", GOOD)
    port(tmp_path, "mlx5_5/2", POLLING, link_downed=1)  # it had a link
    port(tmp_path, "rdmap0s6/1", {**POLLING, "link_layer": "Unspecified"})
    findings, values = judge("infiniband", read("infiniband", tmp_path))
    assert findings == {("InfinibandPortDown", name) for name in ("mlx5_0/1", "mlx5_2/1", "mlx5_5/2")}
    assert values["infiniband_port_rate_bits_per_second", "mlx5_0", "1"] == 0.0
    assert ("infiniband_port_active", "rdmap0s6", "1") not in values


@pytest.mark.parametrize(("expected", "hit"), [(0.0, False), (200.0, False), (200.1, True)])
def test_infiniband_rate(tmp_path: Path, expected: float, hit: bool) -> None:  # noqa: FBT001 - as above
    port(tmp_path, "mlx5_0/1", {**GOOD, "rate": "200 Gb/sec (4X HDR)", "link_layer": "Ethernet"})
    findings, _ = judge("infiniband", read("infiniband", tmp_path), expected_rate_gbps=expected)
    assert findings == ({("InfinibandPortSlow", "mlx5_0/1")} if hit else set())


@pytest.mark.parametrize(
    ("counter", "more", "names"),
    [
        ("link_downed", 1, {"InfinibandLinkDowned"}),
        ("symbol_error", 599, set()),
        ("symbol_error", 600, {"InfinibandPortErrors"}),
        ("link_error_recovery", 5, set()),
        ("link_error_recovery", 6, {"InfinibandPortErrors"}),
        ("local_link_integrity_errors", 0, set()),
        ("local_link_integrity_errors", 1, {"InfinibandPortErrors"}),
    ],
)
def test_infiniband_errors(tmp_path: Path, counter: str, more: int, names: set[str]) -> None:
    before = read("infiniband", port(tmp_path / "before", "mlx5_0/1", GOOD, **{counter: 100}))
    after = read("infiniband", port(tmp_path / "after", "mlx5_0/1", GOOD, **{counter: 100 + more}))
    assert judge("infiniband", after)[0] == set(), "the first sample finds nothing"
    assert judge("infiniband", after, before, 60.0)[0] == {(name, "mlx5_0/1") for name in names}


def test_infiniband_counters_that_were_reset() -> None:
    state = {"layer": "InfiniBand", "state": "4: ACTIVE", "phys_state": "5: LinkUp", "gigabits": 400.0}
    before = {"boot_id": "a", "ports": {"mlx5_0/1": {**state, "counters": {"symbol_error": 9000, "link_downed": 5}}}}
    after = {"boot_id": "a", "ports": {"mlx5_0/1": {**state, "counters": {"symbol_error": 3, "link_downed": 0}}}}
    assert judge("infiniband", after, before, 60.0)[0] == set()


def test_infiniband_links_that_the_restart_of_the_node_took(tmp_path: Path) -> None:
    samples = []
    for boot, lost in (("a", 5), ("b", 6), ("b", 7)):
        root = port(tmp_path / str(lost), "mlx5_0/1", GOOD, link_downed=lost)
        samples.append(read("infiniband", write(root, {"proc/sys/kernel/random/boot_id": boot})))
    assert judge("infiniband", samples[1], samples[0], 60.0)[0] == set()
    assert judge("infiniband", samples[2], samples[1], 60.0)[0] == {("InfinibandLinkDowned", "mlx5_0/1")}


def test_infiniband_counter_that_is_refused_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port(tmp_path, "mlx5_0/1", GOOD, symbol_error=7)
    asked: list[str] = []

    def refuse(path: Path, encoding: str | None = None, errors: str | None = None) -> str:
        if path.name == "symbol_error":
            asked.append(str(path))
            raise OSError(errno.EINVAL, "Invalid argument")
        return path.read_bytes().decode(encoding or "ascii", errors or "strict")

    monkeypatch.setattr(Path, "read_text", refuse)
    for _ in range(2):
        assert read("infiniband", tmp_path)["ports"]["mlx5_0/1"]["unreadable"] == ["symbol_error"]
        assert read("infiniband", tmp_path)["ports"]["mlx5_0/1"]["counters"] == {"link_downed": 0}
    assert len(asked) == 1


# -- EFA ------------------------------------------------------------------------------------------------------------------


def efa_tree(root: Path, **values: int) -> Path:
    base = "sys/class/infiniband/rdmap0s6"
    files = {f"{base}/device/vendor": "0x1d0f", f"{base}/device/device": "0xefa1", f"{base}/ports/1/state": "4: ACTIVE"}
    for name, ids in (("mlx5_0", ("0x15b3", "0xefa1")), ("other0", ("0x1d0f", "0xec20"))):
        port(root, f"{name}/1", GOOD)
        write(root, {f"sys/class/infiniband/{name}/device/{each}": ids[at] for at, each in enumerate(("vendor", "device"))})
    return write(root, {**files, **{f"{base}/ports/1/hw_counters/{each}": str(value) for each, value in values.items()}})


@pytest.mark.parametrize(
    ("counter", "now", "hit"),
    [
        ("rx_drops", 1_000_119, False),
        ("rx_drops", 1_000_120, True),
        ("retrans_bytes", 2_200_000, True),
        ("retrans_bytes", 2_199_999, False),
        ("rx_drops", 119, False),  # the driver was loaded again
        ("rx_drops", 120, True),
        ("tx_bytes", 9_000_000, False),
    ],
)
def test_efa(tmp_path: Path, counter: str, now: int, hit: bool) -> None:  # noqa: FBT001 - as above
    before = read("efa", efa_tree(tmp_path / "before", **{counter: 1_000_000}))
    after = read("efa", efa_tree(tmp_path / "after", **{counter: now}))
    assert judge("efa", after)[0] == set(), "the first sample finds nothing"
    findings, values = judge("efa", after, before, 60.0)
    assert findings == ({("EFAErrorMetric", "rdmap0s6/1")} if hit else set())
    assert values == ({} if counter == "tx_bytes" else {("efa_errors", "rdmap0s6", "1", counter): now})


@pytest.mark.parametrize("name", ["efa", "infiniband"])
def test_no_adapter(tmp_path: Path, name: str) -> None:
    with pytest.raises(Absent):
        read(name, tmp_path)


# -- ENA ------------------------------------------------------------------------------------------------------------------


def ena_tree(root: Path, stats: Mapping[str, int] | None, driver: str = "ena") -> Path:
    virtual(root, "eth0")
    (root / "sys/bus/pci/drivers" / driver).mkdir(parents=True)
    (root / "sys/class/net/eth0/device").mkdir()
    (root / "sys/class/net/eth0/device/driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")
    return root if stats is None else write(root, {"recorded/ethtool-eth0.json": json.dumps(stats)})


ALLOWANCES = {
    "bw_in_allowance_exceeded": "BandwidthInExceeded",
    "bw_out_allowance_exceeded": "BandwidthOutExceeded",
    "pps_allowance_exceeded": "PPSExceeded",
    "conntrack_allowance_exceeded": "ConntrackExceeded",
    "linklocal_allowance_exceeded": "LinkLocalExceeded",
}


@pytest.mark.parametrize(("counter", "reason"), ALLOWANCES.items())
def test_ena(tmp_path: Path, counter: str, reason: str) -> None:
    first = {"tx_timeout": 0, **dict.fromkeys(ALLOWANCES, 11072), "conntrack_allowance_available": 51286}
    before = read("ena", ena_tree(tmp_path, first))
    assert "tx_timeout" not in before["eth0"]
    findings, values = judge("ena", before)
    assert findings == set(), "the first sample finds nothing"
    assert values["ena_conntrack_available", "eth0"] == 51286
    assert values["ena_allowance_exceeded_packets", "eth0", counter.removesuffix("_allowance_exceeded")] == 11072
    for now, names in ((11131, set()), (11132, {(reason, "eth0")}), (59, set()), (60, {(reason, "eth0")})):
        assert judge("ena", {"eth0": {**before["eth0"], counter: now}}, before, 60.0)[0] == names


@pytest.mark.parametrize(
    ("stats", "driver"), [({"rx_drops": 1}, "ena"), (None, "ena"), (dict.fromkeys(ALLOWANCES, 1), "ixgbe")]
)
def test_no_allowance_counters(tmp_path: Path, stats: dict[str, int] | None, driver: str) -> None:
    with pytest.raises(Absent):
        read("ena", ena_tree(tmp_path, stats, driver))


def test_ethtool_asks_the_real_kernel() -> None:
    names = [path.name for path in Path("/sys/class/net").glob("*") if (path / "device").exists()]
    for name in names:
        try:
            stats = ena.ethtool(name)
        except OSError as error:
            assert error.errno in {errno.EOPNOTSUPP, errno.EPERM}  # noqa: PT017 - either is an answer
        else:
            assert all(key.isprintable() for key in stats)
    with pytest.raises(OSError, match="No such device"):
        ena.ethtool("nosuchdevice")


# -- all ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHECKS)
def test_on_this_machine(name: str) -> None:
    topic, check = CHECKS[name]
    answer = worker.answer({"topic": topic, "check": name, "thresholds": dict(check.thresholds)}, Host(Path("/")))
    assert set(answer) in ({"sample"}, {"absent"}), answer
    if "sample" in answer:
        sample = json.loads(json.dumps(answer["sample"]))
        check.judge(Pass(sample, check.thresholds))
        assert judge(name, sample, sample, 60.0)[0] == set()
