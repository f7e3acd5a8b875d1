"""The daemon and its service manager, its commands, its exit statuses and its workers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.netns.conftest import wait_until

pytestmark = pytest.mark.slow

CONF = """
vrrp_instance VI_1 {
    interface lo
    vrrp_transport udp 3117
    unicast_src_ip 127.0.6.61
    unicast_peer {
        127.0.6.62
    }
    version 3
    advert_int 0.05
    virtual_router_id 9
    virtual_ipaddress {
        127.0.6.69
    }
}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="r-") as made:  # short: paths of Unix sockets are limited
        yield Path(made)


_running: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def no_daemon_is_left() -> Iterator[None]:
    """A test that fails leaves its daemon running, with the addresses of the next test."""
    yield
    for process in _running:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    _running.clear()


def daemon(
    folder: Path, text: str = CONF, *, stderr: IO[str] | int = subprocess.PIPE, **environment: str
) -> subprocess.Popen[str]:
    (folder / "conf").write_text(text)
    argv = [sys.executable, "-m", "relevo", "run", "-l", "-f", str(folder / "conf")]
    argv += ["--run-dir", str(folder / "run"), "--state-dir", str(folder / "state")]
    _running.append(subprocess.Popen(argv, stderr=stderr, text=True, env={**os.environ, **environment}))
    return _running[-1]


def relevo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "relevo", *arguments, "--run-dir", str(folder / "run")]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)


def test_the_service_manager_is_notified_of_start_reload_and_stop(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(10)

        def receive(wanted: str) -> str:
            while True:
                message = manager.recv(4096).decode()
                if wanted in message:
                    return message

        process = daemon(folder, NOTIFY_SOCKET=str(folder / "notify"))
        receive("READY=1")
        receive("STATUS=master of: VI_1")
        process.send_signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in receive("RELOADING=1")
        receive("READY=1")
        process.send_signal(signal.SIGTERM)
        receive("STOPPING=1")
        assert process.wait(10) == 0
        process.communicate()


def test_commands_reach_the_daemon_and_its_files_are_private(folder: Path) -> None:
    process = daemon(folder)
    control = folder / "run" / "control.sock"
    wait_until(control.exists, 15.0, "the control socket")
    wait_until(lambda: "VI_1: MASTER" in relevo(folder, "status").stdout, 15.0, "status says who is master")
    assert stat.S_IMODE(control.stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "run").stat().st_mode) == 0o700
    second = subprocess.run(process.args, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1
    assert "another Relevo is listening" in second.stderr
    assert "Traceback" not in second.stderr
    (folder / "conf").write_text("vrrp_instance {")
    refused = relevo(folder, "reload")
    assert refused.returncode == 1
    assert "conf:1:1" in refused.stderr
    assert relevo(folder, "stop").returncode == 0
    assert process.wait(10) == 0
    assert "Traceback" not in process.communicate()[1]
    gone = relevo(folder, "status")
    assert gone.returncode == 1
    assert "no daemon is running" in gone.stderr
    assert "hint" in gone.stderr


@pytest.mark.parametrize(
    ("text", "status"),
    [("", 4), ("vrrp_instance V {\nvirtual_router_id\n}\n", 2), ("\0\1\2", 4)],
    ids=["empty", "missing argument", "not text"],
)
def test_a_file_that_cannot_run_ends_the_daemon_with_keepalived_s_status(folder: Path, text: str, status: int) -> None:
    process = daemon(folder, text)
    err = process.communicate(timeout=10)[1]
    assert process.returncode == status, err
    assert "not started" in err
    assert "Traceback" not in err


def test_a_missing_file_is_status_six(folder: Path) -> None:
    done = relevo(folder, "run", "-f", str(folder / "nowhere"))
    assert done.returncode == 6
    assert "cannot read" in done.stderr


def test_a_worker_that_always_dies_gives_the_address_up_and_is_not_restarted_without_pause(folder: Path) -> None:
    log = folder / "log"
    with log.open("w") as file:
        process = daemon(folder, stderr=file)
    wait_until(lambda: "VI_1: MASTER" in relevo(folder, "status").stdout, 15.0, "master")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    killed: set[str] = set()

    def kill_what_lives() -> bool:
        for pid in children.read_text().split():
            killed.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        return "times in a row" in log.read_text()

    wait_until(kill_what_lives, 15.0, "the supervisor waits before it tries again")
    assert len(killed) < 40
    process.kill()
    process.wait()


def test_locked_memory_can_grow_without_privileges(folder: Path) -> None:
    """A director that may lock memory no more goes on when a reload makes it larger."""
    if os.geteuid() != 0:
        pytest.skip("only root may lock memory")
    log = folder / "log"
    text = f"global_defs {{\n vrrp_no_swap\n}}\n{CONF}"
    with log.open("w") as file:
        process = daemon(folder, text, stderr=file)
    wait_until(lambda: "VI_1: MASTER" in relevo(folder, "status").stdout, 15.0, "master")
    director = next(int(each) for each in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    locked = next(line for line in Path(f"/proc/{director}/status").read_text().splitlines() if line.startswith("VmLck"))
    assert int(locked.split()[1]) > 4096
    more = [
        CONF.replace("VI_1", f"VI_{n}").replace("router_id 9", f"router_id {n + 20}").replace("6.69", f"7.{n}")
        for n in range(2, 200)
    ]
    (folder / "conf").write_text(text + "".join(more))
    assert relevo(folder, "reload").returncode == 0
    wait_until(lambda: "VI_199: MASTER" in relevo(folder, "status").stdout, 30.0, "the new ones")
    process.terminate()
    assert process.wait(20) == 0
    assert "Traceback" not in log.read_text()
    assert "director worker" not in log.read_text()
