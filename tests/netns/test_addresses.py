"""Addresses in the kernel: each is listed with the attributes that were asked for, so that a second look finds nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relevo.host.addresses import AddressTable
from relevo.lab.namespaces import NetworkNamespaces, bring_up, index_of, netlink
from relevo.node.observation import SetAddress
from relevo.wire import rtnetlink

pytestmark = [pytest.mark.namespaces, pytest.mark.usefixtures("namespaces")]


@pytest.fixture
def spaces() -> Iterator[NetworkNamespaces]:
    made = NetworkNamespaces()
    try:
        made.make("here")
        with made.inside("here"), netlink() as net:
            net.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth1"})
            bring_up(net, "eth0")
            bring_up(net, "eth1")
        yield made
    finally:
        made.close()


@pytest.fixture
def table(spaces: NetworkNamespaces) -> Iterator[tuple[AddressTable, int]]:
    with spaces.inside("here"), netlink() as net:
        opened = AddressTable(), index_of(net, "eth0")
    yield opened
    opened[0].close()


@pytest.mark.parametrize(
    ("address", "prefix_length", "flags"),
    [
        ("10.9.0.1", 24, 0),
        ("10.9.0.1", 24, rtnetlink.NO_PREFIX_ROUTE),
        ("fd09::1", 64, 0),
        ("fd09::1", 128, rtnetlink.DEPRECATED),
        ("fe80::9", 128, rtnetlink.DEPRECATED),
        ("fd09::1", 64, rtnetlink.DEPRECATED | rtnetlink.NO_PREFIX_ROUTE | rtnetlink.HOME),
    ],
)
def test_an_address_is_listed_as_it_was_set(
    table: tuple[AddressTable, int], address: str, prefix_length: int, flags: int
) -> None:
    addresses, index = table
    wanted = SetAddress(index, address, prefix_length, flags=flags)
    addresses.add(wanted)
    (found,) = [each for each in addresses.addresses({index: "eth0"}) if each.set.address == address]
    assert found.set == wanted
    assert not found.tentative
    addresses.remove(wanted)
    assert all(each.set.address != address for each in addresses.addresses({index: "eth0"}))


@pytest.mark.parametrize("forwards", [False, True])
def test_only_links_that_forward_are_routers(spaces: NetworkNamespaces, table: tuple[AddressTable, int], forwards: bool) -> None:
    addresses, index = table
    with spaces.inside("here"):
        Path("/proc/sys/net/ipv6/conf/eth0/forwarding").write_text(str(int(forwards)))
    assert addresses.forwards_ipv6(index) is forwards
    assert addresses.forwards_ipv6(9999) is False
