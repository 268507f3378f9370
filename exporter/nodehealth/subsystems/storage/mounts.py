"""The node's own file systems: space, inodes, and those that turned read-only (proc_pid_mountinfo(5), statvfs(3)).

Only block devices count, each once, by the place where the host mounts it: no network, memory or image file system, no
boot partition, and nothing that belongs to a pod.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, Action, Finding, Reason, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

_LABELS = ("mountpoint",)
SIZE = Metric("nodehealth_storage_filesystem_size_bytes", "Size of a file system of the node.", _LABELS)
AVAILABLE = Metric(
    "nodehealth_storage_filesystem_available_bytes", "Space that programs without privileges can use.", _LABELS
)
INODES = Metric("nodehealth_storage_filesystem_inodes", "Inodes of a file system; absent where it has no limit.", _LABELS)
FREE_INODES = Metric("nodehealth_storage_filesystem_free_inodes", "Free inodes of a file system.", _LABELS)
READ_ONLY = Metric("nodehealth_storage_filesystem_read_only", "1 where a file system takes no writes, else 0.", _LABELS)

SPACE_LOW = Reason(
    name="FilesystemSpaceLow",
    subsystem=Subsystem.STORAGE,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="A file system of the node is nearly full; soon the kubelet evicts pods or programs fail to write.",
    remedy="Find what grew with `du -xh MOUNTPOINT | sort -h | tail`; remove unused images (`crictl rmi --prune`) and old logs, or enlarge the disk.",
    clears=(CHECK,),
    object_kind="mount point",
)
SPACE_EXHAUSTED = Reason(
    name="FilesystemSpaceExhausted",
    subsystem=Subsystem.STORAGE,
    severity=Severity.CRITICAL,
    action=Action.INVESTIGATE,
    summary="The file system of the root, the kubelet or the container runtime is full; containers cannot start and logs are lost.",
    remedy="Cordon the node; find what fills it with `du -xh MOUNTPOINT | sort -h | tail` and free space, or enlarge the disk.",
    clears=(CHECK,),
    object_kind="mount point",
)
INODES_LOW = Reason(
    name="FilesystemInodesLow",
    subsystem=Subsystem.STORAGE,
    severity=Severity.WARNING,
    action=Action.INVESTIGATE,
    summary="A file system of the node has hardly any inodes left; soon no file can be created, whatever space is free.",
    remedy="Find the directory with very many files with `du -x --inodes MOUNTPOINT | sort -n | tail` and remove what is not needed.",
    clears=(CHECK,),
    object_kind="mount point",
)
REMOUNTED = Reason(
    name="FilesystemRemountedReadOnly",
    subsystem=Subsystem.STORAGE,
    severity=Severity.CRITICAL,
    action=Action.REBOOT_NODE,
    summary="A file system that was mounted for writing is read-only now, usually because the kernel found an error on its disk.",
    remedy="Look in `dmesg -T` for the disk's error; drain the node, check the disk, run fsck and reboot.",
    clears=(CHECK,),
    object_kind="mount point",
)

_IMAGES = ("squashfs", "iso9660", "udf", "erofs", "cramfs", "romfs")
_NO_DISK = re.compile(r"/dev/(?:loop|z?ram|fd|sr|nbd|d?rbd)\d")
_OF_A_POD = re.compile(r"/pods/[0-9a-f-]{32,36}/|/plugins/kubernetes\.io/|/io\.containerd\.|/docker/containers/")
_BOOT = re.compile(r"/(?:boot|efi)(?:/|$)")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_VITAL = ("/", "/var/lib/kubelet", "/var/lib/containerd", "/var/lib/docker", "/var/lib/containers", "/var/lib/rancher")
_Numbers = list[int]


@dataclass(frozen=True, slots=True)
class _Mount:
    """One line of mountinfo: options are those of the mount, `own` those of the file system itself."""

    device: str
    root: str
    point: str
    options: frozenset[str]
    type: str
    source: str
    own: frozenset[str]

    @property
    def key(self) -> str:
        """What is the same for every mount of one file system; Btrfs numbers each subvolume apart."""
        return self.source if self.device.startswith("0:") else self.device

    @property
    def read_only(self) -> bool:
        """Whether the file system takes no writes; ext4 says `emergency_ro` from Linux 6.15 on and stays `rw`."""
        return "ro" in self.own or "emergency_ro" in self.own


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text) if "\\" in text else text


def _mounts(host: Host) -> dict[str, _Mount]:
    """What the host sees at each mount point: a later mount hides an earlier one."""
    text = host.text("/proc/1/mountinfo") or host.text("/proc/self/mountinfo")
    if not text:
        raise Absent("/proc/1/mountinfo does not exist")
    found: dict[str, _Mount] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        _id, _parent, device, root, point, options, *_ = left.split(" ")
        type_, source, own = [*right.split(" "), "", ""][:3]
        point = _plain(point)
        found[point] = _Mount(
            device, root, point, frozenset(options.split(",")), type_, _plain(source), frozenset(own.split(","))
        )
    return found


def _local(host: Host, mounts: Iterable[_Mount]) -> list[_Mount]:
    """One mount for each of the node's own file systems: its whole before a part, a short path before a long one."""
    nodev = {line.partition("\t")[2] for line in host.text("/proc/filesystems").splitlines() if line.startswith("nodev")}
    found: dict[str, _Mount] = {}
    for mount in sorted(mounts, key=lambda each: (each.root != "/", len(each.point), each.point)):
        if mount.type not in nodev and _is_the_nodes(mount):
            found.setdefault(mount.key, mount)
    return list(found.values())


