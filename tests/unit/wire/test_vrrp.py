import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.vrrp import VRRP, VRRPv3

from relevo.model import Authentication, AuthenticationType, VrrpInstance
from relevo.wire.vrrp import (
    AUTH_NONE,
    AUTH_PASS,
    Advert,
    AdvertRefusal,
    Envelope,
    address_rank,
    admit,
    decode,
    encode,
    is_multicast,
    secret_of,
    virtual_router_id,
)

OWN, PEER, GROUP = "192.168.6.2", "192.168.6.3", "224.0.0.18"
VIP = "192.168.6.240"
MULTICAST = Envelope(PEER, GROUP, 255)
UNICAST = Envelope(PEER, OWN)
SECRET = b"example\0"

ADDRESSES = st.ip_addresses(v=4).map(str)
LISTS = st.lists(ADDRESSES, max_size=20).map(tuple)
BYTE = st.integers(0, 255)
ADVERTS_2 = st.builds(
    Advert,
    st.just(2),
    BYTE,
    BYTE,
    st.integers(1, 255).map(float),
    LISTS,
    st.binary(min_size=8, max_size=8),
    st.sampled_from((AUTH_NONE, AUTH_PASS)),
)
ADVERTS_3 = st.builds(Advert, st.just(3), BYTE, BYTE, st.integers(0, 4095).map(lambda n: n / 100), LISTS)
ADVERTS = ADVERTS_2 | ADVERTS_3


def example(version=2, **changes):
    values = {"virtual_router_id": 51, "priority": 100, "interval_s": 1.0, "addresses": (VIP,)}
    values |= {"secret": b"\0" * 8} if version == 2 else {}
    return Advert(version, **values | changes)


def packet(version=2, envelope=MULTICAST, **changes):
    return encode(example(version, **changes), envelope.source, envelope.destination)


# -- bytes ------------------------------------------------------------------------------------------------------------

GOLDEN = [
    (example(2), True, "2133640100 01 b331 c0a806f0 0000000000000000"),
    (example(2, secret=b"example", auth_type=AUTH_PASS), True, "2133640101 01 15df c0a806f0 6578616d706c6500"),
    (example(2, addresses=(), priority=0, interval_s=3.0), True, "2133000000 03 dec9 0000000000000000"),
    (example(3), False, "3133640100 64 a2ce c0a806f0"),
    (example(3), True, "3133640100 64 fb94 c0a806f0"),
    (example(3, interval_s=40.95), False, "313364010f ff 9333 c0a806f0"),
]


@pytest.mark.parametrize(("advert", "pseudo_header", "expected"), GOLDEN)
def test_golden_bytes(advert, pseudo_header, expected):
    assert encode(advert, "192.168.6.2", GROUP, pseudo_header=pseudo_header) == bytes.fromhex(expected)


@given(ADVERTS, ADDRESSES, ADDRESSES, st.booleans())
def test_what_is_encoded_is_decoded(advert, source, destination, pseudo_header):
    data = encode(advert, source, destination, pseudo_header=pseudo_header)
    assert decode(data, Envelope(source, destination, 255), pseudo_header=pseudo_header) == advert


def test_a_secret_has_eight_bytes_on_the_wire():
    assert packet(secret=b"longer than eight", auth_type=AUTH_PASS)[-8:] == b"longer t"
    assert packet(secret=b"abc", auth_type=AUTH_PASS)[-8:] == b"abc\0\0\0\0\0"


def test_the_checksum_of_version_3_covers_the_addresses_of_the_ip_header():
    data = packet(3)
    assert decode(data, Envelope("192.168.6.4", GROUP, 255)) is AdvertRefusal.CHECKSUM
    assert decode(data, MULTICAST, pseudo_header=False) is AdvertRefusal.CHECKSUM
    assert decode(packet(2), Envelope("192.168.6.4", GROUP, 255)) == example(2)


def test_the_reserved_bits_of_version_3_are_ignored():
    data = bytearray(encode(example(3), PEER, GROUP, pseudo_header=False))
    data[4] |= 0xF0
    total = int.from_bytes(data[6:8], "big") - 0xF000
    data[6:8] = (total % 0xFFFF).to_bytes(2, "big")
    assert decode(bytes(data), MULTICAST, pseudo_header=False) == example(3)


# -- IPv6 -------------------------------------------------------------------------------------------------------------

PEER6, OWN6, GROUP6 = "fe80::3", "fe80::2", "ff02::12"
ADDRESSES6 = st.ip_addresses(v=6).map(str)
ADVERTS_6 = st.builds(
    Advert, st.just(3), BYTE, BYTE, st.integers(0, 4095).map(lambda n: n / 100), st.lists(ADDRESSES6, max_size=20).map(tuple)
)


