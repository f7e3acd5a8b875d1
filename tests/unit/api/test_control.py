"""The control socket: private, one daemon at a time, robust against garbage."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.api import schema
from relevo.api import server as control
from relevo.api.client import ask, ask_raw
from relevo.api.schema import COMMANDS, Request
from relevo.api.server import MAX_CLIENTS, MAX_REQUEST, ControlServer
from relevo.errors import ControlError, HostError
from relevo.host.unix_socket import private_listener


async def handle(request: Request) -> Any:
    """Answer like a daemon: one command normally, one at length, one with an exception, one with a refusal."""
    match request:
        case schema.Plane():
            return schema.PlaneName("fine")
        case schema.Connections():
            return "x" * (8 << 20)
        case schema.Sync():
            raise RuntimeError("a bug")
        case _:
            raise ControlError("not now", hint="try later")


FINE = {"plane": "fine"}


def serving(path: Path, test: Callable[[], Awaitable[None]]) -> None:
    """Run ``test`` beside a control server, which must still answer afterwards."""

    async def work() -> None:
        server = ControlServer(path, handle)
        await server.open()
        async with asyncio.timeout(20.0):
            await test()
            assert await send(path, b'{"command": "plane"}\n') == FINE
        await server.close()
        assert not path.exists()

    asyncio.run(work())


async def send(path: Path, data: bytes) -> Any:
    """Send data, close the sending side, and return the first answer, ``None`` if there is none."""
    reader, writer = await asyncio.open_unix_connection(path, limit=32 << 20)
    try:
        writer.write(data)
        writer.write_eof()
        line = await reader.readline()
    except ConnectionError:
        return None
    finally:
        writer.close()
    return json.loads(line) if line else None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def test_a_command_is_answered_by_its_value(path: Path) -> None:
    async def test() -> None:
        assert await send(path, b'{"command": "plane"}\n') == FINE
        assert await send(path, b'{"command": "plane", "more": [1, {}]}\n') == FINE
        assert await send(path, b'{"command": "plane"}') == FINE  # the last line needs no end
        assert len(await send(path, b'{"command": "connections"}\n')) == 8 << 20

    serving(path, test)


def test_a_client_may_send_many_requests(path: Path) -> None:
    async def test() -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        for _ in range(50):
            writer.write(b'{"command": "plane"}\n{"command": "nonsense"}\n')
        for _ in range(50):
            assert json.loads(await reader.readline()) == FINE
            assert "unknown command 'nonsense'" in json.loads(await reader.readline())["error"]
        writer.close()

    serving(path, test)


def test_the_error_of_an_unknown_command_lists_the_known_ones(path: Path) -> None:
    async def test() -> None:
        expected = {"error": "unknown command 'reboot'; known: " + " ".join(COMMANDS)}
        assert await send(path, b'{"command": "reboot"}\n') == expected
        assert len((await send(path, b'{"command": "' + b"x" * 5000 + b'"}\n'))["error"]) < 200

    serving(path, test)


@pytest.mark.parametrize(
    "line",
    [
        b"plane",
        b"",
        b"{}",
        b"[]",
        b"7",
        b'"plane"',
        b'{"command": 7}',
        b'{"command": null}',
        b"{",
        bytes(range(10)),
        b"\xff\xfe",
    ],
)
def test_an_invalid_request_gets_an_error(path: Path, line: bytes) -> None:
    async def test() -> None:
        assert (await send(path, line.replace(b"\n", b"") + b"\n"))["error"].startswith("not a request: ")

    serving(path, test)


def test_a_request_nested_too_deep_gets_an_error(path: Path) -> None:
    async def test() -> None:
        nested = b'{"command": "plane", "x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}\n"
        assert "error" in await send(path, nested)

    serving(path, test)


@pytest.mark.filterwarnings("ignore")
def test_a_command_that_breaks_is_answered_with_an_error(path: Path) -> None:
    async def test() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        assert "error" in (await send(path, b'{"command": "sync"}\n') or {})

    serving(path, test)


def test_a_line_without_end_is_refused_and_not_kept(path: Path) -> None:
    async def test() -> None:
        for line in (b"x" * (MAX_REQUEST + 1), b"x" * (1 << 20) + b"\n"):
            answer = await send(path, line)
            assert answer in (None, {"error": f"a request has at most {MAX_REQUEST} bytes"})

    serving(path, test)


def test_random_bytes_do_no_harm(path: Path) -> None:
    async def test() -> None:
        @settings(max_examples=50)
        @given(st.binary(max_size=200))
        def garbage(data: bytes) -> None:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(5.0)
                sock.connect(str(path))
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(1 << 16):
                    pass

        await asyncio.to_thread(garbage)

    serving(path, test)


def test_a_silent_client_is_disconnected(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_S", 0.05)

    async def test() -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"command"')  # half a request is as good as none
        assert await reader.read() == b""
        writer.close()

    serving(path, test)


def test_a_client_that_does_not_read_its_answer_is_disconnected(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_S", 0.05)

    async def test() -> None:
        server = ControlServer(path.with_name("other"), handle)
        await server.open()
        _, writer = await asyncio.open_unix_connection(path.with_name("other"), limit=100)
        writer.write(b'{"command": "connections"}\n')
        await asyncio.sleep(0.5)
        clients = server._clients
        writer.transport.abort()
        await server.close()
        assert clients == 0

    serving(path, test)


def test_one_client_too_many_takes_the_place_of_the_longest_silent_one(path: Path) -> None:
    """Among them are clients that ask and do not read their answers."""

    async def test() -> None:
        held = [await asyncio.open_unix_connection(path) for _ in range(MAX_CLIENTS)]
        for reader, writer in held[1:]:
            writer.write(b'{"command": "plane"}\n')
            await reader.readline()
        for _, writer in held[5:]:
            writer.write(b'{"command": "connections"}\n')
        assert await send(path, b'{"command": "plane"}\n') == FINE
        assert await held[0][0].read() == b"", "disconnected"
        reader, writer = held[1]
        writer.write(b'{"command": "plane"}\n')
        assert json.loads(await reader.readline()) == FINE
        for _ in range(10 * MAX_CLIENTS):
            held.append(await asyncio.open_unix_connection(path))
            assert await send(path, b'{"command": "plane"}\n') == FINE
        for _, writer in held:
            writer.close()

    serving(path, test)


def test_a_client_that_disconnects_during_a_request_or_answer_does_no_harm(path: Path) -> None:
    async def test() -> None:
        for request in (b'{"comm', b'{"command": "connections"}\n', b'{"command": "plane"}\n' * 1000):
            for _ in range(5):
                _, writer = await asyncio.open_unix_connection(path)
                writer.write(request)
                await writer.drain()
                writer.transport.abort()

    serving(path, test)


# -- the socket -----------------------------------------------------------------------------------------------------------


def test_the_socket_is_for_its_owner_alone_whatever_the_umask(path: Path) -> None:
    import os

    before = os.umask(0)
    try:
        with private_listener(path):
            assert path.stat().st_mode & 0o777 == 0o600
            assert os.umask(0) == 0  # and the umask is as it was
    finally:
        os.umask(before)


def test_a_second_daemon_is_refused_and_the_first_one_goes_on(path: Path) -> None:
    async def test() -> None:
        with pytest.raises(HostError, match="another Relevo is listening on") as refusal:
            await ControlServer(path, handle).open()
        assert "--run-dir" in refusal.value.hint

    serving(path, test)


def test_a_socket_that_a_dead_daemon_left_is_replaced(path: Path) -> None:
    private_listener(path).close()
    assert path.exists()
    with private_listener(path) as listener, socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        listener.accept()[0].close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"cannot listen on .*/absent/control.sock: No such file or directory"):
        private_listener(tmp_path / "absent" / "control.sock")


def test_a_path_too_long_for_a_socket_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="too long"):
        private_listener(tmp_path / ("x" * 120))


def test_a_socket_whose_queue_is_full_is_in_use(path: Path) -> None:
    with private_listener(path), contextlib.ExitStack() as callers:
        fill(path, callers)
        with pytest.raises(HostError, match="another Relevo is listening on"):
            private_listener(path)


def fill(path: Path, callers: contextlib.ExitStack) -> None:
    """Connect until the kernel takes no more."""
    for _ in range(1000):
        sock = callers.enter_context(socket.socket(socket.AF_UNIX))
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except BlockingIOError:
            return
    raise AssertionError("the queue has no end")


# -- floods ---------------------------------------------------------------------------------------------------------------


def test_requests_in_a_flood_wait_for_their_turn_and_are_all_answered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "RATE", 100.0)
    monkeypatch.setattr(control, "BURST", 10)

    async def test() -> None:
        started = time.monotonic()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"command": "plane"}\n' * 40)
        for _ in range(40):
            assert json.loads(await reader.readline()) == FINE
        assert time.monotonic() - started >= 0.29  # the thirty after the first ten
        writer.close()

    serving(path, test)


def test_clients_in_a_flood_wait_in_the_kernel(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "RATE", 100.0)
    monkeypatch.setattr(control, "BURST", 10)

    async def test() -> None:
        started = time.monotonic()
        for _ in range(40):
            assert await send(path, b'{"command": "plane"}\n') == FINE
        assert time.monotonic() - started >= 0.29

    serving(path, test)


# -- asking ---------------------------------------------------------------------------------------------------------------


def test_ask_returns_the_answer_however_long(path: Path) -> None:
    async def test() -> None:
        assert await asyncio.to_thread(ask, path.parent, schema.Plane()) == schema.PlaneName("fine")
        assert len(await asyncio.to_thread(ask_raw, path, schema.Connections())) == (8 << 20) + 3

    serving(path, test)


def test_a_refusal_is_an_error_with_its_hint(path: Path) -> None:
    async def test() -> None:
        with pytest.raises(ControlError, match=r"not now \(try later\)"):
            await asyncio.to_thread(ask, path.parent, schema.Reload())

    serving(path, test)


@pytest.mark.parametrize(
    "line", [b'{"command":"failover"}', b'{"command":"connections","limit":"x"}', b'{"command":"stop","plane":"burn"}']
)
def test_a_request_with_wrong_arguments_gets_an_error(path: Path, line: bytes) -> None:
    async def test() -> None:
        error = (await send(path, line + b"\n"))["error"]
        assert error.startswith(f"{json.loads(line)['command']}: ")

    serving(path, test)


def test_ask_fails_without_a_daemon_or_an_answer(path: Path) -> None:
    with pytest.raises(ControlError, match="no daemon is running") as absent:
        ask_raw(path, schema.Plane())
    assert absent.value.hint == "start it with relevo run"
    with private_listener(path), pytest.raises(ControlError, match=r"no answer from the daemon at .*: no answer in time"):
        ask_raw(path, schema.Plane(), 0.05)
    with pytest.raises(ControlError, match="Connection refused"):
        ask_raw(path, schema.Plane())


def test_ask_waits_for_a_place_in_a_full_queue(path: Path) -> None:
    with private_listener(path) as listener, contextlib.ExitStack() as callers:
        fill(path, callers)
        with pytest.raises(ControlError, match="no answer in time"):
            ask_raw(path, schema.Plane(), 0.05)

        callers.close()

        def answer() -> None:
            request = b""
            while not request:  # those that have gone keep their places until they are accepted
                with listener.accept()[0] as connection:
                    request = connection.recv(1000)
                    if request:
                        connection.sendall(b'{"plane": "fine"}\n')

        thread = threading.Thread(target=answer)
        thread.start()
        assert ask_raw(path, schema.Plane(), 10.0) == b'{"plane": "fine"}\n'
        thread.join()


def test_ask_limits_the_whole_time_of_a_slow_answer(path: Path) -> None:
    over = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            for _ in range(100):
                if over.wait(0.02):
                    return
                connection.sendall(b" ")
            connection.sendall(b"\n")

    with private_listener(path) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        try:
            with pytest.raises((ControlError, BrokenPipeError)):
                ask_raw(path, schema.Plane(), 0.2)
        finally:
            over.set()
            thread.join()


def test_ask_rejects_an_incomplete_answer(path: Path) -> None:
    def hang_up(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(b'{"state": ')
        connection.close()

    with private_listener(path) as listener:
        thread = threading.Thread(target=hang_up, args=(listener,))
        thread.start()
        try:
            with pytest.raises(ControlError):
                ask_raw(path, schema.Plane())
        finally:
            thread.join()
