"""The control socket: one JSON object a line in, one out. It is 0600, so who can reach it may use it.

Requests are ``{"command": NAME, "arguments": {…}}``; answers are the value asked for, or ``{"error": TEXT}``.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from relevo.errors import ControlError, HostError

MAX_REQUEST: Final = 65_536
ANSWER_S: Final = 5.0
"""How long a caller waits for a short answer."""
CALL_S: Final = 30.0
"""How long a command for the plane may take: listing a million connections takes seconds."""
IDLE_S: Final = 30.0
"""A caller that says nothing for this long is hung up on."""
MAX_CALLERS: Final = 32
MAX_PATH: Final = 107
"""Octets of a Unix socket's address (unix(7))."""


class Request(msgspec.Struct, frozen=True):
    """What a caller asks for."""

    command: str
    arguments: dict[str, Any] = {}


Handler = Callable[[dict[str, Any]], Awaitable[Any]]


class ControlServer:
    """Answers commands."""

    def __init__(self, path: Path, handlers: dict[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._callers = 0

    async def open(self) -> None:
        """Listen; ``HostError`` when another daemon does already."""
        sock = private_listener(self._path)
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=MAX_REQUEST)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._callers += 1
        try:
            if self._callers > MAX_CALLERS:
                writer.write(_line({"error": f"more than {MAX_CALLERS} callers"}))
                return
            while True:
                async with asyncio.timeout(IDLE_S):
                    line = await reader.readline()
                if not line:
                    return
                writer.write(_line(await self._answer(line)))
                async with asyncio.timeout(IDLE_S):
                    await writer.drain()
        except ValueError:
            writer.write(_line({"error": f"a request has at most {MAX_REQUEST} octets"}))
        except (OSError, TimeoutError):
            writer.transport.abort()
        finally:
            self._callers -= 1
            writer.close()

    async def _answer(self, line: bytes) -> Any:
        try:
            request = msgspec.json.decode(line, type=Request)
        except (msgspec.MsgspecError, RecursionError) as error:
            return {"error": f"not a request: {error}"}
        handler = self._handlers.get(request.command)
        if handler is None:
            return {"error": f"unknown command '{request.command[:64]}'; known: {' '.join(sorted(self._handlers))}"}
        try:
            return await handler(request.arguments)
        except Exception as error:  # a handler that breaks is an answer too
            return {"error": f"{request.command}: {type(error).__name__}: {error}"}

    async def close(self) -> None:
        """Stop listening and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)


def _line(value: Any) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def private_listener(path: Path) -> socket.socket:
    """Return a listening Unix socket at ``path``, 0600; a dead one in its place is replaced."""
    if len(os.fsencode(path)) > MAX_PATH:
        raise HostError(f"{path} is too long for a Unix socket", hint=f"at most {MAX_PATH} octets: give a shorter --run-dir")
    if path.exists():
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink(missing_ok=True)
            else:
                raise HostError(f"another Relevo is listening on {path}", hint="stop it, or give this one its own --run-dir")
    sock = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(64)
    except OSError as error:
        sock.close()
        raise HostError(f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return sock


def ask(path: Path, command: str, arguments: dict[str, Any] | None = None, limit_s: float = ANSWER_S) -> bytes:
    """Ask the daemon behind ``path`` and return its answer as JSON; for callers without an event loop."""
    with socket.socket(socket.AF_UNIX) as sock:
        ends = time.monotonic() + limit_s
        sock.settimeout(limit_s)
        try:
            sock.connect(str(path))
            sock.sendall(_line({"command": command, "arguments": arguments or {}}))
            received = bytearray()
            while not received.endswith(b"\n"):
                sock.settimeout(max(0.001, ends - time.monotonic()))
                data = sock.recv(1 << 20)
                if not data:
                    raise ControlError(f"the daemon at {path} hung up amid its answer")
                received += data
        except FileNotFoundError as error:
            raise ControlError(f"no daemon is running: {path} does not exist", hint="start it with relevo run") from error
        except OSError as error:
            what = error.strerror or "no answer in time"
            raise ControlError(f"no answer from the daemon at {path}: {what}") from error
    return bytes(received)
