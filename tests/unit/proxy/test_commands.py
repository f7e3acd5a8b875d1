"""The command socket: no input there stops the plane."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relevo.errors import PlaneError
from relevo.model import Endpoint, Protocol, ServiceKey
from relevo.model.table import AddServer, AddService, ServerEntry, ServiceEntry
from relevo.planes.proxy.client import ProxyPlane
from relevo.planes.proxy.messages import Apply, ListConnections, Observe, Reply, decode_reply, encode, pack
from relevo.wire.framing import LENGTH_SIZE, MAX_BODY, body_size
from tests.unit.proxy.rig import Backend, Process, dial, echo, proxy_process, read_all, read_exactly, read_line, wait_until

Make = Callable[..., Backend]
DEEP = b"\x82\xa4type\xa7Observe\xa1x" + b"\x91" * 100_000 + b"\x01"

LENGTH = struct.Struct("!I")


@pytest.fixture
def mortal() -> Iterator[Process]:
    """A plane's process that a test may find dead."""
    with proxy_process() as process:
        yield process


def call(plane: Process) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5.0)
    sock.connect(plane.path)
    return sock


def still_works(plane: Process, key: ServiceKey) -> None:
    assert plane.running(), "the plane's process has died"
    assert plane.service(key).listening == ""
    with dial(key) as client:
        assert read_line(client) == b"A\n"


def read_reply(sock: socket.socket) -> Reply:
    size = body_size(read_exactly(sock, LENGTH_SIZE))
    return decode_reply(read_exactly(sock, size))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.0\r\n\r\n" * 100,
        LENGTH.pack(0),
        LENGTH.pack(3) + b"\xc1\xc1\xc1",
        LENGTH.pack(MAX_BODY + 1) + b"x",
        LENGTH.pack(0xFFFFFFFF) + bytes(1000),
        LENGTH.pack(5) + b"\x81\xa4ty",
        pack(Observe())[:-1] + b"\x00",
        LENGTH.pack(len(encode({"type": "FormatDisk"}))) + encode({"type": "FormatDisk"}),
        LENGTH.pack(len(encode({"type": "Apply", "operations": 7}))) + encode({"type": "Apply", "operations": 7}),
        LENGTH.pack(len(encode([1, 2, 3]))) + encode([1, 2, 3]),
    ],
    ids=["http", "empty", "no MessagePack", "too long", "4 GiB", "cut", "broken", "unknown", "wrong type", "no map"],
)
def test_a_connection_with_an_invalid_request_is_closed(plane: Process, backend: Make, data: bytes) -> None:
    key = plane.serve(backend(echo("A")).entry)
    with call(plane) as sock:
        sock.sendall(data)
        if data != LENGTH.pack(5) + b"\x81\xa4ty":  # this frame may still be completed
            try:
                assert read_all(sock) == b""
            except ConnectionResetError:
                pass  # it did not even read everything
    still_works(plane, key)


def test_random_bytes_do_not_stop_the_plane(plane: Process, backend: Make) -> None:
    key = plane.serve(backend(echo("A")).entry)
    chance = random.Random(3)
    for _ in range(100):
        with call(plane) as sock:
            body = chance.randbytes(chance.randint(0, 300))
            if chance.random() < 0.5:
                body = LENGTH.pack(len(body)) + body
            if chance.random() < 0.5:  # a true request with a few bytes changed
                request = bytearray(pack(Apply((AddService(ServiceEntry(key=key)),))))
                for _ in range(chance.randint(1, 4)):
                    request[chance.randrange(4, len(request))] = chance.randrange(256)
                body = bytes(request)
            sock.sendall(body)
            sock.shutdown(socket.SHUT_WR)
            try:
                read_all(sock)
            except ConnectionResetError:
                pass
    still_works(plane, key)


def test_a_deeply_nested_frame_does_not_stop_the_plane(mortal: Process, backend: Make) -> None:
    key = mortal.serve(backend(echo("A")).entry)
    with call(mortal) as sock:
        sock.sendall(LENGTH.pack(len(DEEP)) + DEEP)
        assert read_all(sock) == b""
    still_works(mortal, key)


def test_a_port_above_65535_does_not_stop_the_plane(mortal: Process, backend: Make) -> None:
    key = mortal.serve(backend(echo("A")).entry)
    impossible = ServiceKey(Protocol.TCP, Endpoint("127.0.40.1", 70_000))
    server = ServerEntry(endpoint=Endpoint("127.0.41.1", 1))
    with call(mortal) as sock:
        sock.sendall(pack(Apply((AddService(ServiceEntry(key=impossible)), AddServer(impossible, server)))))
        sock.recv(1)
    still_works(mortal, key)
    still_works(mortal, mortal.serve(backend(echo("A")).entry))


def test_requests_may_arrive_byte_by_byte_and_many_at_once(plane: Process, backend: Make) -> None:
    key = plane.serve(backend(echo("A")).entry)
    with call(plane) as sock:
        for byte in pack(Observe()):
            sock.sendall(bytes([byte]))
        assert read_reply(sock).services[0].service.key == key
        sock.sendall((pack(Observe()) + pack(ListConnections())) * 50)
        for _ in range(50):
            assert len(read_reply(sock).services) == 1
            assert read_reply(sock).services == []


