"""``relevo-keepalived`` beside keepalived: the same statuses and messages for the same options, and the same life as a daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relevo.compat.keepalived.options import LONG, SHORT, UNNEEDED, BadOption, read
from relevo.compat.keepalived.program import pid_files_of, run_folder
from relevo.model.process import Processes
from tests.conftest import program

GOOD = """\
virtual_server 127.0.9.1 80 {
  protocol TCP
  lb_algo rr
  lb_kind NAT
  real_server 127.0.0.1 80 {
    TCP_CHECK {
    }
  }
}
"""
WRONG = GOOD.replace("TCP_CHECK", "nonsense 5\n    TCP_CHECK")
OURS = (sys.executable, "-c", "from relevo.compat.keepalived.program import main; main()")


def run(argv: tuple[str, ...], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run((*argv, *options), capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def keepalived() -> tuple[str, ...]:
    return (program("keepalived"),)


@pytest.mark.parametrize("name", ["STOP", "RELOAD", "DATA", "STATS", "NOPE", "stop"])
def test_numbers_of_signals(keepalived: tuple[str, ...], name: str) -> None:
    theirs, ours = run(keepalived, f"--signum={name}"), run(OURS, f"--signum={name}")
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)


@pytest.mark.parametrize("options", [("-Z",), ("-nZ",), ("--nope",), ("-f",), ("--use-file=",), ("-i",), ("--log-detail", "-k")])
def test_wrong_options(keepalived: tuple[str, ...], options: tuple[str, ...]) -> None:
    theirs, ours = run(keepalived, *options), run(OURS, *options)
    assert (ours.returncode, ours.stderr.splitlines()[:1]) == (theirs.returncode, theirs.stderr.splitlines()[:1])


def test_a_long_option_without_its_value_is_named() -> None:
    found = run(OURS, "--pid")
    assert (found.returncode, found.stderr.splitlines()[0]) == (1, "Missing parameter for option --pid")


@pytest.mark.parametrize("option", ["-v", "--version", "-h", "--help"])
def test_version_and_help_go_to_standard_error_with_status_0(keepalived: tuple[str, ...], option: str) -> None:
    theirs, ours = run(keepalived, option), run(OURS, option)
    assert (theirs.returncode, theirs.stdout) == (ours.returncode, ours.stdout) == (0, "")
    if "v" in option:
        assert theirs.stderr.split()[:1] == ours.stderr.split()[:1] == ["Keepalived"]
        assert ours.stderr.split()[1].startswith("v2.")


@pytest.mark.parametrize(("text", "status"), [(GOOD, 0), (WRONG, 5)])
@pytest.mark.parametrize("option", ["-t", "--config-test"])
def test_a_file_is_checked(keepalived: tuple[str, ...], tmp_path: Path, text: str, status: int, option: str) -> None:
    file = tmp_path / "k.conf"
    file.write_text(text)
    theirs, ours = run(keepalived, option, "-f", str(file)), run(OURS, option, "-f", str(file))
    assert (ours.returncode, theirs.returncode) == (status, status), ours.stderr + theirs.stderr


def test_a_missing_file_is_an_error_in_a_check_too(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert run(OURS, "-t", "-f", missing).returncode == 4, "keepalived: 0"
    assert run(OURS, "-n", "-f", missing).returncode == 6


def test_messages_of_a_check_go_to_a_log_file(tmp_path: Path) -> None:
    file, log = tmp_path / "k.conf", tmp_path / "log"
    file.write_text(WRONG)
    found = run(OURS, f"--config-test={log}", "-f", str(file))
    assert (found.returncode, found.stderr, found.stdout) == (5, "", "")
    assert "unknown keyword 'nonsense'" in log.read_text()


def test_every_option_is_read() -> None:
    given = read(["-nlD", "-ffile", "-p", "pid", "--vrrp_pid=v", "--config-i", "me", "-tlog", "--dont-fork", "--", "-x"])
    assert given.flags == {"n", "l", "D"}
    assert given.values == {"f": "file", "p": "pid", "r": "v", "i": "me", "t": "log"}
    assert given.rest == ["-x"]
    assert read(["-t", "-f", "x"]).values == {"t": "", "f": "x"}
    letters = {kind.rstrip("=?") for kind in LONG.values()}
    assert set(SHORT) - {":"} == {letter for letter in letters if len(letter) == 1}
    assert UNNEEDED.keys() <= letters
    for wrong in ("--no", "--p"):  # several begin so
        with pytest.raises(BadOption):
            read([wrong])


# -- as a daemon --------------------------------------------------------------------------------------------------------


def wait_until(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    ends = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


CONF = """
vrrp_instance V {
    interface lo
    virtual_router_id 77
    vrrp_transport udp 31777
    unicast_src_ip 127.0.77.1
    unicast_peer {
        127.0.77.2
    }
    virtual_ipaddress {
        127.0.77.9
    }
}
virtual_server 127.0.77.9 18077 {
    protocol TCP
    real_server 127.0.77.3 80 {
    }
}
global_defs {
    data_plane proxy
}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RELEVO_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("RELEVO_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "k.conf").write_text(CONF)
    return tmp_path


def files(place: Path) -> tuple[str, ...]:
    return ("-f", str(place / "k.conf"), "-p", str(place / "main"), "-r", str(place / "vrrp"), "-c", str(place / "check"))


def test_it_goes_into_the_background_writes_its_pid_files_reloads_and_stops(place: Path) -> None:
    begun = run(OURS, *files(place))
    assert begun.returncode == 0
    wait_until(lambda: all((place / name).exists() for name in ("main", "vrrp", "check")))
    pids = [int((place / name).read_text()) for name in ("main", "vrrp", "check")]
    try:
        assert all(map(alive, pids))
        again = run(OURS, "-n", *files(place))
        assert (again.returncode, again.stderr.splitlines()[-1]) == (1, f"daemon is already running with PID {pids[0]}")
        os.kill(pids[0], signal.SIGHUP)
    finally:
        os.kill(pids[0], signal.SIGTERM)
    wait_until(lambda: not any(map(alive, pids)))
    assert not any((place / name).exists() for name in ("main", "vrrp", "check"))


@pytest.mark.parametrize(("option", "missing"), [("-P", "check"), ("--check", "vrrp")])
def test_only_one_part_may_run(place: Path, option: str, missing: str) -> None:
    assert run(OURS, option, *files(place)).returncode == 0
    present = ({"vrrp", "check"} - {missing}).pop()
    wait_until((place / present).exists)
    os.kill(int((place / "main").read_text()), signal.SIGTERM)
    assert not (place / missing).exists()
    wait_until(lambda: not (place / "main").exists())


def test_a_dead_worker_is_a_stop_if_it_must_not_be_started_again(place: Path) -> None:
    assert run(OURS, "-P", "-R", *files(place)).returncode == 0
    wait_until((place / "vrrp").exists)
    main = int((place / "main").read_text())
    os.kill(int((place / "vrrp").read_text()), signal.SIGKILL)
    wait_until(lambda: not alive(main))


@pytest.mark.parametrize(
    ("options", "processes", "main", "director"),
    [
        ([], {}, "/run/keepalived.pid", "/run/vrrp.pid"),
        ([], {"use_pid_dir": True}, "/run/keepalived/keepalived.pid", "/run/keepalived/vrrp.pid"),
        ([], {"instance": "foo"}, "/run/keepalived/keepalived_foo.pid", "/run/keepalived/vrrp_foo.pid"),
        ([], {"net_namespace": "blue"}, "/run/keepalived/keepalived.pid", "/run/keepalived/vrrp.pid"),
        (["-s", "blue"], {}, "/run/keepalived/keepalived.pid", "/run/keepalived/vrrp.pid"),
        (["-p", "/tmp/p"], {"instance": "foo"}, "/tmp/p", "/run/keepalived/vrrp_foo.pid"),
    ],
)
def test_pid_files_are_where_keepalived_has_them(options: list[str], processes: dict[str, Any], main: str, director: str) -> None:
    found = pid_files_of(read(options), Processes(**processes))
    assert (str(found["main"]), str(found["director"])) == (main, director)


def test_an_instance_has_a_run_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RELEVO_RUN_DIR", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert run_folder(Processes(instance="foo")) == "/run/relevo-foo"
    assert run_folder(Processes()) is None
    monkeypatch.setenv("RELEVO_RUN_DIR", "/there")
    assert run_folder(Processes(instance="foo")) == "/there"
