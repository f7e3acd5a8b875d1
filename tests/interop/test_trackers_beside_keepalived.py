"""Trackers beside real keepalived: the same file on two LANs, one program each. The priorities on the wire, the silence of
FAULT and the notifications must be the same, before and after every change of what is tracked, and after a reload.

96 virtual routers in one file: what is tracked, its weight, reverse, and whether an instance or its sync group tracks it. One
script has no result while a file is there, so that what it says is not known at the start.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final, Protocol

import pytest

from relevo.lab.cluster import Cluster
from relevo.lab.namespaces import netlink
from relevo.lab.stages import Namespaces
from relevo.lab.topology import Host, Topology
from tests.conftest import program

pytestmark = [pytest.mark.namespaces, pytest.mark.usefixtures("namespaces"), pytest.mark.slow]

Case = tuple[str, int, bool, str]
KINDS = ("interface", "script", "slow", "file")
WEIGHTS = (0, 10, -10)
SCOPES = ("instance", "member", "weighted-member", "group")
CASES: Final[list[Case]] = list(itertools.product(KINDS, WEIGHTS, (False, True), SCOPES))
TRACKED = {"interface": "t0", "script": "chk", "slow": "slow", "file": "mode", "process": "tracked"}
KEYWORDS = {
    "interface": "track_interface",
    "script": "track_script",
    "slow": "track_script",
    "file": "track_file",
    "process": "track_process",
}
BASE = 100
QUIET_S = 2.6
"""An instance that sent no advert for so long is silent: adverts come every second."""
SETTLE_S = 40.0


def configuration(folder: Path, weights: dict[int, int], cases: Sequence[Case] = CASES, interface: str = "eth0") -> str:
    """The file; ``weights`` replaces those of ``cases``, as a reload does."""
    out = [
        f"global_defs {{\n  script_user root\n  enable_script_security\n  vrrp_garp_master_delay 0\n}}\n"
        f'vrrp_script chk {{\n  script "/usr/bin/test -e {folder}/ok"\n  interval 1\n}}\n'
        f'vrrp_script slow {{\n  script "/bin/sh {folder}/slow.sh"\n  interval 1\n  timeout 120\n}}\n'
        f"track_file mode {{\n  file {folder}/mode\n  weight 0\n}}\n"
    ]
    for number, (kind, weight, reverse, scope) in enumerate(cases, 1):
        line = f"{TRACKED[kind]} weight {weights.get(weight, weight)}{' reverse' if reverse else ''}"
        block = f"  {KEYWORDS[kind]} {{\n    {line}\n  }}\n"
        out.append(
            f"vrrp_instance V{number} {{\n  interface {interface}\n  state BACKUP\n  virtual_router_id {number}\n"
            f"  priority {BASE}\n"
            f"{'' if scope == 'group' else block}"
            f'  notify "/bin/sh {folder}/record.sh"\n  virtual_ipaddress {{\n    10.9.0.{number}\n  }}\n}}\n'
        )
        if scope != "instance":
            out.append(
                f"vrrp_sync_group G{number} {{\n  group {{\n    V{number}\n  }}\n"
                f"{'  sync_group_tracking_weight' if scope == 'weighted-member' else ''}\n{block if scope == 'group' else ''}}}\n"
            )
    return "".join(out)


class Speaks(Protocol):
    """A program whose adverts are heard."""

    def priorities(self) -> dict[int, int]:
        """The priority that each virtual router advertises now; a silent one is left out."""
        ...


class Side:
    """One program on a LAN of its own, and a listener beside it."""

    def __init__(self, name: str, keepalived: str) -> None:
        self.name = name
        self.node = Host("director-1", "192.168.6.251")
        client = Host("client", "192.168.6.250")
        self.cluster = Cluster(Topology(IPv4Network("192.168.6.0/24"), [self.node], [], client), Namespaces())
        self.folder = self.cluster.folder / "shared"
        self.folder.mkdir()
        self.heard: dict[int, tuple[float, int]] = {}
        self._keepalived = keepalived
        (self.folder / "record.sh").write_text(f'echo "$2 $3" >> {self.folder}/events\n')
        wait = f"while test -e {self.folder}/hold; do sleep 0.1; done"
        (self.folder / "slow.sh").write_text(f"{wait}\ntest -e {self.folder}/ok\n")
        self.hold = self.folder / "hold"
        self.hold.touch()
        for path in (self.cluster.folder, self.folder):
            path.chmod(0o755)
        with self.cluster.stage.inside(self.node), netlink() as net:
            net.link("add", ifname="t0", kind="veth", peer="t1")
        with self.cluster.stage.inside(client):
            self.listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
            self.listener.setblocking(False)
            self.listener.bind((client.interface, 0x0800))
        self.set(up=True, ok=True, mode=0)

    def set(self, *, up: bool, ok: bool, mode: int) -> None:
        """Change everything that is tracked."""
        with self.cluster.stage.inside(self.node), netlink() as net:
            for end in ("t0", "t1"):
                net.link("set", index=net.link_lookup(ifname=end)[0], state="up" if up else "down")
        (self.folder / "ok").touch() if ok else (self.folder / "ok").unlink(missing_ok=True)
        (self.folder / "mode").write_text(f"{mode}\n")

    def start(self, weights: dict[int, int]) -> None:
        file = self.write(weights)
        self.node.file = str(file)
        if self.name == "relevo":
            self.cluster.start_director(self.node)
            return
        pids = [f"{self.folder}/pid", f"{self.folder}/vrrp.pid"]
        argv = [self._keepalived, "-n", "-l", "-D", "-P", "-f", str(file), "-p", pids[0], "-r", pids[1]]
        self.cluster.run_in(self.node, self.node.name, argv, self.cluster.log_file(self.node))

    def write(self, weights: dict[int, int]) -> Path:
        file = self.folder / "vrrp.conf"
        file.write_text(configuration(self.folder, weights))
        file.chmod(0o644)
        return file

    def reload(self, weights: dict[int, int]) -> None:
        self.write(weights)
        pid = self.cluster.snapshot(self.node).pid if self.name == "relevo" else int((self.folder / "pid").read_text())
        os.kill(pid, signal.SIGHUP)

    def listen(self) -> None:
        while True:
            try:
                data = self.listener.recv(2048)
            except BlockingIOError:
                return
            if data[9] == 112:
                payload = data[(data[0] & 0x0F) * 4 :]
                self.heard[payload[1]] = (time.monotonic(), payload[2])

    def priorities(self) -> dict[int, int]:
        """The priority that each virtual router advertises now; a silent one is left out."""
        self.listen()
        now = time.monotonic()
        return {number: priority for number, (at, priority) in sorted(self.heard.items()) if priority and now - at < QUIET_S}

    def events(self) -> dict[str, Counter[str]]:
        """The states that each instance and group was notified of, counted."""
        path = self.folder / "events"
        found: dict[str, Counter[str]] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            name, state = line.split()
            found.setdefault(name, Counter())[state] += 1
        return found

    def close(self) -> None:
        self.listener.close()
        self.cluster.close()


@pytest.fixture
def sides() -> Iterator[list[Side]]:
    keepalived = program("keepalived")
    made = [Side(name, keepalived) for name in ("keepalived", "relevo")]
    yield made
    for side in made:
        side.close()


def named(number: int) -> str:
    kind, weight, reverse, scope = CASES[number - 1]
    return f"{scope} tracks {kind} weight {weight}{' reverse' if reverse else ''}"


def settle(sides: Sequence[Speaks], compared: set[int]) -> tuple[dict[int, int], dict[int, int]]:
    """Wait until both sides have said the same for a while, or the time is over; return what each says."""
    until, since = time.monotonic() + SETTLE_S, time.monotonic()
    former = None
    while True:
        time.sleep(0.05)
        present = tuple({n: p for n, p in side.priorities().items() if n in compared} for side in sides)
        now = time.monotonic()
        if present != former or present[0] != present[1]:
            former, since = present, now
        if now - since > 2 * QUIET_S or now > until:
            return present[0], present[1]


FORGOTTEN = {number for number, (kind, _, reverse, _) in enumerate(CASES, 1) if kind in ("script", "slow") and reverse}
"""keepalived forgets ``reverse`` of a script at a reload, until the script's next change (initialise_track_script_state)."""


