"""Lustre clients: connections to servers that were lost, and evictions that threw away work in progress."""

from __future__ import annotations

from nodehealth.model import LINE, REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

# The device `fs-OST0001-osc-ffff9d6153c91000` is the target `fs-OST0001` with the client's address, which says nothing.
_TARGET = r"^Lustre(?:Error)?: (?:[0-9a-f]{1,4}-[0-9a-f]{1,2}: )?(?P<object>[\w.@-]{1,80}?)(?:-(?:osc|mdc|lwp|osp|lov|clilov)-\w{1,40})?: "
_LOG = "recorded on a public cluster"

REASONS = (
    Reason(
        name="LustreConnectionLost",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="A Lustre server does not answer; programs that use its files hang until it comes back.",
        remedy="Run `lfs check servers` and `lctl ping NID`; check the server and the network to it.",
        clears=(LINE, REBOOT, quiet(hours=24)),
        patterns=(
            kernel_line(
                _TARGET + r"Connection to [^\n]{1,160} was lost; in progress operations using this service will ",
                Example(
                    "[87885.624991] Lustre: DIAS-OST0001-osc-ffff9d6153c91000: Connection to DIAS-OST0001 (at 192.168.14.178@tcp) was lost; in progress operations using this service will wait for recovery to complete",
                    "DIAS-OST0001",
                    _LOG,
                ),
                Example(
                    "LustreError: 166-1: MGC10.130.93.11@o2ib: Connection to MGS (at 10.130.93.10@o2ib) was lost; in progress operations using this service will fail",
                    "MGC10.130.93.11@o2ib",
                    _LOG,
                ),
                lookalikes=(
                    "Lustre: DIAS-OST0001-osc-ffff9d6153c91000: Connection restored to 192.168.14.178@tcp (at 192.168.14.178@tcp)",
                    "Lustre: 3389:0:(client.c:2295:ptlrpc_expire_one_request()) @@@ Request sent has timed out for slow reply: [sent 1696590759/real 1696590759]",
                    "Lustre: Mounted scratch-client",
                    "Lustre: Unmounted scratch-client",
                ),
            ),
        ),
        recoveries=(
            kernel_line(
                _TARGET + r"Connection restored to ",
                Example(
                    "Lustre: capstor-OST003a-osc-ffff3000ef06c000: Connection restored to  (at 172.28.1.43@tcp)",
                    "capstor-OST003a",
                    _LOG,
                ),
                Example(
                    "Lustre: DIAS-OST0001-osc-ffff9d6153c91000: Connection restored to service DIAS-OST0001 using nid 192.168.14.178@tcp.",
                    "DIAS-OST0001",
                    "composed from lustre/ptlrpc/import.c 2.x",
                ),
            ),
        ),
        object_kind="Lustre target",
    ),
    Reason(
        name="LustreClientEvicted",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.RESTART_APP,
        summary="A Lustre server dropped this node and threw away its unwritten data and locks; programs got I/O errors.",
        remedy="Restart the jobs that used the filesystem and check the network of this node; look at `dmesg -T | grep Lustre` for the time before it.",
        clears=(quiet(hours=1), REBOOT),
        patterns=(
            kernel_line(
                _TARGET + r"This client was evicted by [\w.@-]{1,80}; in progress operations using this service will fail",
                Example(
                    "LustreError: 167-0: scratch-OST0001-osc-ffff88103b8d9800: This client was evicted by scratch-OST0001; in progress operations using this service will fail.",
                    "scratch-OST0001",
                    "composed from lustre/ptlrpc/import.c",
                ),
                Example(
                    "LustreError: scratch-MDT0000-mdc-ffff88103b8d9800: This client was evicted by scratch-MDT0000; in progress operations using this service will fail.",
                    "scratch-MDT0000",
                    "composed from lustre/ptlrpc/import.c 2.16",
                ),
                lookalikes=(
                    "LustreError: 11-0: scratch-OST0002-osc-ffff88103b8d9800: operation ost_read to node 10.0.0.4@tcp failed: rc = -19",
                    "Lustre: scratch-OST0001: haven't heard from client 5f in 227 seconds. I think it's dead, and I am evicting it.",
                ),
            ),
        ),
        object_kind="Lustre target",
    ),
)
