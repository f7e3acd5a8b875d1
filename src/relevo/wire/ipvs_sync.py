"""Wire format of the kernel's IPVS synchronisation: version 1 is encoded and decoded, version 0 is decoded.

A message is a header and up to 255 entries, each a connection or a persistence template (net/netfilter/ipvs/ip_vs_sync.c).
Messages are not authenticated. What an entry may change in a table is left to the caller.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

GROUP: Final = "224.0.0.81"
PORT: Final = 8848
MAX_LENGTH: Final = 1472
"""Bytes of the longest message that the kernel sends by default: an Ethernet frame less IP and UDP headers."""
MAX_ENTRIES: Final = 255
"""The entry counter has 8 bits, and the kernel's sender does not check it for overflow."""
MAX_SECONDS: Final = 2_678_400
"""No sensible time-out is longer than 31 days."""

NO_OUTPUT: Final = 0x0080
INACTIVE: Final = 0x0100
OUT_SEQUENCE: Final = 0x0200
IN_SEQUENCE: Final = 0x0400
NO_CLIENT_PORT: Final = 0x0800
TEMPLATE: Final = 0x1000
ONE_PACKET: Final = 0x2000

TCP: Final = 6
UDP: Final = 17
SCTP: Final = 132
_STATES: Final = {TCP: 11, UDP: 1, SCTP: 14}
"""Number of states of each protocol."""
_TEMPLATE_STATES: Final = 2
_VERSION_0_TEMPLATE_S: Final = 180

_HEADER: Final = struct.Struct("!BBHBBH")
_HEADER_0: Final = struct.Struct("!BBH")
_ENTRY: Final = struct.Struct("!BBHIHHHHII")
_ENTRY_0: Final = struct.Struct("!BBHHH4s4s4sHH")
_SEQUENCE_SIZE: Final = 24
_V6: Final = 0x01
_LENGTH_MASK: Final = 0x0FFF
_IGNORABLE: Final = 0x40
_OPTION_SEQUENCE, _OPTION_DATA, _OPTION_NAME = 1, 2, 3


