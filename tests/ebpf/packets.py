"""Single packets through the eBPF programs, by test runs in the kernel: a director with permanent neighbours, frames for it, and
scapy for what must come out."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
    fragment6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from relevo.lab.namespaces import NetworkNamespaces, bring_up, index_of, netlink
from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey
from relevo.model.table import AddServer, AddService, DeleteService, Operation, ServerEntry, ServiceEntry
from relevo.planes.ebpf import EbpfPlane, syscall
from relevo.planes.ebpf.instance import ROOT, Sizes
from relevo.planes.ebpf.layout import (
    BUCKET_SLOTS,
    LAST_SYNC_RETRIES,
    Connection,
    ConnectionFlag,
    Counters,
    ServerValue,
    ServiceValue,
    TcpState,
    packed,
    port_from,
    port_to,
)
from relevo.planes.ebpf.reasons import Reason

PASS, SHOT, REDIRECT = 0xFFFFFFFF, 2, 7  # TC_ACT_UNSPEC: on to the next program
XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = 1, 2, 3, 4

ETHERNET = 14
ETH_P_ALL = 3
MARKER = 0x88B5  # an EtherType for experiments
NOWHERE = 0xFFFFFFFF
SMALL = Sizes(connections=2048, services=64, servers=256, server_lists=1 << 19, sync_ring=1 << 16)

VIRTUAL = {4: "10.1.0.240", 6: "fd00:1::240"}
GATEWAY = {4: "10.1.0.2", 6: "fd00:1::2"}
CLIENT = {4: "10.7.0.2", 6: "fd00:7::2"}
NARROW_CLIENT = {4: "10.8.0.2", 6: "fd00:8::2"}
SERVER = {4: "10.2.0.11", 6: "fd00:2::11"}
SECOND = {4: "10.2.0.12", 6: "fd00:2::12"}
NARROW = {4: "10.2.0.14", 6: "fd00:2::14"}
SILENT = {4: "10.2.0.99", 6: "fd00:2::99"}
UNREACHABLE = {4: "10.3.0.1", 6: "fd00:3::1"}
LOCAL = {4: "10.2.0.1", 6: "fd00:2::1"}
NARROW_MTU = 1280
PORT, SERVER_PORT, CLIENT_PORT = 80, 8080, 40_000

OUTSIDE_MAC, INSIDE_MAC = "02:00:00:00:01:01", "02:00:00:00:02:01"
GATEWAY_MAC, SERVER_MAC = "02:00:00:00:01:02", "02:00:00:00:02:0b"

FAMILIES = (4, 6)
TRANSPORTS = {Protocol.TCP: 6, Protocol.UDP: 17}

_SK_BUFF, _MARK, _IFINDEX, _GSO_SEGS, _GSO_SIZE = 192, 8, 40, 164, 176


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict, the frame as the program left it, and the reasons that it counted."""

    verdict: int
    frame: bytes
    reasons: dict[Reason, int]

    @property
    def packet(self) -> bytes:
        """What follows the Ethernet header."""
        return self.frame[ETHERNET:]


