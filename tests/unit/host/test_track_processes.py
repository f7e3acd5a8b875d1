"""Processes by name, with real processes."""

import contextlib
import subprocess
import sys
import time

import pytest

from relevo.host.track_processes import ProcessWatcher, parameters_match
from relevo.model import ParameterMatch, TrackProcess

LIMIT_S = 10.0


@contextlib.contextmanager
def running(*argv):
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def kind(process, *parameters, **changes):
    return TrackProcess(**{"name": "kind", "process": process, "parameters": parameters} | changes)


def expect(watcher, count):
    """Wait until the watcher counts so many; it sees what the kernel reports, or looks by itself."""
    end = time.monotonic() + LIMIT_S
    while watcher.counts()["kind"] != count and time.monotonic() < end:
        if watcher.fileno() is not None:
            watcher.read_events()
        if not watcher.by_events:
            watcher.sweep()
    assert watcher.counts()["kind"] == count


@pytest.fixture
def watcher():
    made = ProcessWatcher()
    made.open()
    yield made
    made.close()


def test_processes_that_begin_and_end_are_counted(watcher, tmp_path):
    name = f"rel{id(tmp_path) % 10**6}"
    (tmp_path / name).symlink_to("/bin/sleep")
    watcher.watch((kind(name),))
    assert watcher.counts() == {"kind": 0}
    with running(str(tmp_path / name), "60"):
        expect(watcher, 1)
        with running(str(tmp_path / name), "60"):
            expect(watcher, 2)
        expect(watcher, 1)
    expect(watcher, 0)


def test_the_full_command_is_compared_with_its_parameters(watcher):
    code = "import time; time.sleep(60)"
    watcher.watch((kind(sys.executable, "-c", code, match=ParameterMatch.EXACT, full_command=True),))
    with running(sys.executable, "-c", code):
        expect(watcher, 1)


def test_a_child_that_nobody_waited_for_does_not_run(watcher, tmp_path):
    name = f"zom{id(tmp_path) % 10**6}"
    (tmp_path / name).symlink_to("/bin/true")
    process = subprocess.Popen([str(tmp_path / name)])
    watcher.watch((kind(name),))
    expect(watcher, 0)
    process.wait()


IN_A_CONTAINER = """
import subprocess, time
from relevo.host.track_processes import ProcessWatcher
from relevo.model import TrackProcess

watcher = ProcessWatcher()
watcher.open()
watcher.watch((TrackProcess(name="kind", process="sleep"),))
process = subprocess.Popen(["/bin/sleep", "60"])
end = time.monotonic() + 10
while watcher.counts()["kind"] != 1 and time.monotonic() < end:
    if watcher.fileno() is not None:
        watcher.read_events()
    if not watcher.by_events:
        watcher.sweep()
print(watcher.counts()["kind"], flush=True)
process.kill()
"""


@pytest.mark.namespaces
@pytest.mark.usefixtures("namespaces")
def test_in_a_pid_namespace_events_that_others_asked_for_are_not_taken(watcher):
    """The host's listener makes the kernel send PIDs from outside to everybody in its network namespace."""
    argv = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", IN_A_CONTAINER]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.mark.parametrize(
    ("match", "parameters", "expected"),
    [
        (ParameterMatch.ANY, (), True),
        (ParameterMatch.EXACT, ("-g", "on"), True),
        (ParameterMatch.EXACT, ("-g",), False),
        (ParameterMatch.EXACT, (), False),
        (ParameterMatch.PARTIAL, ("-g",), True),
        (ParameterMatch.PARTIAL, ("-g", "o"), False),
        (ParameterMatch.INITIAL, ("-g", "o"), True),
        (ParameterMatch.INITIAL, ("-x",), False),
        (ParameterMatch.PARTIAL, (), True),
    ],
)
def test_parameters(match, parameters, expected):
    assert parameters_match(kind("x", *parameters, match=match), b"-g\0on\0") is expected
