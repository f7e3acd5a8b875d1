"""The eBPF plane on the oldest kernel at hand, Linux 6.1 without compiler or type information: the same tests as here."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from tests.uml.rig import run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ebpf")]


def test_the_verifier_takes_the_programs(tmp_path: Path) -> None:
    ran = run(f"{shlex.quote(sys.executable)} -m relevo doctor --load", tmp_path)
    (line,) = [line for line in ran.output.splitlines() if " plane ebpf " in line]
    assert line.startswith("ok"), ran.output
    assert "accepted by the verifier" in line


def test_packets_states_and_traffic_are_the_same(tmp_path: Path) -> None:
    """Everything that is tested of the plane on this machine's kernel."""
    tests = "tests/ebpf tests/conformance/test_ebpf.py"
    ran = run(f"{shlex.quote(sys.executable)} -m pytest -q -p no:cacheprovider {tests}", tmp_path, memory="2G", limit_s=900)
    assert ran.status == 0, ran.output[-6000:]
    assert " passed" in ran.output
