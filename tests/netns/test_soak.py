"""A short round of ``make soak`` on each plane, and faults that are put into the program on purpose: each is found."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from relevo.planes import ebpf
from tests.soak import plan

pytestmark = [pytest.mark.slow, pytest.mark.namespaces, pytest.mark.usefixtures("namespaces")]

ROOT = Path(__file__).parents[2]
pytestmark.append(pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="no TAP devices: /dev/net/tun is not there"))


def soak(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.soak", "--minutes", "10", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)


def test_a_seed_is_the_same_rounds_always() -> None:
    first, again = (list(islice(plan.rounds(7), 100)) for _ in range(2))
    assert first == again
    assert {fault.kind for each in first for fault in each.faults} == set(plan.KINDS.values())
    assert not any(fault.kind.ends for each in first if each.gentle for fault in each.faults)
    assert len({str(each) for seed in range(20) for each in islice(plan.rounds(seed), 1)}) == 20


@pytest.mark.parametrize(("plane", "rounds"), [("ebpf", "11,19,69"), ("proxy", "14,16")])
def test_after_faults_everything_is_as_usual(plane: str, rounds: str) -> None:
    """The rounds are those that found something once: two masters, a node that is cut off, a second master that is killed."""
    if plane == "ebpf" and ebpf.unavailable_reason():
        pytest.skip(f"ebpf: {ebpf.unavailable_reason()}")
    done = soak("--seeds", "3", "--plane", plane, "--rounds", rounds)
    assert (done.returncode, "0 violations" in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("breakage", "plane", "violation"),
    [
        ("keeps_the_address", "proxy", "addresses: "),
        ("loses_notifications", "proxy", "scripts were told last: "),
        ("no_announcement", "ebpf", "without an answer"),
    ],
)
def test_a_fault_of_the_program_is_found(breakage: str, plane: str, violation: str) -> None:
    if plane == "ebpf" and ebpf.unavailable_reason():
        pytest.skip(f"ebpf: {ebpf.unavailable_reason()}")
    done = soak("--seeds", "5", "--plane", plane, "--rounds", "13", "--settle", "8", "--break", breakage)
    assert done.returncode == 1, done.stdout + done.stderr
    assert violation in done.stdout