class SyncRefusal(enum.StrEnum):
    """Why a message or an entry was dropped. The values appear in status and metrics, so they are stable."""

    TRUNCATED = "truncated"
    SIZE = "size"
    """The size in the header is not that of the datagram."""
    SYNC_ID = "sync_id"
    TYPE = "type"
    VERSION = "entry_version"
    ENTRY_LENGTH = "entry_length"
    OPTION = "option"
    STATE = "state"
    PROTOCOL = "protocol"
    FLAGS = "flags"
    SECONDS = "time_out"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One connection. Addresses are packed, all of one family; ``seconds`` is its whole time-out, 0 for the state's default.

    A template of a firewall mark has the mark as its ``virtual`` address: 0.0.0.7 for mark 7.
    """

    protocol: int
    client: bytes
    client_port: int
    virtual: bytes
    virtual_port: int
    server: bytes
    server_port: int
    state: int
    flags: int = 0
    seconds: int = 0
    mark: int = 0
    sequence: bytes = b""
    engine: str = ""
    engine_data: bytes = b""

    @property
    def is_template(self) -> bool:
        """Whether this is a persistence template."""
        return bool(self.flags & TEMPLATE)


class Received(NamedTuple):
    """The valid entries of a message, and a reason for each that was dropped."""

    entries: list[Entry]
    refused: list[SyncRefusal]


# -- sending ----------------------------------------------------------------------------------------------------------


def encode(entry: Entry) -> bytes:
    """Return an entry in version 1, without padding."""
    body = entry.client + entry.virtual + entry.server + _options(entry)
    head = _ENTRY.pack(
        _V6 if len(entry.client) == 16 else 0,
        entry.protocol,
        _ENTRY.size + len(body),
        entry.flags,
        entry.state,
        entry.client_port,
        entry.virtual_port,
        entry.server_port,
        entry.mark,
        entry.seconds,
    )
    return head + body


def _options(entry: Entry) -> bytes:
    found = b""
    if entry.sequence:
        found += bytes((_OPTION_SEQUENCE, len(entry.sequence))) + entry.sequence
    if entry.engine_data:
        found += bytes((_OPTION_DATA, len(entry.engine_data))) + entry.engine_data
    if entry.engine:
        name = entry.engine.encode("ascii")
        found += bytes((_OPTION_NAME, len(name))) + name
    return found


def assemble(sync_id: int, entries: Iterable[bytes], max_length: int = MAX_LENGTH) -> Iterator[bytes]:
    """Yield messages of encoded entries, as few as ``max_length`` bytes a message allow."""
    body, count = b"", 0
    for entry in entries:
        padding = bytes(-len(body) % 4)
        if count and (count == MAX_ENTRIES or _HEADER.size + len(body) + len(padding) + len(entry) > max_length):
            yield _message(sync_id, body, count)
            body, count, padding = b"", 0, b""
        body += padding + entry
        count += 1
    if count:
        yield _message(sync_id, body, count)


def _message(sync_id: int, body: bytes, count: int) -> bytes:
    return _HEADER.pack(0, sync_id, _HEADER.size + len(body), count, 1, 0) + body


# -- receiving --------------------------------------------------------------------------------------------------------


def decode(message: bytes, sync_id: int = 0) -> Received:
    """Return the entries of a message; ``sync_id`` 0 accepts every id.

    As in the kernel, an entry with a wrong length ends the message; an entry with an invalid value is skipped.
    """
    if len(message) < _HEADER_0.size:
        return Received([], [SyncRefusal.TRUNCATED])
    if len(message) >= _HEADER.size:
        reserved, their_id, size, count, version, spare = _HEADER.unpack_from(message)
        if version == 1 and reserved == 0 and spare == 0:
            if size != len(message):
                return Received([], [SyncRefusal.SIZE])
            if sync_id and their_id != sync_id:
                return Received([], [SyncRefusal.SYNC_ID])
            return _decode_1(message, count)
    count, their_id, size = _HEADER_0.unpack_from(message)
    if size != len(message):
        return Received([], [SyncRefusal.SIZE])
    if sync_id and their_id != sync_id:
        return Received([], [SyncRefusal.SYNC_ID])
    return _decode_0(message, count)


def _decode_1(message: bytes, count: int) -> Received:
    found = Received([], [])
    place = _HEADER.size
    for _ in range(count):
        place = (place + 3) & ~3
        fixed = place + _ENTRY.size
        if fixed > len(message):
            found.refused.append(SyncRefusal.TRUNCATED)
            return found
        fields = _ENTRY.unpack_from(message, place)
        addresses = 3 * (16 if fields[0] & _V6 else 4)
        length = fields[2] & _LENGTH_MASK
        fault = None
        if fields[2] >> 12:
            fault = SyncRefusal.VERSION
        elif length < _ENTRY.size + addresses:
            fault = SyncRefusal.ENTRY_LENGTH
        elif place + length > len(message):
            fault = SyncRefusal.TRUNCATED
        if fault is not None:
            found.refused.append(fault)
            return found
        entry = _entry(fields, message[fixed : fixed + addresses], message[fixed + addresses : place + length])
        (found.refused if isinstance(entry, SyncRefusal) else found.entries).append(entry)  # type: ignore[arg-type]
        place += length
    return found


def _entry(fields: tuple[int, ...], addresses: bytes, options: bytes) -> Entry | SyncRefusal:
    kind, protocol, _, flags, state, client_port, virtual_port, server_port, mark, seconds = fields
    if kind & ~_V6:
        return SyncRefusal.TYPE
    found = _read_options(options)
    if found is None:
        return SyncRefusal.OPTION
    width = len(addresses) // 3
    entry = Entry(
        protocol=protocol,
        client=addresses[:width],
        client_port=client_port,
        virtual=addresses[width : 2 * width],
        virtual_port=virtual_port,
        server=addresses[2 * width :],
        server_port=server_port,
        state=state,
        flags=flags,
        seconds=seconds,
        mark=mark,
        sequence=found.get(_OPTION_SEQUENCE, b""),
        engine=found.get(_OPTION_NAME, b"").decode("ascii", "replace"),
        engine_data=found.get(_OPTION_DATA, b""),
    )
    return check(entry) or entry


def check(entry: Entry) -> SyncRefusal | None:
    """Return why an entry is invalid, ``None`` when it is valid."""
    if entry.flags & ONE_PACKET or (entry.is_template and entry.flags & NO_CLIENT_PORT):
        return SyncRefusal.FLAGS
    if entry.is_template:
        if entry.state >= _TEMPLATE_STATES:
            return SyncRefusal.STATE
        if entry.protocol not in (0, *_STATES):
            return SyncRefusal.PROTOCOL
    elif entry.protocol not in _STATES:
        return SyncRefusal.PROTOCOL
    elif entry.state >= _STATES[entry.protocol]:
        return SyncRefusal.STATE
    return SyncRefusal.SECONDS if entry.seconds > MAX_SECONDS else None


def _read_options(data: bytes) -> dict[int, bytes] | None:
    """Return options by type; ``None`` when one has an invalid length, or is unknown and must not be ignored."""
    found: dict[int, bytes] = {}
    while data:
        if len(data) < 2 or not data[1] or 2 + data[1] > len(data):
            return None
        kind, length = data[0], data[1]
        bare = kind & ~_IGNORABLE
        if (bare == _OPTION_SEQUENCE and length != _SEQUENCE_SIZE) or (bare == _OPTION_NAME and length > 16) or bare in found:
            return None
        if bare in (_OPTION_SEQUENCE, _OPTION_DATA, _OPTION_NAME):
            found[bare] = data[2 : 2 + length]
        elif not kind & _IGNORABLE:
            return None
        data = data[2 + length :]
    return found


def _decode_0(message: bytes, count: int) -> Received:
    """Version 0 has IPv4 only and no time-outs. Its sequence data is in the sender's byte order, and is ignored."""
    found = Received([], [])
    place = _HEADER_0.size
    for _ in range(count):
        if place + _ENTRY_0.size > len(message):
            found.refused.append(SyncRefusal.TRUNCATED)
            return found
        _, protocol, client_port, virtual_port, server_port, *addresses, flags, state = _ENTRY_0.unpack_from(message, place)
        place += _ENTRY_0.size
        if flags & (OUT_SEQUENCE | IN_SEQUENCE):
            if place + _SEQUENCE_SIZE > len(message):
                found.refused.append(SyncRefusal.TRUNCATED)
                return found
            place += _SEQUENCE_SIZE
        client, virtual, server = addresses
        entry = Entry(
            protocol=protocol,
            client=client,
            client_port=client_port,
            virtual=virtual,
            virtual_port=virtual_port,
            server=server,
            server_port=server_port,
            state=state,
            flags=flags & ~(OUT_SEQUENCE | IN_SEQUENCE),
            seconds=_VERSION_0_TEMPLATE_S if flags & TEMPLATE else 0,
        )
        refused = check(entry)
        (found.entries if refused is None else found.refused).append(entry if refused is None else refused)  # type: ignore[arg-type]
    return found
