"""The trackers of a node: results in; runs, watches and observations out."""

import pytest

from relevo.model import (
    Configuration,
    Endpoint,
    Protocol,
    Script,
    Tracked,
    TrackerKind,
    Trackers,
    TrackFile,
    TrackProcess,
    VirtualServer,
    VrrpInstance,
    VrrpScript,
)
from relevo.node import trackers as node
from relevo.node.effects import Log
from relevo.node.observation import Observation
from relevo.node.trackers import MAX_NUMBER, RunScript, StopScript, WatchFiles, WatchProcesses
from relevo.severity import Severity

COMMAND = Script(("/bin/check",))
CHK = VrrpScript(name="chk", script=COMMAND, interval_s=2.0, timeout_s=1.0)
MODE = TrackFile(name="mode", path="/run/mode")
WEB = TrackProcess(name="web", process="nginx")
SERVICE = VirtualServer(endpoint=Endpoint("192.0.2.1", 80), protocol=Protocol.TCP)


def file(*, tracked=(), services=(), **trackers):
    instance = VrrpInstance(name="V", interface="eth0", virtual_router_id=1, tracked=tracked)
    return Configuration(vrrp_instances=(instance,), trackers=Trackers(**trackers), virtual_servers=services)


def started(configuration, unusable=None):
    made = node.Trackers()
    made.configure(configuration, unusable or {}, 0.0)
    return made


def run(made, reason, now):
    """Start the script that is due, and end it with this result; return what follows."""
    (wanted,) = [effect for effect in made.expire(now) if isinstance(effect, RunScript)]
    return made.script_ended(wanted.run, reason, now)


def observations(effects):
    return [(effect.kind, effect.name, effect.value) for effect in effects if isinstance(effect, Observation)]


# -- scripts ----------------------------------------------------------------------------------------------------------


def test_a_script_runs_at_the_start_and_every_interval():
    made = started(file(scripts=(CHK,)))
    assert made.deadline() == 0.0
    assert made.expire(0.0) == [RunScript("chk", 1, COMMAND, 1.0)]
    assert made.deadline() is None
    made.script_ended(1, "", 0.1)
    assert made.deadline() == 2.0
    assert made.expire(2.0) == [RunScript("chk", 2, COMMAND, 1.0)]


def test_a_verdict_is_a_line_and_an_observation_and_the_same_again_is_nothing():
    made = started(file(scripts=(CHK,)))
    assert run(made, "", 0.0) == [Log("VRRP_Script(chk) succeeded"), Observation(TrackerKind.SCRIPT, 1, "chk")]
    assert run(made, "", 2.0) == []
    assert run(made, "timed out", 4.0) == [
        Log("VRRP_Script(chk) failed (timed out)", Severity.WARNING),
        Observation(TrackerKind.SCRIPT, 0, "chk"),
    ]
    assert made.observed == {(TrackerKind.SCRIPT, "chk"): 0}


def test_init_fail_is_observed_before_the_first_run():
    made = node.Trackers()
    changed = CHK.__class__(name="chk", script=COMMAND, init_fail=True)
    assert observations(made.configure(file(scripts=(changed,)), {}, 0.0)) == [(TrackerKind.SCRIPT, "chk", 0)]


def test_a_script_that_cannot_run_is_not_tracked_and_said_once():
    made = node.Trackers()
    unusable = {"chk": "/bin/check: No such file or directory"}
    effects = made.configure(file(scripts=(CHK,)), unusable, 0.0)
    assert effects == [
        Log("VRRP_Script(chk) is not tracked: /bin/check: No such file or directory", Severity.WARNING),
        Observation(TrackerKind.SCRIPT, None, "chk"),
    ]
    assert made.configure(file(scripts=(CHK,)), unusable, 1.0) == []
    assert made.deadline() is None
    made.configure(file(scripts=(CHK,)), {}, 2.0)  # it was installed meanwhile
    assert made.deadline() == 2.0