@given(ADVERTS_6, ADDRESSES6, ADDRESSES6)
def test_an_advert_over_ipv6_is_decoded_and_scapy_writes_the_same(advert, source, destination):
    data = encode(advert, source, destination)
    assert decode(data, Envelope(source, destination, 255)) == advert
    layer = VRRPv3(
        vrid=advert.virtual_router_id,
        priority=advert.priority,
        adv=round(advert.interval_s * 100),
        addrlist=list(advert.addresses),
    )
    assert bytes(IPv6(src=source, dst=destination, hlim=255) / layer)[40:] == data


def test_an_advert_over_ipv6_has_version_3_and_hop_limit_255_and_a_sum_over_its_addresses():
    data = encode(example(3, addresses=("fe80::9",)), PEER6, GROUP6)
    assert decode(data, Envelope(PEER6, GROUP6, 255)) == example(3, addresses=("fe80::9",))
    assert decode(data, Envelope(PEER6, GROUP6, 254)) is AdvertRefusal.TTL
    assert decode(data, Envelope(OWN6, GROUP6, 255)) is AdvertRefusal.CHECKSUM
    assert decode(data, MULTICAST) is AdvertRefusal.LENGTH
    assert decode(encode(example(2), PEER, GROUP), Envelope(PEER6, GROUP6, 255)) is AdvertRefusal.VERSION


