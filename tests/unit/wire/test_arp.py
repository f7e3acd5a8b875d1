from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import ARP, Ether

from relevo.wire.arp import ETHERTYPE, Claim, gratuitous_arp, read_claim

MAC = bytes.fromhex("02005e000133")
ADDRESSES = st.ip_addresses(v=4).map(str)


def test_golden_frame():
    assert gratuitous_arp(MAC, "192.168.6.240").hex() == (
        "ffffffffffff" + "02005e000133" + "0806" + "0001080006040001" + "02005e000133" + "c0a806f0" + "ffffffffffff" + "c0a806f0"
    ).ljust(120, "0")


@given(st.binary(min_size=6, max_size=6), ADDRESSES)
def test_scapy_reads_a_broadcast_request_for_the_sender_itself(mac, address):
    frame = Ether(gratuitous_arp(mac, address))
    assert (frame.dst, frame.type) == ("ff:ff:ff:ff:ff:ff", ETHERTYPE)
    assert (frame[ARP].op, frame[ARP].hwtype, frame[ARP].ptype) == (1, 1, 0x0800)
    assert frame[ARP].psrc == frame[ARP].pdst == address
    assert frame.src == frame[ARP].hwsrc == mac.hex(":")


def test_a_frame_has_the_least_length_of_ethernet():
    assert len(gratuitous_arp(MAC, "10.0.0.1")) == 60


@given(st.binary(min_size=6, max_size=6), ADDRESSES, ADDRESSES, st.integers(1, 2))
def test_a_sender_says_whose_an_address_is(mac, address, target, operation):
    body = bytes(ARP(op=operation, hwsrc=mac.hex(":"), psrc=address, pdst=target))
    assert read_claim(body) == (None if address == "0.0.0.0" else Claim(mac, address, gratuitous=address == target))


def test_what_is_no_arp_of_ethernet_and_ipv4_says_nothing():
    body = gratuitous_arp(MAC, "10.0.0.1")[14:]
    assert read_claim(body) == Claim(MAC, "10.0.0.1", gratuitous=True)
    assert [read_claim(body[:length]) for length in range(28)] == [None] * 28
    for place in (1, 2, 4, 5):
        assert read_claim(body[:place] + b"\x77" + body[place + 1 :]) is None
