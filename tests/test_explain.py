"""`nodehealth explain`: why a line counts or not, and what it would do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nodehealth import catalog as catalogs
from nodehealth.catalog import Catalog
from nodehealth.commands.explain import as_json, as_text, decode, explain
from nodehealth.settings import Trust, parse
from nodehealth.sources.host import Host

CATALOG = catalogs.load()
XID_79 = "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
ISSUE_LINES = (
    ("NVRM: Xid (PCI:0000:00:00): 31, GPU termination", 31, "0000:00:00"),
    ("NVRM: Xid (PCI:0000:00:00): 45, GPU internal error", 45, "0000:00:00"),
    ("<3>NVRM: Xid (PCI:00000000:00:1F.0): 31, Ch 00000001, failed to allocate GPU memory", 31, "0000:00:1f"),
)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with one GPU at 0000:3b:00.0."""
    device = tmp_path / "sys/bus/pci/devices/0000:3b:00.0"
    device.mkdir(parents=True)
    for name, content in (("vendor", "0x10de"), ("device", "0x2330"), ("class", "0x030200")):
        (device / name).write_text(content)
    return Host(tmp_path)


def text(line: str, host: Host, catalog: Catalog = CATALOG, trust: Trust = Trust.DRILL) -> list[str]:
    return as_text(explain(line, catalog), host, trust).splitlines()


def answer(line: str, source: str | None = None) -> dict[str, object]:
    found: dict[str, object] = json.loads(as_json(explain(line, CATALOG, source)))
    return found


def run(*argv: str, stdin: str | bytes = "") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "nodehealth", "explain", *argv],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        check=False,
    )


# -- for people --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "code", "address"), ISSUE_LINES)
def test_application_fault_on_no_gpu_of_this_node(line: str, code: int, address: str, host: Host) -> None:
    found = text(line, host)
    assert found[0] == line.removeprefix("<3>")
    assert f"  Xid {code} is an application fault: counted, the node stays healthy" in found
    assert f"  {address} is no GPU of this node: it counts all the same, with the address as its object" in found
    assert not any("ends when" in row for row in found), "it never holds, so it never ends"


def test_critical_fault_says_all_that_follows(host: Host) -> None:
    assert text(XID_79, host) == [
        XID_79,
        "  Xid 79 is ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS: GPU fell off the PCIe bus: the driver can no longer reach it",
        "  NvidiaXIDErrorRebootNode on 0000:3b:00.0: critical, action reboot node. A GPU reported a critical error: the node has to be rebooted.",
        "  counted; it makes accelerated_hardware unhealthy",
        "  what to do: Drain the node and reboot it; if the fault returns, replace the node.",
        "  ends when: the GPU is reset or its driver loaded again; the node is rebooted; somebody runs `nodehealth clear NvidiaXIDErrorRebootNode`",
    ]


def test_unknown_number_says_so(host: Host) -> None:
    found = text("NVRM: Xid (PCI:0000:3b:00): 999, x", host)
    assert found[1] == "  Xid 999 is a number that NVIDIA's catalog does not have"
    assert "  counted; it makes accelerated_hardware degraded, not unhealthy" in found


def test_nvlink5_is_decoded(host: Host) -> None:
    found = text("NVRM: Xid (PCI:0000:3b:00): 145, RLW_REMAP Nonfatal XC1 i0 Link 10 (0x00000004 0x00000040)", host)
    assert found[1] == "  Xid 145 is NVLINK_RLW_ERROR: NVLink error in unit RLW_REMAP on link 10, sub-code 0"


def test_lost_gpu_without_an_xid_leaves_the_counter(host: Host) -> None:
    found = text("NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.", host)
    assert "  the message has no Xid of its own: the counter of Xids stays as it is" in found


