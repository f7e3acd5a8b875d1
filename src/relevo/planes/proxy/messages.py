"""What the balancer and the proxy's process say to each other: frames of four octets of length and MessagePack."""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from relevo.model.table import Connection, ConnectionFilter, Operation, ServiceState
from relevo.planes.port import Refused

LENGTH: Final = struct.Struct("!I")
MAX_FRAME: Final = 256 << 20
"""Octets in a frame: a million connections listed at once."""


class Apply(msgspec.Struct, frozen=True, tag=True):
    """Carry operations out."""

    operations: tuple[Operation, ...]


class Observe(msgspec.Struct, frozen=True, tag=True):
    """Return the table."""


class ListConnections(msgspec.Struct, frozen=True, tag=True):
    """Return connections and templates."""


class EndConnections(msgspec.Struct, frozen=True, tag=True):
    """End the connections and forget the templates that are meant."""

    meant: ConnectionFilter


class Hold(msgspec.Struct, frozen=True, tag=True):
    """The virtual addresses this node holds now."""

    addresses: frozenset[str]


class Reply(msgspec.Struct, frozen=True):
    """Answer to any request; the part asked for is filled. ``error`` says why there is none."""

    refused: list[Refused] = []
    services: list[ServiceState] = []
    connections: list[Connection] = []
    ended: int = 0
    error: str = ""


Request = Apply | Observe | ListConnections | EndConnections | Hold

encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def frame(message: Request | Reply) -> bytes:
    """Encode a message with its length in front."""
    body = encode(message)
    return LENGTH.pack(len(body)) + body