def test_a_removed_script_is_stopped_and_its_late_result_ignored():
    made = started(file(scripts=(CHK,)))
    made.expire(0.0)
    assert made.configure(file(), {}, 1.0) == [StopScript(1)]
    assert made.script_ended(1, "", 1.1) == []
    assert (made.observed, made.deadline()) == ({}, None)


def test_another_command_stops_the_run_of_the_former_and_keeps_the_verdict():
    made = started(file(scripts=(CHK,)))
    run(made, "", 0.0)
    made.expire(2.0)
    other = VrrpScript(name="chk", script=Script(("/bin/other",)), interval_s=2.0, timeout_s=1.0)
    assert made.configure(file(scripts=(other,)), {}, 2.5) == [StopScript(2)]
    assert made.script_ended(2, "killed", 2.6) == []
    assert made.observed == {(TrackerKind.SCRIPT, "chk"): 1}
    assert made.expire(2.6) == [RunScript("chk", 3, Script(("/bin/other",)), 1.0)]


# -- files ------------------------------------------------------------------------------------------------------------


def test_files_are_watched_and_their_numbers_observed_when_they_change():
    made = node.Trackers()
    assert made.configure(file(files=(MODE,)), {}, 0.0) == [WatchFiles((MODE,))]
    assert made.configure(file(files=(MODE,)), {}, 1.0) == []
    assert observations(made.file_read("mode", 0)) == [(TrackerKind.FILE, "mode", 0)]
    assert observations(made.file_read("mode", -20)) == [(TrackerKind.FILE, "mode", -20)]
    assert made.file_read("mode", -20) == []


@pytest.mark.parametrize("number", [MAX_NUMBER + 1, -(2**40)])
def test_a_number_out_of_range_leaves_the_former_one(number):
    made = started(file(files=(MODE,)))
    made.file_read("mode", 5)
    assert observations(made.file_read("mode", number)) == []
    assert made.observed == {(TrackerKind.FILE, "mode"): 5}


# -- processes --------------------------------------------------------------------------------------------------------


def test_processes_are_counted_and_changes_of_the_quorum_observed():
    made = node.Trackers()
    assert made.configure(file(processes=(WEB,)), {}, 0.0) == [WatchProcesses((WEB,))]
    assert made.processes_counted("web", 2, 0.0) == [Observation(TrackerKind.PROCESS, 1, "web")]
    assert made.processes_counted("web", 1, 0.0) == []
    assert made.processes_counted("web", 0, 0.0) == [
        Log("Quorum lost for tracked process web: 0 running", Severity.WARNING),
        Observation(TrackerKind.PROCESS, 0, "web"),
    ]
    assert made.processes_counted("other", 7, 0.0) == []


def test_the_delay_of_a_process_is_a_deadline():
    slow = TrackProcess(name="web", process="nginx", terminate_delay_s=3.0)
    made = started(file(processes=(slow,)))
    made.processes_counted("web", 1, 0.0)
    made.processes_counted("web", 0, 1.0)
    assert made.deadline() == 4.0
    assert observations(made.expire(4.0)) == [(TrackerKind.PROCESS, "web", 0)]


# -- virtual servers --------------------------------------------------------------------------------------------------


def test_the_state_of_a_virtual_server_is_observed_if_an_instance_tracks_it():
    name = SERVICE.name
    made = started(file(services=(SERVICE,)))
    assert made.service_changed(name, False) == []
    made.configure(file(services=(SERVICE,), tracked=(Tracked(TrackerKind.SERVICE, name, -50),)), {}, 1.0)
    assert observations(made.service_changed(name, False)) == [(TrackerKind.SERVICE, name, 0)]
    assert observations(made.service_changed(name, True)) == [(TrackerKind.SERVICE, name, 1)]
    assert made.service_changed(name, True) == []
    made.configure(file(), {}, 2.0)
    assert made.observed == {}
