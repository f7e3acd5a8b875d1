"""Messages over a socket pair, as MessagePack frames: non-blocking for the director, asyncio for the others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any, Final, Generic, TypeVar

import msgspec

from relevo.daemon.messages import FromWorker, ToWorker
from relevo.wire.framing import Deframer, decoder, frame

MAX_UNSENT: Final = 16 << 20
"""Bytes that the director buffers for a supervisor that does not read. Further messages are dropped; adverts go on."""

M = TypeVar("M")

_encode = msgspec.msgpack.Encoder().encode
decode_to_worker = decoder(ToWorker)
decode_from_worker = decoder(FromWorker)


def pack(message: Any) -> bytes:
    """Encode a message as a frame."""
    return frame(_encode(message))


class Unpacker(Generic[M]):
    """Splits a stream into messages."""

    def __init__(self, decode: Any) -> None:
        self._decode = decode
        self._frames = Deframer()

    def feed(self, data: bytes) -> list[M]:
        """Add bytes; return the messages that they complete; ``Unreadable`` for what is none."""
        return [self._decode(body) for body in self._frames.feed(data)]


class DirectorChannel:
    """The director's end. It never waits for the supervisor: data that the socket does not take is buffered and sent later."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.setblocking(False)
        self._unpacker: Unpacker[ToWorker] = Unpacker(decode_to_worker)
        self._unsent = bytearray()

    def send(self, message: FromWorker) -> None:
        """Send a message, or buffer it for ``flush``."""
        if len(self._unsent) < MAX_UNSENT:
            self._unsent += pack(message)
        self.flush()

    @property
    def unsent(self) -> bool:
        """Whether there is buffered data."""
        return bool(self._unsent)

    def flush(self) -> None:
        """Send buffered data, as far as the socket takes it."""
        while self._unsent:
            try:
                sent = self.socket.send(self._unsent)
            except BlockingIOError:
                return
            except OSError:
                self._unsent.clear()  # the supervisor has ended; ``receive`` reports it
                return
            del self._unsent[:sent]

    def receive(self) -> list[ToWorker] | None:
        """Return the received messages; ``None`` if the supervisor has ended."""
        found: list[ToWorker] = []
        while True:
            try:
                data = self.socket.recv(1 << 16)
            except BlockingIOError:
                return found
            except OSError:
                return None
            if not data:
                return None
            found += self._unpacker.feed(data)


class AsyncChannel(Generic[M]):
    """One end for asyncio; ``decode`` decodes received messages."""

    def __init__(self, sock: socket.socket, decode: Any) -> None:
        self._socket = sock
        self._unpacker: Unpacker[M] = Unpacker(decode)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._early = bytearray()

    async def open(self) -> None:
        """Open the stream, and send messages that were queued before."""
        self._reader, self._writer = await asyncio.open_connection(sock=self._socket)
        self._writer.write(bytes(self._early))

    def send(self, message: Any) -> None:
        """Queue a message. After the other side has ended it is dropped; ``messages`` reports the end."""
        if self._writer is None:
            self._early += pack(message)
        elif not self._writer.is_closing():
            self._writer.write(pack(message))

    async def drain(self) -> None:
        """Wait until all queued messages are sent, or the other side ends."""
        if self._writer is not None:
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()

    async def messages(self) -> AsyncIterator[M]:
        """Yield received messages until the other side ends."""
        assert self._reader is not None
        while True:
            try:
                data = await self._reader.read(1 << 16)
            except OSError:
                return
            if not data:
                return
            for message in self._unpacker.feed(data):
                yield message

    def close(self) -> None:
        """Close this end."""
        if self._writer is not None:
            self._writer.close()
        else:
            self._socket.close()
