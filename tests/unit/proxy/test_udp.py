"""UDP services of the proxy."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from relevo.model import Protocol, ServiceKey
from relevo.model.table import DeleteServer, DeleteService
from tests.unit.proxy.rig import SERVERS, DatagramBackend, Process, refusing, wait_until

UDP = Protocol.UDP


@pytest.fixture
def servers() -> Iterator[list[DatagramBackend]]:
    made = [DatagramBackend("A"), DatagramBackend("B", SERVERS + "2")]
    yield made
    for server in made:
        server.close()


@contextlib.contextmanager
def caller(address: str = "127.7.0.1") -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5.0)
        sock.bind((address, 0))
        yield sock


def ask(sock: socket.socket, key: ServiceKey, data: bytes = b"x") -> bytes:
    sock.sendto(data, (key.endpoint.address, key.endpoint.port))
    answer, address = sock.recvfrom(1 << 16)
    assert address == (key.endpoint.address, key.endpoint.port)  # from the service's own address
    return answer


def test_a_client_keeps_its_server_and_another_port_is_another_client(plane: Process, servers: list[DatagramBackend]) -> None:
    key = plane.serve(*(s.entry for s in servers), protocol=UDP)
    with caller() as one, caller() as two:
        assert [ask(one, key)[:1] for _ in range(3)] == [b"B"] * 3
        assert [ask(two, key)[:1] for _ in range(3)] == [b"A"] * 3
    assert {(c.state, c.protocol) for c in plane.connections()} == {("UDP", UDP)}


def test_datagrams_of_every_size_keep_their_boundaries(plane: Process, servers: list[DatagramBackend]) -> None:
    key = plane.serve(servers[0].entry, protocol=UDP)
    with caller() as client:
        for size in (0, 1, 1472, 9000, 65_000):
            assert ask(client, key, b"d" * size) == b"A\n" + b"d" * size
    traffic = plane.service(key).traffic
    assert traffic.connections == 1
    assert traffic.bytes_in == 1 + 1472 + 9000 + 65_000
    assert traffic.bytes_out == traffic.bytes_in + 5 * len(b"A\n")


def test_a_deleted_service_closes_its_sessions_and_leaves_no_descriptor(plane: Process, servers: list[DatagramBackend]) -> None:
    before = sorted(plane.descriptors())
    key = plane.serve(*(s.entry for s in servers), protocol=UDP)
    with contextlib.ExitStack() as stack:
        for number in range(50):
            ask(stack.enter_context(caller(f"127.7.1.{number + 1}")), key)
    assert len(plane.connections()) == 50
    assert plane.apply(DeleteService(key)) == []
    assert plane.connections() == []
    assert sorted(plane.descriptors()) == before


def test_a_server_whose_port_is_closed_loses_its_datagrams_only(plane: Process, servers: list[DatagramBackend]) -> None:
    dead = refusing()
    key = plane.serve(servers[0].entry, dead, protocol=UDP)
    with caller() as unlucky, caller("127.7.0.2") as lucky:
        for _ in range(5):
            unlucky.sendto(b"x", (key.endpoint.address, key.endpoint.port))
        wait_until(lambda: len(plane.connections()) == 1, "a session")
        assert ask(lucky, key)[:1] == b"A"
        assert plane.apply(DeleteServer(key, dead.endpoint)) == []
        assert ask(unlucky, key)[:1] == b"A"


def test_a_datagram_service_of_dead_weight_drops_and_counts(plane: Process, servers: list[DatagramBackend]) -> None:
    from relevo.model.table import ServerEntry

    key = plane.serve(ServerEntry(endpoint=servers[0].endpoint, weight=0), protocol=UDP)
    with caller() as client:
        for _ in range(3):
            client.sendto(b"x", (key.endpoint.address, key.endpoint.port))
        wait_until(lambda: plane.service(key).refused == {"no_destination": 3}, "three refusals")
    assert plane.connections() == []
