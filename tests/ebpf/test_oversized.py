"""Fragments in every order, and datagrams above the MTU, with real traffic: what arrives, and which errors the sender gets."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from itertools import count, permutations

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from relevo.lab.namespaces import index_of, netlink
from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey
from relevo.model.table import AddServer, AddService, ConnectionFilter, DeleteService, ServerEntry, ServiceEntry
from tests.ebpf.packets import ETH_P_ALL, FAMILIES
from tests.ebpf.rig import VIRTUAL, VIRTUAL_6, Network, Plane, running
from tests.unit.proxy.rig import wait_until

pytestmark = pytest.mark.usefixtures("ebpf")

NAT, TUN, FULLNAT = Forwarding.NAT, Forwarding.TUN, Forwarding.FULLNAT
SERVICE = {4: VIRTUAL, 6: VIRTUAL_6}
SERVER = {4: "10.2.0.11", 6: "fd00:2::11"}
CLIENT = {4: "10.1.0.2", 6: "fd00:1::2"}
KIND = {4: socket.AF_INET, 6: socket.AF_INET6}
SERVER_PORT = 8099
PAYLOAD = bytes(range(251)) * 15
IP_MTU_DISCOVER, IP_PMTUDISC_DONT, IP_PMTUDISC_DO = 10, 0, 2
NOTHING_S = 0.2
"""Pause after later traffic has arrived: a frame that has not arrived by then was not sent."""

ports = count(20_000)
orders = pytest.mark.parametrize("order", list(permutations(range(3))), ids=lambda order: "".join(map(str, order)))
families = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"IPv{family}")


@pytest.fixture(scope="module")
def network(ebpf: None) -> Iterator[Network]:
    made = Network()
    yield made
    made.close()


@pytest.fixture(scope="module")
def loaded(network: Network) -> Iterator[Plane]:
    with running(network, f"oversized-{os.getpid()}") as plane:
        yield plane


@pytest.fixture
def plane(loaded: Plane) -> Iterator[Plane]:
    yield loaded
    loaded.apply(*(DeleteService(state.service.key) for state in loaded.observe()))
    loaded.drop(ConnectionFilter())


class Bound:
    """A service of one server, a socket at each end, and a connection between them that a small datagram has opened."""

    def __init__(self, network: Network, plane: Plane, family: int, method: Forwarding = NAT, address: str = "") -> None:
        self.network, self.family = network, family
        self.port, self.client_port = next(ports), next(ports)
        key = ServiceKey(Protocol.UDP, Endpoint(SERVICE[family], self.port))
        endpoint = Endpoint(address or SERVER[family], self.port if method is TUN else SERVER_PORT)
        entry = ServerEntry(endpoint=endpoint, forwarding=method)
        assert plane.apply(AddService(ServiceEntry(key=key)), AddServer(key, entry)) == []
        self.server = network.socket("servers", socket.SOCK_DGRAM, KIND[family])
        self.server.bind((SERVICE[family] if method is TUN else SERVER[family], endpoint.port))
        self.client = network.socket("client", socket.SOCK_DGRAM, KIND[family])
        self.client.bind((CLIENT[family], self.client_port))
        self.client.connect((SERVICE[family], self.port))
        self.client.send(b"open")
        opened, self.peer = self.server.recvfrom(100)
        assert opened == b"open"

    def __enter__(self) -> Bound:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()
        self.client.close()

    def datagram(self, payload: bytes = PAYLOAD) -> Packet:
        """What the client could send."""
        transport = UDP(sport=self.client_port, dport=self.port) / payload
        return header(CLIENT[self.family], SERVICE[self.family]) / transport

    def answer(self, payload: bytes = PAYLOAD) -> Packet:
        """What the server could answer."""
        return header(SERVER[self.family], self.peer[0]) / UDP(sport=SERVER_PORT, dport=self.peer[1]) / payload


identifications = count(1)


def header(source: str, destination: str) -> Packet:
    if ":" in source:
        return IPv6(src=source, dst=destination) / IPv6ExtHdrFragment(id=next(identifications))
    return IP(src=source, dst=destination, id=next(identifications))


def in_pieces(packet: Packet) -> list[Packet]:
    return list(fragment(packet, 1400) if isinstance(packet, IP) else fragment6(packet, 1450))


def mac(network: Network, space: str, interface: str) -> str:
    with network.inside(space), netlink() as ip:
        return str(ip.get_links(index_of(ip, interface))[0].get_attr("IFLA_ADDRESS"))


def put_on_the_wire(network: Network, space: str, packets: Sequence[Packet]) -> None:
    """Send frames as they are to the director; their checksums are complete."""
    director = mac(network, "director", {"client": "outside", "servers": "inside"}[space])
    with network.inside(space), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", 0))
        for packet in packets:
            wire.send(bytes(Ether(dst=director, src=mac(network, space, "eth0")) / packet))


@contextlib.contextmanager
def seen_by_client(network: Network) -> Iterator[socket.socket]:
    """A socket with every frame that reaches the client."""
    with network.inside("client"):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    wire.bind(("eth0", ETH_P_ALL))
    wire.settimeout(NOTHING_S)
    with wire:
        yield wire


def sources(wire: socket.socket) -> set[str]:
    """The source addresses of what has come, until nothing more comes."""
    found = set()
    with contextlib.suppress(TimeoutError):
        while True:
            packet, (_, _, direction, *_) = wire.recvfrom(1 << 16)
            if direction == socket.PACKET_HOST and packet[0] >> 4 in (4, 6):
                found.add((IPv6 if packet[0] >> 4 == 6 else IP)(packet).src)
    return found


# -- fragments ---------------------------------------------------------------------------------------------------------


@families
@orders
@pytest.mark.parametrize("method", [NAT, FULLNAT], ids=lambda method: method.value)
def test_fragments_arrive_whatever_their_order(
    network: Network, plane: Plane, family: int, method: Forwarding, order: tuple[int, ...]
) -> None:
    with Bound(network, plane, family, method) as bound, seen_by_client(network) as wire:
        parts = in_pieces(bound.datagram())
        put_on_the_wire(network, "client", [parts[place] for place in order])
        assert bound.server.recv(1 << 16) == PAYLOAD
        parts = in_pieces(bound.answer())
        put_on_the_wire(network, "servers", [parts[place] for place in order])
        assert bound.client.recv(1 << 16) == PAYLOAD
        assert SERVER[family] not in sources(wire)


@families
def test_a_servers_fragments_without_their_first_do_not_leave_under_its_own_address(
    network: Network, plane: Plane, family: int
) -> None:
    with Bound(network, plane, family) as bound, seen_by_client(network) as wire:
        before = plane.reasons().get("again_held", 0)
        put_on_the_wire(network, "servers", in_pieces(bound.answer())[1:])
        bound.server.sendto(b"afterwards", bound.peer)
        assert bound.client.recv(100) == b"afterwards"
        assert SERVER[family] not in sources(wire)
        wait_until(lambda: plane.reasons().get("again_held", 0) == before + 2, "both are held")


# -- above the MTU -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def unwrapping(network: Network, address: str) -> Iterator[None]:
    """A tunnel endpoint at a server: passes the inner packet to the server's own stack. The kernel does not complete a
    partial checksum of the inner packet, so it is set to none.
    """
    with network.inside("servers"), netlink() as ip:
        ip.addr("add", index=index_of(ip, "lo"), address=VIRTUAL, prefixlen=32)
        outer = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP)
        inner = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    outer.bind((address, 0))

    def unwrap() -> None:
        with contextlib.suppress(OSError):
            while packet := bytearray(outer.recv(1 << 16)[20:]):
                if IP(bytes(packet)).frag == 0:
                    packet[26:28] = bytes(2)
                inner.sendto(packet, (VIRTUAL, 0))

    worker = threading.Thread(target=unwrap, daemon=True)
    worker.start()
    try:
        yield
    finally:
        outer.close()
        inner.close()
        with network.inside("servers"), netlink() as ip:
            ip.addr("del", index=index_of(ip, "lo"), address=VIRTUAL, prefixlen=32)


@pytest.mark.parametrize("length", [1472, 4000], ids=["whole", "fragments"])
def test_a_datagram_too_big_for_a_tunnel_arrives_if_it_may_be_fragmented(network: Network, plane: Plane, length: int) -> None:
    payload = (PAYLOAD * 2)[:length]
    with unwrapping(network, "10.2.0.14"), Bound(network, plane, 4, TUN, "10.2.0.14") as bound:
        packet = bound.datagram(payload)
        put_on_the_wire(network, "client", [packet] if length == 1472 else list(fragment(packet, 1480)))
        assert bound.server.recv(1 << 16) == payload


def test_a_datagram_with_a_partial_checksum_gets_an_error_and_is_then_sent_in_fragments(network: Network, plane: Plane) -> None:
    """A neighbour on the same machine: no program can finish the checksum, and the kernel would do it over the piece."""
    with unwrapping(network, "10.2.0.14"), Bound(network, plane, 4, TUN, "10.2.0.14") as bound:
        bound.client.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        before = plane.reasons().get("refused_too_big", 0)
        bound.client.send(PAYLOAD[:1472])
        wait_until(lambda: plane.reasons().get("refused_too_big", 0) > before, "an error is sent")
        bound.client.send(PAYLOAD[:1472])
        assert bound.server.recv(1 << 16) == PAYLOAD[:1472]


@families
def test_a_datagram_too_big_that_may_not_be_fragmented_is_an_error_to_its_sender(
    network: Network, plane: Plane, family: int
) -> None:
    with network.inside("director"), netlink() as ip:
        index = index_of(ip, "inside")
        ip.link("set", index=index, mtu=1400)
    try:
        with Bound(network, plane, family) as bound:
            level, option = (socket.IPPROTO_IP, IP_MTU_DISCOVER) if family == 4 else (socket.IPPROTO_IPV6, 23)
            bound.client.setsockopt(level, option, IP_PMTUDISC_DO)
            bound.client.send(PAYLOAD[:1440])
            wait_until(lambda: refusal(bound.client, PAYLOAD[:1440]) == errno.EMSGSIZE, "the sender knows")
    finally:
        with network.inside("director"), netlink() as ip:
            ip.link("set", index=index, mtu=1500)


def refusal(sock: socket.socket, payload: bytes) -> int:
    """Why a datagram could not be sent; 0 when it could."""
    try:
        sock.send(payload)
    except OSError as error:
        return error.errno or 0
    return 0


@contextlib.contextmanager
def without_offload(network: Network) -> Iterator[None]:
    """The director's device towards the client finishes no checksums: its kernel does."""
    set_checksums, ethtool = 0x17, 0x8946

    def switch(on: int) -> None:
        value = ctypes.create_string_buffer(struct.pack("II", set_checksums, on), 8)
        with network.inside("director"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, ethtool, struct.pack("16sQ16x", b"outside", ctypes.addressof(value)))

    switch(0)
    try:
        yield
    finally:
        switch(1)


