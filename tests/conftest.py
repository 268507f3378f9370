"""What many tests share: options, and the state of the real machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

HOSTS = Path(__file__).parent / "hosts"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="write the golden pages of the recorded hosts again")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written instead of compared."""
    return bool(request.config.getoption("--golden"))


needs_kmsg = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/kmsg", os.W_OK),
    reason="needs root and a writable /dev/kmsg (the real kernel log)",
)
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool (Debian: apt-get install prometheus)"
)
needs_journald = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("journalctl") is None or not Path("/lib/systemd/systemd-journald").exists(),
    reason="needs root, journalctl and systemd-journald (Debian: apt-get install systemd)",
)