class Director:
    """A plane attached to no interface, in a namespace with an outside and an inside; test runs choose the ingress interface."""

    def __init__(self) -> None:
        self._spaces = NetworkNamespaces()
        for name in ("director", "elsewhere"):
            self._spaces.make(name)
        with self._spaces.inside("director"), netlink() as ip:
            bring_up(ip, "lo")
            self.outside, self.inside = (self._cable(ip, name) for name in ("outside", "inside"))
        with self._spaces.inside("elsewhere"), netlink() as ip:
            for name in ("outside", "inside"):
                bring_up(ip, name)
        with self._spaces.inside("director"), netlink() as ip:
            for interface, mac in ((self.outside, OUTSIDE_MAC), (self.inside, INSIDE_MAC)):
                ip.link("set", index=interface, address=mac)
                ip.link("set", index=interface, state="up")
            self._address(ip)
            self._route(ip)
            self.path = ROOT / "relevo" / f"packets-{os.getpid()}"
            shutil.rmtree(self.path, ignore_errors=True)
            self.plane = EbpfPlane(self.path, SMALL, attach=False)
            self.instance, self.table = self.plane.open()
        self.settings = self.instance.settings
        self.settings.replies_per_second = 1 << 30
        self._usual = bytes(self.settings)
        self._neighbours_kept = False
        self._tc, self._xdp = (self.instance.programs[f"relevo_{hook}"] for hook in ("tc", "xdp"))

    def _cable(self, ip: Any, name: str) -> int:
        ip.link("add", ifname=name, kind="veth", peer={"ifname": name, "net_ns_pid": self._spaces.holder("elsewhere")})
        return index_of(ip, name)

    def _address(self, ip: Any) -> None:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        for interface, *addresses in (
            (self.outside, "10.1.0.1/24", "fd00:1::1/64", f"{VIRTUAL[4]}/32", f"{VIRTUAL[6]}/128"),
            (self.inside, f"{LOCAL[4]}/24", f"{LOCAL[6]}/64"),
        ):
            for address in addresses:
                text, length = address.split("/")
                extra: dict[str, Any] = {"flags": 2} if ":" in text else {}  # IFA_F_NODAD
                ip.addr("add", index=interface, address=text, prefixlen=int(length), **extra)

    def _route(self, ip: Any) -> None:
        for family in FAMILIES:
            self._neighbour(ip, self.outside, GATEWAY[family], GATEWAY_MAC)
            for last in range(4):
                self._neighbour(ip, self.inside, f"{SERVER[family][:-2]}{11 + last}", f"02:00:00:00:02:{11 + last:02x}")
            plain: dict[str, Any] = {"gateway": GATEWAY[family], "family": 2 if family == 4 else 10}
            clients, narrow, away = ("10.7.0.0/16", "10.8.0.0/16", "10.3.0.0/16") if family == 4 else NETWORKS_6
            ip.route("add", dst=clients, **plain)
            ip.route("add", dst=narrow, metrics={"mtu": NARROW_MTU, "lock": 1 << 2}, **plain)
            ip.route(
                "add",
                dst=f"{NARROW[family]}/{32 if family == 4 else 128}",
                oif=self.inside,
                metrics={"mtu": NARROW_MTU, "lock": 1 << 2},
            )
            ip.route("add", dst=away, type="unreachable", family=plain["family"])

    @staticmethod
    def _neighbour(ip: Any, interface: int, address: str, mac: str) -> None:
        ip.neigh("add", dst=address, lladdr=mac, ifindex=interface, state=0x80, family=10 if ":" in address else 2)

    # -- a test's turn -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Enter the director's namespace, on one CPU; reset everything afterwards and check that no count is left over."""
        cpus = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cpus)})
        try:
            with self._spaces.inside("director"):
                try:
                    yield
                    self.delete_all()
                    left = self.leftovers()
                finally:
                    self._tidy()
                assert not left, left
        finally:
            os.sched_setaffinity(0, cpus)

    def _tidy(self) -> None:
        self.delete_all()
        for key in self._keys("translations"):
            self.instance.maps["translations"].delete(key)
        ctypes.memmove(ctypes.byref(self.settings), self._usual, len(self._usual))
        asyncio.run(self.plane.set_local(frozenset(), frozenset()))
        self.apply(*(DeleteService(key) for key in list(self.table.services)))
        for name in ("fragments", "held"):
            for key in self._keys(name):
                self.instance.maps[name].delete(key)
        if self._neighbours_kept:
            self.forget_neighbours()

    def _keys(self, name: str) -> list[bytes]:
        return [*self.instance.maps[name].keys()]

    def leftovers(self) -> list[str]:
        """Counts that are left although the connection table is empty."""
        left = ["translations" for _ in self._keys("translations")]
        for first, memory in self.instance.maps["buckets"].chunks(self.instance.maps["buckets"].max_entries):
            size = self.instance.maps["buckets"].value_size
            spilled = (bytes(memory[i : i + 8]) for i in range(0, len(memory), size))
            left += [f"bucket {first + i} has spilled" for i, data in enumerate(spilled) if data[4:] != bytes(4)]
        for service in self.table.services.values():
            for server in service.servers:
                held = (server.value.active, server.value.inactive, server.value.templates)
                if any(held):
                    left.append(f"{server.entry.endpoint} holds {held}")
        return left

    def close(self) -> None:
        with self._spaces.inside("director"):
            asyncio.run(self.plane.remove())
        shutil.rmtree(self.path, ignore_errors=True)
        self._spaces.close()

    # -- the table -----------------------------------------------------------------------------------------------------

    def apply(self, *operations: Operation) -> None:
        """Change the table; nothing may be refused."""
        refused = asyncio.run(self.plane.apply(operations))
        assert not refused, refused

    def serve(
        self,
        family: int = 4,
        protocol: Protocol = Protocol.TCP,
        *servers: ServerEntry,
        port: int = PORT,
        **fields: Any,
    ) -> ServiceKey:
        """A virtual service with its servers; without any, one by NAT at another port."""
        key = ServiceKey(protocol, Endpoint(VIRTUAL[family], port))
        entries = servers or (server(SERVER[family]),)
        self.apply(AddService(ServiceEntry(key=key, **fields)), *(AddServer(key, entry) for entry in entries))
        return key

    def service(self, key: ServiceKey) -> ServiceValue:
        """A service as the programs read it."""
        return self.table.services[key].value

    def server(self, key: ServiceKey, address: str = "") -> ServerValue:
        """A server of a service as the programs read it; the only one unless an address is given."""
        return self._find(key, address).value

    def number(self, key: ServiceKey, address: str = "") -> int:
        """The index of a server."""
        return self._find(key, address).number

    def _find(self, key: ServiceKey, address: str) -> Any:
        servers = self.table.services[key].servers
        return next(each for each in servers if address in ("", each.entry.endpoint.address))

    def traffic(self, key: ServiceKey) -> Counters:
        """What the service's only server has been counted."""
        return self.table._traffic(self.number(key))

    # -- connections ---------------------------------------------------------------------------------------------------

    def entries(self) -> list[tuple[int, Connection]]:
        """Every entry of the table, with its slot."""
        return [
            (index * BUCKET_SLOTS + slot, bucket.slot[slot])
            for index, bucket in self.instance.buckets()
            for slot in range(BUCKET_SLOTS)
            if bucket.tag[slot]
        ]

    def connections(self) -> list[Connection]:
        """Connections, without templates."""
        return [entry for _, entry in self.entries() if not entry.flags & ConnectionFlag.TEMPLATE]

    def templates(self) -> list[Connection]:
        """Persistence templates."""
        return [entry for _, entry in self.entries() if entry.flags & ConnectionFlag.TEMPLATE]

    def connection(self) -> Connection:
        """The only connection."""
        (found,) = self.connections()
        return found

    def insert(
        self,
        key: ServiceKey,
        state: TcpState = TcpState.ESTABLISHED,
        *,
        client: str = "",
        client_port: int = CLIENT_PORT,
        flags: int = 0,
        expires_s: float = 60,
        address: str = "",
        protocol: Protocol = Protocol.TCP,
        packets: int = 0,
    ) -> int:
        """Insert a connection to a server of a service; return its slot."""
        family = 6 if ":" in key.endpoint.address else 4
        entry = Connection()
        entry.client.bytes[:] = packed(client or CLIENT[family])
        entry.virtual.bytes[:] = packed(key.endpoint.address)
        entry.client_port, entry.virtual_port = port_to(client_port), port_to(key.endpoint.port)
        entry.packets = packets
        entry.protocol, entry.state = TRANSPORTS[protocol], state
        entry.flags = flags | (ConnectionFlag.ACTIVE if state in ACTIVE else 0)
        entry.server, entry.generation = self.number(key, address), self.server(key, address).generation
        entry.expires = int(expires_s * self.settings.hz) & 0xFFFFFFFF
        ((_, place),) = self.instance.insert([bytes(entry)])
        return place

    def delete_all_but_templates(self) -> None:
        """Delete everything except templates."""
        for place, entry in self.entries():
            if not entry.flags & ConnectionFlag.TEMPLATE:
                assert self.instance.delete(place, entry.client_port)

    def delete_all(self) -> None:
        """Delete every entry."""
        for place, entry in self.entries():
            assert self.instance.delete(place, entry.client_port)

    def let_pass(self, seconds: float, *, idle: bool = False) -> None:
        """Move every last sync so many seconds into the past, and with ``idle`` the last packet too."""
        jiffies = int(seconds * self.settings.hz)
        ticks = jiffies >> self.settings.tick_shift
        for index, bucket in self.instance.buckets():
            for entry in bucket.slot:
                if idle:
                    entry.expires = (entry.expires - jiffies) & 0xFFFFFFFF
                if entry.last_sync:
                    entry.last_sync = (entry.last_sync - (ticks << LAST_SYNC_RETRIES.bit_length())) & 0xFFFF
            self.instance.maps["buckets"].update(index.to_bytes(4, "little"), bytes(bucket))

    def expires_in(self, entry: Connection) -> float:
        """Seconds until an entry expires."""
        left = (entry.expires - self.instance.jiffies()) & 0xFFFFFFFF
        return (left - (1 << 32) if left >> 31 else left) / self.settings.hz

    # -- runs ----------------------------------------------------------------------------------------------------------

    def run(self, packet: Packet | bytes, interface: int = 0, *, gso_size: int = 0, mark: int = 0) -> tuple[int, bytes]:
        """One run of the TC program; verdict and frame."""
        context = bytearray(_SK_BUFF)
        context[_IFINDEX : _IFINDEX + 4] = (interface or self.outside).to_bytes(4, "little")
        context[_MARK : _MARK + 4] = mark.to_bytes(4, "little")
        if gso_size:
            context[_GSO_SEGS : _GSO_SEGS + 4] = (2).to_bytes(4, "little")
            context[_GSO_SIZE : _GSO_SIZE + 4] = gso_size.to_bytes(4, "little")
        ran = syscall.test_run(self._tc, bytes(packet), context=bytes(context))
        return ran.value, ran.data

    def tc(self, packet: Packet | bytes, interface: int = 0, *, gso_size: int = 0) -> Outcome:
        """One run of the TC program on a frame, by default from the outside interface."""
        return self._counted(lambda: self.run(packet, interface, gso_size=gso_size))

    def xdp(self, packet: Packet | bytes, context: bytes = b"") -> Outcome:
        """One run of the XDP program."""

        def run() -> tuple[int, bytes]:
            ran = syscall.test_run(self._xdp, bytes(packet), context=context)
            return ran.value, ran.data

        return self._counted(run)

    def _counted(self, run: Callable[[], tuple[int, bytes]]) -> Outcome:
        before = self.instance.reasons()
        verdict, frame = run()
        after = self.instance.reasons()
        return Outcome(verdict, frame, {Reason(i): after[i] - before[i] for i in range(len(after)) if after[i] != before[i]})

    @contextlib.contextmanager
    def returning(self, interface: int = 0) -> Iterator[Callable[[], list[bytes]]]:
        """Yield a function that returns the frames that runs have sent to an interface\'s ingress since its last call. No program
        is attached there.
        """
        with listening(socket.if_indextoname(interface or self.outside), ETH_P_ALL) as returned, listening("lo", MARKER) as last:
            returned.setblocking(False)

            def read() -> list[bytes]:
                last.send(bytes(12) + MARKER.to_bytes(2, "big") + bytes(46))
                while last.recvfrom(100)[1][2] != socket.PACKET_HOST:
                    continue  # a CPU has one queue for all interfaces: once it has come, so has what was put back before it
                found = []
                with contextlib.suppress(BlockingIOError):
                    while True:
                        frame, (_, _, direction, *_) = returned.recvfrom(1 << 16)
                        if direction == socket.PACKET_HOST:
                            found.append(frame)
                return found

            yield read

    def forget_neighbours(self) -> None:
        """Clear the neighbour cache."""
        self._neighbours_kept = False
        neighbours = self.instance.maps["neighbours"]
        for key in range(neighbours.max_entries):
            neighbours.update(key.to_bytes(4, "little"), bytes(neighbours.value_size))

    def keep_neighbours(self) -> None:
        """Make cached neighbours outlast the test."""
        self.settings.hz *= 1000
        self._neighbours_kept = True