def test_recovery_says_what_it_ends(host: Host) -> None:
    line = "NVRM: Xid (PCI:0000:3b:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"
    assert text(line, host)[1:] == [
        "  Xid 154 is GPU_RECOVERY_ACTION_CHANGED: no recovery is needed any more",
        "  says that the GPU was reset or its driver loaded: ends what a reset ends on 0000:3b:00.0",
    ]
    assert text("NVRM: loading NVIDIA UNIX x86_64", host)[1].endswith("ends what a reset ends on every device")
    found = text("NVRM: Xid (PCI:0000:3b:00): 162, x", host)
    assert "  Xid 162 says that a fault ended: counted, the node stays healthy" in found
    assert found[-1] == "  ends number 163 on 0000:3b:00.0"
    found = text("nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 10005, x", host)
    assert "  SXid 10005 says that a fault ended: counted, the node stays healthy" in found
    assert text("nfs: server 10.0.0.1 OK", host)[-1].startswith("  ends NfsServerNotResponding on ")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("hello", "no rule recognises this line: it does not count"),
        ("", "no rule recognises this line: it does not count"),
        ("kubelet[3]: " + XID_79, "no rule recognises this line: it does not count"),
        (
            "NVRM: a new wording",
            "a driver's line that no rule recognises: counted in nodehealth_source_unmatched_driver_lines_total only",
        ),
        (
            "NVRM: fallen off the bus and is not responding to commands.",
            "recognised (context of xid): it means nothing by itself and is not counted",
        ),
    ],
)
def test_line_that_does_not_count_says_why(line: str, why: str, host: Host) -> None:
    assert text(line, host)[1:] == [f"  {why}"]


def test_configuration_is_explained(host: Host) -> None:
    catalog = catalogs.load(
        parse(
            {
                "xids": {31: {"count": 5, "within": "90m"}, 48: {"severity": "info"}},
                "reasons": {"NvidiaXIDErrorRebootNode": {"enabled": False}},
            }
        )
    )
    found = text("NVRM: Xid (PCI:0000:3b:00): 31, x", host, catalog)
    assert "  counted; once it was seen 5 times within 90m, it makes accelerated_hardware unhealthy" in found
    assert "  counted; it is listed, the node stays healthy" in text("NVRM: Xid (PCI:0000:3b:00): 48, x", host, catalog)
    assert "  the configuration disables this reason: no problem is made of it" in text(XID_79, host, catalog)


def test_record_of_user_space_is_told_by_the_trust_in_it(host: Host) -> None:
    line = f"12,1,2,-;{XID_79}"
    injected = "  user space wrote this record: it counts, and everything that it causes is marked as injected"
    assert text(line, host)[-1] == injected
    assert injected not in text(line, host, trust=Trust.ALWAYS)
    never = "  user space wrote this record, and trust_user_records is never: it does not count"
    assert text(line, host, trust=Trust.NEVER)[1:] == [never]
    assert text(f"4,1,2,-;{XID_79}", host, trust=Trust.NEVER) == text(XID_79, host)


def test_terminal_escapes_are_shown_and_not_obeyed(host: Host) -> None:
    found = as_text(explain(r"NVRM: Xid (PCI:0000:3b:00): 79, \x1b[2J\x07\nnext", CATALOG), host, Trust.DRILL)
    assert "\x1b" not in found
    assert found.startswith(r"NVRM: Xid (PCI:0000:3b:00): 79, \x1b[2J\x07\nnext")


# -- escapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "decoded"),
    [
        ("plain", "plain"),
        (r"a\nb", "a\nb"),
        (r"a\x0ab", "a\nb"),
        (r"caf\xc3\xa9", "café"),
        (r"café \x0a", "café \n"),
        (r"\xff", "\ufffd"),
        (r"\x5cn", r"\n"),
        (r"— \xe2\x80\x94", "— —"),
        (r"\xzz \q \x4", r"\xzz \q \x4"),
    ],
)
def test_escapes_of_kmsg_are_decoded(line: str, decoded: str) -> None:
    assert decode(line) == decoded


