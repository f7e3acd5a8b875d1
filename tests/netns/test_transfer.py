"""A transfer survives the crash of its director: between planes, and with keepalived and the kernel's IPVS on one side."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relevo.lab.client import Client
from relevo.lab.cluster import Cluster
from relevo.lab.stages import Namespaces
from relevo.lab.topology import Host
from relevo.model import Endpoint
from relevo.planes import ebpf, ipvs
from relevo.wire.ipvs_proc import read_connections
from tests.conftest import program
from tests.netns.conftest import FILES, build, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.namespaces, pytest.mark.usefixtures("namespaces")]

SERVICE = Endpoint("192.168.6.240", 7007)
SERVER = Endpoint("192.168.6.4", 7007)
ECHO = f"""
import socket
listening = socket.create_server(("{SERVER.address}", {SERVER.port}))
while True:
    peer, _ = listening.accept()
    while data := peer.recv(65536):
        peer.sendall(data)
"""
VIRTUAL_SERVER = f"""
virtual_server {SERVICE.address} {SERVICE.port} {{
    lb_algo rr
    lb_kind NAT
    protocol TCP
    real_server {SERVER.address} {SERVER.port} {{
        weight 1
    }}
}}
"""
CHUNK, PAUSE_S = 16_384, 0.01
READY_S = 60.0
"""How long a director may take to load its plane, and then to receive the connection: the kernel's daemon sends every two
seconds, and emulated machines take 20 s to load programs.
"""
AFTER = 1 << 20
"""Bytes that must be echoed after the takeover."""

UNAVAILABLE_REASON = {
    "ipvs": ipvs.unavailable_reason,
    "ipvs-v0": ipvs.unavailable_reason,
    "keepalived": ipvs.unavailable_reason,
    "ebpf": ebpf.unavailable_reason,
}
PAIRS = [
    ("ebpf", "ebpf"),
    ("ipvs", "ipvs"),
    ("ipvs", "ebpf"),
    ("ipvs-v0", "ebpf"),
    ("ebpf", "ipvs"),
    ("keepalived", "ebpf"),
    ("ebpf", "keepalived"),
    ("keepalived", "ipvs"),
]


class Transfer(threading.Thread):
    """Sends random bytes to the service until ``end``, and compares the echo."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self._client = Client(cluster.stage, cluster.topology.client)
        wait_until(self._connects, 15, "the echo server answers through the first director")
        self._socket.settimeout(20)
        self.client = Endpoint(*self._socket.getsockname())
        self._random = random.Random(7)
        self._ending = threading.Event()
        self.returned = 0
        self.trouble = ""

    def _connects(self) -> bool:
        self._socket = self._client.open()
        if self._socket.connect_ex((SERVICE.address, SERVICE.port)) == 0:
            return True
        self._socket.close()
        return False

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                self._turn()
                time.sleep(PAUSE_S)
        except OSError as error:
            self.trouble = str(error)
        self._socket.close()

    def _turn(self) -> None:
        sent = self._random.randbytes(CHUNK)
        self._socket.sendall(sent)
        echo = b""
        while len(echo) < len(sent):
            part = self._socket.recv(CHUNK)
            if not part:
                raise ConnectionError("the connection was closed")
            echo += part
        if echo != sent:
            raise ConnectionError(f"the echo differs after {self.returned} bytes")
        self.returned += len(echo)

    def end(self) -> None:
        self._ending.set()
        self.join(30)


def files(pair: tuple[str, str], folder: Path) -> tuple[str, ...]:
    """Write the article's files for a plane each, with the echo service added."""
    written = []
    for file, name in zip(map(Path, FILES), pair, strict=True):
        text = file.read_text().replace("    lvs_sync_daemon_inteface eth0\n", "")
        head = "global_defs {\n    lvs_sync_daemon eth0 VI_1\n"
        if name == "keepalived":
            text = text.replace("lvs_id", "router_id")
        else:
            head += f"    data_plane {name.removesuffix('-v0')}\n"
        if name == "ipvs-v0":  # the protocol of kernels before 2.6.39
            head += "    lvs_sysctls {\n        sync_version 0\n    }\n"
        changed = folder / file.name
        changed.write_text(text.replace("global_defs {\n", head, 1) + VIRTUAL_SERVER)
        written.append(str(changed))
    return tuple(written)


