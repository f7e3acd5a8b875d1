"""IPVS's synchronisation protocol: messages captured from a kernel, malformed messages, and noise."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.wire import ipvs_sync
from relevo.wire.ipvs_sync import Entry, SyncRefusal, assemble, decode, encode


def at(address):
    return ip_address(address).packed


CONNECTION = Entry(
    protocol=6,
    client=at("10.1.0.2"),
    client_port=0xCEE8,
    virtual=at("10.1.0.100"),
    virtual_port=80,
    server=at("10.2.2.12"),
    server_port=8080,
    state=1,
    seconds=900,
)
CAPTURED = bytes.fromhex(
    "0005007403010000"
    "00060024000000000001cee800501f9000000000000003840a0100020a0100640a02020c"
    "00060024000001000007cee800501f90000000000000003c0a0100020a0100640a02020c"
    "00060024000001000005cee800501f9000000000000000780a0100020a0100640a02020c"
)
"""Captured from a kernel: entries of a connection that was opened and closed."""
ENTRIES = {
    "template": (
        "000600240000110000000000"
        "01bb1f90000000000000001e0a0100000a0100640a02020c",
        Entry(
            protocol=6, client=at("10.1.0.0"), client_port=0, virtual=at("10.1.0.100"), virtual_port=443, server=at("10.2.2.12"),
            server_port=8080, state=0, flags=0x1100, seconds=30,
        ),
    ),
    "direct routing": (
        "000600240000000300018c600050005000000000000003840a0100020a0100640a02010b",
        Entry(
            protocol=6, client=at("10.1.0.2"), client_port=0x8C60, virtual=at("10.1.0.100"), virtual_port=80,
            server=at("10.2.1.11"), server_port=80, state=1, flags=3, seconds=900,
        ),
    ),
    "IPv6 template": (
        "01060048000011000000000000501f90000000000000003c"
        "20010db8000100000000000000000000"
        "20010db8000100000000000000000100"
        "20010db8000200000000000000000011",
        Entry(
            protocol=6, client=at("2001:db8:1::"), client_port=0, virtual=at("2001:db8:1::100"), virtual_port=80,
            server=at("2001:db8:2::11"), server_port=8080, state=0, flags=0x1100, seconds=60,
        ),
    ),
    "mark's template": (
        "000000240000110000000000000000000000" "00070000003c0a010064000000070a02010b",
        Entry(
            protocol=0, client=at("10.1.0.100"), client_port=0, virtual=at("0.0.0.7"), virtual_port=0, server=at("10.2.1.11"),
            server_port=0, state=0, flags=0x1100, seconds=60, mark=7,
        ),
    ),
}  # fmt: skip
ADDRESSES = st.sampled_from((4, 16)).flatmap(lambda width: st.tuples(*[st.binary(min_size=width, max_size=width)] * 3))
PORTS = st.integers(0, 65_535)


@st.composite
def entries(draw):
    client, virtual, server = draw(ADDRESSES)
    protocol, states = draw(st.sampled_from([(6, 11), (17, 1), (132, 14)]))
    sequence = draw(st.sampled_from([b"", bytes(range(24))]))
    return Entry(
        protocol=protocol,
        client=client,
        client_port=draw(PORTS),
        virtual=virtual,
        virtual_port=draw(PORTS),
        server=server,
        server_port=draw(PORTS),
        state=draw(st.integers(0, states - 1)),
        flags=draw(st.sampled_from([0, 1, 2, 3, ipvs_sync.INACTIVE, ipvs_sync.NO_OUTPUT])),
        seconds=draw(st.integers(0, ipvs_sync.MAX_SECONDS)),
        mark=draw(st.integers(0, 2**32 - 1)),
        sequence=sequence,
        engine=draw(st.sampled_from(["", "sip"])),
        engine_data=draw(st.binary(max_size=20)),
    )


def test_a_message_of_the_kernel_is_decoded():
    found = decode(CAPTURED)
    assert found.refused == []
    assert [(e.state, e.seconds, e.flags) for e in found.entries] == [(1, 900, 0), (7, 60, 0x100), (5, 120, 0x100)]
    assert found.entries[0] == CONNECTION


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_of_the_kernel_is_decoded_and_encoded(name):
    expected, entry = ENTRIES[name]
    assert encode(entry).hex() == expected
    (message,) = assemble(5, [encode(entry)])
    assert decode(message) == ([entry], [])


def test_encoding_gives_the_bytes_that_the_kernel_sent():
    assert list(assemble(5, [encode(e) for e in decode(CAPTURED).entries])) == [CAPTURED]


@given(st.lists(entries(), min_size=1, max_size=60), st.integers(1, 255), st.integers(200, 9188))
def test_encoded_entries_are_decoded_and_messages_keep_the_length_limit(given_entries, sync_id, length):
    messages = list(assemble(sync_id, map(encode, given_entries), length))
    assert [e for m in messages for e in decode(m, sync_id).entries] == given_entries
    assert all(len(m) <= length or m[4] == 1 for m in messages)


def test_a_message_has_as_many_entries_as_the_kernel_s():
    sizes = [message[4] for message in assemble(1, [encode(CONNECTION)] * 100)]
    assert sizes == [40, 40, 20]


def test_no_message_has_more_entries_than_its_counter_can_count():
    sizes = [message[4] for message in assemble(1, [encode(CONNECTION)] * 600, 65_507)]
    assert sizes == [255, 255, 90]


def changed(offset, *values):
    copy = bytearray(CAPTURED)
    copy[offset : offset + len(values)] = values
    return bytes(copy)


BAD = [
    (b"", [SyncRefusal.TRUNCATED], 0),
    (b"\0\5\0", [SyncRefusal.TRUNCATED], 0),
    (CAPTURED[:-1], [SyncRefusal.SIZE], 0),
    (CAPTURED + b"\0", [SyncRefusal.SIZE], 0),
    (changed(8, 2), [SyncRefusal.TYPE], 2),
    (changed(9, 99), [SyncRefusal.PROTOCOL], 2),
    (changed(10, 0x10), [SyncRefusal.VERSION], 0),
    (changed(11, 0x23), [SyncRefusal.ENTRY_LENGTH], 0),
    (changed(10, 0x0F, 0xFF), [SyncRefusal.TRUNCATED], 0),
    (changed(11, 0x25), [SyncRefusal.OPTION, SyncRefusal.TRUNCATED], 0),
    (changed(14, 0x20), [SyncRefusal.FLAGS], 2),
    (changed(14, 0x18), [SyncRefusal.FLAGS], 2),
    (changed(14, 0x10), [], 3),
    (changed(17, 11), [SyncRefusal.STATE], 2),
    (changed(28, 0xFF), [SyncRefusal.SECONDS], 2),
    (changed(4, 4), [SyncRefusal.TRUNCATED], 3),
]


@pytest.mark.parametrize(("message", "refused", "taken"), BAD)
def test_an_invalid_value_drops_the_entry_and_a_wrong_length_drops_the_rest(message, refused, taken):
    found = decode(message)
    assert (found.refused, len(found.entries)) == (refused, taken)


def test_another_sync_id_is_refused_and_0_accepts_all():
    assert decode(CAPTURED, 5).refused == []
    assert decode(CAPTURED, 6) == ([], [SyncRefusal.SYNC_ID])
    assert len(decode(CAPTURED, 0).entries) == 3


def option(kind, data):
    entry = encode(CONNECTION) + bytes((kind, len(data))) + data
    entry = entry[:2] + len(entry).to_bytes(2, "big") + entry[4:]
    (message,) = assemble(5, [entry])
    return decode(message)


def test_an_unknown_option_drops_its_entry_unless_it_may_be_ignored():
    assert option(9, b"abc").refused == [SyncRefusal.OPTION]
    assert option(0x49, b"abc").refused == []
    assert option(2, b"call").entries[0].engine_data == b"call"
    assert option(3, b"sip").entries[0].engine == "sip"
    assert option(1, bytes(23)).refused == [SyncRefusal.OPTION]
    assert option(3, b"x" * 17).refused == [SyncRefusal.OPTION]
    assert option(2, b"").refused == [SyncRefusal.OPTION]


def test_version_0_is_decoded():
    entry = bytes.fromhex("0006cee800501f900a0100020a0100640a02020c01000001")
    message = bytes((2, 5)) + (4 + 2 * 24).to_bytes(2, "big") + entry * 2
    found = decode(message, 5)
    assert [(e.client, e.client_port, e.state, e.flags, e.seconds) for e in found.entries] == [
        (at("10.1.0.2"), 0xCEE8, 1, 256, 0)
    ] * 2
    assert decode(message[:-1]).refused == [SyncRefusal.SIZE]
    short = bytes((3, 5)) + (4 + 2 * 24).to_bytes(2, "big") + entry * 2
    assert decode(short).refused == [SyncRefusal.TRUNCATED]
    assert decode(message, 6).refused == [SyncRefusal.SYNC_ID]


@given(st.binary(max_size=200))
def test_noise_is_refused_without_an_error(noise):
    found = decode(noise)
    assert found.entries == [] or len(noise) >= 28


@given(st.binary(max_size=100), st.integers(0, 255))
def test_noise_after_a_valid_header_is_refused_without_an_error(noise, count):
    header = bytes((0, 5)) + (8 + len(noise)).to_bytes(2, "big") + bytes((count, 1, 0, 0))
    found = decode(header + noise)
    assert len(found.entries) + len(found.refused) <= count or (count == 0 and not found.entries)
