"""Which connections a filter matches."""

from __future__ import annotations

import pytest

from relevo.model import Endpoint, Protocol
from relevo.model.table import Connection, ConnectionFilter

CONNECTION = Connection(
    protocol=Protocol.TCP,
    client=Endpoint("10.1.2.3", 4711),
    virtual=Endpoint("192.0.2.1", 80),
    server=Endpoint("10.2.0.11", 8080),
    state="ESTABLISHED",
)
TEMPLATE = Connection(
    protocol=Protocol.TCP,
    client=Endpoint("2001:db8::"),
    virtual=Endpoint("0.0.0.7"),
    server=Endpoint("fd00::1", 80),
    state="NONE",
    template=True,
    mark=7,
)


@pytest.mark.parametrize(
    ("fields", "connection", "template"),
    [
        ({}, True, True),
        ({"protocol": Protocol.TCP}, True, False),
        ({"protocol": Protocol.UDP}, False, False),
        ({"client": "10.1.2.3"}, True, False),
        ({"client": "10.1.0.0/16"}, True, False),
        ({"client": "10.1.2.3/16"}, True, False),
        ({"client": "10.2.0.0/16"}, False, False),
        ({"client": "0.0.0.0/0"}, True, False),
        ({"client": "2001:db8::/32"}, False, True),
        ({"client": "2001:DB8:0::"}, False, True),
        ({"client_port": 4711}, True, False),
        ({"client_port": 4712}, False, False),
        ({"virtual": "192.0.2.1", "virtual_port": 80}, True, False),
        ({"virtual": "192.0.2.1", "virtual_port": 81}, False, False),
        ({"server": "10.2.0.0/24"}, True, False),
        ({"server_port": 80}, False, True),
        ({"state": "NONE"}, False, True),
        ({"templates": True}, False, True),
        ({"templates": False}, True, False),
    ],
)
def test_every_field_given_must_fit(fields: dict[str, object], connection: bool, template: bool) -> None:
    matches = ConnectionFilter(**fields).test()  # type: ignore[arg-type]
    assert (matches(CONNECTION), matches(TEMPLATE)) == (connection, template)


@pytest.mark.parametrize("text", ["host", "10.0.0.0/33", "10.0.0", "10.0.0.1:80"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        ConnectionFilter(server=text).test()
