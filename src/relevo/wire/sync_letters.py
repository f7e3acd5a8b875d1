"""Synchronisation between Relevo's own directors on the wire: letters, sealed with a key that they share.

IPVS's protocol says neither who sent a message nor that it is new. A letter does: a session (chosen at random when its sender
started), a number that grows, and a seal over all of it (HMAC-SHA-256, cut to 128 bits, RFC 2104 §5). Entries go in a letter as
the message of IPVS's protocol that they would have been. A kernel takes a letter for a malformed message, and drops it.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
from typing import Final

import msgspec

MAGIC: Final = b"RLV1"
SESSION: Final = 8
"""Octets of a session."""
SEAL: Final = 16
_HEAD: Final = struct.Struct(f"!4sBBH{SESSION}sQ")
_NUMBER: Final = struct.Struct("!Q")
_HELLO: Final = struct.Struct("!BBQ")
_SEEN: Final = struct.Struct(f"!{SESSION}sQ")
_DONE: Final = struct.Struct("!QQB")
OVERHEAD: Final = _HEAD.size + _NUMBER.size + SEAL
"""Octets that a letter adds to a message of entries."""
MAX_SEEN: Final = 32
"""Sessions that a hello names."""
_MASTER, _TELLING = 1, 2


class Refusal(enum.StrEnum):
    """Why a datagram is no letter. The values are names in status and metrics; they do not change."""

    PLAIN = "unsealed"
    """It has no seal: a kernel's, or of a director without the key."""
    SEAL = "seal"
    """Another key, or a forgery."""
    KIND = "letter_kind"
    BODY = "letter_body"


class Hello(msgspec.Struct, frozen=True, tag=1):
    """A sign of life. ``told`` is how many letters of entries the sender has sent; ``seen`` are the sessions that it has heard
    of late, and how many of theirs it has without a gap. ``telling``: it is answering somebody who asked for everything.
    """

    master: bool
    told: int
    seen: tuple[tuple[bytes, int], ...] = ()
    telling: bool = False


class Entries(msgspec.Struct, frozen=True, tag=2):
    """A message of IPVS's protocol, the ``number``-th of this session, from 1."""

    number: int
    message: bytes


class Ask(msgspec.Struct, frozen=True, tag=3):
    """Tell me everything, you of this session."""

    session: bytes


class Done(msgspec.Struct, frozen=True, tag=4):
    """Everything was told, by the letters of entries from ``first`` to ``last``; by none when ``first`` is above ``last``.

    Not ``whole``: only what had never been told, for those who have the rest.
    """

    first: int
    last: int
    whole: bool = True


Body = Hello | Entries | Ask | Done
_KINDS: Final = {1: Hello, 2: Entries, 3: Ask, 4: Done}


class Letter(msgspec.Struct, frozen=True):
    """One datagram. ``sequence`` grows from letter to letter of a session."""

    session: bytes
    sync_id: int
    sequence: int
    body: Body


def seal(letter: Letter, key: bytes) -> bytes:
    """Return a letter as octets."""
    kind, body = _write(letter.body)
    data = _HEAD.pack(MAGIC, kind, letter.sync_id, 0, letter.session, letter.sequence) + body
    return data + _tag(data, key)


def unseal(data: bytes, key: bytes) -> Letter | Refusal:
    """Return a letter that somebody with ``key`` wrote, or why it is none."""
    if data[: len(MAGIC)] != MAGIC or len(data) < _HEAD.size + SEAL:
        return Refusal.PLAIN
    text, tag = data[:-SEAL], data[-SEAL:]
    if not hmac.compare_digest(tag, _tag(text, key)):
        return Refusal.SEAL
    _, kind, sync_id, _, session, sequence = _HEAD.unpack_from(text)
    if kind not in _KINDS:
        return Refusal.KIND
    body = _read(kind, text[_HEAD.size :])
    return Refusal.BODY if body is None else Letter(session, sync_id, sequence, body)


def _tag(data: bytes, key: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.sha256)[:SEAL]


def _write(body: Body) -> tuple[int, bytes]:
    match body:
        case Hello(master=master, told=told, seen=seen, telling=telling):
            flags = (_MASTER if master else 0) | (_TELLING if telling else 0)
            return 1, _HELLO.pack(flags, len(seen), told) + b"".join(_SEEN.pack(*each) for each in seen)
        case Entries(number=number, message=message):
            return 2, _NUMBER.pack(number) + message
        case Ask(session=session):
            return 3, session
        case Done(first=first, last=last, whole=whole):
            return 4, _DONE.pack(first, last, whole)


def _read(kind: int, data: bytes) -> Body | None:
    if kind == 1 and len(data) >= _HELLO.size:
        flags, count, told = _HELLO.unpack_from(data)
        if len(data) != _HELLO.size + count * _SEEN.size or count > MAX_SEEN:
            return None
        seen = tuple(_SEEN.unpack_from(data, _HELLO.size + i * _SEEN.size) for i in range(count))
        return Hello(bool(flags & _MASTER), told, seen, bool(flags & _TELLING))
    if kind == 2 and len(data) >= _NUMBER.size:
        return Entries(_NUMBER.unpack_from(data)[0], data[_NUMBER.size :])
    if kind == 3 and len(data) == SESSION:
        return Ask(data)
    if kind == 4 and len(data) == _DONE.size:
        first, last, whole = _DONE.unpack(data)
        return Done(first, last, bool(whole))
    return None