def listening(interface: str, protocol: int) -> socket.socket:
    """A socket with the frames of an interface of this namespace."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    made.bind((interface, protocol))
    made.settimeout(5)
    return made


NETWORKS_6 = ("fd00:7::/64", "fd00:8::/64", "fd00:3::/64")
ACTIVE = frozenset((TcpState.ESTABLISHED, TcpState.SYN_SENT, TcpState.SYN_RECV, TcpState.SYNACK))


def server(address: str, port: int = SERVER_PORT, **fields: Any) -> ServerEntry:
    """A server, by default with NAT; DR and TUN servers have the service's port."""
    if fields.get("forwarding") in (Forwarding.DR, Forwarding.TUN):
        port = PORT
    return ServerEntry(endpoint=Endpoint(address, port), **fields)


def from_client(packet: Packet) -> Packet:
    """A frame from the client's side."""
    return Ether(src=GATEWAY_MAC, dst=OUTSIDE_MAC) / packet


def from_server(packet: Packet) -> Packet:
    """A frame from the servers' side."""
    return Ether(src=SERVER_MAC, dst=INSIDE_MAC) / packet


def ip(source: str, destination: str, ttl: int = 64, **fields: Any) -> Packet:
    """An IP header of the addresses' family."""
    if ":" in source:
        return IPv6(src=source, dst=destination, hlim=ttl, **fields)
    return IP(src=source, dst=destination, ttl=ttl, **fields)


