"""The PROXY protocol header, byte for byte, alone and on the wire."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.model import Endpoint, Protocol
from relevo.planes.proxy.proxy_protocol import header
from tests.unit.proxy.rig import Backend, DatagramBackend, Process, dial, read_all, refusing, wait_until

Make = Callable[..., Backend]
V4 = Endpoint("192.0.2.1", 40_000), Endpoint("198.51.100.7", 443)
V6 = Endpoint("2001:db8::1", 40_000), Endpoint("2001:db8::2", 443)
SIGNATURE = "0d0a0d0a000d0a515549540a"


def test_version_1_writes_both_endpoints() -> None:
    assert header(1, *V4) == b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 443\r\n"
    assert header(1, *V6) == b"PROXY TCP6 2001:db8::1 2001:db8::2 40000 443\r\n"


def test_version_2_packs_both_endpoints() -> None:
    assert header(2, *V4).hex() == SIGNATURE + "21" + "11" + "000c" + "c0000201" + "c6336407" + "9c40" + "01bb"
    addresses = "20010db8000000000000000000000001" + "20010db8000000000000000000000002"
    assert header(2, *V6).hex() == SIGNATURE + "21" + "21" + "0024" + addresses + "9c40" + "01bb"


def test_version_2_marks_datagrams() -> None:
    assert header(2, *V4, stream=False)[12:14].hex() == "2112"
    assert header(2, *V6, stream=False)[12:14].hex() == "2122"


def test_no_version_and_version_1_for_datagrams_have_no_header() -> None:
    assert header(0, *V4) == b""
    assert header(1, *V4, stream=False) == b""


@given(st.ip_addresses(v=4), st.integers(1, 65_535), st.integers(1, 65_535))
def test_version_1_never_exceeds_the_107_bytes_of_the_specification(address: object, port: int, other: int) -> None:
    line = header(1, Endpoint(str(address), port), Endpoint("203.0.113.255", other))
    assert len(line) <= 107
    words = line.decode().split()
    assert ip_address(words[2]) == address
    assert words[4:] == [str(port), str(other)]


@pytest.mark.parametrize("version", [1, 2])
def test_the_server_reads_the_header_before_the_first_byte(plane: Process, backend: Make, version: int) -> None:
    received: list[bytes] = []
    server = backend(lambda sock: received.append(read_all(sock)))
    entry = msgspec.structs.replace(server.entry, proxy_protocol=version)
    key = plane.serve(entry, refusing())  # and the header names the same client after a redispatch
    with dial(key, "127.7.3.4") as client:
        port = client.getsockname()[1]
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
    expected = {
        1: f"PROXY TCP4 127.7.3.4 127.0.40.1 {port} {key.endpoint.port}\r\n".encode(),
        2: bytes.fromhex(SIGNATURE + "2111000c" + "7f070304" + "7f002801") + struct.pack("!HH", port, key.endpoint.port),
    }[version]
    assert received == [expected + b"GET / HTTP/1.0\r\n\r\n"]


def test_the_header_is_sent_even_if_the_client_sends_nothing(plane: Process, backend: Make) -> None:
    received: list[bytes] = []

    def first(sock: socket.socket) -> None:
        received.append(sock.recv(1000))
        sock.sendall(b"220 hello " + received[0])

    key = plane.serve(msgspec.structs.replace(backend(first).entry, proxy_protocol=1))
    with dial(key) as client:
        assert client.recv(1000).startswith(b"220 hello PROXY TCP4 127.7.0.1 127.0.40.1 ")


def test_each_datagram_carries_a_header_of_version_2(plane: Process) -> None:
    server = DatagramBackend("A")
    key = plane.serve(msgspec.structs.replace(server.entry, proxy_protocol=2), protocol=Protocol.UDP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5.0)
        client.bind(("127.7.3.4", 0))
        for data in (b"one", b"two"):
            client.sendto(data, (key.endpoint.address, key.endpoint.port))
            assert client.recv(1000).endswith(data)
        port = client.getsockname()[1]
    front = bytes.fromhex(SIGNATURE + "2112000c" + "7f070304" + "7f002801") + struct.pack("!HH", port, key.endpoint.port)
    wait_until(lambda: len(server.received) == 2, "both datagrams")
    assert server.received == [front + b"one", front + b"two"]
    server.close()
