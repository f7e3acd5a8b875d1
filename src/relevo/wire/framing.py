"""Messages between Relevo's processes: four bytes of length (big endian), then the body, MessagePack."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import msgspec

_LENGTH: Final = struct.Struct("!I")
LENGTH_SIZE: Final = _LENGTH.size
MAX_BODY: Final = 512 << 20
"""Longest body in bytes: enough for the configuration of a million servers, or a list of a million connections."""


class Unreadable(ValueError):
    """Bytes that are no message: too long, encoded otherwise, of another type, or nested without end."""


def decoder(kind: Any) -> Callable[[bytes | bytearray], Any]:
    """Return a function that decodes bodies of a type (one of msgspec's), and raises only ``Unreadable``.

    The other process may have been broken into. MessagePack that is nested deeply enough is not refused by msgspec, but ends
    in a ``RecursionError``.
    """
    decode = msgspec.msgpack.Decoder(kind).decode

    def read(body: bytes | bytearray) -> Any:
        try:
            return decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise Unreadable(str(error)) from error

    return read


def frame(body: bytes) -> bytes:
    """Return ``body`` preceded by its length."""
    return _LENGTH.pack(len(body)) + body


def body_size(head: bytes | bytearray) -> int:
    """Return the length in the first four bytes; ``Unreadable`` if it is above ``MAX_BODY``."""
    (size,) = _LENGTH.unpack_from(head)
    if size > MAX_BODY:
        raise Unreadable(f"a message of {size} bytes")
    return int(size)


class Deframer:
    """Splits a stream into the bodies of its frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes; return the bodies that they complete."""
        self._buffer += data
        found: list[bytes] = []
        while len(self._buffer) >= LENGTH_SIZE:
            end = LENGTH_SIZE + body_size(self._buffer)
            if len(self._buffer) < end:
                break
            found.append(bytes(self._buffer[LENGTH_SIZE:end]))
            del self._buffer[:end]
        return found
