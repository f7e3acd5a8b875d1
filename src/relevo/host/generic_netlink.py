"""A socket to one generic netlink family: questions, dumps, and batches of changes that are acknowledged together."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from relevo.errors import HostError
from relevo.wire import netlink
from relevo.wire.netlink import Malformed, Message

_PROTOCOL: Final = 16
_SOL_NETLINK: Final = 270
_CAP_ACK: Final = 10
"""Acknowledge with the header of what was asked alone: a refused batch's answers stay small."""
TIMEOUT_S: Final = 10.0
"""The kernel answers within its own call; only a broken one would keep us waiting."""
BATCH: Final = 128
"""Changes sent at once: their refusals fit into the smallest receive buffer."""
BATCH_BYTES: Final = 32_768
"""What a socket buffer takes at once everywhere."""
_RECEIVE: Final = 1 << 18


class Refusal(OSError):
    """The kernel's answer was an error number."""

    def __init__(self, number: int) -> None:
        super().__init__(number, os.strerror(number))


class GenericNetlink:
    """Requests to family ``name``, one at a time. ``HostError`` when the kernel has no such family."""

    def __init__(self, name: str, version: int) -> None:
        self._version = version
        self._sequence = 0
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _PROTOCOL)
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
            self._socket.settimeout(TIMEOUT_S)
        except OSError as error:
            raise HostError(f"no generic netlink: {error.strerror}") from error
        try:
            self._family = self._resolve(name)
        except OSError as error:
            self._socket.close()
            why = "" if error.errno == errno.ENOENT else f": {error.strerror}"
            raise HostError(f"the kernel has no {name}{why}") from error

    def ask(self, command: int, body: bytes = b"", limit_s: float = TIMEOUT_S) -> memoryview | None:
        """Send one request; return the attributes of its answer, ``None`` for a mere acknowledgement."""
        self._socket.settimeout(limit_s)
        try:
            found = self._converse(self._request(command, body, netlink.ACK))
        finally:
            self._socket.settimeout(TIMEOUT_S)
        return netlink.generic(found[-1])[1] if found else None

    def dump(self, command: int, body: bytes = b"") -> list[memoryview]:
        """Send a request for a list; return the attributes of each item."""
        return [netlink.generic(message)[1] for message in self._converse(self._request(command, body, netlink.DUMP))]

    def change(self, wanted: Sequence[tuple[int, bytes]]) -> list[int]:
        """Send changes, in order; return the error number of each, 0 for done."""
        results: list[int] = []
        for part in _parts(wanted):
            results += self._change(part)
        return results

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _change(self, wanted: Sequence[tuple[int, bytes]]) -> list[int]:
        """Send what fits at once. Only the last is acknowledged, and those that are refused."""
        first = self._sequence + 1
        last = first + len(wanted) - 1
        block = b"".join(
            self._request(command, body, netlink.ACK if number == last else 0)
            for number, (command, body) in enumerate(wanted, first)
        )
        results = [0] * len(wanted)
        self._send(block)
        for message in self._until(lambda message: message.type == netlink.ERROR and message.sequence == last):
            if message.type == netlink.ERROR and first <= message.sequence <= last:
                results[message.sequence - first] = netlink.error_number(message)
        return results

    def _request(self, command: int, body: bytes, flags: int) -> bytes:
        self._sequence += 1
        return netlink.request(self._family, flags, self._sequence, command, self._version, body)

    def _converse(self, request: bytes) -> list[Message]:
        """Send a request, return what came before its acknowledgement or its end; ``Refusal`` when that is an error."""
        self._send(request)
        *answers, last = self._until(
            lambda message: message.sequence == self._sequence and message.type in (netlink.ERROR, netlink.DONE)
        )
        number = netlink.error_number(last)
        if number:
            raise Refusal(number)
        return [m for m in answers if m.sequence == self._sequence and m.type >= netlink.LEAST_FAMILY]

    def _resolve(self, name: str) -> int:
        self._sequence += 1
        found = self._converse(netlink.ask_family(name, self._sequence))
        if not found:
            raise Malformed(netlink.Fault.MISSING, "family")
        return netlink.family_of(found[-1])

    def _send(self, data: bytes) -> None:
        self._socket.sendto(data, (0, 0))

    def _until(self, ends: Callable[[Message], bool]) -> Iterable[Message]:
        """Return messages up to the one that ends. A message that is not from the kernel is not heard."""
        found: list[Message] = []
        while True:
            data, sender = self._socket.recvfrom(_RECEIVE)
            if sender[0] != 0:
                continue  # any process may write to a netlink socket
            for message in netlink.messages(data):
                found.append(message)
                if ends(message):
                    return found


def _parts(wanted: Sequence[tuple[int, bytes]]) -> Iterable[Sequence[tuple[int, bytes]]]:
    start, size = 0, 0
    for number, (_, body) in enumerate(wanted):
        if number - start >= BATCH or size + len(body) > BATCH_BYTES:
            yield wanted[start:number]
            start, size = number, 0
        size += len(body) + netlink.HEADERS
    if start < len(wanted):
        yield wanted[start:]
