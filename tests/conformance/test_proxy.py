"""The conformance suite on the proxy plane, as a process with real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import ClassVar

import pytest

from relevo.model import Endpoint, ServiceKey
from relevo.model import Protocol as Transport
from relevo.model.table import Connection, Operation, ServiceState
from relevo.planes.port import Refused
from tests.conformance.suite import REFUSED, RESET, TCP, UDP, Lack, Link, PlaneSuite
from tests.unit.proxy.rig import (
    VIRTUAL,
    Backend,
    DatagramBackend,
    Process,
    free_port,
    proxy_process,
    read_line,
    wait_until,
)

NAMES = "ABCD"


class Servers:
    """A, B, C and D, for connections and datagrams. A server sends its name, echoes, and outlives a client's half-close."""

    def __init__(self) -> None:
        self.tcp = {name: Backend(self._handler(name), f"127.0.41.{i}") for i, name in enumerate(NAMES, 1)}
        self.udp = {name: DatagramBackend(name, f"127.0.41.{i}") for i, name in enumerate(NAMES, 1)}
        self.held: list[socket.socket] = []
        self._lock = threading.Lock()

    def _handler(self, name: str):  # type: ignore[no-untyped-def]
        def handle(sock: socket.socket) -> None:
            sock.sendall(name.encode() + b"\n")
            while data := sock.recv(1 << 16):
                sock.sendall(data)
            with self._lock:
                self.held.append(sock.dup())

        return handle

    def release(self) -> None:
        """Close the connections whose clients have ended."""
        with self._lock:
            held, self.held = self.held, []
        for sock in held:
            sock.close()

    def close(self) -> None:
        self.release()
        for server in (*self.tcp.values(), *self.udp.values()):
            server.close()


class SocketLink:
    """A client's real connection, or how it failed."""

    def __init__(self, adapter: ProxyAdapter, key: ServiceKey, client: str) -> None:
        self._adapter, self._key = adapter, key
        kind = socket.SOCK_STREAM if key.protocol is TCP else socket.SOCK_DGRAM
        self.socket = socket.socket(socket.AF_INET, kind)
        self.socket.settimeout(5.0)
        self.socket.bind((client, 0))
        self.local = Endpoint(*self.socket.getsockname())
        try:
            self.socket.connect((key.endpoint.address, key.endpoint.port))
        except ConnectionRefusedError:
            self.server = REFUSED
            return
        except ConnectionResetError:  # reset before connect had returned
            self.server = RESET
            return
        try:
            self.server = self._ask_name()
        except ConnectionResetError:
            self.server = RESET

    def _ask_name(self) -> str:
        if self._key.protocol is UDP:
            return self._exchange().split(b"\n")[0].decode()
        return read_line(self.socket).decode().rstrip("\n")

    def _exchange(self) -> bytes:
        self.socket.send(b"x")
        return self.socket.recv(100)

    def alive(self) -> bool:
        return self._exchange().endswith(b"x")

    def was_reset(self) -> bool:
        try:
            self.socket.recv(1)
        except ConnectionResetError:
            return True
        return False

    def finish(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()

        def gone() -> bool:
            self._adapter.servers.release()
            return self.local not in {c.client for c in self._adapter.connections()}

        wait_until(gone, "the plane has counted the connection out")


class ProxyAdapter:
    """Real time, real sockets."""

    carries_bytes = True
    counts_headers = False
    turned_away = RESET
    any_port_refusal = "a service of every port needs plane ipvs or ebpf"
    lacks: ClassVar[dict[Lack, str]] = {}

    def __init__(self, process: Process, servers: Servers) -> None:
        self.process, self.servers = process, servers
        self.links: list[SocketLink] = []

    def key(self, protocol: Transport = TCP) -> ServiceKey:
        kind = socket.SOCK_STREAM if protocol is TCP else socket.SOCK_DGRAM
        return ServiceKey(protocol, Endpoint(VIRTUAL, free_port(VIRTUAL, kind)))

    def endpoint(self, name: str, protocol: Transport = TCP) -> Endpoint:
        return (self.servers.tcp if protocol is TCP else self.servers.udp)[name].endpoint

    def client(self, network: int, host: int) -> str:
        return f"127.7.{network}.{host}"

    def apply(self, *operations: Operation) -> list[Refused]:
        return self.process.apply(*operations)

    def observe(self) -> list[ServiceState]:
        return self.process.observe()

    def connections(self) -> list[Connection]:
        return self.process.connections()

    def connect(self, key: ServiceKey, client: str) -> Link:
        link = SocketLink(self, key, client)
        self.links.append(link)
        return link

    def send_many(self, link: Link, size: int) -> int:
        assert isinstance(link, SocketLink)
        sender = threading.Thread(target=link.socket.sendall, args=(bytes(size),))
        sender.start()
        left = size
        while left:
            left -= len(link.socket.recv(1 << 16))
        sender.join()
        return size + len(f"{link.server}\n")

    def elapse(self, seconds: float) -> None:
        time.sleep(seconds)

    def settle(self) -> None:
        """Do nothing: the counters are exact."""


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    made = Servers()
    yield made
    made.close()


class TestProxyPlane(PlaneSuite):
    """The suite on the proxy's process."""

    @pytest.fixture
    def plane(self, servers: Servers) -> Iterator[ProxyAdapter]:
        with proxy_process() as process:
            adapter = ProxyAdapter(process, servers)
            yield adapter
            for link in adapter.links:
                link.socket.close()
            assert process.running(), "the plane's process has died"
        servers.release()
