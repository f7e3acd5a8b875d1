"""Hundreds of ipvsadm commands in a row on a daemon's plane: after each, its exit status, its message and the whole listing.

The sequence is made from a seed, beside a model of the table that is as simple as a dictionary of dictionaries.
"""

from __future__ import annotations

import io
import os
import random
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest

from relevo.compat.ipvsadm.program import Program
from relevo.compat.ipvsadm.tables import table_in_charge
from relevo.lab.cluster import Cluster
from relevo.lab.stages import Namespaces
from relevo.model import Forwarding
from relevo.planes import catalogue, ebpf
from relevo.planes.port import Capabilities
from tests.netns.conftest import build, run_all, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.namespaces, pytest.mark.usefixtures("namespaces")]

CONF = """
global_defs {{
    data_plane {plane}
}}
vrrp_instance VI_1 {{
    state MASTER
    interface eth0
    virtual_router_id 51
    priority 255
    advert_int 1
    virtual_ipaddress {{
        192.168.6.240
    }}
}}
virtual_server 192.168.6.240 25 {{
    lb_algo wlc
    lb_kind NAT
    protocol TCP
    real_server 192.168.6.6 25 {{
        weight 3
    }}
}}
"""
SEED: Final = 20_6
COUNT: Final = 400
"""Commands of the sequence that the seed makes."""
PROCESS_EVERY: Final = 40
"""Every so many commands it is a process that is run; the others run in this one, which takes a hundredth of the time."""
AGAIN_S: Final = 20.0
"""Within which the daemon notices that a service of its file is gone."""
TITLE = "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"

USAGE, REFUSED, FAILED = 2, 255, 1
SERVICE_EXISTS, NO_SERVICE = "Service already exists", "No such service"
SERVER_EXISTS, NO_SERVER, NOT_DEFINED = "Destination already exists", "No such destination", "Service not defined"
INVALID = "Invalid operation.  Possibly wrong module version, address not unicast, ..."
NO_PORT = "Zero port specified for non-persistent service"
OTHER_FAMILY = "Different address family is allowed only for tunneling servers"
NOT_FOUND = (NOT_DEFINED, NO_SERVER)
"""Of a server that cannot be there, since its service is not: either is true."""

FLAGS = {"sh": ("sh-fallback", "sh-port"), "mh": ("mh-fallback", "mh-port")}
METHODS = {"-m": "Masq", "-g": "Route", "-i": "Tunnel"}


@dataclass(frozen=True)
class Key:
    """A service's name: ``switch`` is ``-t``, ``-u`` or ``-f``."""

    switch: str
    address: str
    port: int = 0
    mark: int = 0

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.address

    @property
    def words(self) -> list[str]:
        if self.mark:
            return ["-f", str(self.mark), *(["-6"] if self.is_ipv6 else [])]
        return [self.switch, place(self.address, self.port)]

    @property
    def title(self) -> str:
        if self.mark:
            return f"FWM  {self.mark}" + (" IPv6" if self.is_ipv6 else "")
        return f"{'TCP' if self.switch == '-t' else 'UDP'}  {place(self.address, self.port)}"

    @property
    def order(self) -> tuple[int, bool, bool, int, int]:
        return (self.mark, self.is_ipv6, self.switch == "-u", 0 if self.mark else int(ip_address(self.address)), self.port)


@dataclass(frozen=True)
class Server:
    """How a server is reached, and its weight."""

    method: str
    weight: int


@dataclass
class Service:
    """The part of a service's line behind its name, and its servers by address and port."""

    schedule: str
    servers: dict[tuple[str, int], Server] = field(default_factory=dict)


Table = dict[Key, Service]


@dataclass(frozen=True)
class Command:
    """A command line, and what it must come to."""

    words: list[str]
    status: int = 0
    messages: tuple[str, ...] = ("",)


def place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def listing(table: Mapping[Key, Service]) -> str:
    """Return what ``-Ln`` prints of a table whose servers have no connections."""
    lines = []
    for key in sorted(table, key=lambda each: each.order):
        lines.append(f"{key.title} {table[key].schedule}\n")
        for (address, port), server in sorted(table[key].servers.items(), key=lambda s: (int(ip_address(s[0][0])), s[0][1])):
            place_and_way = f"{place(address, port):<28} {METHODS[server.method]:<7}"
            lines.append(f"  -> {place_and_way} {server.weight:<6} {0:<10} {0:<10}\n")
    return TITLE + "".join(lines)


