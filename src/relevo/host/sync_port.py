"""Sockets of connection synchronisation: UDP on one interface, to and from a multicast group or peers by address."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Self

from relevo.host.socket_filter import SO_DETACH_FILTER, accept_senders, attach_filter

BUFFER: Final = 8 << 20
"""Bytes of each socket buffer: room for some hundred thousand connections."""
_LONGEST: Final = 65_535
_SEND_BUFFER_FORCE, _RECEIVE_BUFFER_FORCE = 32, 33
"""SO_SNDBUFFORCE and SO_RCVBUFFORCE."""
_MULTICAST_ALL, _MULTICAST_ALL_6 = 49, 29
"""IP_MULTICAST_ALL and IPV6_MULTICAST_ALL; off, a socket receives only the groups that it has joined itself."""


def interface_index(name: str) -> int:
    """Return the index of an interface, 0 when it does not exist. An interface that was recreated has a new index."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def _open(address: str) -> tuple[socket.socket, bool]:
    six = ip_address(address).version == 6
    return socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC), six


def _enlarge_buffer(sock: socket.socket, forced: int, usual: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, forced, BUFFER)
    except OSError:  # without CAP_NET_ADMIN the system's limit applies
        sock.setsockopt(socket.SOL_SOCKET, usual, BUFFER)


class SyncSender:
    """Sends to a group, or to each of ``peers`` instead. ``OSError`` when the interface is missing or has no address."""

    def __init__(self, interface: str, group: str, port: int, ttl: int, peers: Sequence[str] = ()) -> None:
        self._to = [(address, port) for address in peers or (group,)]
        index = socket.if_nametoindex(interface)
        self._socket, six = _open(self._to[0][0])
        level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
        with contextlib.ExitStack() as undo:
            undo.callback(self._socket.close)
            self._socket.setblocking(False)
            _enlarge_buffer(self._socket, _SEND_BUFFER_FORCE, socket.SO_SNDBUF)
            if peers:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            elif six:
                self._socket.setsockopt(level, socket.IPV6_MULTICAST_IF, index)
                self._socket.setsockopt(level, socket.IPV6_MULTICAST_HOPS, ttl)
                self._socket.setsockopt(level, socket.IPV6_MULTICAST_LOOP, 0)
            else:
                self._socket.setsockopt(level, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", index))
                self._socket.setsockopt(level, socket.IP_MULTICAST_TTL, ttl)
                self._socket.setsockopt(level, socket.IP_MULTICAST_LOOP, 0)
            undo.pop_all()

    def send(self, message: bytes) -> None:
        """Send one message to the group or to each peer, without blocking. Raises the ``OSError`` of the last one that failed."""
        failed: OSError | None = None
        for to in self._to:
            try:
                self._socket.sendto(message, to)
            except OSError as error:  # one peer may be unreachable: send to the others all the same
                failed = error
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class SyncReceiver:
    """Receives on one interface, from a group or from ``peers``. ``OSError`` when the interface is missing."""

    def __init__(self, interface: str, group: str, port: int, peers: Sequence[str] = ()) -> None:
        index = socket.if_nametoindex(interface)
        self._peers = frozenset(peers)
        self._socket, six = _open(peers[0] if peers else group)
        level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
        with contextlib.ExitStack() as undo:
            undo.callback(self._socket.close)
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            _enlarge_buffer(self._socket, _RECEIVE_BUFFER_FORCE, socket.SO_RCVBUF)
            if peers:
                self._socket.bind(("::" if six else "0.0.0.0", port))  # noqa: S104 - on this interface, from peers only
            elif six:
                self._socket.setsockopt(level, _MULTICAST_ALL_6, 0)
                self._socket.bind((group, port, 0, index))
                self._socket.setsockopt(level, socket.IPV6_JOIN_GROUP, ip_address(group).packed + struct.pack("=i", index))
            else:
                self._socket.setsockopt(level, _MULTICAST_ALL, 0)
                self._socket.bind((group, port))
                member = struct.pack("=4s4si", ip_address(group).packed, b"", index)
                self._socket.setsockopt(level, socket.IP_ADD_MEMBERSHIP, member)
            undo.pop_all()

    def fileno(self) -> int:
        """Return the descriptor, which becomes readable when messages arrive."""
        return self._socket.fileno()

    def receive(self, limit: int) -> Iterator[tuple[bytes, str]]:
        """Yield up to ``limit`` messages with their source addresses, without waiting. Ignore messages from unknown peers."""
        for _ in range(limit):
            try:
                data, source = self._socket.recvfrom(_LONGEST)
            except BlockingIOError:
                return
            address = str(source[0]).partition("%")[0]  # a link-local address has its interface after "%"
            if not self._peers or address in self._peers:
                yield data, address

    def limit(self, senders: Sequence[str] | None, sample: int) -> None:
        """Receive from ``senders`` and one in ``sample`` messages of others; ``None``: from everybody. ``OSError`` on failure."""
        if senders is not None:
            ipv6 = self._socket.family is socket.AF_INET6
            attach_filter(self._socket, accept_senders([each for each in senders if (":" in each) is ipv6], sample, ipv6=ipv6))
            return
        with contextlib.suppress(FileNotFoundError):  # there was no filter
            self._socket.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

    def close(self) -> None:
        """Leave the group and close the socket."""
        self._socket.close()
