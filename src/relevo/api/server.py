"""The control socket: a line with one JSON object for each request and answer. Its mode is 0600: only its owner may use it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
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
MAX_QUOTED: Final = 64
"""Characters of an unknown command in the error."""

Handler = Callable[[Request], Awaitable[Any]]
_decode = msgspec.json.Decoder(Request).decode


class _Named(msgspec.Struct, frozen=True):
    command: str


class ControlServer:
    """Listens at ``path``; ``handle`` returns the answer to a request."""

    def __init__(self, path: Path, handle: Handler) -> None:
        self._path = path
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._clients = 0
        self._silent: dict[asyncio.StreamWriter, None] = {}  # clients that are not being answered, the longest first

    async def open(self) -> None:
        """Start listening; ``HostError`` if another daemon listens there."""
        sock = private_listener(self._path)
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=MAX_REQUEST)

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
                writer.write(_line(await self._answer(line)))
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
        if self._server is not None:
            self._server.close()
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
