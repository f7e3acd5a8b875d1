"""Floods of everything that anybody can send, from one core, while traffic goes through the eBPF plane.

Adverts of lower priority, ARP claims of the virtual address, forged synchronisation with and without a key, requests to the
control socket, SYNs of forged clients; and nothing, whose gap the others are compared with. The run that each is compared with
sends the same to an interface that drops it, so that the sender's core is busy there too. Adverts come every 10 ms.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
from tests.netns.conftest import state_of, wait_for_state, wait_until
from tests.netns.test_forged_sync import SYNC_ID, forged_entry

from bench.failover import ping_gap
from bench.flood import SECONDS, cpu_s, frames
from bench.measure import show
from relevo.api import schema
from relevo.api.client import SOCKET_NAME
from relevo.daemon.configuration import compile_file
from relevo.host import libc
from relevo.lab.client import Client
from relevo.lab.cluster import Cluster
from relevo.lab.namespaces import bring_up, index_of, netlink
from relevo.lab.stages import Namespaces
from relevo.lab.topology import plan
from relevo.model import Endpoint
from relevo.wire import ipvs_sync
from relevo.wire.arp import ETHERTYPE
from relevo.wire.checksum import internet_checksum

VIP = "192.168.6.240"
WEB = Endpoint(VIP, 80)
ROUNDS = 3
FRAMES = 4096
SYNC_GROUP, SYNC_PORT = "224.0.0.81", 8848
GROUP_MAC = bytes.fromhex("01005e000051")
SENDER = bytes.fromhex("02aabbccddee")
CONF = """
global_defs {{
    router_id {name}
    data_plane ebpf
    lvs_sync_daemon eth0 VI_1
    {key}
}}
vrrp_instance VI_1 {{
    state BACKUP
    interface eth0
    virtual_router_id 51
    version 3
    priority {priority}
    advert_int 0.01
    virtual_ipaddress {{
        192.168.6.240/24
    }}
}}
virtual_server 192.168.6.240 80 {{
    delay_loop 2
    lb_algo rr
    lb_kind NAT
    protocol TCP
    real_server 192.168.6.4 80 {{
        TCP_CHECK {{
            connect_timeout 2
        }}
    }}
    real_server 192.168.6.5 80 {{
        TCP_CHECK {{
            connect_timeout 2
        }}
    }}
    sorry_server 192.168.6.2 80
}}
"""


def ethernet(source: str, destination: str, mac: bytes, protocol: int, payload: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 255, protocol, 0)
    head += socket.inet_aton(source) + socket.inet_aton(destination)
    return mac + SENDER + b"\x08\x00" + head[:10] + struct.pack("!H", internet_checksum(head)) + head[12:] + payload


def syns(mac: bytes) -> Iterator[bytes]:
    chosen = random.Random(7)
    while True:
        source = f"10.77.{chosen.randrange(128, 256)}.{chosen.randrange(1, 255)}"
        port, number = chosen.randrange(1024, 65536), chosen.randrange(1 << 32)
        body = struct.pack("!HHIIBBHHH", port, 80, number, 0, 0x50, 2, 64240, 0, 0)
        pseudo = socket.inet_aton(source) + socket.inet_aton(VIP) + struct.pack("!BBH", 0, 6, len(body))
        body = body[:16] + struct.pack("!H", internet_checksum(pseudo + body)) + body[18:]
        yield ethernet(source, VIP, mac, 6, body)


def claims(mac: bytes) -> Iterator[bytes]:
    """ARP answers to the director alone: those to everybody would take the address from the clients."""
    chosen = random.Random(7)
    while True:
        hardware = b"\x02" + chosen.randbytes(5)
        address = socket.inet_aton(VIP)
        yield mac + hardware + struct.pack("!HHHBBH", ETHERTYPE, 1, 0x0800, 6, 4, 2) + hardware + address + mac + address


def sync_messages(_mac: bytes) -> Iterator[bytes]:
    chosen = random.Random(7)
    while True:
        entries = [forged_entry(b"\x0a\x63" + chosen.randbytes(2), chosen.randrange(1024, 65536)) for _ in range(30)]
        for message in ipvs_sync.assemble(SYNC_ID, entries):
            udp = struct.pack("!HHHH", 40000, SYNC_PORT, 8 + len(message), 0) + message
            yield ethernet(f"192.168.6.{chosen.randrange(100, 200)}", SYNC_GROUP, GROUP_MAC, 17, udp)


def adverts(_mac: bytes) -> Iterator[bytes]:
    return itertools.cycle(frames("lower"))


NOTHING, CONTROL = "nothing", "control requests"
KINDS: dict[str, tuple[Callable[[bytes], Iterator[bytes]] | None, bool]] = {
    NOTHING: (None, False),
    "adverts of lower priority": (adverts, False),
    "ARP claims": (claims, False),
    "synchronisation": (sync_messages, False),
    "synchronisation, key": (sync_messages, True),
    CONTROL: (None, False),
    "SYNs": (syns, False),
}
"""What makes the frames, if these are frames, and whether the directors have a key."""


class Rig:
    """Two directors, two web servers, a client; the sorry server's machine is the attacker's."""

    def __init__(self, with_key: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="relevo-bench-"))
        key = self.folder / "key"
        key.write_text("a key of thirty-two bytes or so.")
        key.chmod(0o600)
        files = []
        for name, priority in (("director-1", 150), ("director-2", 100)):
            line = f"lvs_sync_key file:{key}" if with_key else ""
            (self.folder / f"{name}.conf").write_text(CONF.format(name=name, priority=priority, key=line))
            files.append(str(self.folder / f"{name}.conf"))
        self.cluster = Cluster(plan([(file, compile_file(file).configuration) for file in files]), Namespaces())
        self.client = self.cluster.topology.client
        self.attacker = self.cluster.topology.server_at("192.168.6.2")
        self.master, self.backup = self.cluster.topology.directors
        self.cluster.start_servers()
        for director in self.cluster.topology.directors:
            self.cluster.start_director(director)
        wait_for_state(self.cluster, self.master, "MASTER")
        wait_for_state(self.cluster, self.backup, "BACKUP")
        asks = Client(self.cluster.stage, self.client)
        wait_until(lambda: bool(asks.who(WEB)), 10, "the service answers")
        with self.cluster.stage.inside(self.attacker), netlink() as ip:
            ip.link("add", ifname="nowhere", kind="bridge")  # without a port it drops everything
            bring_up(ip, "nowhere")
        with self.cluster.stage.inside(self.client), netlink() as ip:  # wrk must be a client whose answers return by the director
            source = self.cluster.stage.client_address(0)
            ip.route("add", dst=f"{VIP}/32", oif=index_of(ip, "eth0"), prefsrc=source)
        with self.cluster.stage.inside(self.master), netlink() as ip:
            link = ip.get_links(index_of(ip, "eth0"))[0]
            self.mac = bytes.fromhex(str(link.get_attr("IFLA_ADDRESS")).replace(":", ""))

    def close(self) -> None:
        self.cluster.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def requests_per_s(self, seconds: float) -> float:
        """Pages that wrk gets through the plane."""
        wrk = shutil.which("wrk")
        assert wrk is not None, "wrk is not installed"
        with self.cluster.stage.inside(self.client):
            done = subprocess.run(
                [wrk, "-t1", "-c16", f"-d{seconds:.0f}", f"http://{VIP}:80/"], check=True, capture_output=True, text=True
            )
        found = re.search(r"Requests/sec:\s*([\d.]+)", done.stdout)
        return float(found.group(1)) if found else 0.0

    def logged(self) -> int:
        return max(self.cluster.log_file(host).stat().st_size for host in (self.master, self.backup))

    def transitions(self) -> int:
        return sum(self.cluster.log_text(host).count("Entering") for host in (self.master, self.backup))


class Flood:
    """A process that sends as fast as one core can: into the LAN, or ``nowhere``."""

    def __init__(self, rig: Rig, kind: str, nowhere: bool) -> None:
        make, _ = KINDS[kind]
        self._reader, writer = os.pipe()
        if kind == NOTHING:
            send = lambda count: time.sleep(0.01)  # noqa: E731
        elif make is None:
            send = _asks(rig, nowhere)
        else:
            packets = list(itertools.islice(make(rig.mac), FRAMES))
            with rig.cluster.stage.inside(rig.attacker):
                sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                sock.bind(("nowhere" if nowhere else "eth0", 0))
            send = lambda count: sock.send(packets[count % FRAMES])  # noqa: E731
        self._pid = os.fork()
        if self._pid == 0:
            libc.die_with_parent()
            ended: list[int] = []
            signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
            count = 0
            while not ended:
                try:
                    send(count)
                    count += 1
                except OSError:
                    continue
            os.write(writer, struct.pack("Q", count))
            os._exit(0)
        os.close(writer)

    def end(self) -> int:
        """End it; return how many it sent."""
        os.kill(self._pid, signal.SIGTERM)
        os.waitpid(self._pid, 0)
        (count,) = struct.unpack("Q", os.read(self._reader, 8))
        os.close(self._reader)
        return int(count)


def _asks(rig: Rig, nowhere: bool) -> Callable[[int], object]:
    """Open a connection to the control socket of the master for each request, and close it without reading the answer."""
    path = str(rig.cluster.run_dir(rig.master) / SOCKET_NAME)
    request = msgspec.json.encode(schema.Status()) + b"\n"

    def ask(_count: int) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(0.2)
            if not nowhere:
                sock.connect(path)
                sock.send(request)

    return ask


def measure(kind: str) -> list[str]:
    rig = Rig(KINDS[kind][1])
    try:
        rates: dict[bool, list[float]] = {True: [], False: []}
        seconds = SECONDS / 2
        sent, busy, logged = [], [], []
        entered = rig.transitions()
        for number in range(ROUNDS):
            for nowhere in (True, False) if number % 2 else (False, True):
                before = [cpu_s(rig.cluster, host) for host in (rig.master, rig.backup)], rig.logged()
                flood = Flood(rig, kind, nowhere)
                rates[nowhere].append(rig.requests_per_s(seconds))
                count = flood.end()
                print(f"    {rates[nowhere][-1]:,.0f} requests/s, {count:,} sent{' nowhere' if nowhere else ''}", file=sys.stderr)
                if not nowhere:
                    sent.append(count / seconds)
                    after = [cpu_s(rig.cluster, host) for host in (rig.master, rig.backup)], rig.logged()
                    busy.append([100 * (b - a) / seconds for a, b in zip(before[0], after[0], strict=True)])
                    logged.append((after[1] - before[1]) / seconds)
        false = rig.transitions() - entered
        assert state_of(rig.cluster, rig.master) == "MASTER"
        flood = Flood(rig, kind, False)
        time.sleep(0.5)
        gap = ping_gap(
            SimpleNamespace(cluster=rig.cluster, client=rig.client), lambda: rig.cluster.crash_director(rig.master), 2.0
        )
        flood.end()
        ratio = statistics.median(rates[False]) / statistics.median(rates[True])
        cpu = [statistics.median(each) for each in zip(*busy, strict=True)]
        return [
            kind,
            f"{statistics.median(sent):,.0f}/s",
            str(false),
            f"{gap * 1000:.1f} ms",
            f"{cpu[0]:.0f} %, {cpu[1]:.0f} %",
            f"{statistics.median(logged):,.0f} B/s",
            f"{statistics.median(rates[False]):,.0f}/s",
            f"{ratio:.3f}",
        ]
    finally:
        rig.close()


def main(chosen: list[str] | None = None) -> None:
    rows = []
    for kind in chosen or KINDS:
        print(f"  {kind}", file=sys.stderr)
        rows.append(measure(kind))
    header = ["flood", "sent", "false transitions", "gap of a crash", "CPU of master, backup", "log", "requests", "÷ without"]
    show("Floods, and traffic through the eBPF plane", rows, header)


if __name__ == "__main__":
    main(sys.argv[1:])
