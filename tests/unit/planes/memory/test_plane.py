import asyncio

from relevo.model import Endpoint
from relevo.model.table import AddServer, AddService, Connection, DeleteServer, DeleteService
from relevo.planes.memory import MemoryPlane
from relevo.planes.port import PickRefusal
from tests.unit.planes.tables import KEY, OTHER, at, entry, server

CLIENT = Endpoint("198.51.100.7", 40000)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def plane(key=KEY, clock=lambda: 0.0, **changes):
    made = MemoryPlane(clock)
    operations = [AddService(entry(key, **changes)), AddServer(key, server("A")), AddServer(key, server("B"))]
    assert asyncio.run(made.apply(operations)) == []
    return made


def observed(made):
    return asyncio.run(made.observe())


def test_capabilities_are_those_of_the_table():
    assert MemoryPlane().capabilities().name == "memory"
    assert "wlc" in MemoryPlane().capabilities().schedulers


def test_a_new_plane_is_empty_and_can_be_closed():
    made = MemoryPlane()
    assert observed(made) == []
    assert asyncio.run(made.connections()) == []
    asyncio.run(made.close())


def test_connections_are_counted_while_they_are_open():
    made = plane()
    first, to = made.connect(KEY, CLIENT)
    second, other = made.connect(KEY, CLIENT)
    assert (first, to, second, other) == (1, at("B"), 2, at("A"))
    [state] = observed(made)
    assert [(s.active, s.inactive, s.traffic.connections) for s in state.servers] == [(1, 0, 1), (1, 0, 1)]
    assert made.disconnect(first)
    [state] = observed(made)
    assert [(s.active, s.traffic.connections) for s in state.servers] == [(1, 1), (0, 1)]


def test_udp_is_counted_as_inactive():
    made = plane(OTHER)
    made.connect(OTHER, CLIENT)
    assert [(s.active, s.inactive) for s in observed(made)[0].servers] == [(0, 0), (0, 1)]


def test_open_connections_are_listed():
    made = plane()
    made.connect(KEY, CLIENT)
    assert asyncio.run(made.connections()) == [
        Connection(protocol=KEY.protocol, client=CLIENT, virtual=KEY.endpoint, server=at("B"), state="ESTABLISHED")
    ]


def test_templates_are_listed_and_expire_by_the_clock():
    clock = Clock()
    made = plane(clock=clock, persistence_timeout_s=50)
    handle, _ = made.connect(KEY, CLIENT)
    clock.now = 10.0
    template = asyncio.run(made.connections())[1]
    assert (template.template, template.client, template.state, template.expires_s) == (
        True,
        Endpoint("198.51.100.7", 0),
        "ASSURED",
        40.0,
    )
    made.disconnect(handle)
    clock.now = 50.0
    assert [s.persistent for s in observed(made)[0].servers] == [0, 0]
    assert asyncio.run(made.connections()) == []


def test_a_client_is_refused_with_the_reason():
    assert MemoryPlane().connect(KEY, CLIENT) is PickRefusal.NO_SERVICE
    made = plane()
    asyncio.run(made.apply([DeleteServer(KEY, at("A")), DeleteServer(KEY, at("B"))]))
    assert made.connect(KEY, CLIENT) is PickRefusal.NO_DESTINATION
    assert observed(made)[0].refused == {"no_destination": 1}


def test_connections_of_a_removed_server_are_reset():
    made = plane()
    (first, _), (second, _) = made.connect(KEY, CLIENT), made.connect(KEY, CLIENT)
    asyncio.run(made.apply([DeleteServer(KEY, at("B"))]))
    assert not made.disconnect(first)
    assert made.disconnect(second)
    assert not made.disconnect(second)


def test_connections_of_a_removed_service_are_reset():
    made = plane()
    made.connect(KEY, CLIENT)
    asyncio.run(made.apply([DeleteService(KEY)]))
    assert asyncio.run(made.connections()) == []


def test_refused_operations_are_returned():
    [refused] = asyncio.run(plane().apply([AddService(entry())]))
    assert (refused.operation, refused.reason) == (AddService(entry()), "service already exists")
