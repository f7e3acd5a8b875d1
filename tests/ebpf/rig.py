"""Client, director and servers in namespaces of their own, joined by veth; an eBPF plane on the director."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from relevo.lab.namespaces import NetworkNamespaces, await_carrier, bring_up, index_of, netlink
from relevo.model import Endpoint, Protocol
from relevo.model.table import Connection, ConnectionFilter, Operation, ServiceState
from relevo.planes.ebpf import EbpfPlane, syscall
from relevo.planes.ebpf.instance import ROOT, Sizes
from relevo.planes.port import Refused

VIRTUAL = "10.1.0.240"
VIRTUAL_6 = "fd00:1::240"
PORT = 8080
NAMES = "ABCD"
SMALL = Sizes(connections=8192, services=256, servers=1024, server_lists=1 << 18)


class Network:
    """Namespaces ``client``, ``director``, ``servers``, and ``neighbour`` on the servers' LAN; addresses of both families."""

    def __init__(self) -> None:
        self._spaces = NetworkNamespaces()
        for name in ("client", "director", "servers", "neighbour", "lan"):
            self._spaces.make(name)
            with self._spaces.inside(name), netlink() as ip:
                bring_up(ip, "lo")
        self._cable("client", "eth0", "director", "outside")
        with self._spaces.inside("lan"), netlink() as ip:
            ip.link("add", ifname="br0", kind="bridge")
            bring_up(ip, "br0")
        for name, interface in (("servers", "eth0"), ("director", "inside"), ("neighbour", "eth0")):
            self._cable(name, interface, "lan", f"p-{name}")
            with self._spaces.inside("lan"), netlink() as ip:
                ip.link("set", index=index_of(ip, f"p-{name}"), master=index_of(ip, "br0"))
        self._cable("servers", "side", "client", "flank")
        self._give("servers", "side", "10.3.0.2/24")
        self._give("client", "flank", "10.3.0.1/24")
        self._give("neighbour", "eth0", "10.2.0.99/24")
        self._give("director", "outside", "10.1.0.1/24", "10.1.0.240/32", "fd00:1::1/64", "fd00:1::240/128")
        self._give("director", "inside", "10.2.0.1/24", "fd00:2::1/64")
        self._give("client", "eth0", "10.1.0.2/24", "fd00:1::2/64")
        self._give("servers", "eth0", *(f"10.2.0.{11 + i}/24" for i in range(4)), *(f"fd00:2::{11 + i}/64" for i in range(4)))
        with self._spaces.inside("director"), netlink() as ip:
            ip.route("add", dst="10.7.0.0/16", gateway="10.1.0.2")
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        for name, gateway in (("client", "10.1.0.1"), ("servers", "10.2.0.1")):
            with self._spaces.inside(name), netlink() as ip:
                ip.route("add", dst="default", gateway=gateway)
                ip.route(
                    "add", dst="default", gateway=gateway.replace("10.1.0.", "fd00:1::").replace("10.2.0.", "fd00:2::"), family=10
                )
        with self._spaces.inside("client"), netlink() as ip:
            ip.route("add", dst="10.7.0.0/16", oif=index_of(ip, "lo"), type="local", table=255, scope=254)

    def _cable(self, first: str, name: str, second: str, other: str) -> None:
        with self._spaces.inside(first), netlink() as ip:
            ip.link("add", ifname=name, kind="veth", peer={"ifname": other})
            ip.link("set", index=index_of(ip, other), net_ns_pid=self._spaces.holder(second))
            bring_up(ip, name)
        with self._spaces.inside(second), netlink() as ip:
            bring_up(ip, other)
            await_carrier(ip, other)

    def _give(self, space: str, interface: str, *addresses: str) -> None:
        with self._spaces.inside(space), netlink() as ip:
            for address in addresses:
                text, length = address.split("/")
                extra: dict[str, Any] = {"flags": 2} if ":" in text else {}  # IFA_F_NODAD
                ip.addr("add", index=index_of(ip, interface), address=text, prefixlen=int(length), **extra)

    def inside(self, name: str) -> contextlib.AbstractContextManager[None]:
        return self._spaces.inside(name)

    def socket(self, space: str, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
        """A socket that lives in a namespace."""
        with self.inside(space):
            made = socket.socket(family, kind)
        made.settimeout(5.0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return made

    def close(self) -> None:
        self._spaces.close()


class Servers:
    """A, B, C and D for connections and datagrams: each says its name, echoes, and outlives a client's half-close."""

    def __init__(self, network: Network, space: str = "servers", addresses: dict[str, str] | None = None) -> None:
        self._network, self._space = network, space
        self._lock = threading.Lock()
        self._held: list[socket.socket] = []
        self._listening: list[socket.socket] = []
        self.addresses = addresses or {name: f"10.2.0.{11 + i}" for i, name in enumerate(NAMES)}
        for name, address in self.addresses.items():
            self.serve(name, Endpoint(address, PORT))

    def serve(self, name: str, endpoint: Endpoint) -> None:
        family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
        stream = self._network.socket(self._space, socket.SOCK_STREAM, family)
        stream.settimeout(None)
        stream.bind((endpoint.address, endpoint.port))
        stream.listen(512)
        datagram = self._network.socket(self._space, socket.SOCK_DGRAM, family)
        datagram.settimeout(None)
        datagram.bind((endpoint.address, endpoint.port))
        self._listening += [stream, datagram]
        threading.Thread(target=self._accept, args=(stream, name), daemon=True).start()
        threading.Thread(target=self._echo, args=(datagram, name), daemon=True).start()

    def _accept(self, stream: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, peer = stream.accept()
                threading.Thread(target=self._handle, args=(sock, name, peer[0]), daemon=True).start()

    def _handle(self, sock: socket.socket, name: str, peer: str) -> None:
        with contextlib.suppress(OSError):
            sock.sendall(f"{name} {peer}\n".encode())
            while data := sock.recv(1 << 16):
                sock.sendall(data)
        with self._lock:
            self._held.append(sock)

    def _echo(self, datagram: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = datagram.recvfrom(1 << 16)
                datagram.sendto(f"{name} {peer[0]}\n".encode() + data, peer)

    def release(self) -> None:
        """Close the connections that clients have closed."""
        with self._lock:
            held, self._held = self._held, []
        for sock in held:
            sock.close()

    def close(self) -> None:
        self.release()
        for sock in self._listening:
            sock.close()


class Plane:
    """An eBPF plane in a network's director, called without an event loop."""

    def __init__(self, network: Network, name: str = "test", sizes: Sizes = SMALL, *, hooks: str = "auto") -> None:
        self.network = network
        self.path = ROOT / "relevo" / name
        self.plane = EbpfPlane(self.path, sizes, hooks=hooks)

    def _run(self, call: Callable[[], Any]) -> Any:
        with self.network.inside("director"):
            return asyncio.run(call())

    def apply(self, *operations: Operation) -> list[Refused]:
        refused: list[Refused] = self._run(lambda: self.plane.apply(operations))
        return refused

    def observe(self) -> list[ServiceState]:
        found: list[ServiceState] = self._run(self.plane.observe)
        return found

    def connections(self) -> list[Connection]:
        found: list[Connection] = self._run(self.plane.connections)
        return found

    def drop(self, matching: ConnectionFilter) -> int:
        dropped: int = self._run(lambda: self.plane.drop(matching))
        return dropped

    def reasons(self) -> dict[str, int]:
        return self.plane.drop_counters()

    def remove(self) -> None:
        self._run(self.plane.remove)
        shutil.rmtree(self.path, ignore_errors=True)


@contextlib.contextmanager
def running(network: Network, name: str = "test", sizes: Sizes = SMALL, *, hooks: str = "auto") -> Iterator[Plane]:
    """A plane that is attached, and removed afterwards."""
    shutil.rmtree(ROOT / "relevo" / name, ignore_errors=True)
    plane = Plane(network, name, sizes, hooks=hooks)
    plane.observe()
    try:
        yield plane
    finally:
        plane.remove()


def protocol_kind(protocol: Protocol) -> int:
    """Kind of socket that speaks a protocol."""
    return socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM


def marker(mark: int) -> int:
    """Load a TC program that gives every packet a firewall mark and lets it go on to the next filter."""
    steps = ((0xB4, 0x02, 0, mark), (0x63, 0x21, 8, 0), (0xB4, 0x00, 0, -1), (0x95, 0x00, 0, 0))
    code = ctypes.create_string_buffer(b"".join(struct.pack("<BBhi", *step) for step in steps))
    terms = ctypes.create_string_buffer(b"GPL")
    load, classifier = 5, 3
    attributes = struct.pack("<IIQQ", classifier, len(steps), ctypes.addressof(code), ctypes.addressof(terms))
    return syscall._call(load, attributes, "program")
