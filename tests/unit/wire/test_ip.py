import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, IPOption_RR
from scapy.packet import Raw

from relevo.wire.ip import MIN_HEADER, Ipv4Packet, decode_ipv4

ADDRESSES = st.ip_addresses(v=4).map(str)
PACKET = bytes(IP(src="10.0.0.1", dst="224.0.0.18", ttl=255, proto=112) / Raw(b"payload"))


def with_byte(at, value):
    return PACKET[:at] + bytes([value]) + PACKET[at + 1 :]


@given(ADDRESSES, ADDRESSES, st.integers(0, 255), st.binary(max_size=100))
def test_what_scapy_writes_is_read(source, destination, ttl, payload):
    packet = bytes(IP(src=source, dst=destination, ttl=ttl) / Raw(payload))
    assert decode_ipv4(packet) == Ipv4Packet(source, destination, ttl, payload)


def test_options_are_not_payload():
    packet = bytes(IP(src="10.0.0.1", dst="10.0.0.2", ttl=9, options=[IPOption_RR()]) / Raw(b"payload"))
    assert packet[0] & 0x0F > 5
    assert decode_ipv4(packet).payload == b"payload"


def test_what_follows_the_total_length_is_padding():
    assert decode_ipv4(PACKET + b"\0" * 19) == decode_ipv4(PACKET)


def test_a_packet_may_be_a_header_alone():
    assert decode_ipv4(bytes(IP(src="10.0.0.1", dst="10.0.0.2"))).payload == b""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PACKET[: MIN_HEADER - 1],
        with_byte(0, 0x65),  # version 6
        with_byte(0, 0x44),  # header of 16 bytes
        with_byte(0, 0x40),  # of none
        with_byte(0, 0x4F),  # longer than the packet
        with_byte(3, 19),  # total below the header
        with_byte(3, 0),
        with_byte(3, len(PACKET) + 1),  # total beyond the data
        with_byte(2, 0xFF),
    ],
)
def test_lengths_that_lie_are_refused(data):
    assert decode_ipv4(data) is None


@pytest.mark.parametrize("length", range(len(PACKET)))
def test_a_truncated_packet_is_refused(length):
    assert decode_ipv4(PACKET[:length]) is None


@given(st.binary(max_size=80))
def test_random_bytes_never_raise(data):
    packet = decode_ipv4(data)
    assert packet is None or len(packet.payload) <= len(data) - MIN_HEADER
