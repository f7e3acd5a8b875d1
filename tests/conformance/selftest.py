"""The three scenarios of the kernel's own test of IPVS (tools/testing/selftests/net/netfilter/ipvs.sh), for every packet plane,
with and without forwarding.

A client and a server share a LAN, and server and director share another. The director has the virtual address, and with DR and
TUN the server has it too. With DR and TUN replies go straight to the client, with NAT through the director.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP

from relevo.lab.namespaces import NetworkNamespaces, await_carrier, bring_up, index_of, netlink
from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey
from relevo.model.table import AddServer, AddService, Operation, ServerEntry, ServiceEntry
from relevo.planes.port import Refused

PORT = 8080
DATA = bytes(range(32))
VIRTUAL = {4: "207.175.44.110", 6: "2001:db8::110"}
CLIENT = {4: "10.0.0.2", 6: "fd00:a::2"}
GATEWAY = {4: "10.0.0.1", 6: "fd00:a::1"}
DIRECTOR = {4: "172.16.0.1", 6: "fd00:b::1"}
SERVER = {4: "172.16.0.2", 6: "fd00:b::2"}
SIDE = {4: "10.0.0.3", 6: "fd00:a::3"}
LENGTH = {4: 24, 6: 64}
KIND = {4: socket.AF_INET, 6: socket.AF_INET6}
NO_ANSWER_S = 1.5
ANSWER_S = 30.0
"""An emulated machine that shares its processor may lose a packet while it resolves a neighbour; TCP sends it again."""


class Stage:
    """Namespaces ``client``, ``director`` and ``server``, addresses of both families, and the switches of the scenarios."""

    def __init__(self) -> None:
        self._spaces = NetworkNamespaces()
        for name in ("client", "director", "server"):
            self._spaces.make(name)
            with self._spaces.inside(name), netlink() as ip:
                bring_up(ip, "lo")
        self._cable("client", "veth01", "director", "veth10")
        self._cable("client", "veth02", "server", "veth20")
        self._cable("director", "veth12", "server", "veth21")
        with self.inside("client"), netlink() as ip:
            ip.link("add", ifname="br0", kind="bridge")
            for port in ("veth01", "veth02"):
                ip.link("set", index=index_of(ip, port), master=index_of(ip, "br0"))
            bring_up(ip, "br0")
            await_carrier(ip, "br0")
        for space, interface, addresses in (
            ("client", "br0", CLIENT),
            ("director", "veth10", GATEWAY),
            ("director", "veth12", DIRECTOR),
            ("server", "veth21", SERVER),
            ("server", "veth20", SIDE),
        ):
            for family, address in addresses.items():
                self.address(space, interface, address, LENGTH[family])
        for family, address in VIRTUAL.items():
            self.address("director", "lo", address, 32 if family == 4 else 128)
            self.route("client", address, GATEWAY[family])

    def _cable(self, first: str, name: str, second: str, other: str) -> None:
        with self.inside(first), netlink() as ip:
            ip.link("add", ifname=name, kind="veth", peer={"ifname": other})
            ip.link("set", index=index_of(ip, other), net_ns_pid=self._spaces.holder(second))
            bring_up(ip, name)
        with self.inside(second), netlink() as ip:
            bring_up(ip, other)
            await_carrier(ip, other)

    def inside(self, name: str) -> contextlib.AbstractContextManager[None]:
        return self._spaces.inside(name)

    def address(self, space: str, interface: str, address: str, length: int) -> None:
        extra: dict[str, Any] = {"flags": 2} if ":" in address else {}  # IFA_F_NODAD
        with self.inside(space), netlink() as ip:
            ip.addr("add", index=index_of(ip, interface), address=address, prefixlen=length, **extra)

    def route(self, space: str, destination: str, gateway: str) -> None:
        with self.inside(space), netlink() as ip:
            ip.route("add", dst=destination, gateway=gateway, family=10 if ":" in gateway else 2)

    def switch(self, space: str, name: str, value: int) -> None:
        with self.inside(space):
            Path(f"/proc/sys/net/{name}").write_text(str(value))

    def forward(self, on: int) -> None:
        """Switch forwarding of both families on the director."""
        self.switch("director", "ipv4/ip_forward", on)
        self.switch("director", "ipv6/conf/all/forwarding", on)

    def share_the_virtual_address(self) -> None:
        """Give the server the virtual address, without ARP for it on the LAN."""
        for name, value in (("arp_ignore", 1), ("arp_announce", 2), ("rp_filter", 0)):
            self.switch("server", f"ipv4/conf/all/{name}", value)
        for interface in ("veth20", "veth21"):
            self.switch("server", f"ipv4/conf/{interface}/rp_filter", 0)
        for family, address in VIRTUAL.items():
            self.address("server", "lo", address, 32 if family == 4 else 128)

    def reply_through_the_director(self) -> None:
        """Make the director the server's only route to the client."""
        with self.inside("server"), netlink() as ip:
            ip.link("del", index=index_of(ip, "veth20"))
        for family in VIRTUAL:
            self.route("server", "default" if family == 4 else "::/0", DIRECTOR[family])

    @contextlib.contextmanager
    def unwrapping(self) -> Iterator[None]:
        """Unwrap IPIP on the server in user space: not every kernel has the tunnel device."""
        with self.inside("server"):
            outer = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP)
            inner = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

        def unwrap() -> None:
            with contextlib.suppress(OSError):
                while packet := outer.recv(1 << 16):
                    within = IP(packet[20:])
                    del within.payload.chksum  # the client left it to checksum offload
                    inner.sendto(bytes(within), (VIRTUAL[4], 0))

        threading.Thread(target=unwrap, daemon=True).start()
        try:
            yield
        finally:
            outer.close()
            inner.close()

    def send(self, family: int, limit_s: float = ANSWER_S) -> bytes:
        """Send a client's data to the virtual service and return what the server reads.

        ``TimeoutError`` without a connection within ``limit_s``.
        """
        with self.inside("server"):
            listener = socket.socket(KIND[family])
        with self.inside("client"):
            client = socket.socket(KIND[family])
        with listener, client:
            listener.bind(("::" if family == 6 else "0.0.0.0", PORT))
            listener.listen()
            listener.settimeout(ANSWER_S)
            client.settimeout(limit_s)
            client.connect((VIRTUAL[family], PORT))
            client.sendall(DATA)
            client.shutdown(socket.SHUT_WR)
            accepted, _ = listener.accept()
            with accepted, accepted.makefile("rb") as reader:
                accepted.settimeout(ANSWER_S)
                return reader.read()

    def close(self) -> None:
        self._spaces.close()


