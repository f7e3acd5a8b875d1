"""The authentication header of VRRP version 2, beside scapy and beside the bytes of keepalived."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.ipsec import AH

from relevo.wire.ah import MAX_SEQUENCE, Header, unwrap, verify, wrap
from relevo.wire.vrrp import AdvertRefusal, Envelope

KEY = b"example\0"
ADVERT = bytes.fromhex("21336401020115dec0a806f00000000000000000")
SOURCE, GROUP, PEER = "192.168.6.2", "224.0.0.18", "192.168.6.3"


def wrapped(destination=GROUP, ttl=255, sequence=7, key=KEY):
    return wrap(ADVERT, Header(SOURCE, destination, ttl, 1, sequence), key)


def read(packet, key=KEY):
    found = unwrap(packet)
    return None if found is None else verify(*found, key)


def test_scapy_reads_the_packet():
    packet = IP(wrapped())
    assert (packet.src, packet.dst, packet.ttl, packet.tos, packet.proto) == (SOURCE, GROUP, 255, 0xC0, 51)
    rebuilt = IP(bytes(packet))
    del rebuilt.chksum, rebuilt.len
    assert bytes(rebuilt) == wrapped()
    header = packet[AH]
    assert (header.nh, header.payloadlen, header.reserved, header.seq) == (112, 4, 0, 7)
    assert header.spi == int.from_bytes(bytes([192, 168, 6, 2]), "big")


def test_the_digest_is_hmac_md5_over_what_routers_do_not_change():
    packet = bytearray(wrapped())
    given_digest = bytes(packet[32:44])
    packet[1] = packet[10] = packet[11] = 0
    packet[32:44] = bytes(12)
    assert given_digest == hmac.new(KEY, bytes(packet), hashlib.md5).digest()[:12]


@given(st.integers(1, MAX_SEQUENCE), st.integers(1, 255), st.sampled_from((GROUP, PEER)))
def test_what_is_wrapped_is_verified(sequence, ttl, destination):
    packet = wrapped(destination, ttl, sequence)
    advert, envelope = unwrap(packet)
    assert advert == ADVERT
    assert (envelope.source, envelope.destination, envelope.ttl) == (SOURCE, destination, ttl if destination == GROUP else None)
    assert verify(advert, envelope, KEY) == sequence
    assert verify(advert, envelope, b"another\0") is AdvertRefusal.AUTHENTICATION


def test_routers_may_lower_the_ttl_of_unicast_adverts_and_of_no_others():
    for destination, expected in ((PEER, 7), (GROUP, AdvertRefusal.AUTHENTICATION)):
        packet = bytearray(wrapped(destination))
        packet[8] = 60
        assert read(bytes(packet)) == expected


def test_every_flipped_bit_is_refused_but_those_that_routers_change():
    good = wrapped()
    changeable = {1, 6, 7, 10, 11}
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert (read(bytes(bad)) == 7) is (bit // 8 in changeable), bit


def test_every_truncation_is_refused():
    good = wrapped()
    assert all(read(good[:length]) in (None, AdvertRefusal.AUTHENTICATION) for length in range(len(good)))


def test_an_advert_without_the_header_is_refused():
    assert verify(ADVERT, Envelope(SOURCE, GROUP, 255), KEY) is AdvertRefusal.AUTHENTICATION_TYPE


def test_the_sender_must_be_the_one_that_the_index_names():
    packet = bytearray(wrapped())
    packet[24:28] = bytes([192, 168, 6, 9])
    packet[32:44] = bytes(12)
    fixed = bytearray(packet)
    fixed[1] = fixed[10] = fixed[11] = 0
    packet[32:44] = hmac.new(KEY, bytes(fixed), hashlib.md5).digest()[:12]
    assert read(bytes(packet)) is AdvertRefusal.AUTHENTICATION


@pytest.mark.parametrize("data", [b"", b"\x45", bytes(19), bytes(64), b"\x45" + bytes(60)])
def test_what_is_no_packet_is_none(data):
    assert unwrap(data) is None


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda tail: b"\x45\0\0\x50" + tail))
def test_random_bytes_never_raise(data):
    assert read(data) is None or isinstance(read(data), AdvertRefusal)
