import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.machines import check
from relevo.machines.check import CheckMachine, Failure, FailureNoted, Probe, Result, State, Symbol, Verdict
from relevo.model.checks import CheckTiming
from tests.unit.machines.exerciser import assert_sound, walk

PASSED = Result()
REFUSED = Result(Failure.REFUSED)
WHY = "connection refused"


def timing(*, retry=2, alpha=False):
    return CheckTiming(delay_loop_s=10.0, retry=retry, delay_before_retry_s=3.0, warmup_s=0.0, alpha=alpha)


def probe(machine, result, now):
    """Let the probe run at ``now`` and end at once."""
    assert machine.expire(now) == [Probe()]
    assert machine.deadline() is None, "no second probe while one runs"
    return machine.receive(result, now)


def after(*results, **changes):
    machine = CheckMachine(timing(**changes), 0.0)
    for result in results:
        probe(machine, result, machine.deadline())
    return machine


REACH = {
    State.UNPROVEN_UP: lambda: CheckMachine(timing(), 0.0),
    State.UNPROVEN_DOWN: lambda: CheckMachine(timing(alpha=True), 0.0),
    State.UP: lambda: after(PASSED),
    State.RETRYING: lambda: after(PASSED, REFUSED),
    State.DOWN: lambda: after(REFUSED),
}


def feed(machine, symbol):
    if symbol is Symbol.DUE:
        machine._due = 50.0
        return machine.expire(50.0)
    return machine.receive(PASSED if symbol is Symbol.PASSED else REFUSED, 50.0)


def test_the_table_is_sound():
    assert_sound(check, CheckMachine(timing(), 0.0), {State.UNPROVEN_UP, State.UNPROVEN_DOWN}, State)


def test_every_pair_of_the_table_is_walked(monkeypatch):
    walk(monkeypatch, check, REACH, feed)


def test_a_node_that_is_cut_off_asks_again_soon():
    cut_off = Result(Failure.UNREACHABLE, "Network is unreachable", local=True)
    machine = after(PASSED, *[cut_off] * 3)
    assert (machine.state, machine.deadline()) == (State.DOWN, 10 + 3 + 3 + 1)
    probe(machine, cut_off, machine.deadline())
    assert machine.deadline() == 18
    probe(machine, REFUSED, machine.deadline())
    assert machine.deadline() == 28, "the server says so itself"


@pytest.mark.parametrize("state", State)
def test_up_follows_from_the_state(state):
    assert REACH[state]().up is (state in (State.UNPROVEN_UP, State.UP, State.RETRYING))


def test_the_first_probe_starts_at_the_given_time():
    machine = CheckMachine(timing(), 4.5)
    assert machine.deadline() == 4.5
    assert machine.expire(4.4) == []
    assert machine.expire(4.5) == [Probe()]


def test_without_alpha_one_failed_first_check_takes_the_server_out():
    machine = CheckMachine(timing(retry=5), 0.0)
    assert machine.up
    assert probe(machine, REFUSED, 0.0) == [Verdict(False, WHY)]
    assert not machine.up
    assert machine.deadline() == 10.0


def test_without_alpha_a_first_success_changes_nothing():
    machine = CheckMachine(timing(), 0.0)
    assert probe(machine, PASSED, 0.0) == []
    assert (machine.state, machine.deadline()) == (State.UP, 10.0)


def test_with_alpha_a_server_is_out_until_it_succeeds():
    machine = CheckMachine(timing(alpha=True), 0.0)
    assert not machine.up
    assert probe(machine, REFUSED, 0.0) == [FailureNoted(1, WHY)]
    assert probe(machine, REFUSED, 10.0) == [FailureNoted(2, WHY)]
    assert probe(machine, PASSED, 20.0) == [Verdict(True, "")]
    assert machine.up


def test_in_service_retry_plus_one_failures_spaced_by_delay_before_retry_take_it_out():
    machine = after(PASSED, retry=2)
    assert probe(machine, REFUSED, 10.0) == [FailureNoted(1, WHY)]
    assert machine.deadline() == 13.0
    assert probe(machine, Result(Failure.STATUS, "500"), 13.0) == [FailureNoted(2, "status: 500")]
    assert machine.up
    assert machine.deadline() == 16.0
    assert probe(machine, REFUSED, 16.0) == [Verdict(False, WHY)]
    assert machine.deadline() == 26.0
    assert machine.failures == 3


def test_with_retry_0_a_single_failure_takes_it_out():
    machine = after(PASSED, retry=0)
    assert probe(machine, REFUSED, 10.0) == [Verdict(False, WHY)]


def test_a_success_between_failures_starts_the_count_again():
    machine = after(PASSED, REFUSED, REFUSED, PASSED)
    assert machine.failures == 0
    assert probe(machine, REFUSED, 50.0) == [FailureNoted(1, WHY)]


def test_one_success_brings_it_back_and_the_loop_delay_holds():
    machine = after(REFUSED, REFUSED)
    assert probe(machine, PASSED, 20.0) == [Verdict(True, "")]
    assert (machine.state, machine.deadline(), machine.failures) == (State.UP, 30.0, 0)


def test_failures_while_down_are_noted_and_counted():
    machine = after(REFUSED)
    assert probe(machine, REFUSED, 10.0) == [FailureNoted(2, WHY)]
    assert machine.deadline() == 20.0


@pytest.mark.parametrize(("up", "state"), [(True, State.UP), (False, State.DOWN)])
def test_a_verdict_known_from_before_a_reload_holds(up, state):
    assert CheckMachine(timing(), 0.0, up=up).state is state
    assert CheckMachine(timing(alpha=True), 0.0, up=up).state is state


def test_a_server_known_up_gets_its_retries_at_once():
    machine = CheckMachine(timing(), 0.0, up=True)
    assert probe(machine, REFUSED, 0.0) == [FailureNoted(1, WHY)]


def test_since_is_the_time_of_the_last_change_of_verdict():
    machine = after(PASSED, PASSED)
    assert machine.since == 0.0
    for now in (20.0, 23.0, 26.0, 36.0):
        probe(machine, REFUSED, now)
    assert machine.since == 26.0
    assert (machine.last, machine.last_at) == (REFUSED, 36.0)


@pytest.mark.parametrize(
    ("result", "passed", "reason"),
    [
        (Result(), True, ""),
        (Result(detail="200 OK"), True, ""),
        (Result(Failure.TIMEOUT), False, "timeout"),
        (Result(Failure.DIGEST, "got abc"), False, "digest: got abc"),
    ],
)
def test_a_result_formats_its_failure(result, passed, reason):
    assert (result.passed, result.reason) == (passed, reason)


def test_a_machine_without_a_result_yet_has_no_reason():
    machine = CheckMachine(timing(), 0.0)
    assert machine._reason() == ""


@given(st.booleans(), st.integers(0, 4), st.lists(st.booleans(), max_size=40))
def test_the_verdict_is_what_the_last_results_say(alpha, retry, outcomes):
    machine = CheckMachine(timing(alpha=alpha, retry=retry), 0.0)
    up, row, proven = not alpha, 0, False
    for good in outcomes:
        now = machine.deadline()
        effects = probe(machine, PASSED if good else REFUSED, now)
        row = 0 if good else row + 1
        was, up = up, good or (up and proven and row <= retry)
        proven = True
        assert machine.up is up
        assert [e.up for e in effects if isinstance(e, Verdict)] == ([up] if up is not was else [])
        assert machine.deadline() == now + (3.0 if machine.state is State.RETRYING else 10.0)
