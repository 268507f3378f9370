"""When the kubelet's rotated certificates end; a node whose client certificate ended cannot come back by itself."""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from nodehealth.checks import Check, Measurement, Metric, Pass, Sample, Verdict
from nodehealth.model import CHECK, Action, Finding, Reason, Severity, Subsystem
from nodehealth.sources.follower import Absent
from nodehealth.sources.host import Host

FILES = (
    ("client", "/var/lib/kubelet/pki/kubelet-client-current.pem"),
    ("serving", "/var/lib/kubelet/pki/kubelet-server-current.pem"),
)
_DAY = 86400.0
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_INTEGER, _UTC_TIME, _GENERALIZED_TIME, _SEQUENCE, _VERSION = 0x02, 0x17, 0x18, 0x30, 0xA0

EXPIRY = Metric(
    "nodehealth_container_runtime_kubelet_certificate_expiry_timestamp_seconds",
    "When the kubelet's certificate ends.",
    ("certificate",),
)

EXPIRING = Reason(
    name="KubeletCertificateExpiring",
    subsystem=Subsystem.CONTAINER_RUNTIME,
    severity=Severity.WARNING,
    action=Action.CHECK_CONFIG,
    summary="A certificate of the kubelet ends soon and was not renewed in time.",
    remedy="See why it is not renewed: `kubectl get csr` for requests that nobody approved, and the kubelet's log.",
    clears=(CHECK,),
    object_kind="certificate",
)
EXPIRED = Reason(
    name="KubeletCertificateExpired",
    subsystem=Subsystem.CONTAINER_RUNTIME,
    severity=Severity.CRITICAL,
    action=Action.CHECK_CONFIG,
    summary="A certificate of the kubelet has ended; the node loses the API server, or logs and exec stop.",
    remedy="Approve the request in `kubectl get csr`, or bootstrap the kubelet again; check the node's clock first.",
    clears=(CHECK,),
    object_kind="certificate",
)


def read(host: Host, _thresholds: Mapping[str, float]) -> Sample:
    """Begin and end of each certificate, and the time now (Unix seconds)."""
    found = {name: validity(first_certificate(text)) for name, path in FILES if (text := _text(host, path))}
    if not found:
        raise Absent("the kubelet has no rotated certificate")
    return {"now": host.clock.now(), "certificates": found}


def _text(host: Host, absolute: str) -> str:
    """The file's text, "" where there is none.  The kubelet links to it by an absolute path, which is one of the host."""
    path = host.path(absolute)
    try:
        if path.is_symlink() and (target := path.readlink()).is_absolute():
            path = host.path(str(target))
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return ""


def first_certificate(pem: str) -> bytes:
    """The first certificate of a PEM file in DER; the key beside it is left alone."""
    _, begin, rest = pem.partition(_BEGIN)
    body, end, _ = rest.partition(_END)
    if not begin or not end:
        raise ValueError("there is no certificate in it")
    return binascii.a2b_base64(body)


def validity(der: bytes) -> tuple[float, float]:
    """Begin and end of an X.509 certificate (RFC 5280, 4.1) in Unix seconds."""
    _, certificate = next(_elements(der), (0, b""))
    _, signed = next(_elements(certificate), (0, b""))
    fields = [each for each in _elements(signed) if each[0] != _VERSION]
    tags = [tag for tag, _ in fields[:4]]
    if tags != [_INTEGER, _SEQUENCE, _SEQUENCE, _SEQUENCE]:  # serial number, algorithm, issuer, validity
        raise ValueError("this is no X.509 certificate")
    times = [_time(tag, value) for tag, value in _elements(fields[3][1])]
    if len(times) != 2:  # noqa: PLR2004
        raise ValueError("its validity is not two times")
    return times[0], times[1]


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The tags and values that stand one after the other."""
    at = 0
    while at < len(der):
        if at + 2 > len(der):
            raise ValueError("the certificate is cut")
        tag, length, start = der[at], der[at + 1], at + 2
        if length >= 0x80:  # noqa: PLR2004 - the long form: so many bytes of length follow
            start += length & 0x7F
            length = int.from_bytes(der[at + 2 : start])
        at = start + length
        if at > len(der):
            raise ValueError("the certificate is cut")
        yield tag, der[start:at]


def _time(tag: int, value: bytes) -> float:
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("a time of unknown form")
    digits = [int(text[start:end]) for start, end in ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14))]
    year, month, day, hour, minute, second = digits
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()


def judge(seen: Pass) -> Verdict:
    """Which certificates end soon or have ended."""
    certificates = seen.sample["certificates"]
    measured = tuple(Measurement(EXPIRY, (name,), end) for name, (_, end) in certificates.items())
    findings = (_judge(seen, name, begin, end) for name, (begin, end) in certificates.items())
    return Verdict(tuple(filter(None, findings)), measured)


def _judge(seen: Pass, name: str, begin: float, end: float) -> Finding | None:
    """The kubelet renews after 70 to 90 % of the lifetime, so the last tenth of a short one is late too, and no earlier."""
    left = end - seen.sample["now"]
    if left <= 0:
        return EXPIRED.found(name, detail=f"it ended {-left / _DAY:.1f} days ago")
    if left < seen.thresholds["days"] * _DAY and left < seen.thresholds["ratio"] * (end - begin):
        return EXPIRING.found(name, detail=f"it ends in {left / _DAY:.1f} days and was not renewed")
    return None


REASONS = (EXPIRING, EXPIRED)
CHECKS = (
    Check(
        "certificates",
        Subsystem.CONTAINER_RUNTIME,
        read,
        judge,
        REASONS,
        (EXPIRY,),
        period=300.0,
        thresholds={"days": 7.0, "ratio": 0.1},
    ),
)
