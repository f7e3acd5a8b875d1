"""The kernel's IPVS, which hardly any machine that runs tests has: its plane under a kernel of its own."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from tests.uml.rig import run

pytestmark = pytest.mark.slow


def test_the_plane_conforms(tmp_path: Path) -> None:
    tests = "tests/conformance/test_ipvs.py"
    ran = run(f"{shlex.quote(sys.executable)} -m pytest -q -rs -p no:cacheprovider {tests}", tmp_path)
    assert ran.status == 0, ran.output[-6000:]
    assert " passed" in ran.output
    assert "no ipvs" not in ran.output, "nothing was tested"
