import pytest

from relevo.machines.track_process import ProcessMachine
from relevo.model import TrackProcess


def made(**changes):
    return ProcessMachine(TrackProcess(**{"name": "web", "process": "nginx"} | changes))


@pytest.mark.parametrize(
    ("limits", "count", "up"),
    [
        ({}, 0, False),
        ({}, 1, True),
        ({}, 500, True),
        ({"quorum": 3}, 2, False),
        ({"quorum": 3}, 3, True),
        ({"quorum": 1, "quorum_max": 2}, 3, False),
        ({"quorum": 0, "quorum_max": 0}, 0, True),
        ({"quorum": 0, "quorum_max": 0}, 1, False),
    ],
)
def test_the_number_lies_between_quorum_and_quorum_max(limits, count, up):
    machine = made(**limits)
    assert machine.up is None
    assert machine.receive(count, 0.0)
    assert machine.up is up


def test_only_changes_are_reported():
    machine = made()
    assert [machine.receive(count, 0.0) for count in (1, 2, 1, 0, 0, 1)] == [True, False, False, True, False, True]


def test_a_change_counts_after_its_delay():
    machine = made(fork_delay_s=2.0, terminate_delay_s=5.0)
    machine.receive(1, 0.0)  # the first count decides at once
    assert not machine.receive(0, 10.0)
    assert (machine.up, machine.deadline()) == (True, 15.0)
    assert not machine.expire(14.9)
    assert machine.expire(15.0)
    assert (machine.up, machine.deadline()) == (False, None)
    assert not machine.receive(1, 20.0)
    assert machine.deadline() == 22.0
    assert machine.expire(22.0)
    assert machine.up is True


def test_a_change_that_is_undone_before_does_not_count():
    machine = made(terminate_delay_s=5.0)
    machine.receive(1, 0.0)
    machine.receive(0, 10.0)
    assert not machine.receive(1, 12.0)
    assert machine.deadline() is None
    assert not machine.expire(99.0)
    assert machine.up is True


def test_too_many_are_a_change_by_a_process_that_began():
    machine = made(quorum_max=1, fork_delay_s=2.0, terminate_delay_s=5.0)
    machine.receive(1, 0.0)
    machine.receive(2, 10.0)
    assert machine.deadline() == 12.0


def test_other_processes_are_counted_anew_and_other_limits_keep_the_verdict():
    machine = made()
    machine.receive(2, 0.0)
    machine.reconfigure(TrackProcess(name="web", process="nginx", quorum=5))
    assert machine.up is True
    assert machine.receive(2, 1.0)
    assert machine.up is False
    machine.reconfigure(TrackProcess(name="web", process="haproxy", quorum=5))
    assert machine.up is None
