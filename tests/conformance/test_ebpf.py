"""The eBPF plane, with real packets between namespaces, keeps the rules of every plane."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from relevo.model import Endpoint, ServiceKey
from relevo.model import Protocol as Transport
from relevo.model.table import Connection, ConnectionFilter, DeleteService, Operation, ServiceState
from relevo.planes.port import Refused
from tests.conformance.suite import REFUSED, RESET, TCP, UDP, Link, PlaneSuite
from tests.ebpf.rig import PORT, VIRTUAL, Network, Plane, Servers, protocol_kind, running
from tests.unit.proxy.rig import read_line, wait_until


class PacketLink:
    """A client's real connection, or what became of it."""

    def __init__(self, adapter: EbpfAdapter, key: ServiceKey, client: str) -> None:
        self._adapter, self._key = adapter, key
        self.socket = adapter.network.socket("client", protocol_kind(key.protocol))
        self.socket.bind((client, 0))
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
        """End it; the plane is told to forget it, which else it would do two minutes later."""
        self.socket.close()
        self._adapter.servers.release()
        self._adapter.plane.end(ConnectionFilter(client=self.local.address, client_port=self.local.port))


class EbpfAdapter:
    """Real time, real packets."""

    carries_octets = True
    counts_headers = True
    turned_away = REFUSED
    any_port_refusal = "a service of every port needs persistence"

    def __init__(self, network: Network, plane: Plane, servers: Servers) -> None:
        self.network, self.plane, self.servers = network, plane, servers
        self.links: list[PacketLink] = []
        self._port = 1000

    def key(self, protocol: Transport = TCP) -> ServiceKey:
        self._port += 1
        return ServiceKey(protocol, Endpoint(VIRTUAL, self._port))

    def endpoint(self, name: str, protocol: Transport = TCP) -> Endpoint:
        return Endpoint(self.servers.addresses[name], PORT)

    def client(self, network: int, host: int) -> str:
        return f"10.7.{network}.{host}"

    def apply(self, *operations: Operation) -> list[Refused]:
        return self.plane.apply(*operations)

    def observe(self) -> list[ServiceState]:
        return self.plane.observe()

    def connections(self) -> list[Connection]:
        return self.plane.connections()

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


@pytest.fixture(scope="module")
def network(ebpf: None) -> Iterator[Network]:
    made = Network()
    yield made
    made.close()


@pytest.fixture(scope="module")
def servers(network: Network) -> Iterator[Servers]:
    made = Servers(network)
    yield made
    made.close()


@pytest.fixture(scope="module")
def loaded(network: Network) -> Iterator[Plane]:
    with running(network, "conformance") as plane:
        yield plane


class TestEbpfPlane(PlaneSuite):
    """The suite on the kernel's own packets."""

    @pytest.fixture
    def plane(self, network: Network, loaded: Plane, servers: Servers) -> Iterator[EbpfAdapter]:
        adapter = EbpfAdapter(network, loaded, servers)
        yield adapter
        for link in adapter.links:
            link.socket.close()
        servers.release()
        loaded.apply(*(DeleteService(state.service.key) for state in loaded.observe()))
        loaded.end(ConnectionFilter())
        wait_until(lambda: not loaded.connections(), "the table is empty")