def declared() -> Table:
    """What the file declares: it comes again whatever is done to it."""
    return {Key("-t", "192.168.6.240", 25): Service("wlc", {("192.168.6.6", 25): Server("-m", 3)})}


class Sequence:
    """Makes commands for a plane, one after the other, and does to ``table`` what each would do."""

    def __init__(self, able: Capabilities, seed: int) -> None:
        self.table: Table = declared()
        self._able = able
        self._random = random.Random(seed)
        self._schedulers = sorted(able.schedulers - {"none"})
        ways = {"-m": Forwarding.NAT, "-g": Forwarding.DR, "-i": Forwarding.TUN}
        self._methods = [switch for switch, way in ways.items() if way in able.forwarding]
        addresses = ("192.0.2.10", "192.0.2.11", "2001:db8::10")
        self._keys = [Key(switch, a, port) for switch in ("-t", "-u") for a in addresses for port in (80, 443)]
        self._keys += [Key("-f", a, mark=mark) for a in ("0.0.0.0", "::") for mark in (7, 4_000_000_000)]
        self._keys += [Key("-t", a) for a in addresses[1:]]

    def every_kind(self) -> Iterator[Command]:
        """Every scheduler on every kind of service, with a server of each way, and all of it edited and taken away again."""
        keys = [self._keys[index] for index in (0, 4, 6, 10, 12, 14, 16)]
        for key in keys:
            for scheduler in self._schedulers:
                yield self._add_service(key, scheduler, persistence="-p" if not (key.port or key.mark) else "")
                for number, method in enumerate(self._methods):
                    yield self._add_server(key, ("2001:db8::2:1" if key.is_ipv6 else f"10.2.0.{number + 1}", 8080), method, 3)
                yield self._edit_service(key, self._schedulers[0], "-p 50")
                yield self._delete_service(key)
            yield self._delete_service(key)

    def any(self) -> Iterator[Command]:
        """Whatever the seed gives, without end; half of it changes servers of services that are there."""
        while True:
            key = self._random.choice(self._keys)
            at_random = [
                *[self._add_service_at_random] * 2,
                self._edit_service_at_random,
                self._delete_service,
                *[self._server_at_random] * 6,
                self._zero,
            ]
            yield self._random.choice(at_random)(key)

    def flush(self) -> Command:
        """Everything goes, and what is declared comes again."""
        self.table = declared()
        return Command(["-C"])

    # -- services ----------------------------------------------------------------------------------------------

    def _add_service_at_random(self, key: Key) -> Command:
        return self._add_service(key, self._random.choice([*self._schedulers, ""]), self._persistence(key))

    def _edit_service_at_random(self, key: Key) -> Command:
        return self._edit_service(key, self._random.choice([*self._schedulers, ""]), self._persistence(key))

    def _persistence(self, key: Key) -> str:
        masks = ["-p 300 -M 64", "-p 300 -M 128"] if key.is_ipv6 else ["-p 300 -M 255.255.255.0", "-p 300 -M 255.255.255.255"]
        return self._random.choice(["", "-p", "-p 60", *masks])

    def _add_service(self, key: Key, scheduler: str, persistence: str) -> Command:
        words, schedule = self._options(key, scheduler, persistence)
        words = ["-A", *key.words, *words]
        if not (key.port or key.mark or persistence):
            return Command(words, USAGE, (NO_PORT,))
        if key in self.table:
            return Command(words, REFUSED, (SERVICE_EXISTS,))
        if (key.mark and not self._able.marks) or not (key.port or key.mark or self._able.any_port):
            return Command(words, REFUSED, (INVALID,))
        self.table[key] = Service(schedule)
        return Command(words)

    def _edit_service(self, key: Key, scheduler: str, persistence: str) -> Command:
        words, schedule = self._options(key, scheduler, persistence)
        words = ["-E", *key.words, *words]
        if not (key.port or key.mark or persistence):
            return Command(words, USAGE, (NO_PORT,))
        if key not in self.table:
            return Command(words, REFUSED, (NO_SERVICE,))
        self.table[key].schedule = schedule
        return Command(words)

    def _options(self, key: Key, scheduler: str, persistence: str) -> tuple[list[str], str]:
        """Return options, and how the listing puts them."""
        words = ["-s", scheduler] if scheduler else []
        schedule = scheduler or "wlc"
        flags = [flag for flag in FLAGS.get(scheduler, ()) if self._random.random() < 0.5]
        if flags:
            words += ["-b", ",".join(flags)]
            schedule += f" ({','.join(flags)})"
        if persistence:
            given = persistence.split()
            words += given
            schedule += f" persistent {given[1] if len(given) > 1 else 360}"
            if len(given) > 2 and given[3] not in ("128", "255.255.255.255"):
                schedule += f" mask {given[3]}"
        if key.switch == "-u" and self._able.one_packet and self._random.random() < 0.2:
            words.append("-o")
            schedule += " ops"
        return words, schedule

    def _delete_service(self, key: Key) -> Command:
        words = ["-D", *key.words]
        if self.table.pop(key, None) is None:
            return Command(words, REFUSED, (NO_SERVICE,))
        return Command(words)

    def _zero(self, key: Key) -> Command:
        if key not in self.table:
            return Command(["-Z", *key.words], REFUSED, (NO_SERVICE,))
        return Command(["-Z", *key.words])

    # -- servers -----------------------------------------------------------------------------------------------

    def _server_at_random(self, key: Key) -> Command:
        there = [each for each in self.table if each not in declared()]  # the daemon puts back what is declared
        if there and self._random.random() < 0.8:
            key = self._random.choice(there)
        six = key.is_ipv6 if self._random.random() < 0.97 else not key.is_ipv6
        address = self._random.choice(["2001:db8::2:1", "2001:db8::2:2"] if six else ["10.2.0.9", "10.2.0.10", "10.2.0.11"])
        server = (address, self._random.choice([80, 8080]))
        if self._random.random() < 0.2:
            return self._delete_server(key, server)
        method, weight = self._random.choice(self._methods), self._random.choice([0, 1, 5, 65_535])
        if self._random.random() < 0.3:
            return self._edit_server(key, server, method, weight)
        return self._add_server(key, server, method, weight)

    @staticmethod
    def _reached(key: Key, server: tuple[str, int], method: str) -> tuple[str, int]:
        """Where a server is entered: nothing but NAT changes a port."""
        return server if method == "-m" or key.mark else (server[0], key.port)

    def _add_server(self, key: Key, server: tuple[str, int], method: str, weight: int) -> Command:
        words = ["-a", *key.words, "-r", place(*server), method, "-w", str(weight)]
        entered = self._reached(key, server, method)
        if (":" in server[0]) != key.is_ipv6 and method != "-i":
            return Command(words, USAGE, (OTHER_FAMILY,))
        if key not in self.table:
            return Command(words, REFUSED, (NOT_DEFINED,))
        if entered in self.table[key].servers:
            return Command(words, REFUSED, (SERVER_EXISTS,))
        self.table[key].servers[entered] = Server(method, weight)
        return Command(words)

    def _edit_server(self, key: Key, server: tuple[str, int], method: str, weight: int) -> Command:
        words = ["-e", *key.words, "-r", place(*server), method, "-w", str(weight)]
        entered = self._reached(key, server, method)
        if (":" in server[0]) != key.is_ipv6 and method != "-i":
            return Command(words, USAGE, (OTHER_FAMILY,))
        if key not in self.table:
            return Command(words, REFUSED, NOT_FOUND)
        if entered not in self.table[key].servers:
            return Command(words, REFUSED, (NO_SERVER,))
        self.table[key].servers[entered] = Server(method, weight)
        return Command(words)

    def _delete_server(self, key: Key, server: tuple[str, int]) -> Command:
        words = ["-d", *key.words, "-r", place(*server)]
        if key not in self.table:
            return Command(words, REFUSED, NOT_FOUND)
        if self.table[key].servers.pop(server, None) is None:
            return Command(words, REFUSED, (NO_SERVER,))
        return Command(words)


