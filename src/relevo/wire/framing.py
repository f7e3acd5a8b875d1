"""Messages over a stream between our own processes: four bytes of length, then the body."""

from __future__ import annotations

import struct
from typing import Final

_LENGTH: Final = struct.Struct("!I")
LENGTH_SIZE: Final = _LENGTH.size
MAX_BODY: Final = 512 << 20
"""Bytes of a message: the configuration of a million servers, or a million connections listed at once, fit."""


class FrameTooLong(ValueError):
    """A length beyond ``MAX_BODY``: what comes is no frame."""


def frame(body: bytes) -> bytes:
    """Return ``body`` with its length in front."""
    return _LENGTH.pack(len(body)) + body


def body_size(head: bytes | bytearray) -> int:
    """Return the length that the first four bytes announce; ``FrameTooLong`` when it cannot be one."""
    (size,) = _LENGTH.unpack_from(head)
    if size > MAX_BODY:
        raise FrameTooLong(f"a message of {size} bytes")
    return int(size)


class Deframer:
    """Cuts a stream into the bodies of frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes; return the bodies that they complete."""
        self._buffer += data
        found: list[bytes] = []
        while len(self._buffer) >= LENGTH_SIZE:
            end = LENGTH_SIZE + body_size(self._buffer)
            if len(self._buffer) < end:
                break
            found.append(bytes(self._buffer[LENGTH_SIZE:end]))
            del self._buffer[:end]
        return found