def test_a_reply_longer_than_the_socket_buffer_arrives_whole(plane: Process) -> None:
    key = plane.serve()
    servers = tuple(ServerEntry(endpoint=Endpoint(f"10.{n >> 8}.{n & 255}.1", 80)) for n in range(20_000))
    assert plane.apply(*(AddServer(key, server) for server in servers[:3000])) == []
    with call(plane) as sock:
        sock.sendall(pack(Observe()) * 20)
        wait_until(plane.observe, "others are answered meanwhile")
        for _ in range(20):
            assert len(read_reply(sock).services[0].servers) == 3000


def test_a_balancer_that_disconnects_changes_nothing(plane: Process, backend: Make) -> None:
    key = plane.serve(backend(echo("A")).entry)
    with dial(key) as client:
        read_line(client)
        before = sorted(plane.descriptors())
        for _ in range(10):
            with call(plane) as sock:
                sock.sendall(pack(Observe())[:3])
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        wait_until(lambda: sorted(plane.descriptors()) == before, "their descriptors are gone")
    still_works(plane, key)


def test_the_end_of_the_supervisor_ends_the_plane(plane: Process, backend: Make) -> None:
    with proxy_process() as other:
        key = other.serve(backend(echo("A")).entry)
        with dial(key) as client:
            read_line(client)
            other._alive.close()
            wait_until(lambda: not Path(f"/proc/{other.pid}").exists() or not other.running(), "the process has ended")
            with pytest.raises(ConnectionResetError):
                read_all(client)


def test_a_missing_plane_is_a_plane_error(tmp_path: Path) -> None:
    with pytest.raises(PlaneError, match="the proxy plane does not answer"):
        asyncio.run(ProxyPlane(str(tmp_path / "missing")).observe())


async def answer_with(data: bytes, path: Path) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(data)
        writer.close()

    return await asyncio.start_unix_server(serve, path)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", LENGTH.pack(10), LENGTH.pack(MAX_BODY + 1), LENGTH.pack(1) + b"\xc1", LENGTH.pack(2) + b"\x81\xa8"],
    ids=["nothing", "half a length", "no body", "too long", "garbage", "cut"],
)
def test_an_invalid_reply_is_a_plane_error_and_the_next_call_connects_again(tmp_path: Path, data: bytes) -> None:
    async def check() -> None:
        path = tmp_path / "socket"
        plane = ProxyPlane(str(path))
        server = await answer_with(data, path)
        with pytest.raises(PlaneError):
            await plane.observe()
        server.close()
        path.unlink()
        server = await answer_with(pack(Reply()), path)
        assert await plane.observe() == []
        server.close()
        await plane.close()

    asyncio.run(check())


def test_a_plane_that_does_not_answer_is_a_plane_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from relevo.planes.proxy import client

    monkeypatch.setattr(client, "TIMEOUT_S", 0.05)

    async def check() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "socket"))
            listener.listen()
            with pytest.raises(PlaneError, match="the proxy plane does not answer: no answer in time"):
                await ProxyPlane(str(tmp_path / "socket")).observe()

    asyncio.run(check())


def test_the_reply_of_a_cancelled_call_is_not_read_by_the_next_one(tmp_path: Path) -> None:
    entry = ServiceEntry(key=ServiceKey(Protocol.TCP, Endpoint("192.0.2.1", 80)))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while size := await reader.read(4):
            body = await reader.readexactly(body_size(size))
            if b"Observe" in body:
                await asyncio.sleep(0.05)
                writer.write(pack(Reply(error="observed")))
            else:
                writer.write(pack(Reply(error="applied")))

    async def check() -> None:
        server = await asyncio.start_unix_server(serve, tmp_path / "socket")
        plane = ProxyPlane(str(tmp_path / "socket"))
        task = asyncio.create_task(plane.observe())
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait({task})
        try:
            assert (await plane._ask(Apply((AddService(entry),)))).error == "applied"
        finally:
            await plane.close()
            server.close()

    asyncio.run(check())


CROWD = 30


def crowd(key: ServiceKey) -> list[socket.socket]:
    """Many clients, without those whose refusal came before their connect returned."""
    clients = []
    for _ in range(CROWD):
        with contextlib.suppress(ConnectionResetError):
            clients.append(dial(key))
    return clients


def test_running_out_of_descriptors_refuses_clients_and_ends_nothing(backend: Make) -> None:
    server = backend(echo("A")).entry
    for descriptors in (30, 31):  # whether the client's or the server's socket is the one too many
        with proxy_process(descriptors) as plane:
            key = plane.serve(server)
            clients = crowd(key)
            first = clients[0]
            assert read_line(first) == b"A\n"
            first.sendall(b"x")
            assert first.recv(1) == b"x"
            wait_until(lambda: not plane.running() or plane.service(key).refused, "a refusal")  # noqa: B023
            assert plane.running(), f"the plane's process has died with {descriptors} descriptors"
            for client in clients:
                client.close()
            plane.wait_idle(key)
            still_works(plane, key)


def test_a_client_for_whom_no_descriptor_is_left_is_not_counted_over_and_over(backend: Make) -> None:
    server = backend(echo("A")).entry
    with proxy_process(30) as plane:
        key = plane.serve(server)
        clients = crowd(key)
        wait_until(lambda: not plane.running() or plane.service(key).refused, "a refusal")
        assert plane.running(), "the plane's process has died"
        time.sleep(0.3)
        assert sum(plane.service(key).refused.values()) <= CROWD
        for client in clients:
            client.close()
