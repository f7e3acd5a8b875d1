"""Wire format of synchronisation between Relevo's own directors: authenticated messages.

IPVS's protocol carries neither the sender's identity nor a sequence number. A message has both: a session (random, chosen when
the sender starts), a sequence number that grows, and an authentication tag over all of it (HMAC-SHA-256, truncated to 128 bits,
RFC 2104 §5). A message of entries contains the complete IPVS sync message that is sent without a key. A kernel takes such a
datagram for a malformed sync message, and drops it.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
from typing import Final

import msgspec

MAGIC: Final = b"RLV1"
SESSION_BYTES: Final = 8
TAG_BYTES: Final = 16
_HEAD: Final = struct.Struct(f"!4sBBH{SESSION_BYTES}sQ")
_NUMBER: Final = struct.Struct("!Q")
_HELLO: Final = struct.Struct("!BBQ")
_SEEN: Final = struct.Struct(f"!{SESSION_BYTES}sQ")
_RESYNC_END: Final = struct.Struct("!QQB")
OVERHEAD: Final = _HEAD.size + _NUMBER.size + TAG_BYTES
"""Bytes that a message adds to the IPVS sync message in it."""
MAX_SEEN: Final = 32
"""Sessions that a hello may list."""
_MASTER, _SYNC_RUNNING = 1, 2


class MessageRefusal(enum.StrEnum):
    """Why a datagram is not a valid message. The values appear in status and metrics, so they are stable."""

    UNAUTHENTICATED = "unauthenticated"
    """No authentication tag: the datagram is a kernel's, or of a director without the key."""
    TAG = "bad_tag"
    """The tag does not verify: the sender has another key, or forged the message."""
    KIND = "message_kind"
    BODY = "message_body"


class Hello(msgspec.Struct, frozen=True, tag=1):
    """Periodic sign of life. ``sent`` counts the messages of entries that the sender has sent.

    ``seen`` lists the sessions received from, each with the number up to which the sender has every message of entries of it.
    ``sync_running``: the sender is answering a resync request.
    """

    master: bool
    sent: int
    seen: tuple[tuple[bytes, int], ...] = ()
    sync_running: bool = False


class Entries(msgspec.Struct, frozen=True, tag=2):
    """An IPVS sync message. ``number`` counts the messages of entries of this session, from 1."""

    number: int
    ipvs_message: bytes


class ResyncRequest(msgspec.Struct, frozen=True, tag=3):
    """Asks the director of ``session`` to send all its connections."""

    session: bytes


class ResyncEnd(msgspec.Struct, frozen=True, tag=4):
    """Ends a sync that consisted of the messages of entries ``first`` to ``last``; of none when ``first`` is above ``last``.

    ``full`` is false when only connections that had not been sent before were in it, or when it failed.
    """

    first: int
    last: int
    full: bool = True


Body = Hello | Entries | ResyncRequest | ResyncEnd
_KINDS: Final = {1: Hello, 2: Entries, 3: ResyncRequest, 4: ResyncEnd}


class Message(msgspec.Struct, frozen=True):
    """One datagram. ``sequence`` grows with every message of a session."""

    session: bytes
    sync_id: int
    sequence: int
    body: Body


def authenticate(message: Message, key: bytes) -> bytes:
    """Return ``message`` as bytes, with its authentication tag."""
    kind, body = _write(message.body)
    data = _HEAD.pack(MAGIC, kind, message.sync_id, 0, message.session, message.sequence) + body
    return data + _tag(data, key)


def verify(data: bytes, key: bytes) -> Message | MessageRefusal:
    """Return the message in a datagram if its tag verifies under ``key``, else why it is refused."""
    if data[: len(MAGIC)] != MAGIC or len(data) < _HEAD.size + TAG_BYTES:
        return MessageRefusal.UNAUTHENTICATED
    text, tag = data[:-TAG_BYTES], data[-TAG_BYTES:]
    if not hmac.compare_digest(tag, _tag(text, key)):
        return MessageRefusal.TAG
    _, kind, sync_id, _, session, sequence = _HEAD.unpack_from(text)
    if kind not in _KINDS:
        return MessageRefusal.KIND
    body = _read(kind, text[_HEAD.size :])
    return MessageRefusal.BODY if body is None else Message(session, sync_id, sequence, body)


def _tag(data: bytes, key: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.sha256)[:TAG_BYTES]


def _write(body: Body) -> tuple[int, bytes]:
    match body:
        case Hello(master=master, sent=sent, seen=seen, sync_running=sync_running):
            flags = (_MASTER if master else 0) | (_SYNC_RUNNING if sync_running else 0)
            return 1, _HELLO.pack(flags, len(seen), sent) + b"".join(_SEEN.pack(*each) for each in seen)
        case Entries(number=number, ipvs_message=ipvs_message):
            return 2, _NUMBER.pack(number) + ipvs_message
        case ResyncRequest(session=session):
            return 3, session
        case ResyncEnd(first=first, last=last, full=full):
            return 4, _RESYNC_END.pack(first, last, full)


def _read(kind: int, data: bytes) -> Body | None:
    """Return the body, ``None`` when its length is wrong for its kind."""
    if kind == 1 and len(data) >= _HELLO.size:
        flags, count, sent = _HELLO.unpack_from(data)
        if len(data) != _HELLO.size + count * _SEEN.size or count > MAX_SEEN:
            return None
        seen = tuple(_SEEN.unpack_from(data, _HELLO.size + i * _SEEN.size) for i in range(count))
        return Hello(bool(flags & _MASTER), sent, seen, bool(flags & _SYNC_RUNNING))
    if kind == 2 and len(data) >= _NUMBER.size:
        return Entries(_NUMBER.unpack_from(data)[0], data[_NUMBER.size :])
    if kind == 3 and len(data) == SESSION_BYTES:
        return ResyncRequest(data)
    if kind == 4 and len(data) == _RESYNC_END.size:
        first, last, full = _RESYNC_END.unpack(data)
        return ResyncEnd(first, last, bool(full))
    return None
