from hypothesis import given
from hypothesis import strategies as st

from tests.unit.schedulers.fleet import Fleet


def test_the_last_added_comes_first():
    assert Fleet("rr", 1, 1, 1).picks(9) == "CBACBACBA"


def test_the_size_of_a_weight_does_not_matter():
    assert Fleet("rr", 1, 50, 3).picks(6) == "CBACBA"


def test_excluded_servers_are_skipped():
    fleet = Fleet("rr", 1, 0, 1)
    assert fleet.picks(4) == "CACA"
    fleet["A"].overloaded = True
    assert fleet.picks(2) == "CC"


def test_a_server_that_cannot_take_connections_for_a_while_finds_its_turn_again():
    fleet = Fleet("rr", 1, 1, 1)
    assert fleet.pick() == "C"
    fleet["B"].overloaded = True
    assert fleet.pick() == "A"
    fleet["B"].overloaded = False
    assert fleet.picks(3) == "CBA"


def test_an_added_server_waits_for_the_next_round():
    fleet = Fleet("rr", 1, 1, 1)
    assert fleet.pick() == "C"
    fleet.add("D")
    assert fleet.picks(5) == "BADCB"


def test_when_the_last_pick_is_removed_its_predecessor_takes_its_place():
    fleet = Fleet("rr", 1, 1, 1, 1)
    assert fleet.picks(2) == "DC"
    fleet.remove("C")
    assert fleet.picks(4) == "BADB"


def test_when_the_first_of_the_list_is_removed_the_walk_begins_at_the_head():
    fleet = Fleet("rr", 1, 1, 1)
    assert fleet.pick() == "C"
    fleet.remove("C")
    assert fleet.picks(3) == "BAB"


def test_removing_another_server_does_not_move_the_walk():
    fleet = Fleet("rr", 1, 1, 1, 1)
    assert fleet.picks(2) == "DC"
    fleet.remove("D")
    assert fleet.picks(3) == "BAC"


def test_an_edit_does_not_move_the_walk():
    fleet = Fleet("rr", 1, 1, 1)
    assert fleet.picks(2) == "CB"
    fleet.edit("C", 9)
    assert fleet.picks(2) == "AC"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(0, 40))
def test_the_picks_are_the_eligible_servers_over_and_over(weights, number):
    names = [name for name, weight in zip("ABCDEFGH", weights, strict=False) if weight][::-1]
    assert Fleet("rr", *weights).picks(number) == ("".join(names) * number or "-" * number)[:number]