@dataclass(frozen=True, slots=True)
class Kind:
    """A transport as the tables of tests name it, and how a packet of it is made."""

    name: str
    protocol: Protocol
    make: Callable[[int, int], Packet]

    def __str__(self) -> str:
        return self.name


def _syn(source: int, destination: int) -> Packet:
    return TCP(sport=source, dport=destination, flags="S", seq=1000, options=[("MSS", 1460)])


def _segment(source: int, destination: int) -> Packet:
    return TCP(sport=source, dport=destination, flags="PA", seq=1000, ack=7) / Raw(b"stream")


KINDS = (
    Kind("TCP", Protocol.TCP, _syn),
    Kind("UDP", Protocol.UDP, lambda source, destination: UDP(sport=source, dport=destination) / Raw(b"datagram")),
    Kind("UDP-without-checksum", Protocol.UDP, lambda s, d: UDP(sport=s, dport=d, chksum=0) / Raw(b"datagram")),
)
SEGMENT = Kind("segment", Protocol.TCP, _segment)


def syn(family: int = 4, port: int = CLIENT_PORT, *, client: str = "", flags: str = "S", ttl: int = 64) -> Packet:
    """A client's segment to the virtual service."""
    return from_client(ip(client or CLIENT[family], VIRTUAL[family], ttl) / TCP(sport=port, dport=PORT, flags=flags, seq=1000))


