"""The engine's timers, on a clock of the test: servers that never answer, idle connections, idle sessions."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from relevo.model import Endpoint, Protocol, ServiceKey
from relevo.model.table import AddServer, AddService, DeleteService, ServerEntry, ServiceEntry, ServiceState
from relevo.planes.proxy.engine import CONNECT_TIMEOUT_S, IDLE_TCP_S, Engine
from relevo.planes.proxy.udp import IDLE_S
from tests.unit.proxy.rig import CLIENT, SERVERS, VIRTUAL, Backend, DatagramBackend, echo, free_port, refusing

Make = Callable[..., Backend]


class Clock:
    """Time that only the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """An engine in this thread."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.engine = Engine(self.clock)

    def serve(self, *servers: ServerEntry, protocol: Protocol = Protocol.TCP) -> ServiceKey:
        kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
        key = ServiceKey(protocol, Endpoint(VIRTUAL, free_port(VIRTUAL, kind)))
        added = [AddServer(key, server) for server in servers]
        assert self.engine.apply([AddService(ServiceEntry(key=key, scheduler="rr")), *added]) == []
        return key

    def service(self) -> ServiceState:
        (state,) = self.engine.observe()
        return state

    def turn(self, until: Callable[[], object] | None = None) -> None:
        """Run the engine for 0.05 s, or until a condition holds."""
        ends = time.monotonic() + (0.05 if until is None else 5.0)
        while until is None or not until():
            if time.monotonic() > ends:
                assert until is None, "not in time"
                return
            self.engine.turn(0.005)

    def read(self, client: socket.socket, size: int) -> bytes:
        """Run the engine until the client has a reply; return it."""
        self.turn(lambda: select.select([client], [], [], 0)[0])
        return client.recv(size)

    def states(self) -> list[str]:
        return [connection.state for connection in self.engine.connections()]

    def dial(self, key: ServiceKey) -> socket.socket:
        before = len(self.engine.connections())
        client = socket.create_connection((key.endpoint.address, key.endpoint.port), 5.0, (CLIENT, 0))
        self.turn(lambda: len(self.engine.connections()) > before)
        self.turn()
        return client


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.engine.close()


@pytest.fixture
def silent() -> Iterator[Callable[[], ServerEntry]]:
    """Makes servers that never answer a SYN: their queue of connections is full."""
    with contextlib.ExitStack() as stack:

        def make() -> ServerEntry:
            listener = stack.enter_context(socket.socket())
            listener.bind((SERVERS + "6", 0))
            listener.listen(0)
            for _ in range(2):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            return ServerEntry(endpoint=Endpoint(*listener.getsockname()))

        yield make


def counts(state: ServiceState) -> list[tuple[int, int]]:
    return [(s.active, s.inactive) for s in state.servers]


def test_after_the_connect_time_out_the_next_server_is_tried(
    bench: Bench, backend: Make, silent: Callable[[], ServerEntry]
) -> None:
    key = bench.serve(backend(echo("A")).entry, silent())
    with bench.dial(key) as client:
        assert bench.states() == ["SYN_SENT"]
        bench.clock.now += CONNECT_TIMEOUT_S + 0.1
        bench.turn(lambda: bench.states() == ["ESTABLISHED"])
        assert bench.read(client, 10) == b"A\n"
        assert counts(bench.service()) == [(1, 0), (0, 0)]


def test_a_client_whose_servers_never_answer_is_reset(bench: Bench, silent: Callable[[], ServerEntry]) -> None:
    key = bench.serve(silent(), silent())
    with bench.dial(key) as client:
        for _ in range(2):
            bench.clock.now += CONNECT_TIMEOUT_S + 0.1
            bench.turn()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    state = bench.service()
    assert state.refused["connect_failed"] == 1
    assert counts(state) == [(0, 0), (0, 0)]


def test_every_attempt_has_the_whole_connect_time_out(bench: Bench, silent: Callable[[], ServerEntry]) -> None:
    late = silent()
    key = bench.serve(silent(), late, refusing())
    with socket.create_connection((key.endpoint.address, key.endpoint.port), 5.0, (CLIENT, 0)):
        bench.engine.turn(0.05)  # accepts, and asks the server that refuses
        bench.clock.now += CONNECT_TIMEOUT_S - 1  # the refusal is late
        bench.turn()
        assert [(c.server, c.state) for c in bench.engine.connections()] == [(late.endpoint, "SYN_SENT")]
        bench.clock.now += 1.5
        bench.turn()
        assert [(c.server, c.state) for c in bench.engine.connections()] == [(late.endpoint, "SYN_SENT")]


def test_deadlines_of_two_attempts_that_pass_together_fail_the_client_once(
    bench: Bench, silent: Callable[[], ServerEntry]
) -> None:
    key = bench.serve(silent(), silent(), refusing())
    with bench.dial(key):
        assert counts(bench.service()) == [(0, 0), (1, 0), (0, 0)]
        bench.clock.now += CONNECT_TIMEOUT_S + 0.1
        bench.turn()
        assert counts(bench.service()) == [(1, 0), (0, 0), (0, 0)]


def test_an_idle_connection_is_reset_and_a_busy_one_is_not(bench: Bench, backend: Make) -> None:
    key = bench.serve(backend(echo("A")).entry)
    with bench.dial(key) as idle, bench.dial(key) as busy:
        for client in (idle, busy):
            assert bench.read(client, 10) == b"A\n"
        bench.clock.now += IDLE_TCP_S - 10
        busy.sendall(b"still here")
        assert bench.read(busy, 100) == b"still here"
        bench.clock.now += 11
        bench.turn()
        with pytest.raises(ConnectionResetError):
            idle.recv(1)
    assert counts(bench.service()) == [(1, 0)]


def test_an_idle_datagram_session_expires_and_the_client_is_scheduled_again(bench: Bench) -> None:
    servers = [DatagramBackend("A"), DatagramBackend("B", SERVERS + "2")]
    key = bench.serve(*(server.entry for server in servers), protocol=Protocol.UDP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5.0)
        client.bind((CLIENT, 0))
        picks = []
        for pause in (0.0, IDLE_S - 1, IDLE_S - 1, IDLE_S + 1):
            bench.clock.now += pause
            bench.turn()
            client.sendto(b"x", (key.endpoint.address, key.endpoint.port))
            picks.append(bench.read(client, 10)[:1])
    assert picks == [b"B", b"B", b"B", b"A"]
    assert counts(bench.service()) == [(0, 1), (0, 0)]
    for server in servers:
        server.close()


def test_a_service_deleted_while_its_client_is_being_connected_resets_the_client(
    bench: Bench, silent: Callable[[], ServerEntry]
) -> None:
    key = bench.serve(silent())
    with bench.dial(key) as client:
        assert bench.engine.apply([DeleteService(key)]) == []
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    bench.clock.now += 2 * CONNECT_TIMEOUT_S
    bench.turn()
    assert bench.engine.connections() == []
    assert bench.engine.observe() == []


def test_a_client_that_resets_while_its_server_is_being_connected_is_dropped_with_the_attempt(
    bench: Bench, silent: Callable[[], ServerEntry]
) -> None:
    key = bench.serve(silent())
    client = bench.dial(key)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    bench.clock.now += CONNECT_TIMEOUT_S + 0.1
    bench.turn()
    assert bench.engine.connections() == []
    assert counts(bench.service()) == [(0, 0)]
