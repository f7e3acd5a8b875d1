from relevo.machines import track_script
from relevo.machines.track_script import ScriptMachine, State, Symbol, Verdict
from relevo.model import Script, VrrpScript
from tests.unit.machines.exerciser import assert_sound, walk

COMMAND = Script(("/bin/check",))
GOOD, BAD = "", "exited with status 1"


def script(**changes):
    return VrrpScript(**{"name": "chk", "script": COMMAND, "rise": 2, "fall": 3} | changes)


def made(**changes):
    return ScriptMachine(script(**changes), 0.0)


def after(*results, **changes):
    machine = made(**changes)
    for result in results:
        machine.receive(result, 0.0)
    return machine


def verdicts(*results, **changes):
    """The verdicts of a series of results, None where there is no change."""
    machine = made(**changes)
    found = [machine.receive(result, 0.0) for result in results]
    return [None if verdict is None else verdict.up for verdict in found]


def test_the_table_is_sound():
    assert_sound(track_script, made(), {State.UNKNOWN}, State)


def test_every_pair_is_met(monkeypatch):
    reach = {State.UNKNOWN: made, State.UP: lambda: after(GOOD), State.DOWN: lambda: after(BAD)}
    walk(monkeypatch, track_script, reach, lambda machine, symbol: machine.receive(GOOD if symbol is Symbol.PASSED else BAD, 0.0))


def test_the_first_result_decides_alone():
    assert made().up is None
    assert made().receive(GOOD, 1.0) == Verdict(True, "")
    assert made().receive(BAD, 1.0) == Verdict(False, BAD)


def test_then_rise_successes_or_fall_failures_in_a_row_change_the_verdict():
    assert verdicts(GOOD, BAD, BAD, BAD, BAD) == [True, None, None, False, None]
    assert verdicts(BAD, GOOD, GOOD, GOOD) == [False, None, True, None]


def test_a_result_of_the_other_kind_begins_the_count_anew():
    assert verdicts(GOOD, BAD, BAD, GOOD, BAD, BAD) == [True, None, None, None, None, None]
    assert verdicts(BAD, GOOD, BAD, GOOD) == [False, None, None, None]


def test_init_fail_counts_as_failed_until_it_has_succeeded_rise_times():
    machine = made(init_fail=True)
    assert machine.up is False
    assert verdicts(GOOD, GOOD, init_fail=True) == [None, True]


def test_a_run_starts_every_interval_and_never_beside_another():
    machine = made(interval_s=5.0)
    assert machine.deadline() == 0.0
    machine.start(0.0)
    assert machine.deadline() is None
    machine.receive(GOOD, 0.2)
    assert machine.deadline() == 5.0
    machine.start(5.0)
    machine.receive(BAD, 17.0)  # longer than the interval
    assert machine.deadline() == 10.0


def test_other_settings_keep_the_verdict():
    machine = after(GOOD)
    machine.reconfigure(script(fall=1), 3.0)
    assert machine.up is True
    assert machine.receive(BAD, 3.0) == Verdict(False, BAD)


def test_a_shorter_interval_counts_from_now_on():
    machine = made(interval_s=60.0)
    machine.start(0.0)
    machine.receive(GOOD, 0.0)
    machine.reconfigure(script(interval_s=2.0), 10.0)
    assert machine.deadline() == 12.0


def test_another_command_runs_at_once_and_its_first_result_decides():
    machine = after(GOOD, interval_s=60.0)
    machine.start(0.0)
    machine.reconfigure(script(interval_s=60.0, script=Script(("/bin/other",))), 10.0)
    assert (machine.deadline(), machine.up) == (10.0, True)
    assert machine.receive(BAD, 10.1) == Verdict(False, BAD)
