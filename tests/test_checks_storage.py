"""Storage checks on recorded hosts, at their thresholds, and for real on this machine."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nodehealth import worker
from nodehealth.checks import Check, Pass, Verdict
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host
from nodehealth.subsystems.storage import disk_load, ebs, io_delay, mounts, nvme_state, raid, xfs_free_space

HOSTS = Path(__file__).parent / "checks/storage"
TOPICS = (mounts, raid, disk_load, nvme_state, io_delay, ebs, xfs_free_space)
EVERY = [(topic, check) for topic in TOPICS for check in topic.CHECKS]


def named(name: str) -> Check:
    return next(check for _, check in EVERY if check.name == name)


def read(name: str, root: Path) -> Any:
    check = named(name)
    return json.loads(json.dumps(check.read(Host(root), check.thresholds)))


def judge(name: str, sample: Any, previous: Any = None, elapsed: float | None = None) -> Verdict:
    check = named(name)
    return check.judge(Pass(sample, check.thresholds, previous, elapsed))


def on(name: str, root: Path) -> Verdict:
    return judge(name, read(name, root))


def found(verdict: Verdict) -> list[tuple[str, str]]:
    assert all(finding.detail for finding in verdict.findings)
    return sorted((finding.reason.name, finding.object) for finding in verdict.findings)


def values(verdict: Verdict) -> dict[str, float]:
    rows = [(each.metric.name.removeprefix("nodehealth_storage_"), *each.labels) for each in verdict.measurements]
    assert len(set(rows)) == len(rows)
    return {"/".join(row): each.value for row, each in zip(rows, verdict.measurements, strict=True)}


def write(root: Path, files: Mapping[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.mark.parametrize(("topic", "check"), EVERY, ids=lambda each: getattr(each, "name", ""))
def test_it_runs_for_real_on_this_machine(topic: ModuleType, check: Check) -> None:
    request = {"topic": topic.__name__, "check": check.name, "thresholds": dict(check.thresholds)}
    outcome = worker.answer(request, Host(Path("/")))
    if check.name != "ebs" or os.geteuid() == 0:
        assert outcome.keys() <= {"sample", "absent"}, outcome
    if "sample" in outcome:
        check.judge(Pass(json.loads(json.dumps(outcome["sample"])), check.thresholds))


@pytest.mark.parametrize("check", [check for _, check in EVERY], ids=lambda check: check.name)
def test_an_empty_host_has_none_of_it(check: Check, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    if check.name == "io_delay":  # every host has processes
        assert check.read(Host(tmp_path), check.thresholds) == {"boot": "", "ticks": {}}
    else:
        with pytest.raises(Absent):
            check.read(Host(tmp_path), check.thresholds)


@pytest.mark.parametrize("check", [check for _, check in EVERY], ids=lambda check: check.name)
def test_the_well_host_gives_no_finding(check: Check) -> None:
    sample = read(check.name, HOSTS / "well")
    assert found(judge(check.name, sample)) == []
    assert found(judge(check.name, sample, sample, 60.0)) == []


def test_what_only_shows_numbers_or_costs_much_is_no_surprise() -> None:
    assert [check.name for _, check in EVERY if not check.enabled] == ["io_delay", "xfs_free_extents"]
    assert [check.name for _, check in EVERY if check.keeps] == ["io_delay", "ebs"]


# -- file systems ------------------------------------------------------------------------------------------------------


def test_a_full_file_system_of_the_node_is_found() -> None:
    verdict = on("filesystems", HOSTS / "sick")
    assert found(verdict) == [
        ("FilesystemInodesLow", "/"),
        ("FilesystemSpaceExhausted", "/"),
        ("FilesystemSpaceLow", "/srv/data"),
    ]
    assert values(verdict) == {
        "filesystem_size_bytes//": 26214400 * 4096,
        "filesystem_available_bytes//": 262144 * 4096,
        "filesystem_inodes//": 52428800,
        "filesystem_free_inodes//": 1000000,
        "filesystem_size_bytes//srv/data": 1000 * 4096,
        "filesystem_available_bytes//srv/data": 15 * 4096,
    }


def test_only_the_nodes_own_file_systems_are_asked_each_once() -> None:
    sample = read("filesystems", HOSTS / "well")
    assert {each["mountpoint"]: each["vital"] for each in sample} == {
        "/": True,
        "/mnt/k8s-disks/0": True,  # the kubelet's and containerd's directories are parts of it
        "/var/log/with space": False,
        "/srv/data": False,
    }


@pytest.mark.parametrize(
    ("available", "free_inodes", "vital", "expected"),
    [
        (100, 50, True, []),
        (99, 50, True, ["FilesystemSpaceLow"]),
        (20, 50, True, ["FilesystemSpaceLow"]),
        (19, 50, True, ["FilesystemSpaceExhausted"]),
        (19, 50, False, ["FilesystemSpaceLow"]),
        (0, 50, False, ["FilesystemSpaceLow"]),
        (100, 49, True, ["FilesystemInodesLow"]),
    ],
)
def test_space_at_its_thresholds(available: int, free_inodes: int, vital: bool, expected: list[str]) -> None:  # noqa: FBT001
    numbers = [1000, 500, available, 4096, 1000, free_inodes]
    verdict = judge("filesystems", [{"mountpoint": "/", "vital": vital, "numbers": numbers}])
    assert [finding.reason.name for finding in verdict.findings] == expected


def test_a_file_system_without_a_size_or_inodes_is_not_divided() -> None:
    assert judge("filesystems", [{"mountpoint": "/x", "vital": True, "numbers": [0, 0, 0, 4096, 0, 0]}]) == Verdict()


def mountinfo(root: Path, *lines: str) -> Path:
    return write(root, {"proc/1/mountinfo": "\n".join(lines) + "\n"})


def device_of(path: Path) -> str:
    number = path.stat().st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def test_another_root_is_asked_below_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    hidden = "2 1 254:250 / / rw - ext4 /dev/vdz rw"  # what is not the mounted device itself says nothing
    gone = "4 1 254:251 / /gone rw - ext4 /dev/vdy rw"
    mountinfo(tmp_path, hidden, f"3 2 {device_of(tmp_path)} / /data rw - ext4 /dev/vda rw", gone)
    told = os.statvfs(tmp_path / "data")
    (each,) = read("filesystems", tmp_path)
    assert (each["mountpoint"], each["numbers"][0], each["numbers"][3]) == ("/data", told.f_blocks, told.f_frsize)


def test_it_fails_where_no_file_system_answers(tmp_path: Path) -> None:
    mountinfo(tmp_path, "4 1 254:251 / /gone rw - ext4 /dev/vdy rw")
    with pytest.raises(FileNotFoundError):
        read("filesystems", tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "2 1 254:1 / /boot rw - ext4 /dev/vda1 ro",
        "2 1 254:1 / /efi rw - vfat /dev/vda1 ro",
        "2 1 7:1 / /x rw - ext4 /dev/loop1 ro",
        "2 1 252:0 / /x rw - ext4 /dev/zram0 ro",
        "2 1 11:0 / /x rw - iso9660 /dev/sr0 ro",
        "2 1 7:0 / /x rw - erofs /dev/vdb ro",
        "2 1 43:0 / /x rw - ext4 /dev/nbd0 ro",
        "2 1 0:9 / /x rw - nfs4 fs:/ ro",
        "2 1 0:9 / /x rw - fuse.sshfs me@there: ro",
        "2 1 254:1 /var/lib/kubelet/pods/0b5a2f5e-3c1d-4a77-9d0e-5b8f7a6c1e42/etc-hosts /etc/hosts rw - ext4 /dev/vda1 ro",
        "2 1 254:1 / /var/lib/k0s/kubelet/pods/0b5a2f5e-3c1d-4a77-9d0e-5b8f7a6c1e42/volumes/x rw - ext4 /dev/vdb ro",
        "2 1 254:1 / /var/lib/kubelet/plugins/kubernetes.io/csi/pv/pvc-1/globalmount rw - ext4 /dev/vdb ro",
    ],
)
def test_what_is_not_the_nodes_own_is_left_out(line: str, tmp_path: Path) -> None:
    for name in ("filesystems", "readonly_mounts"):
        with pytest.raises(Absent):
            read(name, mountinfo(tmp_path, line))


def test_without_init_the_own_mounts_are_read(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/mountinfo": "2 1 254:1 / / rw - ext4 /dev/vda1 rw\n"})
    assert [each["mountpoint"] for each in read("readonly_mounts", tmp_path)] == ["/"]


# -- read-only ---------------------------------------------------------------------------------------------------------


def test_a_file_system_that_the_kernel_made_read_only_is_found() -> None:
    verdict = on("readonly_mounts", HOSTS / "sick")
    assert found(verdict) == [
        ("FilesystemRemountedReadOnly", "/archive"),
        ("FilesystemRemountedReadOnly", "/mnt/k8s-disks/0"),
        ("FilesystemRemountedReadOnly", "/var/log/with space"),
    ]
    assert values(verdict) == {
        "filesystem_read_only//": 0,
        "filesystem_read_only//archive": 1,
        "filesystem_read_only//mnt/k8s-disks/0": 1,
        "filesystem_read_only//srv/data": 0,
        "filesystem_read_only//usr": 1,
        "filesystem_read_only//usr/share/oem": 1,
        "filesystem_read_only//var/log/with space": 1,
    }


@pytest.mark.parametrize(
    ("options", "own", "fstab", "sick"),
    [
        ("rw,noatime", "rw", "/dev/vdb /data ext4 defaults 0 2", False),
        ("rw,noatime", "ro", "", True),
        ("rw,noatime", "rw,emergency_ro", "", True),
        ("ro,noatime", "rw", "/dev/vdb /data ext4 defaults 0 2", False),  # a read-only view of a writable file system
        ("ro", "ro", "", False),
        ("ro", "ro", "/dev/vdb /data ext4 noatime,ro 0 2", False),
        ("ro", "ro", "#/dev/vdb /data ext4 defaults 0 2", False),
        ("ro", "ro", "/dev/vdb /data rootfs noatime 0 2", False),  # an entry for something else
        ("ro", "ro", "/dev/vdb /data ext4 defaults 0 2", True),
        ("ro", "ro", "/dev/vdb /data", False),
    ],
)
def test_read_only_by_fault_and_by_will(options: str, own: str, fstab: str, sick: bool, tmp_path: Path) -> None:  # noqa: FBT001
    write(tmp_path, {"etc/fstab": f"{fstab}\n"})
    mountinfo(tmp_path, f"2 1 254:16 / /data {options} shared:1 - ext4 /dev/vdb {own}")
    assert found(on("readonly_mounts", tmp_path)) == ([("FilesystemRemountedReadOnly", "/data")] if sick else [])


# -- RAID, disks, NVMe -------------------------------------------------------------------------------------------------


def test_arrays_that_miss_disks_or_do_not_run_are_found() -> None:
    verdict = on("raid", HOSTS / "sick")
    assert found(verdict) == [("MdArrayDegraded", "md0"), ("MdArrayInactive", "md1")]
    assert values(verdict) == {
        "md_running/md0": 1,
        "md_disks/md0": 2,
        "md_missing_disks/md0": 1,
        "md_running/md1": 0,
        "md_disks/md1": 4,
        "md_missing_disks/md1": 0,
        "md_running/md127": 1,
        "md_disks/md127": 2,
    }


def test_no_array_is_a_healthy_node(tmp_path: Path) -> None:
    write(tmp_path, {"proc/mdstat": "Personalities :\nunused devices: <none>\n"})
    assert on("raid", tmp_path) == Verdict()


def test_an_array_of_external_metadata_counts_and_its_container_does_not(tmp_path: Path) -> None:
    array = {"array_state": "broken", "metadata_version": "external:/md127/0"}
    write(tmp_path, {"proc/mdstat": "", **{f"sys/block/md126/md/{name}": text for name, text in array.items()}})
    write(tmp_path, {f"sys/block/md127/md/{k}": v for k, v in (array | {"metadata_version": "external:ddf"}).items()})
    assert found(on("raid", tmp_path)) == [("MdArrayInactive", "md126")]


def test_whole_disks_are_measured() -> None:
    assert values(on("disks", HOSTS / "sick")) == {
        "io_in_progress/nvme0n1": 7,
        "io_in_progress/sda": 0,
        "io_time_seconds/nvme0n1": 51.672,
        "io_time_seconds/sda": 0.25,
    }


def test_an_nvme_controller_that_is_not_live_is_found() -> None:
    verdict = on("nvme", HOSTS / "sick")
    assert found(verdict) == [("NvmeControllerNotLive", "nvme1")]
    assert "resetting" in verdict.findings[0].detail
    assert values(verdict) == {"nvme_live/nvme0": 1, "nvme_live/nvme1": 0}


def test_an_nvme_controller_that_vanished_meanwhile_is_no_fault() -> None:
    assert judge("nvme", {"nvme0": {"state": "", "model": "", "serial": ""}}) == Verdict()


# -- waiting for disks -------------------------------------------------------------------------------------------------


def test_a_process_that_waited_for_its_disk_is_found_without_its_name() -> None:
    before, now = read("io_delay", HOSTS / "well"), read("io_delay", HOSTS / "sick")
    assert now["ticks"] == {"100/1000": 2100, "101/1000": 900}, "a kernel thread and who never waited are left out"
    verdict = judge("io_delay", now, before, 600.0)
    assert found(verdict) == [("IODelays", "")]
    assert "odd" not in verdict.findings[0].detail
    assert values(verdict) == {"io_delay_worst_seconds": 11.0, "io_delayed_processes": 1}


@pytest.mark.parametrize(
    ("before", "now", "elapsed", "slow"),
    [
        (None, 99999, None, False),
        (0, 999, 600.0, False),
        (0, 1000, 600.0, True),
        (0, 1000, 60.0, True),
        (0, 1000, 1200.0, False),
        (0, 2000, 1200.0, True),
        (5000, 900, 600.0, False),
        (5000, 1000, 600.0, True),
    ],
)
def test_waiting_at_its_threshold(before: int | None, now: int, elapsed: float | None, slow: bool) -> None:  # noqa: FBT001
    previous = None if before is None else {"boot": "a", "ticks": {"7/1": before}}
    verdict = judge("io_delay", {"boot": "a", "ticks": {"7/1": now}}, previous, elapsed)
    assert bool(verdict.findings) is slow


def test_waits_of_an_earlier_boot_are_no_baseline() -> None:
    previous = {"boot": "a", "ticks": {}}
    assert judge("io_delay", {"boot": "b", "ticks": {"7/1": 99999}}, previous, 60.0) == Verdict()


def test_without_delay_accounting_it_is_absent(tmp_path: Path) -> None:
    write(tmp_path, {"proc/sys/kernel/task_delayacct": "0\n"})
    with pytest.raises(Absent):
        read("io_delay", tmp_path)


# -- EBS ---------------------------------------------------------------------------------------------------------------


def page(*exceeded: int, magic: int = ebs.MAGIC) -> bytes:
    return struct.pack("<I4x11Q", magic, 1, 2, 3, 4, 5_000_000, 6_000_000, *exceeded, 9).ljust(ebs.PAGE, b"\0")


def test_a_volume_that_ran_into_its_limits_is_found() -> None:
    before, now = read("ebs", HOSTS / "well"), read("ebs", HOSTS / "sick")
    verdict = judge("ebs", now, before, 600.0)
    assert found(verdict) == [("EBSInstanceIOPSExceeded", "nvme0"), ("EBSInstanceThroughputExceeded", "nvme0")]
    assert values(verdict) == {
        "ebs_queue_length/nvme0": 3,
        "ebs_operations/nvme0/read": 10,
        "ebs_operations/nvme0/write": 20,
        "ebs_bytes/nvme0/read": 4096,
        "ebs_bytes/nvme0/write": 8192,
        "ebs_operation_seconds/nvme0/read": 5.0,
        "ebs_operation_seconds/nvme0/write": 6.0,
        "ebs_exceeded_seconds/nvme0/volume_iops": 60.0,
        "ebs_exceeded_seconds/nvme0/volume_throughput": 51.0,
        "ebs_exceeded_seconds/nvme0/instance_iops": 70.0,
        "ebs_exceeded_seconds/nvme0/instance_throughput": 80.0,
    }


def volume(*seconds: float, id_: str = "vol1") -> dict[str, Any]:
    exceeded = dict(zip(ebs.LIMITS, (*seconds, 0.0, 0.0, 0.0, 0.0)[:4], strict=True))
    rest = {"operations": [0, 0], "bytes": [0, 0], "seconds": [0.0, 0.0], "queue": 0}
    return {"nvme0": {"volume": id_, "exceeded": exceeded, **rest}}


@pytest.mark.parametrize(
    ("before", "now", "elapsed", "expected"),
    [
        (None, volume(1000.0), None, []),
        ({}, volume(1000.0), 600.0, []),
        (volume(1.0), volume(51.0), 600.0, []),
        (volume(1.0), volume(51.1), 600.0, ["EBSVolumeIOPSExceeded"]),
        (volume(0.0, 1.0), volume(0.0, 52.0), 600.0, ["EBSVolumeThroughputExceeded"]),
        (volume(1.0), volume(101.0), 1200.0, []),
        (volume(100.0), volume(40.0), 600.0, []),
        (volume(100.0), volume(60.0), 600.0, ["EBSVolumeIOPSExceeded"]),
        (volume(1.0), volume(1000.0, id_="vol2"), 600.0, []),
    ],
)
def test_exceeded_time_at_its_threshold(before: Any, now: Any, elapsed: float | None, expected: list[str]) -> None:
    assert [name for name, _ in found(judge("ebs", now, before, elapsed))] == expected


def test_a_page_is_read_in_base_units() -> None:
    parsed = ebs.parse(page(1_500_000, 0, 0, 0))
    assert parsed["operations"] == [1, 2]
    assert parsed["bytes"] == [3, 4]
    assert parsed["seconds"] == [5.0, 6.0]
    assert parsed["exceeded"]["volume_iops"] == 1.5
    assert parsed["queue"] == 9


@pytest.mark.parametrize("garbage", [b"", page(0, 0, 0, 0)[:-1], page(0, 0, 0, 0, magic=0xEC2C0D7E), bytes(ebs.PAGE)])
def test_a_page_of_something_else_is_refused(garbage: bytes) -> None:
    with pytest.raises(ValueError, match="log page"):
        ebs.parse(garbage)


def test_the_command_is_the_kernels_structure() -> None:
    assert ebs._COMMAND.size == 72
    packed = ebs._COMMAND.pack(2, 0, 0, 1, 0, 0, 0x1122334455667788, 0, 4096, 0x03FF00D0, 0, 0, 0, 0, 0, 0)
    assert packed[24:32] == struct.pack("<Q", 0x1122334455667788)
    assert packed[36:44] == struct.pack("<II", 4096, 0x03FF00D0)


def test_a_device_that_is_no_controller_cannot_be_asked(tmp_path: Path) -> None:
    base = "sys/class/nvme/nvme0"
    write(tmp_path, {f"{base}/model": "Amazon Elastic Block Store", f"{base}/device/vendor": "0x1d0f", "dev/nvme0": ""})
    with pytest.raises(OSError, match="ioctl"):
        read("ebs", tmp_path)


# -- XFS ---------------------------------------------------------------------------------------------------------------


def test_free_space_in_tiny_pieces_is_found() -> None:
    verdict = on("xfs_free_extents", HOSTS / "sick")
    assert found(verdict) == [("XFSSmallAverageClusterSize", "nvme0n1p1")]
    assert values(verdict) == {"xfs_free_extent_average_blocks/nvme0n1p1": 1.86538}


@pytest.mark.parametrize(("average", "small"), [(15.99, True), (16.0, False)])
def test_free_extents_at_their_threshold(average: float, small: bool) -> None:  # noqa: FBT001
    assert bool(judge("xfs_free_extents", {"vda1": average}).findings) is small


def tool(root: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    program = root / "xfs_db"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(xfs_free_space, "_TOOLS", (str(program),))
    return mountinfo(root, "2 1 254:1 / / rw - xfs /dev/vda1 rw", "3 1 254:1 / /b rw - xfs /dev/vda1 rw")


def test_the_tool_is_asked_once_for_each_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    tool(tmp_path, monkeypatch, f'echo "$@" >> {log}; echo "average free extent size 46.3333"')
    assert read("xfs_free_extents", tmp_path) == {"vda1": 46.3333}
    assert log.read_text() == f"-r -c freesp -s {tmp_path}/dev/vda1\n"


def test_a_full_file_system_has_no_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, monkeypatch, 'echo "average free extent size -nan"')
    assert read("xfs_free_extents", tmp_path) == {}


@pytest.mark.parametrize(
    ("script", "error"),
    [("echo broken >&2; exit 1", "ended with 1: broken"), ("echo hello", "no average free extent size")],
)
def test_a_tool_that_fails_is_a_failed_check(
    script: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(tmp_path, monkeypatch, script)
    with pytest.raises((OSError, ValueError), match=error):
        read("xfs_free_extents", tmp_path)


def test_no_tool_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xfs_free_space, "_TOOLS", ())
    with pytest.raises(Absent):
        read("xfs_free_extents", mountinfo(tmp_path, "2 1 254:1 / / rw - xfs /dev/vda1 rw"))


def test_a_tool_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xfs_free_space, "DEADLINE", xfs_free_space._MARGIN + 0.05)
    tool(tmp_path, monkeypatch, "exec sleep 3600")
    with pytest.raises(Exception, match="timed out"):
        read("xfs_free_extents", tmp_path)


def test_a_recorded_host_is_not_touched(tmp_path: Path) -> None:
    copied = tmp_path / "host"
    shutil.copytree(HOSTS / "sick", copied)
    before = sorted(copied.rglob("*"))
    for _, check in EVERY:
        check.read(Host(copied), check.thresholds)
    assert sorted(copied.rglob("*")) == before
