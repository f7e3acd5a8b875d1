"""The eBPF plane, with real packets between namespaces, keeps the rules of every plane."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relevo.model import Endpoint
from relevo.model.table import Connection, ConnectionFilter, DeleteService, Operation, ServiceState
from relevo.planes.port import Refused
from tests.conformance.packet_links import PacketAdapter
from tests.conformance.suite import PlaneSuite
from tests.ebpf.rig import Network, Plane, Servers, running
from tests.unit.proxy.rig import wait_until


class EbpfAdapter(PacketAdapter):
    """The plane of ``tests.ebpf.rig``."""

    def __init__(self, network: Network, plane: Plane, servers: Servers) -> None:
        super().__init__(network, servers)
        self.plane = plane

    def apply(self, *operations: Operation) -> list[Refused]:
        return self.plane.apply(*operations)

    def observe(self) -> list[ServiceState]:
        return self.plane.observe()

    def connections(self) -> list[Connection]:
        return self.plane.connections()

    def forget(self, client: Endpoint) -> None:
        self.plane.end(ConnectionFilter(client=client.address, client_port=client.port))


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
