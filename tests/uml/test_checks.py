"""keepalived's checkers, which need IPVS, beside ours under a kernel of its own."""

from __future__ import annotations

import pytest

from tests.uml.rig import Ran
from tests.uml.test_ipvs import PYTEST

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("modprobe")]


@pytest.mark.uml(*PYTEST, "tests/interop/test_checks_beside_keepalived.py")
def test_odd_servers_are_judged_as_keepalived_judges_them_but_where_we_say_why(ran: Ran) -> None:
    assert ran.status == 0, ran.output[-12_000:]
    assert " passed" in ran.output
    assert "skipped" not in ran.output, ran.output[-6000:]
