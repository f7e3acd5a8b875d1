"""Unsolicited neighbour advertisements, beside scapy."""

from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import Ether

from relevo.wire.ndp import neighbour_advertisement

MAC = bytes.fromhex("020000000001")


def test_a_router_says_that_it_is_one():
    advertisement = Ether(neighbour_advertisement(MAC, "fd00::9", router=True))[ICMPv6ND_NA]
    assert (advertisement.R, advertisement.S, advertisement.O) == (1, 0, 1)


def test_the_frame_is_what_scapy_reads_and_would_write():
    frame = neighbour_advertisement(MAC, "fd00::9")
    read = Ether(frame)
    assert (read.dst, read.src) == ("33:33:00:00:00:01", "02:00:00:00:00:01")
    assert (read[IPv6].src, read[IPv6].dst, read[IPv6].hlim) == ("fd00::9", "ff02::1", 255)
    advertisement = read[ICMPv6ND_NA]
    assert (advertisement.tgt, advertisement.R, advertisement.S, advertisement.O) == ("fd00::9", 0, 0, 1)
    assert read[ICMPv6NDOptDstLLAddr].lladdr == "02:00:00:00:00:01"
    del read[ICMPv6ND_NA].cksum
    del read[IPv6].plen
    assert bytes(Ether(bytes(read))) == frame
