import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.schedulers import SCHEDULERS
from relevo.schedulers.base import eligible
from relevo.schedulers.maglev_hash import MaglevHash
from tests.unit.schedulers.fleet import Backend, Fleet


@pytest.fixture(autouse=True, scope="module")
def small_tables():
    """The smallest table of the kernel: filling it takes no time."""
    former, MaglevHash.size = MaglevHash.size, 251
    yield
    MaglevHash.size = former


@pytest.mark.parametrize(
    ("weight", "overloaded", "expected"), [(1, False, True), (65535, False, True), (0, False, False), (1, True, False)]
)
def test_weight_0_and_overload_exclude_a_server(weight, overloaded, expected):
    assert eligible(Backend("A", weight, overloaded=overloaded)) is expected


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_without_servers_none_is_picked(scheduler):
    fleet = Fleet(scheduler)
    assert fleet.pick() == "-"
    fleet.add("A")
    fleet.remove("A")
    assert fleet.pick() == "-"


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_with_all_at_weight_0_or_overloaded_none_is_picked(scheduler):
    fleet = Fleet(scheduler, 0, 2, 1)
    fleet["B"].overloaded = fleet["C"].overloaded = True
    assert fleet.picks(5) == "-----"
    fleet["B"].overloaded = False
    assert "B" in {fleet.pick(client) for client in range(100)}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_single_server_gets_everything(scheduler):
    assert Fleet(scheduler, 3).picks(4) == "AAAA"


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_removed_server_is_never_picked_again(scheduler):
    fleet = Fleet(scheduler, 1, 2, 3)
    fleet.picks(5)
    fleet.remove("C")
    assert set(fleet.picks(12)) <= {"A", "B"}


STEPS = st.lists(
    st.tuples(st.sampled_from(("pick", "pick", "pick", "add", "edit", "remove", "load")), st.integers(0, 7), st.integers(0, 9)),
    max_size=40,
)


@given(st.sampled_from(sorted(SCHEDULERS)), STEPS)
def test_whatever_changes_only_an_eligible_server_of_the_list_is_picked(scheduler, steps):
    fleet = Fleet(scheduler, flags=("sh-fallback", "mh-fallback"))
    for step, number, weight in steps:
        name = "ABCDEFGH"[number]
        present = any(server.name == name for server in fleet.servers)
        if step == "add" and not present:
            fleet.add(name, weight)
        elif step == "edit" and present:
            fleet.edit(name, weight)
        elif step == "remove" and present:
            fleet.remove(name)
        elif step == "load" and present:
            fleet[name].overloaded = not fleet[name].overloaded
        else:
            picked = fleet.pick(number * 7919, weight)
            assert (picked != "-") is any(map(eligible, fleet.servers))
            assert picked == "-" or eligible(fleet[picked])
