"""The cluster: two directors on bad cables, two virtual routers, two services with two servers each, and a sorry server."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from relevo.daemon.configuration import compile_file
from relevo.errors import ControlError
from relevo.lab.client import Client, greet, still_alive
from relevo.lab.cluster import Cluster
from relevo.lab.namespaces import index_of, netlink
from relevo.lab.topology import CLIENTS, Host, Topology, plan
from relevo.model import Endpoint
from relevo.observe.snapshot import Snapshot
from relevo.planes import catalogue
from relevo.planes.ebpf import remove_pins
from tests.soak.wire import WiredNamespaces

ROUTERS: Final = {"VI_1": "192.168.6.240", "VI_2": "192.168.6.241"}
SERVICES: Final = {name: Endpoint(address, 80) for name, address in ROUTERS.items()}
SYNCED: Final = "VI_1"
"""The router whose master synchronises connections, on the ebpf plane."""
SERVERS: Final = ("192.168.6.4", "192.168.6.5", "192.168.6.6", "192.168.6.7")
SORRY: Final = "192.168.6.2"
PRIORITIES: Final = {"VI_1": (150, 100), "VI_2": (100, 150)}
"""Of director 1 and 2: each is master of one."""
HELD: Final = 8
"""Connections a service that are held over each round."""
CHECK: Final = "delay_loop 1\n  retry 1\n  delay_before_retry 0.5\n"


@dataclass(slots=True)
class Written:
    """What a director's file says besides what it always says."""

    weights: tuple[int, int] = (2, 1)
    priority: int | None = None
    """Of VI_1, if it differs from the usual."""
    extra_server: bool = False


def configuration(folder: Path, number: int, plane: str, written: Written) -> str:
    """Return the file of director ``number`` (0 or 1)."""
    synced = f"  lvs_sync_daemon eth0 {SYNCED}\n  lvs_sync_key file:{folder}/key\n" if plane == "ebpf" else ""
    out = [
        f"global_defs {{\n  router_id director-{number + 1}\n  data_plane {plane}\n  script_user root\n  vrrp_version 3\n"
        f"  vrrp_garp_master_delay 1\n{synced}}}\n"
        f"track_file gate {{\n  file {folder}/gate-{number}\n  weight 1\n}}\n"
    ]
    for identity, (name, address) in enumerate(ROUTERS.items(), 51):
        priority = written.priority if written.priority is not None and name == "VI_1" else PRIORITIES[name][number]
        waits = "  preempt_when_synced 10\n" if plane == "ebpf" and name == SYNCED else ""
        out.append(
            f"vrrp_instance {name} {{\n  interface eth0\n  state BACKUP\n  virtual_router_id {identity}\n  priority {priority}\n"
            f'  advert_int 0.1\n{waits}  track_file {{\n    gate weight 1\n  }}\n  notify "/bin/sh {folder}/record.sh {number}"\n'
            f"  virtual_ipaddress {{\n    {address}/24\n  }}\n}}\n"
        )
    for index, (name, address) in enumerate(ROUTERS.items()):
        out.append(f"virtual_server {address} 80 {{\n  lb_algo wrr\n  lb_kind NAT\n  protocol TCP\n  {CHECK}")
        if name == "VI_1":
            out.append(f"  sorry_server {SORRY} 80\n")
        servers = [*zip(SERVERS[2 * index : 2 * index + 2], written.weights, strict=True)]
        if written.extra_server:
            servers.append((f"192.168.6.{9 + index}", 1))  # nobody has this address
        for server, weight in servers:
            check = (
                "TCP_CHECK {\n      connect_timeout 1\n    }"
                if index
                else "HTTP_GET {\n      url {\n        path /\n        status_code 200\n      }\n      connect_timeout 1\n    }"
            )
            out.append(f"  real_server {server} 80 {{\n    weight {weight}\n    {check}\n  }}\n")
        out.append("}\n")
    return "".join(out)


@dataclass(slots=True)
class Process:
    """A process of a director: what it costs now."""

    pid: int
    memory_kb: int
    descriptors: int


