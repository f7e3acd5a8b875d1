"""Checks that need more than a connection: a command and a file, which the supervisor looks at, and an echo request."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relevo.host.echo_range import SETTING
from relevo.lab.namespaces import NetworkNamespaces, bring_up, netlink
from tests.netns.conftest import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.namespaces, pytest.mark.usefixtures("namespaces")]

CONF = """
global_defs {{
    data_plane memory
}}
track_file load {{
    file {folder}/number
}}
virtual_server 192.0.2.1 80 {{
    protocol TCP
    delay_loop 0.2
    real_server 127.0.0.2 80 {{
        weight 10
        MISC_CHECK {{
            misc_path "{folder}/check x"
            misc_dynamic
        }}
        FILE_CHECK {{
            track_file load
        }}
        PING_CHECK {{
        }}
    }}
}}
"""


class Daemon:
    """A daemon in a network namespace with one server, and what its checks look at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._spaces = NetworkNamespaces()
        self._spaces.make("here")
        folder.chmod(0o755)
        (folder / "check").write_text(f"#!/bin/sh\nexit $(cat {folder}/status)\n")
        (folder / "check").chmod(0o755)
        self.write("status", 0)
        self.write("number", 0)
        (folder / "conf").write_text(CONF.format(folder=folder))
        with self._spaces.inside("here"), netlink() as ip:
            bring_up(ip, "lo")
            self.before = SETTING.read_text()
            argv = [sys.executable, "-m", "relevo", "run", "-l", "-f", str(folder / "conf")]
            argv += ["--run-dir", str(folder / "run"), "--state-dir", str(folder / "state")]
            self._process = subprocess.Popen(argv, stderr=(folder / "log").open("w"))

    def write(self, name: str, value: int) -> None:
        (self.folder / f"{name}.new").write_text(f"{value}\n")
        os.replace(self.folder / f"{name}.new", self.folder / name)

    def server(self) -> dict[str, Any]:
        argv = [sys.executable, "-m", "relevo", "status", "-j", "--run-dir", str(self.folder / "run")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode or not (services := json.loads(done.stdout)["balancer"]["services"]):
            return {}
        found: dict[str, Any] = services[0]["servers"][0]
        return found

    def await_weight(self, weight: int | None) -> None:
        """Wait until the server has this weight in the plane; ``None``: until it is not there."""
        wait_until(lambda: self._weight() == (-1 if weight is None else weight), 20.0, f"weight {weight}: {self.server()}")

    def _weight(self) -> int:
        server = self.server()
        return -2 if not server or server["in_plane"] is None else (server["weight"] if server["in_plane"] else -1)

    def stop(self) -> str:
        self._process.terminate()
        self._process.wait(30)
        return (self.folder / "log").read_text()

    def echo_range(self) -> str:
        with self._spaces.inside("here"):
            return SETTING.read_text()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._spaces.close()


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="r-") as made:
        running = Daemon(Path(made))
        yield running
        running.close()


def test_commands_files_and_echo_requests_decide_about_a_server(daemon: Daemon) -> None:
    daemon.await_weight(10)
    wait_until(
        lambda: (
            {each["kind"]: each["last_result"] for each in daemon.server()["checks"]}
            == {"MISC_CHECK": "ok", "FILE_CHECK": "0", "PING_CHECK": "ok"}
        ),
        20.0,
        "every check has passed",
    )
    daemon.write("number", 5)
    daemon.await_weight(15)
    daemon.write("status", 22)  # the weight 20, ten more than the file's
    daemon.await_weight(25)
    daemon.write("status", 1)
    daemon.await_weight(None)
    daemon.write("status", 0)
    daemon.await_weight(15)
    daemon.write("number", -(2**31))
    daemon.await_weight(None)
    daemon.write("number", -20)
    daemon.await_weight(0)
    log = daemon.stop()
    assert "Traceback" not in log
    assert daemon.echo_range() == daemon.before
