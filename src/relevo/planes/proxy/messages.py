"""Requests of the balancer to the proxy's process, and its replies: frames of MessagePack."""

from __future__ import annotations

import msgspec

from relevo.model.table import Connection, ConnectionFilter, Operation, ServiceState
from relevo.planes.port import Refused
from relevo.wire.framing import decoder, frame


class Apply(msgspec.Struct, frozen=True, tag=True):
    """Carry operations out."""

    operations: tuple[Operation, ...]


class Observe(msgspec.Struct, frozen=True, tag=True):
    """Return the table."""


class ListConnections(msgspec.Struct, frozen=True, tag=True):
    """Return connections, datagram sessions and templates."""


class DropConnections(msgspec.Struct, frozen=True, tag=True):
    """Drop the connections and templates that match ``wanted``."""

    wanted: ConnectionFilter


class SetLocal(msgspec.Struct, frozen=True, tag=True):
    """Set the virtual addresses that are on this node now."""

    addresses: frozenset[str]


class Reply(msgspec.Struct, frozen=True):
    """Reply to any request, with the field of that request set. ``error`` says why there is none."""

    refused: list[Refused] = []
    services: list[ServiceState] = []
    connections: list[Connection] = []
    dropped: int = 0
    error: str = ""


Request = Apply | Observe | ListConnections | DropConnections | SetLocal

encode = msgspec.msgpack.Encoder().encode
decode_request = decoder(Request)
decode_reply = decoder(Reply)


def pack(message: Request | Reply) -> bytes:
    """Encode a message as a frame."""
    return frame(encode(message))
