"""NFS clients: servers that do not answer, and locks or state that were lost when a server came back."""

from __future__ import annotations

from nodehealth.model import LINE, REBOOT, Action, Example, Reason, Severity, Subsystem, kernel_line, quiet

_SERVER = r"^(?:nfs\d?|nfs_acl|lockd): server (?P<object>[^\s,]{1,255}) "
_CLNT = "composed from net/sunrpc/clnt.c"

REASONS = (
    Reason(
        name="NfsServerNotResponding",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.INVESTIGATE,
        summary="An NFS server does not answer; programs that use its files hang or get errors.",
        remedy="Check the server and the way to it (`rpcinfo -t SERVER nfs`, `nfsstat -rc`); hung programs go on by themselves once it answers.",
        clears=(LINE, REBOOT, quiet(hours=24)),
        patterns=(
            kernel_line(
                _SERVER + r"not responding, (?:still trying|timed out)",
                Example("nfs: server 10.0.0.5 not responding, still trying", "10.0.0.5", "GPUd test"),
                Example("nfs: server 7.247.192.16 not responding, timed out", "7.247.192.16", "GPUd test"),
                Example("nfs: server fd00::12 not responding, still trying", "fd00::12", _CLNT),
                Example("lockd: server fs-01_a.example.com not responding, still trying", "fs-01_a.example.com", _CLNT),
                lookalikes=(
                    "nfs: server nfs-prod-01.example.com OK",
                    "automount[55]: nfs: server 10.0.0.5 not responding, still trying",
                    "ldap: server 10.0.0.5 not responding, still trying",
                ),
            ),
        ),
        recoveries=(
            kernel_line(
                _SERVER + r"OK\s{0,4}$",
                Example("nfs: server nfs-prod-01.example.com OK", "nfs-prod-01.example.com", "GPUd test"),
                Example("nfs: server fd00::12 OK", "fd00::12", _CLNT),
            ),
        ),
        object_kind="NFS server",
    ),
    Reason(
        name="NfsStateLost",
        subsystem=Subsystem.STORAGE,
        severity=Severity.WARNING,
        action=Action.RESTART_APP,
        summary="After a server restart the NFS client could not get its locks or open files back; programs that used them may damage data.",
        remedy="Restart the programs that hold locks on the NFS mount (`lslocks`, `lsof -N`) and check the server's grace period.",
        clears=(quiet(hours=6), REBOOT),
        patterns=(
            kernel_line(
                r"^(?:NFS: )?(?:__)?nfs4?_reclaim_\w{1,24}: (?:Lock reclaim failed!|unhandled error -?\d)",
                Example("nfs4_reclaim_open_state: Lock reclaim failed!", "", "GPUd test"),
                Example("NFS: __nfs4_reclaim_open_state: Lock reclaim failed!", "", "composed from fs/nfs/nfs4state.c 5.x"),
                lookalikes=(
                    "nfs4_reclaim_open_state: Lock reclaim succeeded",
                    "app[9]: nfs4_reclaim_open_state: Lock reclaim failed!",
                ),
            ),
            kernel_line(
                r"^NFS: state manager(?:: [\w -]{1,64}| [\w -]{1,64}|:)? failed on NFSv4 server (?P<object>[^\s,]{1,255}) with error \d",
                Example(
                    "NFS: state manager: check lease failed on NFSv4 server nas-1.example.com with error 13",
                    "nas-1.example.com",
                    "composed from fs/nfs/nfs4state.c",
                ),
                lookalikes=(
                    "NFS: Registering the id_resolver key type",
                    "NFSD: starting 90-second grace period (net f0000098)",
                ),
            ),
        ),
        object_kind="NFS server",
    ),
)

CONTEXT = (
    kernel_line(
        r"^\s{0,8}(?:\? )?nfs\w{0,64}\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8} \[nfs\w{0,8}\]",
        Example("nfs_wb_all+0x2c/0x190 [nfs]", origin="GPUd test: a stack frame; the hung task above it is the finding"),
    ),
)