@given(ADVERTS_6, st.data())
def test_every_flipped_bit_of_an_advert_over_ipv6_is_refused(advert, data):
    encoded = bytearray(encode(advert, PEER6, GROUP6))
    bit = data.draw(st.integers(0, 8 * len(encoded) - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    assert isinstance(decode(bytes(encoded), Envelope(PEER6, GROUP6, 255)), AdvertRefusal)


# -- scapy as oracle --------------------------------------------------------------------------------------------------


def scapy_2(advert):
    auth = (int.from_bytes(advert.secret[:4], "big"), int.from_bytes(advert.secret[4:], "big"))
    return VRRP(
        vrid=advert.virtual_router_id,
        priority=advert.priority,
        authtype=advert.auth_type,
        adv=int(advert.interval_s),
        addrlist=list(advert.addresses),
        auth1=auth[0],
        auth2=auth[1],
    )


@given(ADVERTS_2)
def test_scapy_writes_the_same_version_2(advert):
    assert bytes(scapy_2(advert)) == encode(advert, PEER, GROUP)


@given(ADVERTS_3, ADDRESSES, ADDRESSES)
def test_scapy_writes_the_same_version_3(advert, source, destination):
    layer = VRRPv3(
        vrid=advert.virtual_router_id,
        priority=advert.priority,
        adv=round(advert.interval_s * 100),
        addrlist=list(advert.addresses),
    )
    written = bytes(IP(src=source, dst=destination, ttl=255) / layer)[20:]
    assert written == encode(advert, source, destination)


@given(ADVERTS_2)
def test_scapy_reads_version_2(advert):
    read = VRRP(encode(advert, PEER, GROUP))
    assert (read.version, read.type, read.ipcount) == (2, 1, len(advert.addresses))
    assert (read.vrid, read.priority, read.adv, read.authtype) == (
        advert.virtual_router_id,
        advert.priority,
        advert.interval_s,
        advert.auth_type,
    )
    assert tuple(read.addrlist) == advert.addresses


# -- refusals of the decoder ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "envelope", "refusal"),
    [
        (b"", MULTICAST, AdvertRefusal.TRUNCATED),
        (b"\x21\x33\x64\x01\x00\x01\xb3", MULTICAST, AdvertRefusal.TRUNCATED),
        (b"\x11" + packet()[1:], MULTICAST, AdvertRefusal.VERSION),
        (b"\x41" + packet()[1:], MULTICAST, AdvertRefusal.VERSION),
        (b"\x22" + packet()[1:], MULTICAST, AdvertRefusal.TYPE),
        (b"\x30" + packet(3)[1:], MULTICAST, AdvertRefusal.TYPE),
        (packet(), Envelope(PEER, GROUP, 254), AdvertRefusal.TTL),
        (packet(3), Envelope(PEER, GROUP, 0), AdvertRefusal.TTL),
        (packet()[:-1], MULTICAST, AdvertRefusal.LENGTH),
        (packet() + b"\0", MULTICAST, AdvertRefusal.LENGTH),
        (packet(3) + b"\0" * 8, MULTICAST, AdvertRefusal.LENGTH),
        (packet()[:-1] + b"\x01", MULTICAST, AdvertRefusal.CHECKSUM),
        (packet(3)[:-1] + b"\x01", MULTICAST, AdvertRefusal.CHECKSUM),
    ],
)
def test_a_broken_packet_is_refused_with_its_reason(data, envelope, refusal):
    assert decode(data, envelope) is refusal


@pytest.mark.parametrize("version", [2, 3])
def test_where_the_ttl_is_unknown_it_does_not_count(version):
    assert decode(packet(version, UNICAST), UNICAST) == example(version)


@pytest.mark.parametrize("version", [2, 3])
def test_every_truncation_is_refused(version):
    data = packet(version, addresses=(VIP, "10.0.0.1"), priority=200)
    for length in range(len(data)):
        assert decode(data[:length], MULTICAST) is (AdvertRefusal.TRUNCATED if length < 8 else AdvertRefusal.LENGTH)


@given(ADVERTS, st.booleans(), st.data())
def test_every_flipped_bit_is_refused(advert, pseudo_header, data):
    encoded = bytearray(encode(advert, PEER, GROUP, pseudo_header=pseudo_header))
    bit = data.draw(st.integers(0, 8 * len(encoded) - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    assert isinstance(decode(bytes(encoded), MULTICAST, pseudo_header=pseudo_header), AdvertRefusal)


def test_every_single_flip_of_the_examples_is_refused():
    for version in (2, 3):
        good = packet(version)
        for bit in range(8 * len(good)):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            assert isinstance(decode(bytes(bad), MULTICAST), AdvertRefusal)


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda tail: b"\x21" + tail) | st.binary().map(b"1".__add__))
def test_random_bytes_never_raise(data):
    assert isinstance(decode(data, MULTICAST), Advert | AdvertRefusal)
    assert isinstance(decode(data, UNICAST, pseudo_header=False), Advert | AdvertRefusal)


@pytest.mark.parametrize(("data", "number"), [(b"", None), (b"\x21", None), (b"\x21\x33", 51), (b"\xff\xff\0", 255)])
def test_a_broken_packet_still_has_its_virtual_router_id(data, number):
    assert virtual_router_id(data) == number


# -- admission --------------------------------------------------------------------------------------------------------


def instance(**changes):
    values = {"name": "VI_1", "interface": "eth0", "virtual_router_id": 51}
    return VrrpInstance(**values | changes)


PASS = Authentication(AuthenticationType.PASS, "example")
SIGNED = {"secret": SECRET, "auth_type": AUTH_PASS}


@pytest.mark.parametrize(
    ("advert", "envelope", "listener", "refusal"),
    [
        (example(2), MULTICAST, instance(), None),
        (example(3, interval_s=7.0), MULTICAST, instance(version=3), None),
        (example(2), UNICAST, instance(unicast_peers=(PEER,)), None),
        (example(2, **SIGNED), MULTICAST, instance(authentication=PASS), None),
        (example(2), Envelope(OWN, GROUP, 255), instance(), AdvertRefusal.OWN),
        (example(3), MULTICAST, instance(), AdvertRefusal.VERSION),
        (example(2), MULTICAST, instance(version=3), AdvertRefusal.VERSION),
        (example(2), UNICAST, instance(), AdvertRefusal.MODE),
        (example(2), MULTICAST, instance(unicast_peers=(PEER,)), AdvertRefusal.MODE),
        (example(2), UNICAST, instance(unicast_peers=("10.0.0.1",)), AdvertRefusal.NOT_A_PEER),
        (example(2), MULTICAST, instance(authentication=PASS), AdvertRefusal.AUTHENTICATION_TYPE),
        (example(2, **SIGNED), MULTICAST, instance(), AdvertRefusal.AUTHENTICATION_TYPE),
        (
            example(2, secret=b"guessed\0", auth_type=AUTH_PASS),
            MULTICAST,
            instance(authentication=PASS),
            AdvertRefusal.AUTHENTICATION,
        ),
        (example(2, interval_s=2.0), MULTICAST, instance(), AdvertRefusal.INTERVAL),
        (example(2), MULTICAST, instance(advert_interval_s=2.0), AdvertRefusal.INTERVAL),
        (example(3), MULTICAST, instance(version=3, authentication=PASS), None),
    ],
)
def test_an_advert_is_admitted_only_if_it_fits_the_instance(advert, envelope, listener, refusal):
    assert admit(advert, envelope, listener, OWN) is refusal


@pytest.mark.parametrize(
    ("password", "secret"),
    [("example", b"example\0"), ("12345678", b"12345678"), ("123456789", b"12345678"), ("é", b"\xc3\xa9" + b"\0" * 6)],
)
def test_a_password_has_eight_bytes(password, secret):
    assert secret_of(instance(authentication=Authentication(AuthenticationType.PASS, password))) == secret


def test_without_authentication_there_is_no_secret():
    assert secret_of(instance()) == b""
    assert decode(encode(example(2, secret=b""), PEER, GROUP), MULTICAST) == example(2)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("223.255.255.255", False),
        ("224.0.0.0", True),
        ("239.255.255.255", True),
        ("240.0.0.0", False),
        ("10.0.0.1", False),
        ("ff02::12", True),
        ("fe80::1", False),
        ("ff::1", False),
        ("::1", False),
    ],
)
def test_multicast_is_224_to_239_and_ff00(address, expected):
    assert is_multicast(address) is expected


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_addresses_rank_as_numbers(one, other):
    assert (address_rank(str(one)) > address_rank(str(other))) is (one > other)
