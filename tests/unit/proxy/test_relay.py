"""One TCP connection through the proxy: all data arrives, and each end or reset is passed on as such."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import random
import select
import socket
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from relevo.planes.proxy.pipes import PipePool
from relevo.planes.proxy.relay import Relay
from tests.unit.proxy.rig import SERVERS, Backend, Process, dial, echo, read_all, read_exactly, read_line, reset, wait_until

Make = Callable[..., Backend]
BULK = 32 << 20


def test_a_client_that_has_finished_sending_still_gets_the_answer(plane: Process, backend: Make) -> None:
    def count(sock: socket.socket) -> None:
        received = read_all(sock)  # ends only if the client's end is passed on
        sock.sendall(b"%d bytes" % len(received))

    key = plane.serve(backend(count).entry)
    with dial(key) as client:
        client.sendall(b"x" * 1000)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"1000 bytes"
    plane.wait_idle(key)


def test_a_server_that_has_finished_sending_still_gets_what_the_client_sends(plane: Process, backend: Make) -> None:
    received: list[bytes] = []

    def greet(sock: socket.socket) -> None:
        sock.sendall(b"all I have to say")
        sock.shutdown(socket.SHUT_WR)
        received.append(read_all(sock))

    key = plane.serve(backend(greet).entry)
    with dial(key) as client:
        assert read_all(client) == b"all I have to say"
        assert plane.service(key).servers[0].inactive == 1
        client.sendall(b"late " * 1000)
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: received, "the server has everything")
    assert received == [b"late " * 1000]
    plane.wait_idle(key)


def test_an_end_behind_bulk_comes_after_the_last_byte(plane: Process, backend: Make) -> None:
    received: list[bytes] = []
    key = plane.serve(backend(lambda sock: received.append(read_all(sock))).entry)
    data = random.Random(4).randbytes(3_333_333)
    with dial(key) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
    assert received[0] == data


def test_a_server_may_speak_first(plane: Process, backend: Make) -> None:
    key = plane.serve(backend(echo("220 ready")).entry)
    with dial(key) as client:
        assert read_line(client) == b"220 ready\n"


def test_a_dialogue_of_small_messages_keeps_its_order_and_is_not_held_up(plane: Process, backend: Make) -> None:
    key = plane.serve(backend(echo("A")).entry)
    with dial(key) as client:
        read_line(client)
        for number in range(500):  # 40 ms each if Nagle waited for an acknowledgement
            client.sendall(b"%d\n" % number)
            assert read_line(client) == b"%d\n" % number


def test_an_empty_connection_ends_on_both_sides(plane: Process, backend: Make) -> None:
    ends: list[bytes] = []
    key = plane.serve(backend(lambda sock: ends.append(read_all(sock))).entry)
    dial(key).close()
    wait_until(lambda: ends == [b""], "the server saw the end")
    plane.wait_idle(key)


class Source:
    """Bytes from a seed, sent in pieces of random size; the receiver compares their hash."""

    def __init__(self, seed: int, size: int) -> None:
        self._chance = random.Random(seed)
        self._block = self._chance.randbytes(1 << 20)
        self._size = size
        self.hash = hashlib.sha256()

    def send(self, sock: socket.socket) -> None:
        left = self._size
        while left:
            begin = self._chance.randrange(len(self._block))
            limit = self._chance.choice((1, 100, 1460, 5000, 32_768, 40_000, 300_000))
            piece = self._block[begin : begin + min(left, self._chance.randint(1, limit))]
            self.hash.update(piece)
            sock.sendall(piece)
            left -= len(piece)


def receive(sock: socket.socket, into: list[str]) -> None:
    digest = hashlib.sha256()
    size = 0
    while data := sock.recv(1 << 17):
        digest.update(data)
        size += len(data)
    into.append(f"{size} {digest.hexdigest()}")


def duplex(sock: socket.socket, source: Source, into: list[str]) -> None:
    """Send and receive everything at the same time, then end."""
    sender = threading.Thread(target=lambda: (source.send(sock), sock.shutdown(socket.SHUT_WR)))
    sender.start()
    receive(sock, into)
    sender.join()


def test_bulk_in_both_directions_at_once_arrives_byte_for_byte(plane: Process, backend: Make) -> None:
    up, down = Source(1, BULK), Source(2, BULK)
    at_server: list[str] = []
    at_client: list[str] = []
    key = plane.serve(backend(lambda sock: duplex(sock, down, at_server)).entry)
    with dial(key, limit_s=30.0) as client:
        duplex(client, up, at_client)
    wait_until(lambda: at_server, "the server has everything")
    assert at_server == [f"{BULK} {up.hash.hexdigest()}"]
    assert at_client == [f"{BULK} {down.hash.hexdigest()}"]
    traffic = plane.wait_idle(key).traffic
    assert (traffic.bytes_in, traffic.bytes_out) == (BULK, BULK)
    pipes = [name for name in plane.descriptors() if name.startswith("pipe:")]
    assert len(pipes) == 4, "both directions were spliced, and their pipes are kept for the next"


def test_many_bulk_connections_at_once_do_not_mix(plane: Process, backend: Make) -> None:
    size = 1 << 20

    def answer(sock: socket.socket) -> None:
        seed = int(read_line(sock))
        sock.sendall(random.Random(seed).randbytes(size))

    key = plane.serve(backend(answer).entry, backend(answer, SERVERS + "2").entry)
    clients = [dial(key) for _ in range(20)]
    for seed, client in enumerate(clients):
        client.sendall(b"%d\n" % seed)
    for seed, client in enumerate(clients):
        assert read_all(client) == random.Random(seed).randbytes(size)
        client.close()
    plane.wait_idle(key)


def test_a_slow_reader_holds_its_sender_back_and_costs_no_memory(plane: Process, backend: Make) -> None:
    may_read = threading.Event()
    size: list[int] = []

    def slow(sock: socket.socket) -> None:
        assert may_read.wait(20.0)
        size.append(len(read_all(sock)))

    key = plane.serve(backend(slow).entry)
    before = plane.resident()
    with dial(key) as client:
        client.settimeout(0.3)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 256 << 20:
                sent += client.send(bytes(1 << 16))
        assert sent < 64 << 20  # what the kernel's buffers and a pipe hold
        assert plane.resident() - before < 4 << 20
        with dial(key, "127.7.0.2") as other:  # others are served meanwhile
            other.shutdown(socket.SHUT_WR)
            may_read.set()
            assert read_all(other) == b""
        client.settimeout(15.0)
        client.sendall(b"end")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
    assert sorted(size) == [0, sent + 3]


def test_a_client_that_does_not_read_holds_its_server_back(plane: Process, backend: Make) -> None:
    sent: list[int] = []

    def flood(sock: socket.socket) -> None:
        sock.settimeout(0.3)
        total = 0
        try:
            while total < 256 << 20:
                total += sock.send(bytes(1 << 16))
        except TimeoutError:
            sent.append(total)
        sock.settimeout(15.0)

    key = plane.serve(backend(flood).entry)
    with dial(key) as client:
        wait_until(lambda: sent, "the server is held back", 10.0)
        assert sent[0] < 64 << 20
        assert len(read_all(client)) == sent[0]


@pytest.mark.parametrize("bulk", [False, True], ids=["after a few bytes", "amid bulk"])
def test_a_client_that_resets_is_passed_on_as_a_reset(plane: Process, backend: Make, bulk: bool) -> None:
    ends: list[str] = []

    def watch(sock: socket.socket) -> None:
        try:
            read_all(sock)
            ends.append("end")
        except ConnectionResetError:
            ends.append("reset")

    key = plane.serve(backend(watch).entry)
    client = dial(key)
    client.sendall(bytes(5 << 20) if bulk else b"hello")
    wait_until(lambda: plane.service(key).traffic.bytes_in, "the plane is in the middle of it")
    reset(client)
    wait_until(lambda: ends, "the server saw the end")
    assert ends == ["reset"]
    plane.wait_idle(key)


@pytest.mark.parametrize("bulk", [False, True], ids=["after a few bytes", "amid bulk"])
def test_a_server_that_dies_is_passed_on_as_a_reset(plane: Process, backend: Make, bulk: bool) -> None:
    def die(sock: socket.socket) -> None:
        sock.recv(1)
        sock.sendall(bytes(5 << 20) if bulk else b"half an ans")
        sock.recv(1)
        reset(sock.dup())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    key = plane.serve(backend(die).entry)
    with dial(key) as client:
        client.sendall(b"x")
        read_exactly(client, 5 << 20 if bulk else 11)
        client.sendall(b"y")
        with pytest.raises(ConnectionResetError):
            read_all(client)
    plane.wait_idle(key)


def test_a_reset_reaches_a_client_that_is_only_sending(plane: Process, backend: Make) -> None:
    def die(sock: socket.socket) -> None:
        sock.recv(1 << 16)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    key = plane.serve(backend(die).entry)
    with dial(key) as client, pytest.raises(ConnectionError):
        for _ in range(10_000):
            client.sendall(bytes(1 << 16))
    plane.wait_idle(key)


def test_a_storm_of_connections_leaves_no_descriptor_behind(plane: Process, backend: Make) -> None:
    key = plane.serve(backend(echo("A")).entry, backend(echo("B"), SERVERS + "2").entry)
    before = sorted(plane.descriptors())
    chance = random.Random(7)
    for round_ in range(8):
        clients = [dial(key, f"127.7.{round_}.{1 + i}") for i in range(60)]
        for client in clients:
            ending = chance.choice(("at once", "reset", "orderly", "one message", "half"))
            if ending == "reset":
                reset(client)
                continue
            if ending in ("orderly", "one message"):
                client.sendall(b"x" * chance.choice((1, 10_000)))
                assert len(read_line(client)) == 2
            if ending == "orderly":
                client.shutdown(socket.SHUT_WR)
                read_all(client)
            if ending == "half":
                client.shutdown(socket.SHUT_WR)
            client.close()
    wait_until(lambda: plane.service(key).traffic.connections == 480, "every client was served")
    state = plane.wait_idle(key)
    wait_until(lambda: sorted(plane.descriptors()) == before, "the same descriptors as at the start")
    assert state.refused == {}


class Owner:
    """What a relay needs, and no more."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pipes = PipePool()

    def later(self, task: Callable[[], None]) -> None:
        pass

    connect_failed = half_closed = forget = later


def test_a_connection_that_has_ended_leaves_no_garbage() -> None:
    """Cycles would stay until a collection, which the proxy makes rarely: memory would follow the number of connections."""
    owner = Owner()
    assignment = SimpleNamespace(server=SimpleNamespace(connections=set(), bytes_in=0, bytes_out=0))
    gc.collect()
    for _ in range(3):
        with contextlib.ExitStack() as stack:
            near, far = ([stack.enter_context(end) for end in socket.socketpair()] for _ in range(2))
            near[0].setblocking(False)
            relay = Relay(owner, near[0], ("127.0.0.1", 1), assignment)  # type: ignore[arg-type]
            far[0].setblocking(False)
            relay.attach(far[0], b"")
            near[1].sendall(b"a request")
            relay.on_server(select.EPOLLOUT)
            assert far[1].recv(100) == b"a request"
            relay.close()
    del relay, near, far, stack
    assert gc.collect() == 0
