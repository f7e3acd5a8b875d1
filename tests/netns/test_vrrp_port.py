"""The socket for adverts: in a flood the kernel passes on known senders, and a sample of the others."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from relevo.host.vrrp_port import RawPort, UdpPort
from relevo.lab.namespaces import NetworkNamespaces, bring_up, index_of, netlink
from relevo.node.effects import PortSpec
from relevo.node.flood import SAMPLE
from relevo.node.observation import Link
from relevo.wire.vrrp import Envelope

pytestmark = [pytest.mark.slow, pytest.mark.namespaces, pytest.mark.usefixtures("namespaces")]

OURS, MASTER, STRANGER = "10.3.0.1", "10.3.0.2", "10.3.0.3"
GROUP = "224.0.0.18"
COUNT = 64 * SAMPLE


@pytest.fixture
def cable() -> Iterator[tuple[NetworkNamespaces, Link]]:
    """Two namespaces, "here" with our address and "there" with those of two senders."""
    made = NetworkNamespaces()
    try:
        for name in ("here", "there"):
            made.make(name)
        with made.inside("here"), netlink() as net:
            net.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth0", "net_ns_pid": made.holder("there")})
            bring_up(net, "eth0")
            bring_up(net, "lo")
            index = index_of(net, "eth0")
            net.addr("add", index=index, address=OURS, prefixlen=24)
        with made.inside("there"), netlink() as net:
            bring_up(net, "eth0")
            for address in (MASTER, STRANGER):
                net.addr("add", index=index_of(net, "eth0"), address=address, prefixlen=24)
        yield made, Link("eth0", index, True, b"\2\0\0\0\0\1")
    finally:
        made.close()


def send(made: NetworkNamespaces, source: str, count: int, *, protocol: int = 112) -> None:
    kind = socket.SOCK_RAW if protocol == 112 else socket.SOCK_DGRAM
    with made.inside("there"), socket.socket(socket.AF_INET, kind, protocol) as sock:
        sock.bind((source, 0))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source))
        for _ in range(count):
            sock.sendto(b"advert", (GROUP, 0) if protocol == 112 else (OURS, 3117))


def received(port: RawPort | UdpPort) -> list[str]:
    found = []
    while (arrived := port.receive()) is not None:
        assert arrived.envelope is not None
        found.append(arrived.envelope.source)
    return found


@pytest.mark.parametrize("kind", ["raw", "udp"])
def test_in_a_flood_a_known_sender_is_heard_and_others_now_and_then(cable: tuple[NetworkNamespaces, Link], kind: str) -> None:
    made, link = cable
    with made.inside("here"):
        port = RawPort(PortSpec(OURS, link, GROUP), link) if kind == "raw" else UdpPort(OURS, 3117)
    protocol = 112 if kind == "raw" else 17
    try:
        send(made, STRANGER, 10, protocol=protocol)
        assert received(port) == [STRANGER] * 10
        assert port.limit([MASTER]) == ""
        heard: list[str] = []
        for _ in range(64):  # the queue holds no more than a sample and the known sender's
            send(made, STRANGER, COUNT // 64, protocol=protocol)
            send(made, MASTER, 1, protocol=protocol)
            heard += received(port)
        assert heard.count(MASTER) == 64
        assert 16 <= heard.count(STRANGER) <= 256, "64 on the average"
        assert port.limit([]) == ""
        send(made, MASTER, 100, protocol=protocol)
        assert len(received(port)) <= 5
        assert port.limit(None) == ""
        send(made, STRANGER, 10, protocol=protocol)
        assert received(port) == [STRANGER] * 10
    finally:
        port.close()


LINK_LOCAL = "fe80::1"


def test_the_same_over_ipv6(cable: tuple[NetworkNamespaces, Link]) -> None:
    made, link = cable
    senders = ("fe80::2", "fe80::3")
    for name, addresses in (("here", (LINK_LOCAL,)), ("there", senders)):
        with made.inside(name), netlink() as net:
            for address in addresses:
                net.addr("add", index=index_of(net, "eth0"), address=address, prefixlen=64, flags=0x02)
    with made.inside("here"):
        port = RawPort(PortSpec(LINK_LOCAL, link, "ff02::12"), link)

    def say(source: str, count: int) -> None:
        with made.inside("there"), socket.socket(socket.AF_INET6, socket.SOCK_RAW, 112) as sock:
            index = socket.if_nametoindex("eth0")
            sock.bind((source, 0, 0, index))
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            for _ in range(count):
                sock.sendto(b"advert", ("ff02::12", 0, 0, index))

    try:
        say(senders[0], 1)
        arrived = port.receive()
        assert arrived is not None
        assert (arrived.payload, arrived.envelope) == (b"advert", Envelope(senders[0], "ff02::12", 255))
        assert port.limit([f"fe80::4:{n}" for n in range(31)] + [senders[1]]) == ""
        say(senders[0], 40)
        say(senders[1], 5)
        heard = received(port)
        assert heard.count(senders[1]) == 5
        assert heard.count(senders[0]) <= 3
        assert port.limit(None) == ""
        say(senders[0], 10)
        assert received(port) == [senders[0]] * 10
    finally:
        port.close()


def test_a_filter_has_room_for_many_senders(cable: tuple[NetworkNamespaces, Link]) -> None:
    made, link = cable
    with made.inside("here"):
        port = RawPort(PortSpec(OURS, link, GROUP), link)
    try:
        assert port.limit([f"10.4.0.{n}" for n in range(31)] + [MASTER]) == ""
        send(made, MASTER, 5)
        assert received(port) == [MASTER] * 5
    finally:
        port.close()
