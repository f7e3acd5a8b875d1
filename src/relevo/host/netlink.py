"""A netlink socket: one request at a time, with all messages up to the end of its answer."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

from relevo.wire import netlink
from relevo.wire.netlink import Message

ROUTE: Final = 0
GENERIC: Final = 16
_SOL_NETLINK: Final = 270
_CAP_ACK: Final = 10
"""Acknowledgements repeat only the header of the request, so that the errors of a batch stay small."""
TIMEOUT_S: Final = 10.0
"""The kernel answers within the system call; the limit is for a broken one."""
_RECEIVE: Final = 1 << 18


class NetlinkError(OSError):
    """The kernel's answer was an error number."""

    def __init__(self, number: int) -> None:
        super().__init__(number, os.strerror(number))


class NetlinkSocket:
    """A socket of ``protocol``; ``OSError`` if it cannot be created."""

    def __init__(self, protocol: int) -> None:
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.settimeout(TIMEOUT_S)

    def next_sequence(self) -> int:
        """Return the sequence number of the next request."""
        self._sequence += 1
        return self._sequence

    def set_limit(self, limit_s: float) -> None:
        """Set the time limit of an answer."""
        self._socket.settimeout(limit_s)

    def send(self, data: bytes) -> None:
        """Send one or more encoded requests."""
        self._socket.sendto(data, (0, 0))

    def converse(self, request: bytes, sequence: int) -> list[Message]:
        """Send a request; return its answers. ``NetlinkError`` if the acknowledgement, or the end of a dump, is an error."""
        self.send(request)
        *answers, last = self.until(
            lambda message: message.sequence == sequence and message.type in (netlink.ERROR, netlink.DONE)
        )
        number = netlink.error_number(last)
        if number:
            raise NetlinkError(number)
        return [m for m in answers if m.sequence == sequence and m.type >= netlink.LEAST_FAMILY]

    def until(self, ends: Callable[[Message], bool]) -> list[Message]:
        """Return messages up to the one for which ``ends`` is true. Only the kernel's messages count."""
        found: list[Message] = []
        while True:
            data, sender = self._socket.recvfrom(_RECEIVE)
            if sender[0] != 0:
                continue  # any process may send to a netlink socket
            for message in netlink.messages(data):
                found.append(message)
                if ends(message):
                    return found

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