@families
@pytest.mark.parametrize("length", [0, 1, 500, 519, 520, 521, 1184, 1185, 1400])
def test_an_error_that_quotes_a_partial_checksum_is_correct(network: Network, plane: Plane, family: int, length: int) -> None:
    """A neighbour's checksum is only begun; the client believes no error whose own checksum is wrong."""
    key = ServiceKey(Protocol.UDP, Endpoint(SERVICE[family], next(ports)))
    assert plane.apply(AddService(ServiceEntry(key=key))) == []
    with without_offload(network), network.socket("client", socket.SOCK_DGRAM, KIND[family]) as client:
        client.connect((key.endpoint.address, key.endpoint.port))
        client.send(PAYLOAD[:length])
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)


def test_a_jumbo_frame_is_cut_for_a_server_behind_a_smaller_link(network: Network, plane: Plane) -> None:
    ends = (("client", "eth0"), ("director", "outside"))
    try:
        with Bound(network, plane, 4) as bound:
            resize(network, ends, 9000)
            payload = (PAYLOAD * 3)[:8972]
            put_on_the_wire(network, "client", [bound.datagram(payload)])
            assert bound.server.recv(1 << 16) == payload
    finally:
        resize(network, ends, 1500)


def resize(network: Network, ends: Sequence[tuple[str, str]], mtu: int) -> None:
    for space, interface in ends:
        with network.inside(space), netlink() as ip:
            ip.link("set", index=index_of(ip, interface), mtu=mtu)
