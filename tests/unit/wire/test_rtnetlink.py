"""Addresses and links over rtnetlink: what is asked, what is read, and what is refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.wire import rtnetlink
from relevo.wire.netlink import Malformed, attribute, attributes, messages
from relevo.wire.rtnetlink import Address, Link

IPV4 = Address(3, "10.0.0.9", 24, "eth0:v", "10.0.0.255", 253, 0)
IPV6 = Address(3, "fd00::9", 64, "", "", 0, rtnetlink.NODAD)


def payload(data):
    [message] = messages(data)
    return message


@pytest.mark.parametrize("address", [IPV4, IPV6])
def test_what_is_asked_for_reads_as_it_was_meant(address):
    asked = payload(rtnetlink.add_address(7, address))
    assert (asked.type, asked.sequence) == (rtnetlink.NEW_ADDRESS, 7)
    assert list(rtnetlink.decode_addresses([asked])) == [address]


def test_the_options_of_an_address_are_asked_for_and_a_deprecated_one_by_its_lifetime():
    flags = rtnetlink.OPTIONS | rtnetlink.NODAD
    asked = payload(rtnetlink.add_address(7, Address(3, "fd00::9", 64, "", "", 0, flags)))
    found = attributes(asked.payload[8:])
    assert struct.unpack("=I", found[8])[0] == flags & ~rtnetlink.DEPRECATED
    assert struct.unpack("=IIII", found[6]) == (0, 2**32 - 1, 0, 0)
    (read,) = rtnetlink.decode_addresses([asked])
    assert read.flags == flags & ~rtnetlink.DEPRECATED  # the kernel sets the flag


def test_a_removal_names_the_prefix_length_in_the_way_that_the_kernel_compares():
    asked = payload(rtnetlink.delete_address(1, IPV4))
    assert asked.type == rtnetlink.DELETE_ADDRESS
    assert bytes(asked.payload).count(bytes([10, 0, 0, 9])) == 2, "IFA_LOCAL and IFA_ADDRESS"


def test_other_families_and_messages_are_left_out():
    other = payload(rtnetlink.message(rtnetlink.NEW_ADDRESS, 0, 1, struct.pack("=BBBBI", 7, 0, 0, 0, 1)))
    link = payload(rtnetlink.message(rtnetlink.NEW_LINK, 0, 1, bytes(16)))
    assert list(rtnetlink.decode_addresses([other, link])) == []


def newaddr(body, family=2, length=24):
    return payload(rtnetlink.message(rtnetlink.NEW_ADDRESS, 0, 1, struct.pack("=BBBBI", family, length, 0, 0, 1) + body))


@pytest.mark.parametrize(
    "message",
    [
        payload(rtnetlink.message(rtnetlink.NEW_ADDRESS, 0, 1, b"\2\x18")),
        newaddr(b""),
        newaddr(attribute(2, b"\1\2\3")),
        newaddr(attribute(2, b"\1\2\3\4"), length=33),
        newaddr(attribute(2, b"\1\2\3\4") + attribute(8, b"\0")),
        newaddr(attribute(2, b"\1\2\3\4") + attribute(4, b"\0" * 16)),
        newaddr(b"\xff\xff\2\0"),
    ],
)
def test_what_cannot_be_an_address_is_refused(message):
    with pytest.raises(Malformed):
        list(rtnetlink.decode_addresses([message]))


@given(st.binary(max_size=80))
def test_no_bytes_break_the_decoder(data):
    address, link = (payload(rtnetlink.message(kind, 0, 1, data)) for kind in (rtnetlink.NEW_ADDRESS, rtnetlink.NEW_LINK))
    for read in (
        lambda: list(rtnetlink.decode_addresses([address])),
        lambda: list(rtnetlink.decode_links([link])),
        lambda: rtnetlink.promote_secondaries(link),
    ):
        try:
            read()
        except Malformed:
            pass


def link(*given):
    head = struct.pack("=BxHiII", 0, 1, 7, 1, 0)
    return payload(rtnetlink.message(rtnetlink.NEW_LINK, 0, 1, head + b"".join(attribute(*each) for each in given)))


def test_a_link_says_what_it_is_and_whose_port():
    name, master = (3, b"veth0\0"), (10, struct.pack("=I", 4))
    veth = link(name, master, (18, attribute(1, b"veth\0") + attribute(4, b"bridge\0")), (37, bytes(4)))
    assert list(rtnetlink.decode_links([veth])) == [Link(7, "veth0", 1, 1, "veth", "bridge", True, 0)]
    program = (43, attribute(2, b"\1") + attribute(4, struct.pack("=I", 99)))
    assert list(rtnetlink.decode_links([link(name, program)])) == [Link(7, "veth0", 1, 1, "", "", False, 99)]
    assert [each.port_of for each in rtnetlink.decode_links([link(name, master)])] == ["?"], "a port, whoever its master is"


@pytest.mark.parametrize("broken", [link(), link((3, b"x"), (43, attribute(4, b"12"))), link((3, b"x"), (18, b"123"))])
def test_what_cannot_be_a_link_is_refused(broken):
    with pytest.raises(Malformed):
        list(rtnetlink.decode_links([broken]))


def test_promote_secondaries_is_the_twentieth_setting_of_ipv4():
    settings = b"".join(struct.pack("=I", number) for number in range(1, 33))
    link = attribute(26, attribute(2, attribute(1, settings)))
    found = payload(rtnetlink.message(rtnetlink.NEW_LINK, 0, 1, bytes(16) + link))
    assert rtnetlink.promote_secondaries(found) == 20
    short = payload(rtnetlink.message(rtnetlink.NEW_LINK, 0, 1, bytes(16) + attribute(26, attribute(2, attribute(1, bytes(8))))))
    with pytest.raises(Malformed):
        rtnetlink.promote_secondaries(short)
