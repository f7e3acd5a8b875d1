from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.schedulers.least_connection import overhead
from tests.unit.schedulers.fleet import Backend, Fleet


@pytest.mark.parametrize(("active", "inactive", "expected"), [(0, 0, 0), (1, 0, 256), (0, 1, 1), (2, 5, 517)])
def test_an_active_connection_weighs_as_much_as_256_inactive_ones(active, inactive, expected):
    assert overhead(Backend("A", 1, active, inactive)) == expected


@pytest.mark.parametrize("counter", ["active", "inactive"])
def test_the_golden_sequence_of_lc(counter):
    assert Fleet("lc", 1, 1, 1).connections(9, counter) == "CBACBACBA"


@pytest.mark.parametrize("counter", ["active", "inactive"])
def test_the_golden_sequence_of_wlc_is_the_same_for_tcp_and_udp(counter):
    assert Fleet("wlc", 1, 2, 3).connections(12, counter) == "CBACBCCBACBC"


def test_lc_ignores_the_size_of_weights():
    assert Fleet("lc", 1, 100, 1).connections(6) == "CBACBA"


@pytest.mark.parametrize("scheduler", ["lc", "wlc"])
def test_the_least_loaded_is_picked_and_ties_go_to_the_first_in_the_list(scheduler):
    fleet = Fleet(scheduler, 1, 1, 1)
    fleet["C"].active = 1
    assert fleet.pick() == "B"
    fleet["B"].inactive = 255
    fleet["A"].active = 1
    assert fleet.pick() == "B"
    fleet["B"].inactive = 256
    assert fleet.pick() == "C"


@pytest.mark.parametrize("scheduler", ["lc", "wlc"])
def test_excluded_servers_are_skipped_however_idle(scheduler):
    fleet = Fleet(scheduler, 1, 0, 1)
    fleet["A"].active = 1000
    fleet["C"].overloaded = True
    assert fleet.pick() == "A"


def test_wlc_compares_huge_loads_exactly():
    fleet = Fleet("wlc", 65535, 65534)
    fleet["A"].active, fleet["B"].active = 65535 * 10**9, 65534 * 10**9
    assert fleet.pick() == "B", "a tie"
    fleet["B"].inactive = 1
    assert fleet.pick() == "A"


LOADS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 600), st.booleans()), min_size=1, max_size=8)


@given(LOADS)
def test_both_agree_with_their_definition(loads):
    for scheduler in ("lc", "wlc"):
        fleet = Fleet(scheduler, *(weight for weight, *_ in loads))
        for server, (_, active, inactive, overloaded) in zip(reversed(fleet.servers), loads, strict=True):
            server.active, server.inactive, server.overloaded = active, inactive, overloaded
        cost = {
            s.name: Fraction(256 * s.active + s.inactive, s.weight if scheduler == "wlc" else 1)
            for s in fleet.servers
            if s.weight and not s.overloaded
        }
        assert fleet.pick() == (min(cost, key=cost.__getitem__) if cost else "-")
