"""The kernel's IPVS, which hardly any machine that runs tests has: its plane under a kernel of its own."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from tests.uml.rig import run

pytestmark = pytest.mark.slow


def test_the_plane_conforms_and_ipvsadm_is_the_real_one(tmp_path: Path) -> None:
    tests = "tests/conformance/test_ipvs.py tests/compat"
    ran = run(f"{shlex.quote(sys.executable)} -m pytest -q -rs -p no:cacheprovider {tests}", tmp_path, limit_s=900)
    assert ran.status == 0, ran.output[-6000:]
    assert " passed" in ran.output
    assert "has no IPVS" not in ran.output, "nothing was tested"


def test_transfers_outlive_their_director_from_plane_to_plane_and_beside_keepalived(tmp_path: Path) -> None:
    tests = "tests/netns/test_transfer.py"
    ran = run(f"{shlex.quote(sys.executable)} -m pytest -q -rs -p no:cacheprovider {tests}", tmp_path, memory="2G", limit_s=900)
    assert ran.status == 0, ran.output[-6000:]
    assert " passed" in ran.output
    assert "has no IPVS" not in ran.output, "hardly anything was tested"


def test_the_drill_passes(tmp_path: Path) -> None:
    files = "examples/article/master.conf examples/article/backup.conf"
    ran = run(
        f"{shlex.quote(sys.executable)} -m relevo lab drill --details --hurry 10 {files} 2>&1", tmp_path, memory="2G", limit_s=900
    )
    assert ran.status == 0, ran.output[-6000:]
    assert "data plane ipvs" in ran.output
