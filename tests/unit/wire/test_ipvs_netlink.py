"""IPVS's netlink messages: widths and byte orders as the kernel has them, and answers that lie."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.wire import ipvs_netlink, netlink
from relevo.wire.ipvs_netlink import Counters, Daemon, Destination, Identity, Info, Method, Service, Timeouts
from relevo.wire.netlink import Fault, Malformed, attribute, attributes, messages

WEB = Identity(0, 2, 6, "192.0.2.10", 80)
WEB_6 = Identity(0, 10, 17, "2001:db8::10", 53)
MARK = Identity(7, 10)


def inside(body, kind):
    return {k: bytes(v) for k, v in attributes(attributes(memoryview(body))[kind]).items()}


def test_a_service_is_encoded_in_the_kernel_s_widths_and_orders():
    found = inside(
        ipvs_netlink.encode_service(Service(identity=WEB, scheduler="rr", flags=5, timeout_s=360, netmask=0xFFFFFF00)), 1
    )
    assert found == {
        1: b"\2\0",
        2: b"\6\0",
        3: bytes((192, 0, 2, 10)),
        4: b"\0\x50",
        6: b"rr\0",
        7: struct.pack("=II", 5, 0x3D),
        8: struct.pack("=I", 360),
        9: bytes((255, 255, 255, 0)),
    }


def test_an_ipv6_mask_is_a_plain_number_and_a_mark_has_no_address():
    found = inside(ipvs_netlink.encode_service(Service(identity=MARK, netmask=64, engine="sip")), 1)
    assert found[9] == struct.pack("=I", 64)
    assert found[5] == struct.pack("=I", 7)
    assert found[11] == b"sip\0"
    assert not {2, 3, 4} & set(found)


def test_a_tunnel_s_port_is_in_network_order():
    server = Destination(address="10.0.0.1", port=80, method=Method.TUNNEL, tunnel_type=1, tunnel_port=6080, tunnel_flags=1)
    found = inside(ipvs_netlink.encode_destination(WEB, server), 2)
    assert (found[13], found[14], found[15]) == (b"\1", (6080).to_bytes(2, "big"), b"\1\0")


def test_a_daemon_s_port_is_in_the_machine_s_order():
    daemon = Daemon(state=1, interface="eth0", sync_id=5, max_length=1400, group="224.0.0.81", port=8848, ttl=3)
    found = inside(ipvs_netlink.encode_daemon(daemon), 3)
    assert found[7] == (8848).to_bytes(2, "little")
    assert found[5] == bytes((224, 0, 0, 81))
    assert ipvs_netlink.read_daemon(memoryview(ipvs_netlink.encode_daemon(daemon))) == daemon


def dumped(service):
    """A service as the kernel dumps it: the address always 16 bytes, counters behind."""
    found = inside(ipvs_netlink.encode_service(service), 1)
    if 3 in found:
        found[3] = found[3].ljust(16, b"\0")

    return memoryview(attribute(1, b"".join(attribute(kind, data) for kind, data in found.items())))


@pytest.mark.parametrize("identity", [WEB, WEB_6, MARK])
def test_a_dumped_service_is_the_encoded_one(identity):
    mask = 0xFFFF0000 if identity.family == 2 else 64
    service = Service(identity=identity, scheduler="wlc", flags=1, timeout_s=50, netmask=mask)
    assert ipvs_netlink.read_service(dumped(service)) == service


def test_counters_are_read_in_either_width():
    wide = b"".join(attribute(kind, struct.pack("=Q", 10**12 + kind)) for kind in range(1, 11))
    narrow = b"".join(attribute(kind, struct.pack("=Q" if kind in (4, 5) else "=I", kind)) for kind in range(1, 11))
    service = Service(identity=WEB)
    base = bytes(dumped(service))[4:]
    assert ipvs_netlink.read_service(memoryview(attribute(1, base + attribute(12, wide) + attribute(10, narrow)))).counters == (
        Counters(*(10**12 + kind for kind in range(1, 11)))
    )
    found = ipvs_netlink.read_service(memoryview(attribute(1, base + attribute(10, narrow)))).counters
    assert found == Counters(*range(1, 11))


def test_a_dumped_server_may_be_of_the_other_family():
    server = Destination(address="2001:db8::5", port=80, method=Method.TUNNEL, weight=3, upper_threshold=9, lower_threshold=4)
    encoded = attributes(attributes(memoryview(ipvs_netlink.encode_destination(WEB, server)))[2])
    body = b"".join(attribute(kind, bytes(data)) for kind, data in encoded.items())
    body += b"".join(attribute(kind, struct.pack("=I", kind)) for kind in (7, 8, 9))
    found = ipvs_netlink.read_destination(memoryview(attribute(2, body)), 2)
    assert (found.address, found.weight, found.active, found.inactive, found.persistent) == ("2001:db8::5", 3, 7, 8, 9)


def test_time_outs_and_info():
    assert ipvs_netlink.read_timeouts(memoryview(ipvs_netlink.encode_timeouts(Timeouts(900, 120, 300)))) == Timeouts(
        900, 120, 300
    )
    body = attribute(1, struct.pack("=I", 0x010201)) + attribute(2, struct.pack("=I", 4096))
    assert ipvs_netlink.read_info(memoryview(body)) == Info(0x010201, 4096)


def without(body, kind):
    found = attributes(attributes(body)[1])
    return memoryview(attribute(1, b"".join(attribute(k, bytes(v)) for k, v in found.items() if k != kind)))


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 6, 7, 8, 9])
def test_a_service_without_one_of_its_attributes_is_malformed(kind):
    with pytest.raises(Malformed) as refused:
        ipvs_netlink.read_service(without(dumped(Service(identity=WEB)), kind))
    assert refused.value.fault is Fault.MISSING


LIES = [
    ({1: b"\2"}, Fault.SIZE),
    ({1: b"\3\0"}, Fault.VALUE),
    ({3: b"abc"}, Fault.SIZE),
    ({6: b"\xff\0"}, Fault.VALUE),
    ({7: b"\0\0\0\0"}, Fault.SIZE),
    ({9: b"\0"}, Fault.SIZE),
    ({12: attribute(1, b"abc")}, Fault.SIZE),
]


@pytest.mark.parametrize(("change", "fault"), LIES)
def test_an_attribute_that_lies_is_malformed(change, fault):
    with pytest.raises(Malformed) as refused:
        ipvs_netlink.read_service(_with(change))
    assert refused.value.fault is fault


def _with(change):
    found = {k: bytes(v) for k, v in attributes(attributes(dumped(Service(identity=WEB)))[1]).items()} | change
    return memoryview(attribute(1, b"".join(attribute(kind, data) for kind, data in found.items())))


# -- framing ----------------------------------------------------------------------------------------------------------


def test_requests_are_read_back():
    first = netlink.request(33, netlink.DUMP, 5, 4, 1, attribute(1, b"abc"))
    second = netlink.request(33, 0, 6, 17, 1, b"")
    found = list(messages(first + second))
    assert [(m.type, m.sequence) for m in found] == [(33, 5), (33, 6)]
    command, body = netlink.generic(found[0])
    assert (command, {k: bytes(v) for k, v in attributes(body).items()}) == (4, {1: b"abc"})


def test_an_acknowledgement_has_its_number_positive():
    payload = struct.pack("=i", -17) + bytes(16)
    data = struct.pack("=IHHII", 16 + len(payload), netlink.ERROR, 0, 5, 0) + payload
    (found,) = messages(data)
    assert netlink.error_number(found) == 17


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\1\2\3", Fault.TRUNCATED),
        (struct.pack("=IHHII", 8, 2, 0, 0, 0), Fault.LENGTH),
        (struct.pack("=IHHII", 32, 2, 0, 0, 0), Fault.TRUNCATED),
    ],
)
def test_a_message_that_is_not_whole_is_malformed(data, fault):
    with pytest.raises(Malformed) as refused:
        list(messages(data))
    assert refused.value.fault is fault


@pytest.mark.parametrize(
    ("data", "fault"), [(b"\1\0", Fault.TRUNCATED), (b"\3\0\1\0", Fault.LENGTH), (b"\x09\0\1\0", Fault.TRUNCATED)]
)
def test_an_attribute_that_is_not_whole_is_malformed(data, fault):
    with pytest.raises(Malformed) as refused:
        attributes(memoryview(data))
    assert refused.value.fault is fault


def test_short_payloads_are_malformed():
    (empty,) = messages(struct.pack("=IHHII", 16, netlink.ERROR, 0, 0, 0))
    for read in (netlink.error_number, netlink.generic, netlink.family_of):
        with pytest.raises(Malformed):
            read(empty)


def test_a_family_is_asked_for_and_read():
    (asked,) = messages(netlink.ask_family("IPVS", 3))
    assert netlink.generic(asked)[0] == 3
    body = struct.pack("=BBH", 1, 2, 0) + attribute(1, b"\x21\0")
    (answer,) = messages(struct.pack("=IHHII", 16 + len(body), netlink.CONTROLLER, 0, 3, 0) + body)
    assert netlink.family_of(answer) == 33
    for wrong in (attribute(2, b"IPVS\0"), attribute(1, b"\x21")):
        body = struct.pack("=BBH", 1, 2, 0) + wrong
        (answer,) = messages(struct.pack("=IHHII", 16 + len(body), netlink.CONTROLLER, 0, 3, 0) + body)
        with pytest.raises(Malformed):
            netlink.family_of(answer)


@given(st.binary(max_size=120))
def test_noise_is_malformed_or_read(noise):
    readers = (
        ipvs_netlink.read_service, ipvs_netlink.read_daemon, ipvs_netlink.read_timeouts, ipvs_netlink.read_info,
        lambda body: ipvs_netlink.read_destination(body, 2),
    )  # fmt: skip
    for read in readers:
        try:
            read(memoryview(noise))
        except Malformed as refused:
            assert refused.fault in Fault