def start(cluster: Cluster, director: Host, name: str) -> None:
    if name != "keepalived":
        cluster.start_director(director)
        return
    base = cluster.folder / director.name
    pid_files = [f"-{option}{base}{suffix}" for option, suffix in (("p", ".pid"), ("r", ".vrrp"), ("c", ".checkers"))]
    argv = [program("keepalived"), "-n", "-l", "-D", f"-f{director.file}", *pid_files]
    cluster.run_in(director, director.name, argv, cluster.log_file(director))


def holds(cluster: Cluster, director: Host) -> bool:
    import pyroute2

    with cluster.stage.inside(director), pyroute2.IPRoute() as ip:
        return SERVICE.address in {message.get_attr("IFA_LOCAL") for message in ip.get_addr()}


def has_connection(cluster: Cluster, director: Host, plane: str, client: Endpoint) -> bool:
    """Whether the plane of a director has the client's connection in state ESTABLISHED."""
    if plane == "ebpf":
        folder = ["--run-dir", str(cluster.run_dir(director))]
        wanted = [f"--client={client}", f"--virtual={SERVICE}", "--state=established"]
        command = [sys.executable, "-m", "relevo", "connections", "--count", *wanted, *folder]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
        return done.returncode == 0 and int(done.stdout) == 1
    with cluster.stage.inside(director):
        lines = Path("/proc/thread-self/net/ip_vs_conn").read_text().splitlines()
    found = [line.state for line in read_connections(lines) if Endpoint(line.client, line.client_port) == client]
    return found == ["ESTABLISHED"]


@pytest.fixture(params=PAIRS, ids="-to-".join)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    found: tuple[str, str] = request.param
    for name in found:
        if UNAVAILABLE_REASON[name]():
            pytest.skip(f"{name}: {UNAVAILABLE_REASON[name]()}")
        if name == "keepalived":
            program("keepalived")
    return found


@pytest.fixture
def cluster(pair: tuple[str, str], tmp_path: Path) -> Iterator[Cluster]:
    """The article's cluster with an echo server. Each director has its plane; the first is master."""
    with build(Namespaces(), files(pair, tmp_path), speed_up=1.0) as made:
        for host in made.topology.hosts():
            for service in host.services:
                if service.port != SERVER.port:
                    made.start_service(host, service)
        (host,) = [host for host in made.topology.hosts() if host.address == SERVER.address]
        made.run_in(host, "echo", [sys.executable, "-c", ECHO], made.folder / "echo.log")
        for director, name in zip(made.topology.directors, pair, strict=True):
            start(made, director, name)
        master, backup = made.topology.directors
        wait_until(lambda: holds(made, master) and not holds(made, backup), READY_S, "the first director alone is master")
        yield made


def test_a_transfer_continues_when_its_director_crashes(cluster: Cluster, pair: tuple[str, str]) -> None:
    master, backup = cluster.topology.directors
    transfer = Transfer(cluster)
    transfer.start()
    wait_until(
        lambda: has_connection(cluster, backup, pair[1], transfer.client), READY_S, "the second director has the connection"
    )
    assert transfer.returned, transfer.trouble
    cluster.crash_director(master)
    wait_until(lambda: holds(cluster, backup), 15, "the second director took over")
    had = transfer.returned
    wait_until(lambda: bool(transfer.returned >= had + AFTER or transfer.trouble), 60, "the echo continues")
    transfer.end()
    assert not transfer.trouble, cluster.log_text(master) + cluster.log_text(backup)
