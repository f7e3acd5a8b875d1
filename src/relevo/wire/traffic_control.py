"""Filters of traffic control (rtnetlink(7), linux/pkt_sched.h, linux/pkt_cls.h): a BPF program at the ingress of an interface."""

from __future__ import annotations

import struct
import sys
from typing import Final

from relevo.wire.netlink import ACK, DUMP, NESTED, REQUEST, Fault, Malformed, Message, attribute, message

NEW_QDISC: Final = 36
NEW_FILTER: Final = 44
DELETE_FILTER: Final = 45
GET_FILTER: Final = 46
_REPLACE: Final = 0x100
_EXCLUSIVE: Final = 0x200
_CREATE: Final = 0x400

_CLSACT: Final = 0xFFFF0000
_CLSACT_PARENT: Final = 0xFFFFFFF1
INGRESS: Final = 0xFFFFFFF2
"""Parent of the filters for incoming packets (TC_H_MIN_INGRESS of clsact)."""
_ALL_PROTOCOLS: Final = int.from_bytes(b"\x00\x03", sys.byteorder)
"""ETH_P_ALL, in network order."""
_HANDLE: Final = 1
"""Number of our filter in its priority, so that a second one replaces it."""

_KIND, _OPTIONS = 1, 2
_CLASS, _DESCRIPTOR, _NAME, _FLAGS = 3, 6, 7, 8
_DIRECT_ACTION: Final = 1

_HEAD = struct.Struct("=BxxxiIII")
"""family, interface, handle, parent, information"""
_NUMBER = struct.Struct("=I")


def add_clsact(sequence: int, index: int) -> bytes:
    """Return the request for a ``clsact`` qdisc at an interface; it fails with EEXIST if there is one."""
    body = _HEAD.pack(0, index, _CLSACT, _CLSACT_PARENT, 0) + attribute(_KIND, b"clsact\0")
    return message(NEW_QDISC, REQUEST | ACK | _CREATE | _EXCLUSIVE, sequence, body)


def put_filter(sequence: int, index: int, priority: int, program: int, name: str) -> bytes:
    """Return the request to run the BPF program with the descriptor ``program`` on incoming packets, in place of a former one."""
    options = (
        attribute(_CLASS, _NUMBER.pack(1))
        + attribute(_DESCRIPTOR, _NUMBER.pack(program))
        + attribute(_NAME, name.encode() + b"\0")
        + attribute(_FLAGS, _NUMBER.pack(_DIRECT_ACTION))
    )
    body = _head(index, priority, _HANDLE) + attribute(_KIND, b"bpf\0") + attribute(_OPTIONS | NESTED, options)
    return message(NEW_FILTER, REQUEST | ACK | _CREATE | _REPLACE, sequence, body)


def delete_filters(sequence: int, index: int, priority: int) -> bytes:
    """Return the request to remove the filters of a priority."""
    return message(DELETE_FILTER, REQUEST | ACK, sequence, _head(index, priority, 0) + attribute(_KIND, b"bpf\0"))


def list_filters(sequence: int, index: int) -> bytes:
    """Return the request for the filters of incoming packets."""
    return message(GET_FILTER, REQUEST | DUMP, sequence, _HEAD.pack(0, index, 0, INGRESS, 0))


def priority_of(answer: Message) -> int:
    """Return the priority of a filter in the answer to ``list_filters``."""
    if len(answer.payload) < _HEAD.size:
        raise Malformed(Fault.TRUNCATED, "filter")
    return int(_HEAD.unpack_from(answer.payload)[4]) >> 16


def _head(index: int, priority: int, handle: int) -> bytes:
    return _HEAD.pack(0, index, handle, INGRESS, priority << 16 | _ALL_PROTOCOLS)
