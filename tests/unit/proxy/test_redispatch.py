"""A client whose server refuses is connected to another one."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable

import pytest

from relevo.model.table import AddService, EditServer, EditService, ServiceEntry
from tests.unit.proxy.rig import SERVERS, Backend, Process, dial, echo, read_all, read_line, refusing, wait_until

Make = Callable[..., Backend]


def test_a_refused_connection_goes_to_another_server_with_nothing_lost(plane: Process, backend: Make) -> None:
    received: list[bytes] = []
    key = plane.serve(backend(lambda sock: received.append(read_all(sock))).entry, refusing(), refusing(SERVERS + "8"))
    data = random.Random(1).randbytes(2_000_000)
    with dial(key) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
    assert received == [data]
    state = plane.wait_idle(key)
    assert state.refused == {}


def test_every_client_is_served_while_one_of_two_servers_refuses(plane: Process, backend: Make) -> None:
    key = plane.serve(backend(echo("A")).entry, refusing())
    for _ in range(20):
        with dial(key) as client:
            assert read_line(client) == b"A\n"
    assert [(s.active, s.inactive) for s in plane.wait_idle(key).servers] == [(0, 0), (0, 0)]


@pytest.mark.parametrize("scheduler", ["rr", "wrr", "lc", "wlc"])
def test_every_walking_scheduler_passes_on_from_a_server_that_refuses(plane: Process, backend: Make, scheduler: str) -> None:
    key = plane.serve(backend(echo("A")).entry, refusing(), scheduler=scheduler)
    for _ in range(4):
        with dial(key) as client:
            assert read_line(client) == b"A\n"


def test_the_template_is_of_the_server_that_accepted_the_client(plane: Process, backend: Make) -> None:
    dead = refusing()
    key = plane.serve(backend(echo("A")).entry, dead)
    assert plane.apply(EditService(ServiceEntry(key=key, scheduler="rr", persistence_timeout_s=60))) == []
    for _ in range(3):
        with dial(key) as client:
            assert read_line(client) == b"A\n"
    state = plane.service(key)
    assert [s.persistent for s in state.servers] == [1, 0]
    assert state.servers[1].traffic.connections == 1


def test_when_every_server_refuses_the_client_is_reset_and_counted(plane: Process) -> None:
    key = plane.serve(refusing(), refusing(SERVERS + "8"))
    for _ in range(3):
        with pytest.raises(ConnectionResetError), dial(key) as client:
            client.recv(1)
    state = plane.wait_idle(key)
    assert state.refused["connect_failed"] == 3
    assert plane.connections() == []


def test_a_client_that_every_server_refused_is_counted_once(plane: Process) -> None:
    key = plane.serve(refusing(), refusing(SERVERS + "8"))
    with pytest.raises(ConnectionResetError), dial(key) as client:
        client.recv(1)
    assert plane.wait_idle(key).refused == {"connect_failed": 1}


def test_a_client_that_was_passed_on_is_one_connection_of_the_service(plane: Process, backend: Make) -> None:
    key = plane.serve(backend(echo("A")).entry, refusing())
    with dial(key) as client:
        assert read_line(client) == b"A\n"
    assert plane.wait_idle(key).traffic.connections == 1


def test_more_servers_than_tries_may_refuse_and_the_client_is_reset(plane: Process, backend: Make) -> None:
    key = plane.serve(backend(echo("A")).entry, *(refusing(f"{SERVERS}{n}") for n in (5, 6, 7)))
    with pytest.raises(ConnectionResetError), dial(key) as client:
        client.recv(1)  # the three newest are tried first
    with dial(key) as client:
        assert read_line(client) == b"A\n"


def test_a_storm_on_refusing_servers_leaves_no_descriptor_and_no_count_behind(plane: Process, backend: Make) -> None:
    key = plane.serve(backend(echo("A")).entry, refusing(), refusing(SERVERS + "8"))
    before = sorted(plane.descriptors())

    def storm() -> None:
        for _ in range(100):
            dial(key).close()

    threads = [threading.Thread(target=storm) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: plane.service(key).servers[0].traffic.connections == 300, "every client was served")
    state = plane.wait_idle(key)
    assert [(s.active, s.inactive) for s in state.servers] == [(0, 0)] * 3
    assert sorted(plane.descriptors()) == before


def test_a_server_that_is_quiesced_while_it_refuses_is_not_picked_again(plane: Process, backend: Make) -> None:
    dead = refusing()
    key = plane.serve(backend(echo("A")).entry, dead)
    quiesced = type(dead)(endpoint=dead.endpoint, weight=0)
    assert plane.apply(EditServer(key, quiesced)) == []
    for _ in range(3):
        with dial(key) as client:
            assert read_line(client) == b"A\n"
    assert plane.service(key).servers[1].traffic.connections == 0
    assert plane.apply(AddService(ServiceEntry(key=key)))[0].reason == "service already exists"