def test_record_with_newlines_is_found_in_every_notation() -> None:
    parts = (
        "NVRM: The NVIDIA GPU 0000:b3:00.0",
        "NVRM: (PCI ID: 10de:26b5) installed in this system has",
        "NVRM: fallen off the bus and is not responding to commands.",
    )
    for newline in ("\n", r"\n", r"\x0a", r" \x0a "):
        found = answer(f"4,1227,437812449932,-;{newline.join(parts)}")
        assert found["matches"], newline
        assert found["xid"] == {
            "code": 79,
            "pci_bus_id": "0000:b3:00.0",
            "name": "ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS",
            "severity": "critical",
            "action": "reboot_node",
        }


# -- for programs ------------------------------------------------------------------------------------------------------


def test_json_has_exactly_the_fields_of_the_contract() -> None:
    assert answer(ISSUE_LINES[2][0]) == {
        "line": ISSUE_LINES[2][0],
        "matches": [
            {
                "reason": "NvidiaXIDWarningRestartApp",
                "subsystem": "accelerated_hardware",
                "severity": "warning",
                "action": "restart_app",
                "object": "0000:00:1f.0",
            }
        ],
        "xid": {
            "code": 31,
            "pci_bus_id": "0000:00:1f.0",
            "name": "ROBUST_CHANNEL_FIFO_ERROR_MMU_ERR_FLT",
            "severity": "warning",
            "action": "restart_app",
        },
        "sxid": None,
    }


def test_json_of_a_line_without_a_match() -> None:
    assert answer("hello") == {"line": "hello", "matches": [], "xid": None, "sxid": None}


def test_json_of_an_sxid_and_of_an_unknown_number() -> None:
    found = answer("nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 99999, Some error")
    assert found["xid"] is None
    assert found["sxid"] == {
        "code": 99999,
        "pci_bus_id": "0000:05:00.0",
        "name": None,
        "severity": "warning",
        "action": "investigate",
    }


def test_json_of_a_recovery_has_its_number() -> None:
    found = answer(
        "NVRM: Xid (PCI:0000:3b:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"
    )
    assert found["matches"] == []
    assert isinstance(found["xid"], dict)
    assert (found["xid"]["code"], found["xid"]["action"]) == (154, "none")


# -- sources -----------------------------------------------------------------------------------------------------------


def test_source_limits_the_rules() -> None:
    assert answer(XID_79, "kmsg")["matches"]
    other = next(stream for stream in CATALOG.streams if stream.startswith("journal:"))
    assert answer(XID_79, other)["matches"] == []


def test_every_source_is_tried_without_one() -> None:
    line = next(
        example.line
        for reason in CATALOG.reasons.values()
        for pattern in reason.patterns
        if pattern.sources[0].startswith("journal:")
        for example in pattern.examples
    )
    assert answer(line)["matches"]


def test_unknown_source_is_refused_with_the_nearest() -> None:
    found = run("--source=kmgs", "x")
    assert (found.returncode, found.stdout) == (2, b"")
    assert found.stderr.decode() == 'nodehealth: --source: no rule reads "kmgs"; did you mean "kmsg"?\n'


# -- many lines --------------------------------------------------------------------------------------------------------


def test_many_lines_are_answered_in_order() -> None:
    lines = [f"NVRM: Xid (PCI:0000:3b:00): {code}, x" for code in (79, 31, 999)] + ["", "hello"]
    found = run("--json", "-", stdin="\n".join(lines))
    answers = [json.loads(row) for row in found.stdout.decode().splitlines()]
    assert [each["line"] for each in answers] == lines
    assert [each["xid"] and each["xid"]["code"] for each in answers] == [79, 31, 999, None, None]
    assert found.returncode == 0


def test_bytes_that_are_no_text_stop_nothing() -> None:
    found = run("-", stdin=b"\xff\xfe\x00\nNVRM: Xid (PCI:0000:3b:00): 31, \xe9\n")
    assert found.returncode == 0
    assert "Xid 31 is an application fault" in found.stdout.decode()


def test_no_line_at_all_has_no_answer() -> None:
    assert run("--json", "-").stdout == b""


def test_a_huge_line_is_answered() -> None:
    found = run("--json", "-", stdin=f"{XID_79}{'x' * 200_000}\n")
    assert json.loads(found.stdout)["xid"]["code"] == 79