class Ipvsadm:
    """Runs command lines on the daemon of a cluster's only director."""

    def __init__(self, cluster: Cluster) -> None:
        self.run_dir = str(cluster.run_dir(cluster.topology.directors[0]))
        self.count = 0

    def run(self, *words: str, given: str = "") -> tuple[int, str, str]:
        """Return exit status, output and errors; now and then of a process."""
        self.count += 1
        if self.count % PROCESS_EVERY == 0:
            return self.run_process(*words, given=given)
        out, err = io.StringIO(), io.StringIO()
        status = Program(table_in_charge, io.StringIO(given), out, err).run(words)
        return status, out.getvalue(), err.getvalue()

    def run_process(self, *words: str, given: str = "") -> tuple[int, str, str]:
        command = [str(Path(sys.executable).with_name("relevo-ipvsadm")), *words]
        done = subprocess.run(command, input=given, check=False, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def listing(self) -> str:
        """The table, without the line that tells its size."""
        status, out, err = self.run("-L", "-n")
        assert (status, err) == (0, "")
        return out.partition("\n")[2]


@pytest.fixture(scope="module", params=["ebpf", "proxy"])
def plane(request: pytest.FixtureRequest, namespace_refusal: str) -> str:
    if namespace_refusal or os.geteuid() != 0:
        pytest.skip(namespace_refusal or "not root")
    if request.param == "ebpf" and ebpf.unavailable_reason():
        pytest.skip(f"no eBPF plane: {ebpf.unavailable_reason()}")
    return str(request.param)


@pytest.fixture(scope="module")
def ipvsadm(plane: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ipvsadm]:
    """ipvsadm, on a daemon whose file declares one service: without any it has no plane."""
    file = tmp_path_factory.mktemp("sequence") / "keepalived.conf"
    file.write_text(CONF.format(plane=plane))
    with build(Namespaces(), (str(file),), speed_up=1.0) as cluster, pytest.MonkeyPatch.context() as patch:
        run_all(cluster)
        made = Ipvsadm(cluster)
        patch.setenv("RELEVO_RUN_DIR", made.run_dir)
        assert cluster.snapshot(cluster.topology.directors[0]).balancer.plane == plane
        yield made


@pytest.fixture
def sequence(plane: str, ipvsadm: Ipvsadm) -> Sequence:
    """A sequence, on the table that the file declares."""
    clear(ipvsadm)
    return Sequence(catalogue.capabilities(plane), SEED)


def clear(ipvsadm: Ipvsadm) -> None:
    """Remove every service, and wait for the declared one to come again."""
    assert ipvsadm.run("-C") == (0, "", "")
    wait_until(lambda: ipvsadm.listing() == listing(declared()), AGAIN_S, "the declared service alone is in the table")


def carry_out(ipvsadm: Ipvsadm, sequence: Sequence, command: Command) -> None:
    status, out, err = ipvsadm.run(*command.words)
    line = shlex.join(command.words)
    assert (status, out) == (command.status, ""), f"{line}: {err}"
    assert err.removesuffix("\n") in command.messages, line
    if command.words == ["-C"]:
        wait_until(lambda: ipvsadm.listing() == listing(sequence.table), AGAIN_S, "the declared service is there again")
    assert ipvsadm.listing() == listing(sequence.table), line


def test_every_scheduler_on_every_kind_of_service(ipvsadm: Ipvsadm, sequence: Sequence) -> None:
    commands = 0
    for command in sequence.every_kind():
        carry_out(ipvsadm, sequence, command)
        commands += 1
    assert commands > 200


def test_the_listing_follows_every_command_and_what_is_saved_makes_it_again(ipvsadm: Ipvsadm, sequence: Sequence) -> None:
    statuses = set()
    for number, command in zip(range(COUNT), sequence.any(), strict=False):
        carry_out(ipvsadm, sequence, command)
        statuses.add((command.words[0], command.status))
        if number == COUNT // 4:
            carry_out(ipvsadm, sequence, sequence.flush())
    assert {(letter, status) for letter in ("-A", "-E", "-D", "-a", "-e", "-d", "-Z") for status in (0, REFUSED)} <= statuses
    assert len(sequence.table) > 5, "there is hardly anything to save"
    status, saved, err = ipvsadm.run_process("-S", "-n")
    assert (status, err) == (0, "")
    saved = "".join(f"{line}\n" for line in saved.splitlines() if "192.168.6.240:25" not in line)
    clear(ipvsadm)
    assert ipvsadm.run_process("-R", given=saved) == (0, "", "")
    assert ipvsadm.listing() == listing(sequence.table)
