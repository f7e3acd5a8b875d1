import typing

import msgspec
import pytest

from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey
from relevo.model.table import (
    AddServer,
    AddService,
    Connection,
    DeleteServer,
    DeleteService,
    Desired,
    EditServer,
    EditService,
    Operation,
    ServerEntry,
    ServerState,
    ServiceEntry,
    ServiceState,
    Traffic,
)

KEY = ServiceKey(Protocol.TCP, Endpoint("192.0.2.1", 80))
SERVICE = ServiceEntry(key=KEY, scheduler="mh", scheduler_flags=("mh-port",), persistence_timeout_s=50)
SERVER = ServerEntry(endpoint=Endpoint("10.0.0.1", 80), weight=3, forwarding=Forwarding.TUN)
OPERATIONS = [
    AddService(SERVICE),
    EditService(SERVICE),
    DeleteService(KEY),
    AddServer(KEY, SERVER),
    EditServer(KEY, SERVER),
    DeleteServer(KEY, SERVER.endpoint),
]


@pytest.mark.parametrize(
    ("key", "text"),
    [(KEY, "TCP 192.0.2.1:80"), (ServiceKey(Protocol.UDP, Endpoint("2001:db8::1", 53)), "UDP [2001:db8::1]:53")],
)
def test_a_service_key_is_spelled_with_its_protocol(key, text):
    assert str(key) == text


def test_service_keys_are_ordered_by_protocol_address_and_port():
    keys = [ServiceKey(p, Endpoint(a, n)) for p in Protocol for a in ("192.0.2.1", "192.0.2.2") for n in (25, 80)]
    assert sorted(keys, reverse=True) == keys[::-1]


def test_every_operation_is_listed_here():
    assert {type(operation) for operation in OPERATIONS} == set(typing.get_args(Operation))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: type(operation).__name__)
def test_operations_keep_their_type_in_json(operation):
    assert msgspec.json.decode(msgspec.json.encode(operation), type=Operation) == operation


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: type(operation).__name__)
def test_operations_are_frozen(operation):
    with pytest.raises(AttributeError):
        setattr(operation, operation.__struct_fields__[0], None)


@pytest.mark.parametrize(
    "value",
    [
        Desired(SERVICE, (SERVER,)),
        ServiceState(
            service=SERVICE,
            servers=(ServerState(server=SERVER, active=1, traffic=Traffic(connections=1, bytes_in=2, bytes_out=3)),),
            refused={"no server": 4},
            listening="address in use",
        ),
        Connection(
            protocol=Protocol.TCP, client=Endpoint("c", 1), virtual=KEY.endpoint, server=SERVER.endpoint, state="ESTABLISHED"
        ),
    ],
)
def test_what_is_wanted_and_seen_survives_json(value):
    assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value


def test_counters_of_two_services_are_not_shared():
    first, second = ServiceState(service=SERVICE), ServiceState(service=SERVICE)
    first.refused["no server"] = 1
    assert second.refused == {}