def _is_the_nodes(mount: _Mount) -> bool:
    if not mount.source.startswith("/dev/") or _NO_DISK.match(mount.source) or mount.type in _IMAGES:
        return False
    return not (_OF_A_POD.search(f"{mount.point}/") or _OF_A_POD.search(f"{mount.root}/") or _BOOT.match(mount.point))


# -- space and inodes --------------------------------------------------------------------------------------------------


def read_space(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """The statvfs of every file system that takes writes: [blocks, bfree, bavail, frsize, files, ffree]."""
    mounts = _mounts(host)
    local = [each for each in _local(host, mounts.values()) if not each.read_only]
    if not local:
        raise Absent("no file system on a block device is mounted for writing")
    vital = {mounts[point].key for point in map(partial(_point_of, mounts), _VITAL) if point}
    recorded = host.text("/recorded/statvfs.json")
    asked = _asked(local, json.loads(recorded)) if recorded else _answers(host, local)
    return [{"mountpoint": mount.point, "vital": mount.key in vital, "numbers": numbers} for mount, numbers in asked]


def _point_of(mounts: Mapping[str, _Mount], path: str) -> str:
    """The mount point that a path lies on."""
    while path not in mounts and path != "/":
        path = path.rpartition("/")[0] or "/"
    return path if path in mounts else ""


def _asked(local: Iterable[_Mount], recorded: Mapping[str, _Numbers]) -> Iterator[tuple[_Mount, _Numbers]]:
    return ((mount, recorded[mount.point]) for mount in local if mount.point in recorded)


def _answers(host: Host, local: Iterable[_Mount]) -> list[tuple[_Mount, _Numbers]]:
    """What can be asked; a mount that another one hides, or that is not visible from here, is left out."""
    found, why = [], None
    for mount in local:
        try:
            numbers = _statvfs(host.path(mount.point), mount)
        except OSError as error:
            why = error
            continue
        if numbers is not None:
            found.append((mount, numbers))
    if why is not None and not found:
        raise why
    return found


def _statvfs(path: Path, mount: _Mount) -> _Numbers | None:
    if not mount.device.startswith("0:") and path.stat().st_dev != os.makedev(*map(int, mount.device.split(":"))):
        return None
    told = os.statvfs(path)
    return [told.f_blocks, told.f_bfree, told.f_bavail, told.f_frsize, told.f_files, told.f_ffree]


def judge_space(seen: Pass) -> Verdict:
    """Too little where the share that is left is below the threshold."""
    findings: list[Finding] = []
    measured: list[Measurement] = []
    for each in seen.sample:
        point, (blocks, _free, available, unit, files, free_files) = each["mountpoint"], each["numbers"]
        if blocks:
            measured += [Measurement(SIZE, (point,), blocks * unit), Measurement(AVAILABLE, (point,), available * unit)]
            findings += _space(point, available / blocks, available * unit, seen.thresholds, vital=each["vital"])
        if files:
            measured += [Measurement(INODES, (point,), files), Measurement(FREE_INODES, (point,), free_files)]
            findings += _inodes(point, free_files, files, seen.thresholds["inodes_ratio"])
    return Verdict(tuple(findings), tuple(measured))


def _space(point: str, ratio: float, left: int, limits: Mapping[str, float], *, vital: bool) -> Iterator[Finding]:
    detail = f"{ratio:.1%} of it ({left / 2**30:.1f} GiB) is available"
    if vital and ratio < limits["exhausted_ratio"]:
        yield SPACE_EXHAUSTED.found(point, detail=detail)
    elif ratio < limits["ratio"]:
        yield SPACE_LOW.found(point, detail=detail)


def _inodes(point: str, free: int, files: int, limit: float) -> Iterator[Finding]:
    if free / files < limit:
        yield INODES_LOW.found(point, detail=f"{free} of {files} inodes are free")


# -- read-only ---------------------------------------------------------------------------------------------------------


def read_read_only(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """Whether each file system takes no writes, and why that should not be; "" where it may be so."""
    local = _local(host, _mounts(host).values())
    if not local:
        raise Absent("no file system on a block device is mounted")
    wanted = _wanted(host.text("/etc/fstab"))
    return [{"mountpoint": each.point, "read_only": each.read_only, "why": _why(host, each, wanted)} for each in local]


def _wanted(fstab: str) -> dict[str, str]:
    """Mount point to type of what fstab wants writable."""
    rows = (line.split() for line in fstab.splitlines() if not line.lstrip().startswith("#"))
    return {_plain(row[1]): row[2] for row in rows if len(row) > 3 and "ro" not in row[3].split(",")}  # noqa: PLR2004


def _why(host: Host, mount: _Mount, wanted: Mapping[str, str]) -> str:
    """The mount still says `rw` where the kernel changed the file system by itself; a person's remount changes both."""
    if not mount.read_only or host.text(f"/sys/dev/block/{mount.device}/dm/uuid").startswith("CRYPT-VERITY"):
        return ""
    if "emergency_ro" in mount.own:
        return "the kernel stopped writes to it after an error"
    if "rw" in mount.options:
        return "it was mounted for writing and the kernel made it read-only"
    return "/etc/fstab wants it writable" if wanted.get(mount.point) in {mount.type, "auto"} else ""


def judge_read_only(seen: Pass) -> Verdict:
    """One finding for each file system that should take writes and does not."""
    findings = (REMOUNTED.found(each["mountpoint"], detail=each["why"]) for each in seen.sample if each["why"])
    measured = (Measurement(READ_ONLY, (each["mountpoint"],), float(each["read_only"])) for each in seen.sample)
    return Verdict(tuple(findings), tuple(measured))


REASONS = (SPACE_LOW, SPACE_EXHAUSTED, INODES_LOW, REMOUNTED)
CHECKS = (
    Check(
        "filesystems",
        Subsystem.STORAGE,
        read_space,
        judge_space,
        (SPACE_LOW, SPACE_EXHAUSTED, INODES_LOW),
        (SIZE, AVAILABLE, INODES, FREE_INODES),
        thresholds={"ratio": 0.10, "exhausted_ratio": 0.02, "inodes_ratio": 0.05},
    ),
    Check("readonly_mounts", Subsystem.STORAGE, read_read_only, judge_read_only, (REMOUNTED,), (READ_ONLY,)),
)
