"""``vrrp_track_process`` beside real keepalived: the same priorities on the wire when a process comes, goes and comes again.

The kernel reports processes in the initial network namespace alone, so both programs run there, each on a cable of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relevo.host.track_processes import ProcessWatcher
from relevo.lab.namespaces import netlink
from relevo.model import TrackProcess
from tests.conftest import program
from tests.interop.test_trackers_beside_keepalived import QUIET_S, SCOPES, WEIGHTS, Case, configuration, settle

pytestmark = [pytest.mark.namespaces, pytest.mark.usefixtures("namespaces"), pytest.mark.slow]

CASES: list[Case] = [("process", weight, reverse, scope) for weight in WEIGHTS for reverse in (False, True) for scope in SCOPES]


def kernel_reports_processes() -> bool:
    """Whether events of this test's own children arrive."""
    watcher = ProcessWatcher()
    watcher.open()
    try:
        watcher.watch([TrackProcess(name="none", process="none")])
        until = time.monotonic() + 5.0
        while not watcher.by_events and watcher.fileno() is not None and time.monotonic() < until:
            subprocess.run(["/bin/true"], check=True)
            watcher.read_events()
        return watcher.by_events
    finally:
        watcher.close()


class Side:
    """One program, its cable, and a process that it tracks."""

    def __init__(self, name: str, folder: Path, keepalived: str) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir(mode=0o755)
        self.heard: dict[int, tuple[float, int]] = {}
        self.interface, self.peer = f"rl-{name[:6]}0", f"rl-{name[:6]}1"
        self._keepalived = keepalived
        self._program = self.folder / f"rl-{name[:6]}-trk"
        shutil.copy(program("sleep"), self._program)
        self._tracked: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        with netlink() as net:
            net.link("add", ifname=self.interface, kind="veth", peer=self.peer)
            for end in (self.interface, self.peer):
                net.link("set", index=net.link_lookup(ifname=end)[0], state="up")
            index = net.link_lookup(ifname=self.interface)[0]
            net.addr("add", index=index, address="10.9.1.1", prefixlen=24)
        self.listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        self.listener.setblocking(False)
        self.listener.bind((self.peer, 0x0800))

    def write(self, weights: dict[int, int]) -> Path:
        file = self.folder / "vrrp.conf"
        declared = f"vrrp_track_process tracked {{\n  process {self._program.name}\n  weight 0\n}}\n"
        head, rest = configuration(self.folder, weights, CASES, self.interface).split("vrrp_script", 1)
        file.write_text(f"{head}{declared}{rest[rest.index('vrrp_instance') :]}")
        file.chmod(0o644)
        return file

    def start(self) -> None:
        common = ["-f", str(self.write({}))]
        if self.name == "relevo":
            argv = [sys.executable, "-m", "relevo", "run", "-l", *common, "--run-dir", str(self.folder / "run")]
            argv += ["--state-dir", str(self.folder / "state")]
        else:
            argv = [self._keepalived, "-n", "-l", "-D", "-P", *common, "-p", str(self.folder / "pid")]
            argv += ["-r", str(self.folder / "vrrp.pid")]
        with (self.folder / "log").open("wb") as log:
            self._daemon = subprocess.Popen(argv, stdout=log, stderr=log)

    def reload(self, weights: dict[int, int]) -> None:
        self.write(weights)
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGHUP)

    def run_tracked(self, wanted: bool) -> None:
        if wanted and self._tracked is None:
            self._tracked = subprocess.Popen([self._program, "infinity"])
        elif not wanted and self._tracked is not None:
            self._tracked.kill()
            self._tracked.wait()
            self._tracked = None

    def priorities(self) -> dict[int, int]:
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self.listener.recv(2048)
                if data[9] == 112:
                    payload = data[(data[0] & 0x0F) * 4 :]
                    self.heard[payload[1]] = (time.monotonic(), payload[2])
        now = time.monotonic()
        return {number: priority for number, (at, priority) in sorted(self.heard.items()) if priority and now - at < QUIET_S}

    def close(self) -> None:
        self.run_tracked(False)
        if self._daemon is not None:
            self._daemon.terminate()
            try:
                self._daemon.wait(20)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()
        self.listener.close()
        with netlink() as net:
            net.link("del", index=net.link_lookup(ifname=self.interface)[0])


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[list[Side]]:
    if os.geteuid() != 0 or not kernel_reports_processes():
        pytest.skip("the kernel reports no processes to this namespace")
    keepalived = program("keepalived")
    made: list[Side] = []
    try:
        for name in ("keepalived", "relevo"):
            made.append(Side(name, tmp_path, keepalived))
        yield made
    finally:
        for side in made:
            side.close()


def test_priorities_follow_the_process_as_keepalived_s_do(sides: list[Side]) -> None:
    compared = set(range(1, len(CASES) + 1))

    def compare(step: str) -> dict[int, int]:
        theirs, ours = settle(sides, compared)
        differing = {CASES[n - 1]: (theirs.get(n), ours.get(n)) for n in compared if theirs.get(n) != ours.get(n)}
        assert differing == {}, f"{step}: case: (keepalived, Relevo)"
        assert theirs, f"{step}: both are silent"
        return theirs

    for side in sides:
        side.start()
    assert set(compare("not running at the start").values()) == {90, 100, 110}
    for step, running in (("started", True), ("killed", False), ("started again", True)):
        for side in sides:
            side.run_tracked(running)
        compare(step)
    for side in sides:
        side.reload({10: 30, -10: -40})
    assert {100, 130} < set(compare("after a reload with other weights").values())
    for side in sides:
        side.run_tracked(False)
    compare("killed, other weights")
