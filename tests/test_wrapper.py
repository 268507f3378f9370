"""Wrappers come off, whatever tool put them on, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodehealth import catalog as catalogs
from nodehealth.model import Record
from nodehealth.wrapper import unwrap

PATIENT = settings(deadline=None, suppress_health_check=list(HealthCheck))  # this machine may be busy

CATALOG = catalogs.load()
BARE = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
LINES = (
    BARE,
    "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error",
    "EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2: comm x: reading directory lblock 0",
    "I/O error, dev nvme0n1, sector 2048 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2",
    "",
)

NAMED = {
    "printk": "[449410.332316] ",
    "printk padded": "[    5.123456] ",
    "printk whole seconds": "[123] ",
    "printk caller thread": "[  113.672787][ T12] ",
    "printk caller CPU": "[  113.672787][    C3] ",
    "dmesg -T": "[Fri Aug 30 11:43:14 2024] ",
    "dmesg -T one-digit day": "[Wed Dec  4 13:23:01 2024] ",
    "dmesg --time-format iso": "2025-01-21T04:41:44,283302+00:00 ",
    "dmesg -x": "kern  :warn  : [  113.672787] ",
    "dmesg -x -T": "kern  :err   : [Fri Aug 30 11:43:14 2024] ",
    "dmesg -x iso": "kern  :warn  : 2025-01-21T04:41:44,283302+00:00 ",
    "priority": "<3>",
    "priority and printk": "<4>[2315424.098863] ",
    "kmsg": "4,1227,437812449932,-;",
    "kmsg with fields": "4,1227,437812449932,c,caller=T12;",
    "kmsg fragment": "4,1227,437812449932,+,1,-;",
    "syslog": "Aug 30 11:43:14 gpu-node-1 kernel: ",
    "syslog one-digit day": "Jan  5 01:02:03 host kernel: ",
    "syslog and printk": "Aug 30 11:43:14 host kernel: [ 3606.832215] ",
    "syslog with priority": "<4>Aug 30 11:43:14 host kernel: [ 3606.832215] ",
    "rsyslog iso": "2024-08-30T11:43:14.123456+02:00 host kernel: ",
    "rsyslog iso utc": "2024-08-30T11:43:14.123456Z ip-10-0-0-1.ec2.internal kernel: ",
    "journalctl short": "Aug 30 11:43:14 host kernel: ",
    "journalctl short-precise": "Aug 30 11:43:14.123456 host kernel: ",
    "journalctl short-iso": "2024-08-30T11:43:14+0200 host kernel: ",
    "journalctl short-iso-precise": "2024-08-30T11:43:14.123456+0200 host kernel: ",
    "journalctl short-full": "Fri 2024-08-30 11:43:14 UTC host kernel: ",
    "journalctl short-monotonic": "[ 3606.832215] host kernel: ",
    "journalctl short-unix": "1725010994.123456 host kernel: ",
    "host and kernel": "host kernel: ",
    "kernel alone": "kernel: ",
}


@pytest.mark.parametrize("wrapper", NAMED.values(), ids=NAMED.keys())
@pytest.mark.parametrize("bare", LINES)
def test_wrapper_comes_off(wrapper: str, bare: str) -> None:
    assert unwrap(wrapper + bare) == bare


@pytest.mark.parametrize("wrapper", NAMED.values(), ids=NAMED.keys())
def test_wrapped_line_is_found(wrapper: str) -> None:
    matches = CATALOG.read(Record("kmsg", ("kmsg",), wrapper + BARE, time=0.0, clock=0.0))
    assert [match.rule.name for match in matches] == ["Xid"]


def digits(low: int, high: int) -> st.SearchStrategy[str]:
    return st.integers(low, high).map(str)


STAMP = st.builds("[{:>5}.{:06d}]".format, st.integers(0, 10**7), st.integers(0, 999999))
CALLER = st.sampled_from(["", "[T1]", "[    C0]", "[ T4194304]"])
CLOCK = st.builds("{:02d}:{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59), st.integers(0, 60))
MONTH = st.sampled_from(["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"])
DAY = st.integers(1, 31)
HOST = st.from_regex(r"\A[a-z][a-z0-9.-]{0,20}[a-z0-9]\Z")
ISO = st.builds(
    "{}-{:02d}-{:02d}T{}{}{}".format,
    digits(1970, 2100),
    st.integers(1, 12),
    DAY,
    CLOCK,
    st.sampled_from(["", ".5", ",283302", ".123456789"]),
    st.sampled_from(["", "Z", "+00:00", "-0730"]),
)
PRINTK = st.builds("{}{} ".format, STAMP, CALLER)
CTIME = st.builds(
    "[{} {} {:>2} {} 2024] ".format, st.sampled_from(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]), MONTH, DAY, CLOCK
)
SYSLOG = st.builds("{} {:>2} {} {} kernel: ".format, MONTH, DAY, CLOCK, HOST)
ISO_HOST = st.builds("{} {} kernel: ".format, ISO, HOST)
DECODED = st.builds("kern  :{:<6}: ".format, st.sampled_from(["emerg", "err", "warn", "notice", "info", "debug"]))
PRIORITY = st.integers(0, 191).map("<{}>".format)
KMSG = st.builds(
    "{},{},{},{}{};".format,
    st.integers(0, 191),
    st.integers(0, 2**63),
    st.integers(0, 2**63),
    st.sampled_from("-c+"),
    st.sampled_from(["", ",caller=T12", ",caller=C3,more=1"]),
)
LAYERS = st.one_of(
    PRINTK,
    CTIME,
    SYSLOG,
    ISO_HOST,
    KMSG,
    st.builds("{}{}".format, PRIORITY, PRINTK),
    st.builds("{}{}".format, SYSLOG, PRINTK),
    st.builds("{}{}".format, ISO_HOST, PRINTK),
    st.builds("{}{}".format, DECODED, st.one_of(PRINTK, CTIME, ISO.map("{} ".format))),
    st.builds("{}{}{}".format, PRIORITY, SYSLOG, PRINTK),
)


@given(LAYERS, st.sampled_from(LINES))
@PATIENT
def test_wrapping_and_unwrapping_gives_the_bare_line(wrapper: str, bare: str) -> None:
    assert unwrap(wrapper + bare) == bare


@given(st.text(max_size=200))
@PATIENT
def test_unwrapping_twice_is_unwrapping_once_and_leaves_an_end_of_the_line(text: str) -> None:
    once = unwrap(text)
    assert text.endswith(once)
    if len(text) < 20:  # more layers than any tool puts on are left alone
        assert unwrap(once) == once


@given(st.text(max_size=200).map(lambda text: f"NVRM: {text}"))
@PATIENT
def test_a_bare_line_stays(line: str) -> None:
    assert unwrap(line) == line


@pytest.mark.parametrize("wrapper", [name for name in NAMED.values() if "kernel: " in name] + ["[ 5.0] ", "4,12,34,-;", ""])
@pytest.mark.parametrize(
    "program", ["kubelet[1422]: ", "dcgm-exporter: ", "mykernel: ", "kernel[3]: ", "logger: ", "my app: "]
)
def test_what_another_program_quotes_is_no_drivers_line(wrapper: str, program: str) -> None:
    line = f"{wrapper.removesuffix('kernel: ')}{program}{BARE}"
    assert CATALOG.read(Record("kmsg", ("kmsg",), line, time=0.0, clock=0.0)) == []


def test_a_repeated_message_of_syslog_is_unwrapped() -> None:
    assert (
        unwrap("Aug 30 11:43:14 host kernel: message repeated 9 times: [ block nvme0n1: no path]")
        == "block nvme0n1: no path]"
    )
