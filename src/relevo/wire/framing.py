"""Frames of a stream between Relevo's processes: four bytes of length (big endian), then the body."""

from __future__ import annotations

import struct
from typing import Final

_LENGTH: Final = struct.Struct("!I")
LENGTH_SIZE: Final = _LENGTH.size
MAX_BODY: Final = 512 << 20
"""Longest body in bytes: enough for the configuration of a million servers, or a list of a million connections."""


class FrameTooLong(ValueError):
    """A length above ``MAX_BODY``: the stream is not framed."""


def frame(body: bytes) -> bytes:
    """Return ``body`` preceded by its length."""
    return _LENGTH.pack(len(body)) + body


def body_size(head: bytes | bytearray) -> int:
    """Return the length in the first four bytes; ``FrameTooLong`` if it is above ``MAX_BODY``."""
    (size,) = _LENGTH.unpack_from(head)
    if size > MAX_BODY:
        raise FrameTooLong(f"a message of {size} bytes")
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
