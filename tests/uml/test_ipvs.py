"""The ipvs plane in a user-mode kernel, as hardly any test machine has IPVS."""

from __future__ import annotations

import sys

import pytest

from tests.uml.rig import Ran

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("modprobe")]

PYTEST = (sys.executable, "-m", "pytest", "-q", "-rs", "--color=no", "-p", "no:cacheprovider")
RELEVO = (sys.executable, "-m", "relevo")
FILES = ("examples/article/master.conf", "examples/article/backup.conf")


@pytest.mark.uml(*PYTEST, "tests/conformance/test_ipvs.py", "tests/compat")
def test_the_plane_conforms_and_relevo_ipvsadm_equals_the_real_one(ran: Ran) -> None:
    assert ran.status == 0, ran.output[-6000:]
    assert " passed" in ran.output
    assert "has no IPVS" not in ran.output, "nothing was tested"


@pytest.mark.uml(*PYTEST, "tests/netns/test_transfer.py")
def test_transfers_survive_their_director_between_planes_and_beside_keepalived(ran: Ran) -> None:
    assert ran.status == 0, ran.output[-6000:]
    assert " passed" in ran.output
    assert "has no IPVS" not in ran.output, "most tests were skipped"


@pytest.mark.uml(*RELEVO, "lab", "drill", "--details", "--speed-up", "10", *FILES)
def test_the_drill_passes(ran: Ran) -> None:
    assert ran.status == 0, ran.output[-6000:]
    assert "data plane ipvs" in ran.output
