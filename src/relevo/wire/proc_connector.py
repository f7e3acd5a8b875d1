"""Messages of the kernel's process connector: which process began, ended, or became another program.

The layout is that of linux/connector.h and linux/cn_proc.h, in the byte order of the machine.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

CN_IDX_PROC: Final = 1
CN_VAL_PROC: Final = 1
NLMSG_DONE: Final = 3
_LISTEN: Final = 1
_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr
_CONNECTOR: Final = struct.Struct("=IIIIHH")  # cn_msg
_EVENT: Final = struct.Struct("=IIQ")  # proc_event up to its data
_PAIR: Final = struct.Struct("=II")
_FORK: Final = struct.Struct("=IIII")


class Kind(enum.IntEnum):
    """Kinds of events that matter here (``proc_event.what``)."""

    ACKNOWLEDGED = 0
    FORK = 1
    EXEC = 2
    COMM = 0x200
    EXIT = 0x80000000


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """An event of the process ``pid``; ``parent`` is that of a new one. Events of threads are left out."""

    kind: Kind
    pid: int = 0
    parent: int = 0


def listen_request() -> bytes:
    """Return the message that asks for events."""
    body = _CONNECTOR.pack(CN_IDX_PROC, CN_VAL_PROC, 0, 0, 4, 0) + struct.pack("=I", _LISTEN)
    return _HEADER.pack(_HEADER.size + len(body), NLMSG_DONE, 0, 0, 0) + body


def decode_events(data: bytes) -> Iterator[ProcessEvent]:
    """Yield the events of a datagram; what is malformed is left out."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length = _HEADER.unpack_from(data, offset)[0]
        if length < _HEADER.size or offset + length > len(data):
            return
        event = _decode(data[offset + _HEADER.size : offset + length])
        if event is not None:
            yield event
        offset += (length + 3) & ~3


def _decode(body: bytes) -> ProcessEvent | None:
    if len(body) < _CONNECTOR.size + _EVENT.size:
        return None
    index, value, *_ = _CONNECTOR.unpack_from(body)
    what = _EVENT.unpack_from(body, _CONNECTOR.size)[0]
    data = body[_CONNECTOR.size + _EVENT.size :]
    if (index, value) != (CN_IDX_PROC, CN_VAL_PROC) or what not in Kind._value2member_map_:
        return None
    kind = Kind(what)
    if kind is Kind.ACKNOWLEDGED:
        return ProcessEvent(kind)
    if kind is Kind.FORK:
        if len(data) < _FORK.size:
            return None
        _, parent, thread, pid = _FORK.unpack_from(data)
        return ProcessEvent(kind, pid, parent) if thread == pid else None
    if len(data) < _PAIR.size:
        return None
    thread, pid = _PAIR.unpack_from(data)
    return ProcessEvent(kind, pid) if thread == pid else None
