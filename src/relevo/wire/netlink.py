"""Netlink framing: messages, attributes, generic netlink headers. The modules of each family interpret them.

Format: include/uapi/linux/netlink.h and genetlink.h. Numbers are in host order (little endian on every machine that Relevo
runs on), attributes are padded to 4 bytes. The kernel's answers are checked like any other input.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

REQUEST: Final = 0x1
ACK: Final = 0x4
DUMP: Final = 0x300
ERROR: Final = 2
DONE: Final = 3
LEAST_FAMILY: Final = 0x10
"""Lower message types are control messages of netlink itself."""

NESTED: Final = 0x8000
_TYPE_MASK: Final = 0x3FFF

CONTROLLER: Final = 0x10
"""Message type of the generic netlink controller, which lists the other families."""
_GET_FAMILY: Final = 3
_FAMILY_ID: Final = 1
_FAMILY_NAME: Final = 2

_HEADER: Final = struct.Struct("=IHHII")
_GENERIC: Final = struct.Struct("=BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ERRNO: Final = struct.Struct("=i")
HEADERS: Final = _HEADER.size + _GENERIC.size


class Fault(enum.StrEnum):
    """Defect of an answer. The values are names in logs and tests; they do not change."""

    TRUNCATED = "truncated"
    """A header, or the length in it, goes beyond the end."""
    LENGTH = "length"
    """A length is shorter than its own header."""
    SIZE = "attribute_size"
    """The size of an attribute is not that of its type."""
    MISSING = "missing_attribute"
    VALUE = "value"
    """An attribute has a valid size and an impossible value."""


class Malformed(ValueError):
    """An answer that cannot be decoded."""

    def __init__(self, fault: Fault, what: str = "") -> None:
        super().__init__(f"{fault.value}{f': {what}' if what else ''}")
        self.fault = fault


class Message(NamedTuple):
    """One message of a datagram; ``payload`` follows the netlink header."""

    type: int
    flags: int
    sequence: int
    payload: memoryview


def request(family: int, flags: int, sequence: int, command: int, version: int, body: bytes) -> bytes:
    """Return a generic netlink request; ``body`` is attributes."""
    head = _HEADER.pack(HEADERS + len(body), family, REQUEST | flags, sequence, 0)
    return head + _GENERIC.pack(command, version, 0) + body


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """Return a request of another family than generic netlink; ``body`` is the family's header and attributes."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(datagram: bytes) -> Iterator[Message]:
    """Yield the messages of a datagram; ``Malformed`` at the first that is incomplete."""
    rest = memoryview(datagram)
    while rest:
        if len(rest) < _HEADER.size:
            raise Malformed(Fault.TRUNCATED, "message header")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(rest)
        if length < _HEADER.size:
            raise Malformed(Fault.LENGTH, "message")
        if length > len(rest):
            raise Malformed(Fault.TRUNCATED, "message")
        yield Message(kind, flags, sequence, rest[_HEADER.size : length])
        rest = rest[_aligned(length) :]


def error_number(message: Message) -> int:
    """Return the ``errno`` of an acknowledgement or of the end of a dump; 0 is success."""
    if len(message.payload) < _ERRNO.size:
        raise Malformed(Fault.TRUNCATED, "acknowledgement")
    return -int(_ERRNO.unpack_from(message.payload)[0])


def generic(message: Message) -> tuple[int, memoryview]:
    """Return command and attributes of a generic netlink message."""
    if len(message.payload) < _GENERIC.size:
        raise Malformed(Fault.TRUNCATED, "generic header")
    return message.payload[0], message.payload[_GENERIC.size :]


def attribute(kind: int, data: bytes) -> bytes:
    """Return one attribute, padded."""
    length = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(length, kind) + data + bytes(-length % 4)


def attributes(data: memoryview) -> dict[int, memoryview]:
    """Return attributes by type. The last one of a type counts, as in the kernel."""
    found: dict[int, memoryview] = {}
    while data:
        if len(data) < _ATTRIBUTE.size:
            raise Malformed(Fault.TRUNCATED, "attribute header")
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            raise Malformed(Fault.LENGTH, f"attribute {kind & _TYPE_MASK}")
        if length > len(data):
            raise Malformed(Fault.TRUNCATED, f"attribute {kind & _TYPE_MASK}")
        found[kind & _TYPE_MASK] = data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]
    return found


def ask_family(name: str, sequence: int) -> bytes:
    """Return the request for the message type (id) of a generic netlink family."""
    return request(CONTROLLER, ACK, sequence, _GET_FAMILY, 1, attribute(_FAMILY_NAME, name.encode() + b"\0"))


def family_of(message: Message) -> int:
    """Decode the answer to ``ask_family``."""
    number = attributes(generic(message)[1]).get(_FAMILY_ID)
    if number is None:
        raise Malformed(Fault.MISSING, "family id")
    if len(number) != 2:
        raise Malformed(Fault.SIZE, "family id")
    return int.from_bytes(number, "little")


def _aligned(length: int) -> int:
    return (length + 3) & ~3
