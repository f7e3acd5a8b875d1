"""The control socket: a line with one JSON object for each request and answer. Its mode is 0600: only its owner may use it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from relevo.api.schema import COMMANDS, Request, RequestRefusal
from relevo.errors import RelevoError
from relevo.host.unix_socket import private_listener

MAX_REQUEST: Final = 65_536
"""Longest request in bytes: a few hundred operations on the table."""
IDLE_S: Final = 30.0
"""A client that sends nothing, or does not read its answer, for this long is disconnected."""
MAX_CLIENTS: Final = 32
"""Simultaneous clients. One more takes the place of the one that has been silent for longest."""
RATE: Final = 50.0
"""Clients accepted in a second, and requests answered in a second, in the long run: a client and its answer cost a millisecond.
Who comes faster waits, first in the queue of the socket."""
BURST: Final = 100
"""Clients, and requests, that are not delayed after a time of quiet."""
MAX_KEPT: Final = 1 << 20
"""Bytes of an answer that are kept for those who get the same: a list of a million connections is not."""
MAX_QUOTED: Final = 64
"""Characters of an unknown command in the error."""

Handler = Callable[[Request], Awaitable[Any]]
_decode = msgspec.json.Decoder(Request).decode


class _Named(msgspec.Struct, frozen=True):
    command: str


class Turns:
    """Gives turns at most ``RATE`` times a second in the long run, in the order in which they are asked for."""

    def __init__(self) -> None:
        self._next_at = 0.0  # when the next turn is due if none is taken in advance
        self._asked = asyncio.Lock()  # the first waits for its time, the others for it

    async def take(self) -> None:
        """Return when it is the caller's turn."""
        loop = asyncio.get_running_loop()
        async with self._asked:
            self._next_at = max(self._next_at, loop.time() - BURST / RATE) + 1 / RATE
            if self._next_at > loop.time():
                await asyncio.sleep(self._next_at - loop.time())


class ControlServer:
    """Listens at ``path``; ``handle`` returns the answer to a request."""

    def __init__(self, path: Path, handle: Handler) -> None:
        self._path = path
        self._handle = handle
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._requests = Turns()
        self._encoded: tuple[Any, bytes] = (None, b"")  # the last answer: several clients may be given the same
        self._clients = 0
        self._silent: dict[asyncio.StreamWriter, None] = {}  # clients that are not being answered, the longest first

    async def open(self) -> None:
        """Start listening; ``HostError`` if another daemon listens there."""
        self._listener = private_listener(self._path)
        self._listener.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(self._listener), name="control socket")

    async def _accept(self, listener: socket.socket) -> None:
        """Accept one client a turn: those that come faster wait in the kernel, where they cost nothing."""
        loop = asyncio.get_running_loop()
        turns = Turns()
        while True:
            await turns.take()
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError:  # no descriptors: the client waits until there is one
                continue
            reader = asyncio.StreamReader(limit=MAX_REQUEST)
            await loop.connect_accepted_socket(partial(asyncio.StreamReaderProtocol, reader, self._serve), sock)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients > MAX_CLIENTS and not self._drop_a_silent_one():
                writer.write(_line(RequestRefusal(f"more than {MAX_CLIENTS} clients")))
                return
            while True:
                self._silent[writer] = None
                async with asyncio.timeout(IDLE_S):
                    line = await reader.readline()
                if not line:
                    return
                self._silent.pop(writer, None)
                await self._requests.take()
                writer.write(self._line(await self._answer(line)))
                self._silent[writer] = None
                async with asyncio.timeout(IDLE_S):
                    await writer.drain()
        except ValueError:
            writer.write(_line(RequestRefusal(f"a request has at most {MAX_REQUEST} bytes")))
        except (OSError, TimeoutError):
            writer.transport.abort()
        finally:
            self._clients -= 1
            self._silent.pop(writer, None)
            writer.close()

    def _drop_a_silent_one(self) -> bool:
        """Disconnect the client that has been silent for longest; return False if all of them wait for answers."""
        if not self._silent:
            return False
        silent = next(iter(self._silent))
        del self._silent[silent]
        silent.transport.abort()
        return True

    def _line(self, value: Any) -> bytes:
        if value is self._encoded[0]:
            return self._encoded[1]
        line = _line(value)
        self._encoded = (value, line) if len(line) <= MAX_KEPT else (None, b"")
        return line

    async def _answer(self, line: bytes) -> Any:
        try:
            request = _decode(line)
        except (msgspec.MsgspecError, RecursionError) as error:
            return RequestRefusal(_explain(line, error))
        try:
            return await self._handle(request)
        except RelevoError as error:
            return RequestRefusal(f"{error} ({error.hint})" if error.hint else str(error))
        except Exception as error:  # an exception of a handler must not close the connection
            return RequestRefusal(f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._accepting is None or self._listener is None:
            return
        self._accepting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._accepting
        self._listener.close()
        self._path.unlink(missing_ok=True)


def _line(value: Any) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _explain(line: bytes, error: Exception) -> str:
    """Return the error for a request that cannot be decoded."""
    try:
        name = msgspec.json.decode(line, type=_Named).command
    except (msgspec.MsgspecError, RecursionError):
        return f"not a request: {error}"
    if name in COMMANDS:
        return f"{name}: {error}"
    return f"unknown command '{name[:MAX_QUOTED]}'; known: {' '.join(COMMANDS)}"