def datagram(
    family: int = 4, port: int = CLIENT_PORT, payload: bytes = b"datagram", *, client: str = "", ttl: int = 64
) -> Packet:
    """A client's datagram to the virtual service."""
    header = ip(client or CLIENT[family], VIRTUAL[family], ttl)
    return from_client(header / UDP(sport=port, dport=PORT) / Raw(payload))


BIG = bytes(range(256)) * 10
"""A datagram's payload that takes three fragments."""


def pieces(packet: Packet) -> list[Packet]:
    """A packet in fragments."""
    if isinstance(packet, IP):
        return list(fragment(packet, 1000))
    with_header = IPv6(src=packet.src, dst=packet.dst, hlim=packet.hlim) / IPv6ExtHdrFragment(id=4711) / packet.payload
    return list(fragment6(with_header, 1100))


def local_port(entry: Connection) -> int:
    """The local port of a FULLNAT connection."""
    return port_from(entry.local_port)


def checksums_are_right(packet: bytes) -> bool:
    """Whether scapy would compute every checksum of an IP packet as it is. The packet quoted in an ICMP error is not checked."""
    wanted = (IPv6 if packet[0] >> 4 == 6 else IP)(packet)
    each = wanted
    while each:
        for name in ("chksum", "cksum"):
            if name in each.fields and not (isinstance(each, UDP) and each.chksum == 0):
                delattr(each, name)
        if isinstance(each, ICMP | ICMPv6DestUnreach | ICMPv6PacketTooBig | ICMPv6TimeExceeded) and each.payload:
            each.payload = Raw(bytes(each.payload.original))
        each = each.payload
    return bytes(wanted) == packet
