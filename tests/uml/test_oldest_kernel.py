"""The eBPF plane on the oldest kernel available, Linux 6.1 without JIT compiler or type information: the usual tests."""

from __future__ import annotations

import sys

import pytest

from tests.uml.rig import Ran

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ebpf")]

PYTEST = (sys.executable, "-m", "pytest", "-q", "-rs", "--color=no", "-p", "no:cacheprovider")


@pytest.mark.uml(sys.executable, "-m", "relevo", "doctor", "--load")
def test_the_verifier_accepts_the_programs(ran: Ran) -> None:
    (line,) = [line for line in ran.output.splitlines() if " plane ebpf " in line]
    assert line.startswith("ok"), ran.output
    assert "accepted by the verifier" in line


@pytest.mark.uml(*PYTEST, "tests/ebpf", "tests/conformance/test_ebpf.py")
def test_packets_states_and_traffic_are_the_same(ran: Ran) -> None:
    """Runs the tests of the plane that also run on this machine\'s kernel; none may be skipped for want of the plane."""
    assert ran.status == 0, ran.output[-6000:]
    assert " passed" in ran.output
    assert "no eBPF plane" not in ran.output, ran.output[-6000:]
    assert "no network namespaces" not in ran.output, ran.output[-6000:]
