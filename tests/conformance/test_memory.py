"""The conformance suite on the memory plane."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest

from relevo.model import Endpoint, ServiceKey
from relevo.model import Protocol as Transport
from relevo.model.table import Connection, Operation, ServiceState
from relevo.planes.memory import MemoryPlane
from relevo.planes.port import PickRefusal, Refused
from tests.conformance.suite import REFUSED, RESET, TCP, Lack, Link, PlaneSuite, source_hash


class MemoryLink:
    """A connection by its handle."""

    def __init__(self, plane: MemoryPlane, handle: int, server: str) -> None:
        self._plane, self._handle, self.server = plane, handle, server

    def alive(self) -> bool:
        return self._handle in self._plane._open

    def was_reset(self) -> bool:
        return not self.alive()

    def finish(self) -> None:
        self._plane.table.half_close(self._plane._open[self._handle][0])

    def close(self) -> None:
        if self._handle:
            self._plane.disconnect(self._handle)


class MemoryAdapter:
    """Time passes only in ``elapse``."""

    carries_bytes = False
    counts_headers = False
    turned_away = RESET
    any_port_refusal = "a service of every port needs plane ipvs or ebpf"
    lacks: ClassVar[dict[Lack, str]] = {}

    def __init__(self) -> None:
        self.now = 1000.0
        self.plane = MemoryPlane(lambda: self.now)
        self._ports = iter(range(40_000, 65_000))
        self._keys = 0

    def key(self, protocol: Transport = TCP) -> ServiceKey:
        self._keys += 1
        return ServiceKey(protocol, Endpoint("192.0.2.10", self._keys))

    def endpoint(self, name: str, protocol: Transport = TCP) -> Endpoint:
        return Endpoint("198.51.100.1", ord(name))

    def client(self, network: int, host: int) -> str:
        return f"10.7.{network}.{host}"

    def apply(self, *operations: Operation) -> list[Refused]:
        return asyncio.run(self.plane.apply(operations))

    def observe(self) -> list[ServiceState]:
        return asyncio.run(self.plane.observe())

    def connections(self) -> list[Connection]:
        return asyncio.run(self.plane.connections())

    def connect(self, key: ServiceKey, client: str) -> Link:
        found = self.plane.connect(key, Endpoint(client, next(self._ports)))
        if isinstance(found, PickRefusal):
            service = self.plane.table.services.get(key)
            return MemoryLink(self.plane, 0, RESET if service is not None and service.servers else REFUSED)
        handle, server = found
        return MemoryLink(self.plane, handle, chr(server.port))

    def send_many(self, link: Link, size: int) -> int:
        raise NotImplementedError

    def elapse(self, seconds: float) -> None:
        self.now += seconds

    def settle(self) -> None:
        """Do nothing: the counters are exact."""


class TestMemoryPlane(PlaneSuite):
    """The suite, and what only a plane without packets can show."""

    @pytest.fixture
    def plane(self) -> MemoryAdapter:
        return MemoryAdapter()

    def test_sh_agrees_with_clients_recorded_from_a_kernel(self, plane: MemoryAdapter) -> None:
        recorded = {"192.0.2.1": "C", "192.0.2.2": "B", "198.51.100.7": "B", "203.0.113.99": "B", "10.1.0.2": "B"}
        servers = [("A", 1), ("B", 2), ("C", 3)]
        key = self.make(plane, tuple(servers), scheduler="sh")
        assert {client: plane.connect(key, client).server for client in recorded} == recorded
        assert {client: source_hash(client, servers) for client in recorded} == recorded

    def test_sh_port_agrees_with_clients_recorded_from_a_kernel(self, plane: MemoryAdapter) -> None:
        recorded = {"192.0.2.1": "B", "192.0.2.2": "C", "198.51.100.7": "C", "203.0.113.99": "C", "10.1.0.2": "A"}
        key = self.make(plane, (("A", 1), ("B", 2), ("C", 3)), scheduler="sh", flags=("sh-port",))
        for client, server in recorded.items():
            found = plane.plane.connect(key, Endpoint(client, 40_000))
            assert not isinstance(found, PickRefusal)
            assert chr(found[1].port) == server

    def test_a_connection_that_was_reset_cannot_be_closed_again(self, plane: MemoryAdapter) -> None:
        key = self.make(plane, "A")
        found = plane.plane.connect(key, Endpoint("10.7.0.1", 1))
        assert not isinstance(found, PickRefusal)
        assert plane.plane.disconnect(found[0])
        assert not plane.plane.disconnect(found[0])

    def test_a_connection_without_a_service_is_refused_with_the_reason(self, plane: MemoryAdapter) -> None:
        assert plane.plane.connect(plane.key(), Endpoint("10.7.0.1", 1)) is PickRefusal.NO_SERVICE
