"""Relevo and real keepalived on one LAN: each takes over from the other and yields to it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.conftest import program
from tests.interop.pair import AH, PASS, Pair

pytestmark = [pytest.mark.namespaces, pytest.mark.usefixtures("namespaces")]

REFUSALS = re.compile(r"invalid|mismatch|incorrect|bad |ignor|drop|wrong|unexpected|malformed|expected|unknown|error", re.I)
"""Words in keepalived's log lines about a refused advert."""
HARMLESS = re.compile(
    r"Assigned address|SECURITY VIOLATION|Command line|script|Unable to (access|open)|Warning - .*not running"
    r"|dropping priv|Error \d+ \(.*\) sending",  # keepalived sends while its link is down
    re.I,
)

KINDS = {
    "v2": {"version": 2, "interval": 1},
    "v2-pass": {"version": 2, "interval": 1, "more": PASS},
    "v2-ah": {"version": 2, "interval": 1, "more": AH},
    "v2-ah-unicast": {"version": 2, "interval": 1, "more": AH, "unicast": True},
    "v3": {"version": 3, "interval": 0.1},
    "v3-unicast": {"version": 3, "interval": 0.1, "unicast": True},
    "v3-ipv6": {"version": 3, "interval": 0.1, "ipv6": True},
    "v3-ipv6-unicast": {"version": 3, "interval": 0.1, "ipv6": True, "unicast": True},
}


@pytest.fixture(params=[("relevo", "keepalived"), ("keepalived", "relevo")], ids=lambda p: f"{p[0]}-over-{p[1]}")
def programs(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture(params=list(KINDS))
def pair(request: pytest.FixtureRequest, programs: tuple[str, str]) -> Iterator[Pair]:
    pair = Pair(programs, keepalived=program("keepalived"), **KINDS[request.param])
    yield pair
    pair.close()


def test_each_takes_over_from_the_other_and_yields_to_it(pair: Pair) -> None:
    high, low = pair.nodes
    pair.start(low)
    pair.wait_for_master(low)
    pair.start(high)
    pair.wait_for_master(high, 12, low)  # the lower one became backup
    refused = {**pair.refused(high), **pair.refused(low)}
    pair.crash(high)
    pair.wait_for_master(low)  # took over by the timer
    pair.revive(high)
    pair.wait_for_master(high, 12, low)
    pair.stop(high)
    took = pair.wait_for_master(low, 3)  # took over by priority 0: sooner than the timer
    assert took < 1.5, f"priority 0 was not understood: {took:.2f} s"
    refused |= pair.refused(low)
    assert refused == {}, pair.logs()
    for node in pair.nodes:
        if node.program == "keepalived":
            lines = pair.cluster.log_text(node.host).splitlines()
            assert lines, "keepalived logged nothing"
            refusals = [line for line in lines if REFUSALS.search(line) and not HARMLESS.search(line)]
            assert refusals == [], pair.logs()
