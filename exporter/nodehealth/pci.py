"""PCI addresses in the one form that sysfs uses: `0000:3b:00.0`, lower case, domain of at least four digits."""

from __future__ import annotations

import re

ADDRESS = r"(?:[0-9a-fA-F]{1,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?"
"""What drivers print: with or without domain and function (`PCI:0000:3b:00`, `00000000:3B:00.0`, `18:00.0`)."""

_PARTS = re.compile(r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.([0-7]))?\Z")


def normalise(address: str) -> str:
    """The sysfs form of any printed form; text that is no PCI address comes back unchanged.

    A driver that leaves out domain or function means 0 (nvidia/nv-linux.h prints `%04x:%02x:%02x`).
    """
    match = _PARTS.match(address.strip().lower())
    if match is None:
        return address
    domain, bus, device, function = match.groups()
    return f"{int(domain or '0', 16):04x}:{bus}:{device}.{function or '0'}"


def is_pci_address(text: str) -> bool:
    """Whether it is an address in the sysfs form."""
    return text[-2:-1] == "." and _PARTS.match(text) is not None
