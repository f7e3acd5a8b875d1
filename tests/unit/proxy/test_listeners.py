"""When the plane listens, and what it reports when it does not."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from relevo.model import Endpoint, Protocol, ServiceKey
from relevo.model.table import AddServer, AddService, DeleteServer, DeleteService, ServiceEntry
from tests.unit.proxy.rig import VIRTUAL, Backend, Process, dial, echo, free_port, read_line, wait_until

Make = Callable[..., Backend]


def test_a_port_in_use_is_reported_and_bound_as_soon_as_it_is_free(plane: Process, backend: Make) -> None:
    occupant = backend(echo("occupant"), VIRTUAL)
    key = ServiceKey(Protocol.TCP, occupant.endpoint)
    server = backend(echo("A")).entry
    assert plane.apply(AddService(ServiceEntry(key=key)), AddServer(key, server)) == []
    assert plane.service(key).listening == f"cannot listen on {occupant.endpoint}: Address already in use"
    with dial(key) as client:
        assert read_line(client) == b"occupant\n"
    occupant.close()
    wait_until(lambda: plane.service(key).listening == "", "the plane has the port")
    with dial(key) as client:
        assert read_line(client) == b"A\n"


def test_a_port_in_use_does_not_keep_other_services_from_theirs(plane: Process, backend: Make) -> None:
    occupant = backend(echo("occupant"), VIRTUAL)
    taken = ServiceKey(Protocol.TCP, occupant.endpoint)
    free = ServiceKey(Protocol.TCP, Endpoint(VIRTUAL, free_port(VIRTUAL)))
    server = backend(echo("A")).entry
    operations = [op for key in (taken, free) for op in (AddService(ServiceEntry(key=key)), AddServer(key, server))]
    assert plane.apply(*operations) == []
    assert plane.service(free).listening == ""
    with dial(free) as client:
        assert read_line(client) == b"A\n"
    assert plane.apply(DeleteService(taken)) == []
    assert [state.service.key for state in plane.observe()] == [free]


def test_a_datagram_port_in_use_is_reported_too(plane: Process, backend: Make) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as occupant:
        occupant.bind((VIRTUAL, 0))
        key = ServiceKey(Protocol.UDP, Endpoint(*occupant.getsockname()))
        assert plane.apply(AddService(ServiceEntry(key=key)), AddServer(key, backend(echo("A")).entry)) == []
        assert plane.service(key).listening.endswith("Address already in use")
    wait_until(lambda: plane.service(key).listening == "", "the plane has the port")


def test_an_address_that_this_machine_does_not_have_yet_can_be_listened_on(plane: Process, backend: Make) -> None:
    key = ServiceKey(Protocol.TCP, Endpoint("192.0.2.240", 8080))
    assert plane.apply(AddService(ServiceEntry(key=key)), AddServer(key, backend(echo("A")).entry)) == []
    assert plane.service(key).listening == ""


def test_once_addresses_are_set_a_loopback_service_listens_only_while_its_own_is_local(plane: Process, backend: Make) -> None:
    key = plane.serve(backend(echo("A")).entry)
    held = dial(key)
    assert read_line(held) == b"A\n"
    for addresses, open_ in (((), False), (("127.0.99.99",), False), ((VIRTUAL,), True), ((), False), ((VIRTUAL,), True)):
        plane.set_local(*addresses)
        if open_:
            with dial(key) as client:
                assert read_line(client) == b"A\n"
        else:
            with pytest.raises(ConnectionRefusedError):
                dial(key)
    held.sendall(b"x")
    assert held.recv(1) == b"x"  # losing the address ends no connection
    held.close()


def test_a_loopback_service_added_while_its_address_is_not_local_does_not_listen(plane: Process, backend: Make) -> None:
    plane.set_local()
    key = plane.serve(backend(echo("A")).entry)
    with pytest.raises(ConnectionRefusedError):
        dial(key)
    plane.set_local(VIRTUAL)
    with dial(key) as client:
        assert read_line(client) == b"A\n"


def test_an_address_outside_loopback_is_listened_on_wherever_it_is(plane: Process, backend: Make) -> None:
    key = ServiceKey(Protocol.TCP, Endpoint("192.0.2.241", 8080))
    plane.set_local()
    assert plane.apply(AddService(ServiceEntry(key=key)), AddServer(key, backend(echo("A")).entry)) == []
    with socket.socket() as rival, pytest.raises(OSError, match="in use"):
        rival.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
        rival.bind((key.endpoint.address, key.endpoint.port))
        rival.listen()


def test_without_a_server_the_reason_is_named(plane: Process, backend: Make) -> None:
    key = plane.serve()
    assert plane.service(key).listening == "no server"
    server = backend(echo("A")).entry
    assert plane.apply(AddServer(key, server)) == []
    assert plane.service(key).listening == ""
    assert plane.apply(DeleteServer(key, server.endpoint)) == []
    assert plane.service(key).listening == "no server"


def test_a_service_deleted_and_added_in_one_go_takes_clients_again(plane: Process, backend: Make) -> None:
    server = backend(echo("A")).entry
    key = plane.serve(server)
    again = (DeleteService(key), AddService(ServiceEntry(key=key, scheduler="lc")), AddServer(key, server))
    assert plane.apply(*again) == []
    with dial(key) as client:
        assert read_line(client) == b"A\n"
    assert plane.service(key).traffic.connections == 1
