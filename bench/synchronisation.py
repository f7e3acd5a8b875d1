"""Connection synchronisation on the ebpf plane: lost connections and gap of a hand-over and of a crash, duration of a full sync.

No peer can be measured beside it: IPVS has no full sync, and keepalived no planned hand-over. The rig is the article's cluster in
namespaces, with real connections to nginx and real datagrams.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from relevo.api import schema
from relevo.api.client import ask
from relevo.daemon.configuration import compile_file
from relevo.lab.client import Client, Prober, still_alive
from relevo.lab.cluster import Cluster
from relevo.lab.stages import Namespaces
from relevo.lab.topology import Host, plan
from relevo.model import Endpoint
from relevo.model.table import SyncState

ARTICLE = Path(__file__).parents[1] / "examples" / "article"
WEB = Endpoint("192.168.6.240", 80)
DATAGRAMS = Endpoint("192.168.6.240", 5353)
UDP_SERVICE = """
virtual_server 192.168.6.240 5353 {
    lb_algo rr
    lb_kind NAT
    protocol UDP
    real_server 192.168.6.4 5353 {
        weight 1
    }
}
"""
PORTS = 1000
"""Source ports of each client address."""


def files(folder: Path) -> list[str]:
    key = folder / "key"
    key.write_text("of the benchmark, and of no other use")
    key.chmod(0o600)
    written = []
    for name in ("master.conf", "backup.conf"):
        text = (ARTICLE / name).read_text()
        text = text.replace("global_defs {", f"global_defs {{\n    data_plane ebpf\n    lvs_sync_key file:{key}", 1)
        text = text.replace("    advert_int 1\n", "    advert_int 1\n    preempt_when_synced 60\n")
        (folder / name).write_text(text + UDP_SERVICE)
        written.append(str(folder / name))
    return written


def wait_until(condition: Callable[[], bool], limit_s: float, what: str) -> float:
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > limit_s:
            raise TimeoutError(f"not within {limit_s} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - begun


class Bench:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.client = Client(cluster.stage, cluster.topology.client)
        self.first, self.second = cluster.topology.directors

    def state(self, director: Host) -> str:
        instances = self.cluster.snapshot(director).director.instances
        return instances[0].state if instances else ""

    def sync(self, director: Host) -> SyncState | None:
        return ask(self.cluster.run_dir(director), schema.Sync(), 30.0).state

    def in_sync(self, director: Host) -> bool:
        snapshot = self.cluster.snapshot(director)
        return bool(snapshot.balancer and snapshot.balancer.sync and snapshot.balancer.sync.in_sync)

    def settle(self, master: Host, backup: Host) -> None:
        wait_until(lambda: self.state(master) == "MASTER" and self.state(backup) == "BACKUP", 60, "one master, one backup")
        wait_until(lambda: self.in_sync(backup), 60, "the backup is in sync")

    def relevo(self, director: Host, *words: str) -> None:
        command = [sys.executable, "-m", "relevo", *words, "--run-dir", str(self.cluster.run_dir(director))]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    @contextmanager
    def held(self, number: int, what: str) -> Iterator[None]:
        """Hold connections while the context lasts; print how many were lost, and the longest time without an answer."""
        sockets = self.client.hold(WEB, number)
        prober = Prober(self.client, WEB, 0.002)
        with prober.running():
            time.sleep(1.0)
            yield
            time.sleep(1.0)
        for sock in sockets:
            sock.settimeout(10.0)
        alive = sum(still_alive(sock, WEB) for sock in sockets)
        for sock in sockets:
            sock.close()
        gap = prober.probes.longest_gap_s() * 1000
        print(f"{what}: {len(sockets) - alive} of {len(sockets)} connections lost, gap {gap:.1f} ms", flush=True)

    def hand_over(self, number: int) -> None:
        with self.held(number, "planned hand-over"):
            self.relevo(self.first, "failover", "VI_1")
        self.settle(self.second, self.first)
        with self.held(number, "and back"):
            self.relevo(self.first, "failover", "--back", "VI_1")
            wait_until(lambda: self.state(self.first) == "MASTER", 30, "it is master again")
        self.settle(self.first, self.second)

    def crash(self, number: int) -> None:
        with self.held(number, "crash (3 advert intervals of 1 s)"):
            self.cluster.crash_director(self.first)
            wait_until(lambda: self.state(self.second) == "MASTER", 30, "takeover")
        self.cluster.revive_director(self.first)
        self.settle(self.first, self.second)

    def open_flows(self, number: int) -> None:
        """Send three datagrams from each of ``number`` client ports: real entries with a timeout of five minutes."""
        with self.cluster.stage.inside(self.cluster.topology.client):
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        target = socket.inet_aton(DATAGRAMS.address)
        for turn in range(number // PORTS):
            source = socket.inet_aton(self.cluster.stage.client_address(4000 + turn))
            for port in range(10_000, 10_000 + PORTS):
                udp = struct.pack("!HHHH", port, DATAGRAMS.port, 12, 0) + b"flow"
                packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 32, 0, 0, 64, 17, 0, source, target) + udp
                for _ in range(3):
                    raw.sendto(packet, (DATAGRAMS.address, 0))
        raw.close()

    def resync(self, number: int) -> None:
        begun = time.monotonic()
        self.open_flows(number)
        state = self.sync(self.first)
        assert state is not None
        print(f"{state.local} connections on the master, made in {time.monotonic() - begun:.1f} s", flush=True)
        wait_until(lambda: self.in_sync(self.second), 30, "the backup is in sync")
        self._show("followed while they were made", self.second)
        self.cluster.stop_director(self.second)
        begun = time.monotonic()
        self.cluster.start_director(self.second)
        answers = time.monotonic() - begun
        wait_until(lambda: self.in_sync(self.second), 60, "in sync")
        took = time.monotonic() - begun
        print(f"backup restarted with an empty table: in sync {took:.2f} s after its start ({answers:.2f} s until it answered)")
        self._show("resync", self.second)

    def preempt(self) -> None:
        self.cluster.stop_director(self.first)
        wait_until(lambda: self.state(self.second) == "MASTER", 30, "takeover")
        begun = time.monotonic()
        self.cluster.start_director(self.first)
        wait_until(lambda: self.in_sync(self.first) or self.state(self.first) == "MASTER", 60, "in sync")
        synced, was = time.monotonic() - begun, self.state(self.first)
        wait_until(lambda: self.state(self.first) == "MASTER", 60, "it takes over")
        took = time.monotonic() - begun
        print(f"the preferred master returned: in sync after {synced:.2f} s, {was} then; took over after {took:.2f} s")
        self._show("preempt_when_synced", self.first)

    def _show(self, what: str, director: Host) -> None:
        state = self.sync(director)
        assert state is not None
        seen = f"{state.received} connections from the other, {state.entries_received} entries, refused {state.refused}"
        print(f"  {what}: {seen}")


def main(held: int, flows: int) -> None:
    """Hold ``held`` connections through a hand-over and a crash; time a full sync of ``flows`` connections."""
    with tempfile.TemporaryDirectory() as folder:
        named = files(Path(folder))
        with Cluster(plan([(file, compile_file(file).configuration) for file in named]), Namespaces()) as cluster:
            bench = Bench(cluster)
            cluster.start_servers()
            for director in cluster.topology.directors:
                cluster.start_director(director)
            bench.settle(bench.first, bench.second)
            bench.hand_over(held)
            bench.crash(held)
            bench.resync(flows)
            bench.preempt()
