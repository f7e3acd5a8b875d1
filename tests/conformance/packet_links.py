"""Clients of a packet plane: real connections from one namespace to another, through the plane's namespace."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from itertools import count, cycle
from typing import ClassVar

from relevo.model import Endpoint, ServiceKey
from relevo.model import Protocol as Transport
from tests.conformance.suite import REFUSED, RESET, TCP, UDP, Lack, Link
from tests.ebpf.rig import PORT, VIRTUAL, Network, Servers, protocol_kind
from tests.unit.proxy.rig import read_line


class PacketLink:
    """A client's real connection, or how it failed."""

    def __init__(self, adapter: PacketAdapter, key: ServiceKey, client: str) -> None:
        self._adapter, self._key = adapter, key
        self.socket = adapter.network.socket("client", protocol_kind(key.protocol))
        self.socket.bind((client, next(adapter.client_ports)))
        self.local = Endpoint(*self.socket.getsockname())
        try:
            self.socket.connect((key.endpoint.address, key.endpoint.port))
            self.server = self._ask_name()
        except ConnectionRefusedError:
            self.server = REFUSED
        except ConnectionResetError:
            self.server = RESET

    def _ask_name(self) -> str:
        line = self._exchange() if self._key.protocol is UDP else read_line(self.socket)
        return line.split()[0].decode()

    def _exchange(self) -> bytes:
        self.socket.send(b"x")
        return self.socket.recv(100)

    def alive(self) -> bool:
        return self._exchange().endswith(b"x")

    def was_reset(self) -> bool:
        try:
            self.socket.send(b"x")
            self.socket.recv(1)
        except ConnectionResetError:
            return True
        return False

    def finish(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close it, and make the plane forget it, which otherwise happens two minutes later."""
        self.socket.close()
        self._adapter.servers.release()
        self._adapter.forget(self.local)


class PacketAdapter:
    """Real time, real packets; a plane adds how operations are applied and how connections are forgotten."""

    carries_bytes = True
    counts_headers = True
    turned_away = REFUSED
    any_port_refusal = "a service of every port needs persistence"
    lacks: ClassVar[dict[Lack, str]] = {}
    _ports: ClassVar[Iterator[int]] = count(1001)
    """Each port is used once: the kernel keeps a deleted server, which would return with its counters."""
    client_ports: ClassVar[Iterator[int]] = cycle(range(10_000, 32_000))
    """Ports are reused late: a server that still has a connection from one would answer that instead of the new one."""

    def __init__(self, network: Network, servers: Servers) -> None:
        self.network, self.servers = network, servers
        self.links: list[PacketLink] = []

    def key(self, protocol: Transport = TCP) -> ServiceKey:
        return ServiceKey(protocol, Endpoint(VIRTUAL, next(self._ports)))

    def endpoint(self, name: str, protocol: Transport = TCP) -> Endpoint:
        return Endpoint(self.servers.addresses[name], PORT)

    def client(self, network: int, host: int) -> str:
        return f"10.7.{network}.{host}"

    def forget(self, client: Endpoint) -> None:
        """Make the plane forget a client's connections; returns when it has."""
        raise NotImplementedError

    def connect(self, key: ServiceKey, client: str) -> Link:
        link = PacketLink(self, key, client)
        self.links.append(link)
        return link

    def send_many(self, link: Link, size: int) -> int:
        assert isinstance(link, PacketLink)
        sender = threading.Thread(target=link.socket.sendall, args=(bytes(size),))
        sender.start()
        left = size
        while left:
            left -= len(link.socket.recv(1 << 16))
        sender.join()
        return size

    def elapse(self, seconds: float) -> None:
        time.sleep(seconds)

    def settle(self) -> None:
        """Do nothing: the counters are exact."""