class Rig:
    """The running cluster, and what faults do to it. Directors are numbered 0 and 1."""

    def __init__(self, folder: Path, seed: int, plane: str) -> None:
        self.folder, self.plane = folder, plane
        self.written = [Written(), Written()]
        (folder / "key").write_text("a key of thirty-two bytes or so.")
        (folder / "key").chmod(0o600)
        (folder / "record.sh").write_text(f'echo "$1 $3 $4" >> {folder}/notified\n')
        files = []
        for number in (0, 1):
            (folder / f"gate-{number}").write_text("0\n")
            self.write(number)
            files.append(str(folder / f"director-{number + 1}.conf"))
        self.wires = WiredNamespaces(seed)
        topology: Topology = plan([(file, compile_file(file).configuration) for file in files])
        self.cluster = Cluster(topology, self.wires)
        self.directors = self.cluster.topology.directors
        self.client = Client(self.wires, self.cluster.topology.client)
        self.held: dict[str, list[tuple[Any, str]]] = {name: [] for name in SERVICES}
        self._clients = 0
        self._command: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start every process, and wait for none but the daemons."""
        self.cluster.start_servers()
        for director in self.directors:
            self.cluster.start_director(director)

    def close(self) -> None:
        """End everything."""
        self.await_command()
        for held in self.held.values():
            for sock, _ in held:
                sock.close()
        self.cluster.close()

    # -- what faults do --------------------------------------------------------------------------------------------

    def write(self, number: int, **changes: Any) -> None:
        """Write a director's file, with changes to what it usually says."""
        self.written[number] = Written(**changes)
        text = configuration(self.folder, number, self.plane, self.written[number])
        (self.folder / f"director-{number + 1}.conf").write_text(text)

    def signal(self, number: int, what: int) -> None:
        """Send a signal to a director's supervisor, if it runs."""
        pid = self.cluster.pid(self.directors[number].name)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, what)

    def signal_all(self, number: int, what: int) -> None:
        """Send a signal to every process of a director."""
        pid = self.cluster.pid(self.directors[number].name)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, what)

    def worker(self, number: int, share: float) -> int | None:
        """Return the process id of one of a director's workers, chosen by a number between 0 and 1."""
        found = sorted(self.snapshot(number).workers, key=lambda each: each.role) if self.runs(number) else []
        return found[int(share * len(found))].pid if found else None

    def runs(self, number: int) -> bool:
        """Whether a director's daemon runs and answers."""
        try:
            self.snapshot(number)
        except ControlError:
            return False
        return True

    def command(self, number: int, *words: str) -> None:
        """Start a command of a director's, which may fail, after the last one has ended."""
        self.await_command()
        command = [sys.executable, "-m", "relevo", *words, "--run-dir", str(self.cluster.run_dir(self.directors[number]))]
        self._command = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def await_command(self) -> None:
        """Wait until the last command has ended."""
        if self._command is not None:
            self._command.wait(60)
            self._command = None

    @contextlib.contextmanager
    def link(self, number: int) -> Iterator[tuple[Any, int]]:
        """Give netlink and the index of a director's interface, in its namespace."""
        with self.wires.inside(self.directors[number]), netlink() as ip:
            yield ip, index_of(ip, "eth0")

    def restore_network(self, number: int) -> None:
        """Give a director its address and its route again, as whoever manages the network does."""
        host = self.directors[number]
        with self.link(number) as (ip, index):
            ip.link("set", index=index, state="up")
            ip.addr("replace", index=index, address=host.address, prefixlen=24)
            ip.route("replace", dst=str(CLIENTS), gateway=self.cluster.topology.client.address)

    def switch_off(self, number: int) -> None:
        """Cut a director's power: nothing in its memory or its kernel is left."""
        host = self.directors[number]
        self.cluster.crash_director(host)
        remove_pins(catalogue.pin_folder(self.cluster.run_dir(host)))
        with self.link(number) as (ip, index):
            ip.flush_addr(index=index)
            with contextlib.suppress(Exception):  # there is none on the proxy plane
                ip.tc("del", "clsact", index=index)
        shutil.rmtree(self.cluster.run_dir(host), ignore_errors=True)

    def switch_on(self, number: int) -> None:
        """Give a director power again."""
        self.restore_network(number)
        self.cluster.revive_director(self.directors[number])

    def server(self, address: str) -> Host:
        return self.cluster.topology.server_at(address)

    # -- what there is ---------------------------------------------------------------------------------------------

    def snapshot(self, number: int) -> Snapshot:
        """Return a director's snapshot; ``ControlError`` when it does not answer."""
        return self.cluster.snapshot(self.directors[number])

    def addresses(self, number: int) -> set[str]:
        """Addresses on a director's interface."""
        with self.link(number) as (ip, index):
            return {str(each.get_attr("IFA_LOCAL")) for each in ip.get_addr(index=index, family=2)}

    def notified(self) -> dict[tuple[int, str], str]:
        """Return the last state that each director's script was told of each router."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.folder / "notified").read_text().splitlines():
                number, name, state = line.split()
                found[int(number), name] = state
        return found

    def answers(self, name: str) -> str:
        """Ask a service as a client that was not there before; return the name of the server that answers."""
        self._clients += 1
        return self.client.who(SERVICES[name], 5000 + self._clients % 20_000)

    def hold(self) -> None:
        """Open connections until ``HELD`` of each service are held."""
        for name, held in self.held.items():
            while len(held) < HELD:
                self._clients += 1
                sock = self.client.open(5000 + self._clients % 20_000)
                sock.connect((SERVICES[name].address, SERVICES[name].port))
                held.append((sock, greet(sock, SERVICES[name], close=False)))

    def lost(self) -> list[str]:
        """Forget the held connections that no longer answer; return the server of each, with its service."""
        found = []
        for name, held in self.held.items():
            for each in list(held):
                if not (drained(each[0]) and still_alive(each[0], SERVICES[name])):
                    held.remove(each)
                    each[0].close()
                    found.append(f"{name} {each[1]}")
        return found

    def processes(self, number: int) -> dict[str, Process]:
        """Return the processes of a director by role, the supervisor's among them."""
        snapshot = self.snapshot(number)
        found = {"supervisor": snapshot.pid, **{worker.role: worker.pid for worker in snapshot.workers}}
        return {role: _cost(pid) for role, pid in found.items()}

    def logs(self) -> str:
        return "".join(f"--- {each.name}\n{self.cluster.log_text(each)}" for each in self.directors)


def drained(sock: socket.socket) -> bool:
    """Read what came late, which would pass for the next answer; return whether the connection is open."""
    limit_s = sock.gettimeout()
    sock.setblocking(False)
    try:
        while sock.recv(4096):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    finally:
        sock.settimeout(limit_s)
    return False


def _cost(pid: int) -> Process:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Process(pid, pages * os.sysconf("SC_PAGE_SIZE") // 1024, sum(map(_counts, Path(f"/proc/{pid}/fd").iterdir())))


def _counts(descriptor: Path) -> bool:
    """Whether a descriptor is not a pipe: the proxy keeps as many of those for later as it once had at the same time."""
    try:
        return not os.readlink(descriptor).startswith("pipe:")
    except OSError:  # it has just been closed
        return False
