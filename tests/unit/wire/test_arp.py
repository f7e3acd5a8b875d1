from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import ARP, Ether

from relevo.wire.arp import ETHERTYPE, gratuitous_arp

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
