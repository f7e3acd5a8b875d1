"""Filters of sockets in the language of the Berkeley packet filter, of which Linux has the older form too (socket(7))."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

SO_ATTACH_FILTER: Final = 26
SO_DETACH_FILTER: Final = 27

_LOAD_WORD: Final = 0x20
_JUMP_EQUAL: Final = 0x15
_JUMP_GREATER_EQUAL: Final = 0x35
_RETURN: Final = 0x06
_NETWORK_HEADER: Final = -0x100000 & 0xFFFFFFFF
"""Offsets from here are those in the IP header, whatever the socket's data begin with (SKF_NET_OFF)."""
_RANDOM: Final = -0x1000 + 56 & 0xFFFFFFFF
"""A random number (SKF_AD_OFF + SKF_AD_RANDOM)."""
_PACKET_TYPE: Final = -0x1000 + 4 & 0xFFFFFFFF
"""Whom a packet is for, of those of ``AF_PACKET`` (SKF_AD_OFF + SKF_AD_PKTTYPE)."""
_OUTGOING: Final = 4
_SOURCE_IN_IPV4: Final = 12
_SOURCE_IN_IPV6: Final = 8
_SENDER_IN_ARP: Final = 14
MAX_ADDRESSES: Final = 250
"""Addresses in one program: a jump skips at most 255 instructions."""
_ALL: Final = 0xFFFFFFFF


class Instruction(NamedTuple):
    """One instruction: its code, how many to skip if it is true or false, and its operand (linux/filter.h)."""

    code: int
    if_true: int
    if_false: int
    operand: int


def accept_senders(senders: Sequence[str], sample: int, *, ipv6: bool = False) -> list[Instruction]:
    """Return a filter that passes packets of ``senders``, and one in ``sample`` packets of others; all are of one IP version."""
    program = []
    for sender in senders:
        program += _accept_source(sender) if ipv6 else [_equals(sender), Instruction(_RETURN, 0, 0, _ALL)]
    if not ipv6:
        program.insert(0, Instruction(_LOAD_WORD, 0, 0, _NETWORK_HEADER + _SOURCE_IN_IPV4 & 0xFFFFFFFF))
    return [
        *program,
        Instruction(_LOAD_WORD, 0, 0, _RANDOM),
        Instruction(_JUMP_GREATER_EQUAL, 0, 1, (1 << 32) // sample),
        Instruction(_RETURN, 0, 0, 0),
        Instruction(_RETURN, 0, 0, _ALL),
    ]


def _equals(address: str) -> Instruction:
    """Return the comparison with an IPv4 address; the next instruction is skipped if it is another one."""
    return Instruction(_JUMP_EQUAL, 0, 1, struct.unpack("!I", socket.inet_aton(address))[0])


def _accept_source(address: str) -> list[Instruction]:
    """Return the instructions that pass IPv6 packets of this source, a word of it after the other."""
    program = []
    for number, word in enumerate(struct.unpack("!4I", socket.inet_pton(socket.AF_INET6, address))):
        program.append(Instruction(_LOAD_WORD, 0, 0, _NETWORK_HEADER + _SOURCE_IN_IPV6 + 4 * number & 0xFFFFFFFF))
        program.append(Instruction(_JUMP_EQUAL, 0, 2 * (3 - number) + 1, word))  # else behind the acceptance
    return [*program, Instruction(_RETURN, 0, 0, _ALL)]


def accept_claims(addresses: Sequence[str]) -> list[Instruction]:
    """Return a filter that passes ARP messages of others whose sender has one of ``addresses``; with too many, of any sender."""
    count = len(addresses)
    reject = Instruction(_RETURN, 0, 0, 0)
    program = [
        Instruction(_LOAD_WORD, 0, 0, _PACKET_TYPE),
        Instruction(_JUMP_EQUAL, 0, 1, _OUTGOING),
        reject,
    ]
    if count <= MAX_ADDRESSES:
        program.append(Instruction(_LOAD_WORD, 0, 0, _NETWORK_HEADER + _SENDER_IN_ARP & 0xFFFFFFFF))
        for number, each in enumerate(addresses):
            (address,) = struct.unpack("!I", socket.inet_aton(each))
            program.append(Instruction(_JUMP_EQUAL, count - number, 0, address))  # to the end
        program.append(reject)
    return [*program, Instruction(_RETURN, 0, 0, _ALL)]


def attach_filter(sock: socket.socket, program: Sequence[Instruction]) -> None:
    """Have a socket receive what ``program`` passes, in place of a former filter; ``OSError`` if the kernel refuses it."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))