def test_priorities_on_the_wire_and_notifications_are_keepalived_s(sides: list[Side]) -> None:
    compared = set(range(1, len(CASES) + 1))

    def compare(step: str) -> dict[int, int]:
        theirs, ours = settle(sides, compared)
        differing = {named(n): (theirs.get(n), ours.get(n)) for n in compared if theirs.get(n) != ours.get(n)}
        assert differing == {}, f"{step}: case: (keepalived, Relevo)"
        return theirs

    for side in sides:
        side.start({})
    unknown = compare("a script without a result yet")
    assert {CASES[number - 1][1] for number in compared - unknown.keys() if CASES[number - 1][0] == "slow"} == {0}
    for side in sides:
        side.hold.unlink()
    up = compare("everything up")
    assert set(up.values()) == {90, 100, 110}
    for step, state in (
        ("everything down", {"up": False, "ok": False, "mode": 5}),
        ("everything up again", {"up": True, "ok": True, "mode": 0}),
        ("a large number in the file", {"up": True, "ok": True, "mode": -30}),
    ):
        for side in sides:
            side.set(**state)
        compare(step)
    for side in sides:
        side.reload({10: 30, -10: -40})
    compared -= FORGOTTEN
    compare("after a reload with other weights")
    for side in sides:
        side.set(up=False, ok=False, mode=1)
    compare("everything down, other weights")
    theirs, ours = (side.events() for side in sides)
    names = {f"{letter}{number}" for number in compared for letter in "VG"}
    assert {n: (theirs.get(n), ours.get(n)) for n in sorted(names) if theirs.get(n) != ours.get(n)} == {}