class SelftestSuite:
    """A plane's test class defines the fixture ``apply``, which changes its table in the stage's director."""

    nat_needs_forwarding = False
    """Whether the kernel has to forward servers' answers."""

    @pytest.fixture
    def stage(self) -> Iterator[Stage]:
        made = Stage()
        yield made
        made.close()

    def serve(self, apply: Callable[..., list[Refused]], family: int, method: Forwarding) -> None:
        key = ServiceKey(Protocol.TCP, Endpoint(VIRTUAL[family], PORT))
        server = ServerEntry(endpoint=Endpoint(SERVER[family], PORT), forwarding=method)
        operations: tuple[Operation, ...] = (AddService(ServiceEntry(key=key, scheduler="rr")), AddServer(key, server))
        assert apply(*operations) == []

    @pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
    @pytest.mark.parametrize("forwarding", [0, 1], ids=["without-forwarding", "forwarding"])
    def test_direct_routing(self, stage: Stage, apply: Callable[..., list[Refused]], family: int, forwarding: int) -> None:
        stage.forward(forwarding)
        stage.share_the_virtual_address()
        self.serve(apply, family, Forwarding.DR)
        assert stage.send(family) == DATA

    @pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
    @pytest.mark.parametrize("forwarding", [0, 1], ids=["without-forwarding", "forwarding"])
    def test_nat(self, stage: Stage, apply: Callable[..., list[Refused]], family: int, forwarding: int) -> None:
        stage.forward(forwarding)
        stage.reply_through_the_director()
        self.serve(apply, family, Forwarding.NAT)
        if self.nat_needs_forwarding and not forwarding:
            with pytest.raises(TimeoutError):
                stage.send(family, NO_ANSWER_S)
            return
        assert stage.send(family) == DATA

    @pytest.mark.parametrize("forwarding", [0, 1], ids=["without-forwarding", "forwarding"])
    def test_tunnel(self, stage: Stage, apply: Callable[..., list[Refused]], forwarding: int) -> None:
        stage.forward(forwarding)
        stage.share_the_virtual_address()
        self.serve(apply, 4, Forwarding.TUN)
        with stage.unwrapping():
            assert stage.send(4) == DATA
