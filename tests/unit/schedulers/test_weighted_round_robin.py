from math import gcd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.schedulers.fleet import Fleet


@pytest.mark.parametrize(
    ("weights", "period"), [((1, 2, 3), "CBACCB"), ((4, 3, 2), "CBAABACBA"), ((1, 1, 1), "CBA"), ((10, 20, 30), "CBACCB")]
)
def test_the_golden_sequences_of_a_fresh_service(weights, period):
    assert Fleet("wrr", *weights).picks(3 * len(period)) == period * 3


def test_a_service_whose_scheduler_is_exchanged_begins_at_the_highest_weight():
    fleet = Fleet("rr", 1, 2, 3)
    fleet.scheduler = Fleet("wrr").scheduler
    fleet.scheduler.changed(fleet.servers)
    assert fleet.picks(12) == "CCBCBA" * 2


def test_an_edit_begins_at_the_head_but_does_not_restart_the_cycle():
    fleet = Fleet("wrr", 1, 2, 3)
    assert fleet.picks(4) == "CBAC"  # the pass at threshold 3
    fleet.edit("A", 3)
    assert fleet.picks(8) == "CACBACBA"


def test_an_edit_below_the_threshold_restarts_at_the_new_ceiling():
    fleet = Fleet("wrr", 1, 2, 3)
    assert fleet.picks(4) == "CBAC"
    fleet.edit("C", 1)
    assert fleet.picks(6) == "BCBABC"


def test_weights_with_a_common_factor_step_by_it():
    assert Fleet("wrr", 20, 40).picks(60) == Fleet("wrr", 1, 2).picks(60)


def test_an_edit_that_brings_a_common_factor_rounds_the_threshold():
    fleet = Fleet("wrr", 3, 4)
    fleet.picks(3)
    fleet.edit("A", 2)
    counts = fleet.picks(30)
    assert (counts.count("A"), counts.count("B")) == (10, 20)


def test_excluded_servers_are_passed_over():
    fleet = Fleet("wrr", 1, 2, 3)
    fleet["C"].overloaded = True
    assert sorted(fleet.picks(6)) == sorted("BBABBA")
    fleet.edit("B", 0)
    assert fleet.picks(3) == "AAA"


def test_after_all_weights_were_0_it_serves_again():
    fleet = Fleet("wrr", 2, 1)
    fleet.edit("A", 0)
    fleet.edit("B", 0)
    assert fleet.picks(2) == "--"
    fleet.edit("A", 2)
    assert fleet.picks(2) == "AA"


def cycle(weights):
    """One period as the definition has it: at each threshold from the greatest weight down, all who reach it."""
    servers = [(name, weight) for name, weight in zip("ABCDEFGH", weights, strict=False) if weight][::-1]
    step = gcd(*(weight for _, weight in servers))
    highest = max(weight for _, weight in servers)
    return "".join(name for level in range(highest, 0, -step) for name, weight in servers if weight >= level)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(any))
def test_the_picks_are_the_textbook_cycle_from_some_threshold_on(weights):
    period = cycle(weights)
    picks = Fleet("wrr", *weights).picks(3 * len(period))
    assert any(picks == (period[at:] + period[:at]) * 3 for at in range(len(period)))


@given(st.lists(st.integers(0, 12), min_size=2, max_size=8).filter(any), st.data())
def test_after_any_edits_a_whole_period_is_in_proportion_to_the_weights(weights, data):
    fleet = Fleet("wrr", *weights)
    for number in data.draw(st.lists(st.integers(0, len(weights) - 1), max_size=5)):
        fleet.picks(data.draw(st.integers(0, 7)))
        weights[number] = data.draw(st.integers(0, 12))
        fleet.edit("ABCDEFGH"[number], weights[number])
    if not any(weights):
        assert fleet.pick() == "-"
        return
    fleet.picks(sum(weights))
    assert sorted(fleet.picks(len(cycle(weights)))) == sorted(cycle(weights))
