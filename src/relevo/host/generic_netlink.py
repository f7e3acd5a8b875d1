"""A socket to one generic netlink family: requests, dumps, and batches of changes with one acknowledgement."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from typing import Final

from relevo.errors import HostError
from relevo.host.netlink import GENERIC, TIMEOUT_S, NetlinkError, NetlinkSocket
from relevo.wire import netlink
from relevo.wire.netlink import Malformed

__all__ = ["TIMEOUT_S", "GenericNetlink", "NetlinkError"]

BATCH: Final = 128
"""Changes in one batch: the errors of all of them fit into the smallest receive buffer."""
BATCH_BYTES: Final = 32_768
"""Bytes in one batch: every socket buffer takes so much at once."""


class GenericNetlink:
    """Requests to family ``name``, one at a time. ``HostError`` when the kernel has no such family."""

    def __init__(self, name: str, version: int) -> None:
        self._version = version
        try:
            self._socket = NetlinkSocket(GENERIC)
        except OSError as error:
            raise HostError(f"no generic netlink: {error.strerror}") from error
        try:
            self._family = self._resolve(name)
        except OSError as error:
            self._socket.close()
            why = "" if error.errno == errno.ENOENT else f": {error.strerror}"
            raise HostError(f"the kernel has no {name}{why}") from error

    def ask(self, command: int, body: bytes = b"", limit_s: float = TIMEOUT_S) -> memoryview | None:
        """Send one request; return the attributes of its answer, ``None`` without one. ``NetlinkError`` on refusal."""
        self._socket.set_limit(limit_s)
        try:
            found = self._ask(command, body, netlink.ACK)
        finally:
            self._socket.set_limit(TIMEOUT_S)
        return netlink.generic(found[-1])[1] if found else None

    def dump(self, command: int, body: bytes = b"") -> list[memoryview]:
        """Send a request for a list; return the attributes of each item."""
        return [netlink.generic(message)[1] for message in self._ask(command, body, netlink.DUMP)]

    def change(self, wanted: Sequence[tuple[int, bytes]]) -> list[int]:
        """Send changes, in order; return the error number of each, 0 for success."""
        results: list[int] = []
        for part in _parts(wanted):
            results += self._change(part)
        return results

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _change(self, wanted: Sequence[tuple[int, bytes]]) -> list[int]:
        """Send one batch. The kernel acknowledges the last change, and reports those that it refuses."""
        numbers = [self._socket.next_sequence() for _ in wanted]
        first, last = numbers[0], numbers[-1]
        block = b"".join(
            self._request(command, body, number, netlink.ACK if number == last else 0)
            for number, (command, body) in zip(numbers, wanted, strict=True)
        )
        results = [0] * len(wanted)
        self._socket.send(block)
        for message in self._socket.until(lambda message: message.type == netlink.ERROR and message.sequence == last):
            if message.type == netlink.ERROR and first <= message.sequence <= last:
                results[message.sequence - first] = netlink.error_number(message)
        return results

    def _ask(self, command: int, body: bytes, flags: int) -> list[netlink.Message]:
        number = self._socket.next_sequence()
        return self._socket.converse(self._request(command, body, number, flags), number)

    def _request(self, command: int, body: bytes, number: int, flags: int) -> bytes:
        return netlink.request(self._family, flags, number, command, self._version, body)

    def _resolve(self, name: str) -> int:
        number = self._socket.next_sequence()
        found = self._socket.converse(netlink.ask_family(name, number), number)
        if not found:
            raise Malformed(netlink.Fault.MISSING, "family")
        return netlink.family_of(found[-1])


def _parts(wanted: Sequence[tuple[int, bytes]]) -> Iterable[Sequence[tuple[int, bytes]]]:
    start, size = 0, 0
    for number, (_, body) in enumerate(wanted):
        if number - start >= BATCH or size + len(body) > BATCH_BYTES:
            yield wanted[start:number]
            start, size = number, 0
        size += len(body) + netlink.HEADERS
    if start < len(wanted):
        yield wanted[start:]
