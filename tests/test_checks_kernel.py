"""The kernel's checks: recorded hosts sick and well, the edges of each threshold, counters, and this machine for real."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nodehealth.checks import Check, Pass, Sample, Verdict
from nodehealth.model import ClearKind, Severity
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host
from nodehealth.subsystems.kernel import (
    clock,
    environments,
    hung_task_budget,
    memory_available,
    memory_controllers,
    pids_threads,
    pressure,
    previous_panic,
    taint,
    tasks,
    zram,
)
from nodehealth.worker import answer

RECORDED = Path(__file__).parent / "checks"
TOPICS = (
    clock,
    environments,
    hung_task_budget,
    memory_available,
    memory_controllers,
    pids_threads,
    pressure,
    previous_panic,
    taint,
    tasks,
    zram,
)
CHECKS = {check.name: (topic.__name__, check) for topic in TOPICS for check in topic.CHECKS}
BOOT = 1_700_000_000.0


def check(name: str) -> Check:
    return CHECKS[name][1]


def tree(root: Path, files: Mapping[str, str | bytes]) -> Host:
    for path, content in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Host(root)


def sample(name: str, host: Host) -> Sample:
    """As the judge gets it: through JSON."""
    return json.loads(json.dumps(check(name).read(host, check(name).thresholds)))


def judged(name: str, now: Sample, previous: Sample = None, elapsed: float | None = None) -> Verdict:
    return check(name).judge(Pass(now, check(name).thresholds, previous, elapsed))


def inspected(name: str, host: Host, previous: Sample = None, elapsed: float | None = None) -> Verdict:
    return judged(name, sample(name, host), previous, elapsed)


def found(verdict: Verdict) -> list[tuple[str, str]]:
    return [(each.reason.name, each.object) for each in verdict.findings]


def details(verdict: Verdict) -> list[str]:
    return [each.detail for each in verdict.findings]


def measured(verdict: Verdict) -> dict[tuple[str, ...], float]:
    stem = "nodehealth_kernel_"
    return {(each.metric.name.removeprefix(stem), *each.labels): each.value for each in verdict.measurements}


def recorded(topic: str, which: str) -> Host:
    return Host(RECORDED / topic / which)


# -- every check -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHECKS)
def test_it_runs_on_this_machine(name: str) -> None:
    topic, each = CHECKS[name]
    said = answer({"topic": topic, "check": name, "thresholds": dict(each.thresholds)}, Host(Path("/")))
    assert set(said) in ({"sample"}, {"absent"}), said
    if "sample" in said:
        verdict = judged(name, json.loads(json.dumps(said["sample"])))
        assert {each.metric for each in verdict.measurements} <= set(each.metrics)
        assert {finding.reason for finding in verdict.findings} <= set(each.reasons)
        again = judged(name, said["sample"], json.loads(json.dumps(said["sample"])), 60.0)
        assert verdict.measurements == again.measurements or name == "tasks"


@pytest.mark.parametrize("name", sorted(set(CHECKS) - {"previous_panic"}))
def test_it_is_absent_on_a_host_that_has_none_of_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    with pytest.raises(Absent):
        check(name).read(Host(tmp_path), check(name).thresholds)


@pytest.mark.parametrize("name", CHECKS)
def test_what_it_measures_is_named_as_it_should_be(name: str) -> None:
    for metric in check(name).metrics:
        assert metric.name.startswith("nodehealth_kernel_")
        assert not metric.name.endswith("_total")
        assert metric.help.endswith(".")
    topic = importlib.import_module(CHECKS[name][0])
    assert {reason for each in topic.CHECKS for reason in each.reasons} == set(topic.REASONS)


def test_what_should_be_off_is_off() -> None:
    assert {name for name in CHECKS if not check(name).enabled} == {"zram", "environments"}


# -- processes and threads ---------------------------------------------------------------------------------------------


def test_threads_near_the_smaller_limit() -> None:
    verdict = inspected("pids_threads", recorded("pids_threads", "sick"))
    assert found(verdict) == [("ApproachingKernelPidMax", "")]
    assert details(verdict) == ["23100 threads of at most 32768 (kernel.pid_max)"]
    assert measured(verdict) == {
        ("threads",): 23100,
        ("processes",): 2,
        ("threads_limit", "kernel.pid_max"): 32768,
        ("threads_limit", "kernel.threads-max"): 1027984,
    }


def test_few_threads() -> None:
    verdict = inspected("pids_threads", recorded("pids_threads", "well"))
    assert found(verdict) == []
    assert measured(verdict)["threads",] == 512


@pytest.mark.parametrize(("threads", "expected"), [(699, 0), (700, 1)])
@pytest.mark.parametrize("sysctl", ["kernel.pid_max", "kernel.threads-max"])
def test_either_limit_counts(sysctl: str, threads: int, expected: int) -> None:
    limits = {"kernel.pid_max": 4194304, "kernel.threads-max": 4194304, sysctl: 1000}
    verdict = judged("pids_threads", {"threads": threads, "processes": 1, "limits": limits})
    assert len(verdict.findings) == expected
    assert all(f"1000 ({sysctl})" in each for each in details(verdict))


# -- zombies and sleepers ----------------------------------------------------------------------------------------------


def stat(state: str, *, comm: str = "sh", flags: int = 0x400000, ticks: int = 0, threads: int = 1, start: int = 77) -> str:
    before = f"4242 ({comm}) {state} 1 1 1 0 -1 {flags} 1 2 3 4 {ticks} 0 0 0 20 0 {threads} 0 {start}"
    return before + " 0" * 30 + "\n"


NAMES = ("sh", "tmux: server", "a) Z 1 (b", "((sd-pam))", ") D", "new\nline) Z ", "日本")


@pytest.mark.parametrize("comm", NAMES)
@pytest.mark.parametrize("state", "ZDSRI")
def test_a_name_can_not_pretend_to_be_a_state(comm: str, state: str, tmp_path: Path) -> None:
    host = tree(tmp_path, {"proc/4242/stat": stat(state, comm=comm)})
    assert sample("tasks", host) == {
        "zombies": int(state == "Z"),
        "waiting": int(state == "D"),
        "noted": {"4242/77": [0, ""]} if state == "D" else {},
    }


def test_zombies_and_a_sleeper_on_a_recorded_host() -> None:
    now = sample("tasks", recorded("tasks", "sick"))
    verdict = judged("tasks", now, now, 300.0)
    assert found(verdict) == [("ExcessiveZombieProcesses", ""), ("ProcessesStuckInKernel", "")]
    assert details(verdict) == [
        "20 ended processes are not reaped",
        "of the processes in uninterruptible sleep 1 used no CPU between two passes, 1 of them in nfs_wait_bit_killable",
    ]
    assert measured(verdict) == {
        ("zombie_processes",): 20,
        ("uninterruptible_processes",): 1,
        ("stuck_processes",): 1,
    }


def test_a_host_where_all_is_well() -> None:
    now = sample("tasks", recorded("tasks", "well"))
    assert found(judged("tasks", now)) == []
    assert now == {"zombies": 1, "waiting": 1, "noted": {"812/52011": [14, "folio_wait_bit_common"]}}, (
        "a leader whose threads live is no zombie; threads of the kernel and frozen tasks do not wait"
    )
    later = {**now, "noted": {"812/52011": [15, "folio_wait_bit_common"]}}
    assert found(judged("tasks", later, now, 300.0)) == [], "it made progress"


@pytest.mark.parametrize(("zombies", "expected"), [(19, 0), (20, 1)])
def test_zombies_at_the_edge(zombies: int, expected: int) -> None:
    assert len(judged("tasks", {"zombies": zombies, "waiting": 0, "noted": {}}).findings) == expected


def test_who_sleeps_counts_from_the_second_pass_and_not_by_its_number_alone() -> None:
    now = {"zombies": 0, "waiting": 1, "noted": {"7/100": [5, "x"]}}
    other = {"zombies": 0, "waiting": 1, "noted": {"7/200": [5, "x"]}}
    assert found(judged("tasks", now)) == []
    assert found(judged("tasks", now, other, 300.0)) == []
    assert found(judged("tasks", now, now, 300.0)) == [("ProcessesStuckInKernel", "")]


def test_both_have_to_repeat() -> None:
    assert all(reason.repeats is not None for reason in tasks.REASONS)


def test_a_process_that_ends_during_the_walk_is_left_out(tmp_path: Path) -> None:
    host = tree(tmp_path, {"proc/1/stat": stat("S"), "proc/2/stat": ""})
    (tmp_path / "proc/3").mkdir()
    assert sample("tasks", host)["zombies"] == 0


def test_a_real_zombie_is_seen() -> None:
    with subprocess.Popen(["/bin/true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert [each.is_zombie for each in tasks._processes(Host()) if each.pid == str(ended.pid)] == [True]


# -- memory ------------------------------------------------------------------------------------------------------------


def test_memory_that_is_nearly_gone() -> None:
    verdict = inspected("memory_available", recorded("memory_available", "sick"))
    assert found(verdict) == [("NodeMemoryLow", "")]
    assert details(verdict) == ["781 MiB of 31250 MiB are available"]
    assert measured(verdict) == {
        ("memory_available_bytes",): 800000 * 1024,
        ("memory_total_bytes",): 32000000 * 1024,
        ("swap_total_bytes",): 2097148 * 1024,
        ("swap_free_bytes",): 1024 * 1024,
    }


def test_memory_that_was_given_to_huge_pages_is_not_missing() -> None:
    verdict = inspected("memory_available", recorded("memory_available", "well"))
    assert found(verdict) == []
    assert measured(verdict) == {
        ("memory_available_bytes",): 1600000 * 1024,
        ("memory_total_bytes",): (64000000 - 60 * 1048576 - 512 * 1024) * 1024,
    }


def test_huge_pages_of_an_older_kernel(tmp_path: Path) -> None:
    text = "MemTotal: 1000 kB\nMemAvailable: 90 kB\nHugePages_Total: 2\nHugepagesize: 400 kB\n"
    assert sample("memory_available", tree(tmp_path, {"proc/meminfo": text}))["total"] == 200 * 1024


@pytest.mark.parametrize(("available", "expected"), [(49, 1), (50, 0)])
def test_memory_at_the_edge(available: int, expected: int) -> None:
    now = {"available": available, "total": 1000, "swap_total": 0, "swap_free": 0}
    assert len(judged("memory_available", now).findings) == expected


def test_a_kernel_that_does_not_estimate(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="does not estimate"):
        sample("memory_available", tree(tmp_path, {"proc/meminfo": "MemTotal: 1000 kB\n"}))


def test_pressure(tmp_path: Path) -> None:
    line = "avg10=0.00 avg60={} avg300=0.00 total=1"
    host = tree(
        tmp_path,
        {
            "proc/pressure/cpu": f"some {line.format('12.50')}\nfull {line.format('0.00')}\n",
            "proc/pressure/memory": f"some {line.format('4.00')}\nfull {line.format('2.00')}\n",
        },
    )
    assert measured(inspected("pressure", host)) == {
        ("pressure_ratio", "cpu", "some"): 0.125,
        ("pressure_ratio", "memory", "some"): 0.04,
        ("pressure_ratio", "memory", "full"): 0.02,
    }


# -- the clock ---------------------------------------------------------------------------------------------------------


def test_a_clock_that_lost_its_time_server() -> None:
    verdict = inspected("clock", recorded("clock", "sick"))
    assert found(verdict) == [("ClockUnsynchronized", "")]
    assert details(verdict) == ["the kernel takes its clock for lost; it may be wrong by 16 s"]
    assert measured(verdict) == {
        ("clock_synchronized",): 0,
        ("clock_offset_seconds",): 0,
        ("clock_max_error_seconds",): 16,
        ("clock_estimated_error_seconds",): 16,
    }


def test_a_clock_that_is_synchronised_in_nanoseconds() -> None:
    verdict = inspected("clock", recorded("clock", "well"))
    assert found(verdict) == []
    assert measured(verdict) == {
        ("clock_synchronized",): 1,
        ("clock_offset_seconds",): pytest.approx(-0.000042),
        ("clock_max_error_seconds",): 0.0315,
        ("clock_estimated_error_seconds",): 0.000012,
    }


def lost(**said: Any) -> Sample:
    return {"status": 0x40, "offset": 0, "freq": 0, "maxerror": 16000000, "esterror": 16000000, "service": False, **said}


def test_a_clock_that_nothing_is_meant_to_synchronise_is_no_fault() -> None:
    assert found(judged("clock", lost())) == []
    assert found(judged("clock", lost(service=True))) == [("ClockUnsynchronized", "")]
    assert found(judged("clock", lost(freq=-812345))) == [("ClockUnsynchronized", "")], "its service died"


def test_a_time_service_is_enabled_only_where_systemd_runs(tmp_path: Path) -> None:
    wants = tmp_path / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "chronyd.service").symlink_to("/usr/lib/systemd/system/chronyd.service")
    assert not clock._enabled(Host(tmp_path))
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert clock._enabled(Host(tmp_path))


def test_a_directory_of_another_machine_has_no_clock(tmp_path: Path) -> None:
    host = tree(tmp_path, {"proc/sys/kernel/random/boot_id": "another"})
    with pytest.raises(Absent, match="running host"):
        sample("clock", host)


def test_the_running_host_below_another_root_has_this_clock(tmp_path: Path) -> None:
    host = tree(tmp_path, {"proc/sys/kernel/random/boot_id": Host().boot_id})
    assert set(sample("clock", host)) == {"status", "offset", "freq", "maxerror", "esterror", "service"}


def test_the_structure_is_the_kernels() -> None:
    if clock.ctypes.sizeof(clock.ctypes.c_long) == 8:
        assert clock.ctypes.sizeof(clock.Timex) == 208
        assert (clock.Timex.status.offset, clock.Timex.tick.offset, clock.Timex.tai.offset) == (40, 88, 160)
    assert clock._ask()["maxerror"] >= 0


# -- hung tasks, taint -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "left"), [("10", 10), ("0", 0), ("-1", math.inf)])
def test_the_budget_of_hung_task_reports(said: str, left: float, tmp_path: Path) -> None:
    base = "proc/sys/kernel/hung_task_"
    host = tree(tmp_path, {f"{base}timeout_secs": "120", f"{base}warnings": said})
    assert measured(inspected("hung_task_budget", host)) == {("hung_task_warnings_left",): left}
    tree(tmp_path, {f"{base}detect_count": "13\n"})
    assert measured(inspected("hung_task_budget", host))["hung_tasks",] == 13


def test_no_budget_where_nobody_looks(tmp_path: Path) -> None:
    base = "proc/sys/kernel/hung_task_"
    with pytest.raises(Absent, match="switched off"):
        sample("hung_task_budget", tree(tmp_path, {f"{base}timeout_secs": "0", f"{base}warnings": "10"}))


@pytest.mark.parametrize(
    ("mask", "flags"),
    [
        (0, []),
        (1 | 1 << 12 | 1 << 13, ["proprietary_module", "out_of_tree_module", "unsigned_module"]),
        (1 << 7 | 1 << 9, ["oops", "warning"]),
        (1 << 4 | 1 << 14 | 1 << 19, ["machine_check", "soft_lockup", "fwctl"]),
        (1 << 20 | 1 << 25, ["other"]),
    ],
)
def test_taint(mask: int, flags: list[str], tmp_path: Path) -> None:
    verdict = inspected("taint", tree(tmp_path, {"proc/sys/kernel/tainted": f"{mask}\n"}))
    assert measured(verdict) == {("tainted", flag): 1.0 for flag in flags}
    assert verdict.findings == ()


# -- memory controllers ------------------------------------------------------------------------------------------------


def controllers(boot: str = "a", **counts: list[int]) -> Sample:
    return {"boot": boot, "counts": counts}


def test_errors_of_a_recorded_host() -> None:
    before = sample("memory_controllers", recorded("memory_controllers", "well"))
    now = sample("memory_controllers", recorded("memory_controllers", "sick"))
    verdict = judged("memory_controllers", now, before, 60.0)
    assert found(verdict) == [("EdacUncorrectedErrors", "mc1")]
    assert details(verdict) == ["2 new uncorrected errors"]
    assert measured(verdict) == {
        ("memory_corrected_errors", "mc0"): 120,
        ("memory_corrected_errors", "mc1"): 0,
        ("memory_uncorrected_errors", "mc0"): 0,
        ("memory_uncorrected_errors", "mc1"): 2,
    }
    rate = judged("memory_corrected_errors", now, before, 3600.0)
    assert found(rate) == [("EdacCorrectedErrorRate", "mc0")]
    assert details(rate) == ["117 corrected errors per hour"]
    assert found(judged("memory_controllers", before, before, 60.0)) == []
    assert found(judged("memory_corrected_errors", before, before, 3600.0)) == []


@pytest.mark.parametrize("name", ["memory_controllers", "memory_corrected_errors"])
def test_the_first_sample_finds_nothing(name: str) -> None:
    assert found(judged(name, controllers(mc0=[10000, 10000]))) == []
    assert found(judged(name, controllers(mc0=[0, 0], mc1=[9000, 9000]), controllers(mc0=[0, 0]), 60.0)) == []


def test_counters_that_were_reset_and_counters_of_another_boot() -> None:
    before = controllers(mc0=[5, 5])
    assert details(judged("memory_controllers", controllers(mc0=[0, 2]), before, 60.0)) == ["2 new uncorrected errors"]
    assert found(judged("memory_controllers", controllers(mc0=[0, 0]), before, 60.0)) == []
    again = controllers("b", mc0=[5, 5])
    assert details(judged("memory_controllers", again, before, 60.0)) == ["5 new uncorrected errors"]
    assert found(judged("memory_controllers", controllers("b", mc0=[9, 0]), before, 60.0)) == []


@pytest.mark.parametrize(
    ("new", "elapsed", "expected"),
    [(49, 3600.0, 0), (50, 3600.0, 1), (49, 5.0, 0), (50, 5.0, 1), (99, 7200.0, 0), (100, 7200.0, 1)],
)
def test_the_rate_is_of_an_hour_at_least(new: int, elapsed: float, expected: int) -> None:
    verdict = judged("memory_corrected_errors", controllers(mc0=[1000 + new, 0]), controllers(mc0=[1000, 0]), elapsed)
    assert len(verdict.findings) == expected


def test_lost_data_stays_lost() -> None:
    reason = memory_controllers.UNCORRECTED_ERRORS
    assert reason.severity is Severity.CRITICAL
    assert [each.kind for each in reason.clears] == [ClearKind.REBOOT, ClearKind.OPERATOR]


def test_a_counter_that_can_not_be_read_is_a_failure(tmp_path: Path) -> None:
    host = tree(tmp_path, {"sys/devices/system/edac/mc/mc0/ce_count": "0"})
    with pytest.raises(ValueError, match="invalid literal"):
        sample("memory_controllers", host)


def test_no_controller_is_absent(tmp_path: Path) -> None:
    (tmp_path / "sys/devices/system/edac/mc/power").mkdir(parents=True)
    with pytest.raises(Absent):
        sample("memory_controllers", Host(tmp_path))


# -- the boot before ---------------------------------------------------------------------------------------------------


def kept(root: Path, place: str, text: str, time: float) -> Host:
    host = tree(root, {place: text, "proc/stat": f"cpu  1 2 3\nbtime {BOOT:.0f}\nprocesses 9\n"})
    os.utime(root / place, (time, time))
    return host


PSTORE = "sys/fs/pstore/dmesg-efi_pstore-170000000001001"


@pytest.mark.parametrize(
    ("place", "text", "time"),
    [
        (PSTORE, "Panic#1 Part1\n<0>[ 9.1] Kernel panic - not syncing: x", BOOT - 60),
        ("sys/fs/pstore/dmesg-erst-7000.enc.z", "\0\1", BOOT - 60),
        ("var/lib/systemd/pstore/1700000/dmesg-efi_pstore-1", "Panic#2 Part3\n", BOOT + 12),
        ("var/lib/systemd/pstore/7000/001/dmesg-erst-1", "Panic#1 Part1\n", BOOT - 12),
        ("var/crash/127.0.0.1-2023-11-14-22:10:00/vmcore-dmesg.txt", "[ 1.0] Linux version 5.10", BOOT - 90),
        ("var/crash/202311142210/dmesg.202311142210", "[ 1.0] Linux version 6.8", BOOT - 90),
    ],
)
def test_a_panic_of_the_boot_before_is_found_once(place: str, text: str, time: float, tmp_path: Path) -> None:
    now = sample("previous_panic", kept(tmp_path, place, text, time))
    first = judged("previous_panic", now)
    assert found(first) == [("PreviousBootPanic", "")]
    assert details(first) == [f"/{place} was written by the boot before this one"]
    assert measured(first) == {("panic_records",): 1}
    assert found(judged("previous_panic", now, now, 300.0)) == []
    assert found(judged("previous_panic", now, {"boot": BOOT - 9e6, "records": []}, 300.0)) == [("PreviousBootPanic", "")]


@pytest.mark.parametrize(
    ("place", "text", "time"),
    [
        (PSTORE, "Oops#1 Part1\n<1>[ 9.1] BUG: unable to handle page fault", BOOT - 60),
        (PSTORE, "Shutdown#1 Part1\n", BOOT - 60),
        (PSTORE, "Panic#1 Part1\n", BOOT + 60),
        (PSTORE, "Panic#1 Part1\n", BOOT - 86401),
        ("sys/fs/pstore/console-ramoops-0", "Panic#1 Part1\n", BOOT - 60),
        ("var/lib/systemd/pstore/1/dmesg-efi_pstore-1", "Panic#1 Part1\n", BOOT + 901),
        ("var/lib/systemd/pstore/1/dmesg-efi_pstore-1", "Panic#1 Part1\n", BOOT - 90000),
        ("var/crash/1/vmcore-dmesg.txt", "x", BOOT + 60),
    ],
)
def test_what_is_no_panic_or_not_of_the_boot_before(place: str, text: str, time: float, tmp_path: Path) -> None:
    assert found(inspected("previous_panic", kept(tmp_path, place, text, time))) == []


def test_a_node_that_was_off_for_days_still_says_so(tmp_path: Path) -> None:
    now = sample("previous_panic", kept(tmp_path, PSTORE, "Panic#1 Part1\n", BOOT - 5 * 86400))
    before = {"boot": BOOT - 9e6, "records": [["/var/crash", "1/vmcore-dmesg.txt", BOOT - 8e6]]}
    assert found(judged("previous_panic", now, before, 5 * 86400.0)) == [("PreviousBootPanic", "")]


def test_nothing_that_keeps_records(tmp_path: Path) -> None:
    with pytest.raises(Absent):
        sample("previous_panic", Host(tmp_path))
    (tmp_path / "sys/fs/pstore").mkdir(parents=True)
    with pytest.raises(ValueError, match="boot"):
        sample("previous_panic", Host(tmp_path))


# -- off by default ----------------------------------------------------------------------------------------------------


def test_zram() -> None:
    verdict = inspected("zram", recorded("zram", "sick"))
    assert found(verdict) == [("ZramHighUsage", "zram0")]
    assert details(verdict) == ["820 of 1024 MiB are used"]
    assert measured(verdict) == {
        ("zram_stored_bytes", "zram0"): 820 << 20,
        ("zram_size_bytes", "zram0"): 1 << 30,
    }
    assert found(inspected("zram", recorded("zram", "well"))) == []


@pytest.mark.parametrize(("stored", "expected"), [(799, 0), (800, 1)])
def test_zram_at_the_edge(stored: int, expected: int) -> None:
    assert len(judged("zram", {"zram0": [stored, 1000]}).findings) == expected


def test_zram_that_nobody_uses(tmp_path: Path) -> None:
    host = tree(tmp_path, {"sys/block/zram0/disksize": "0\n", "sys/block/zram0/mm_stat": "0 0 0\n"})
    with pytest.raises(Absent, match="in use"):
        sample("zram", host)


def environment(variables: int) -> bytes:
    return b"".join(b"SVC_%d_PORT=tcp://10.0.0.1:80\0" % number for number in range(variables)) + b"\0\0"


def test_large_environments_are_one_finding(tmp_path: Path) -> None:
    sizes = {1: 3, 2: 1000, 3: 1001, 4: 4000, 5: 0}
    host = tree(tmp_path, {f"proc/{pid}/environ": environment(count) for pid, count in sizes.items()})
    verdict = inspected("environments", host)
    assert found(verdict) == [("LargeEnvironment", "")]
    assert details(verdict) == ["2 processes have more than 1000 variables, the largest 4000"]
    assert measured(verdict) == {("largest_environment_variables",): 4000, ("large_environments",): 2}


def test_ordinary_environments(tmp_path: Path) -> None:
    host = tree(tmp_path, {"proc/1/environ": environment(1000), "proc/2/environ": b""})
    assert found(inspected("environments", host)) == []
