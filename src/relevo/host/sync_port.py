"""Sockets of connection synchronisation: UDP to and from a multicast group, on one interface."""

from __future__ import annotations

import contextlib
import socket
import struct
from ipaddress import ip_address
from types import TracebackType
from typing import Self


class SyncSender:
    """Sends to a group. ``OSError`` when the interface is missing or has no address."""

    def __init__(self, interface: str, group: str, port: int, ttl: int) -> None:
        self._to = (group, port)
        index = socket.if_nametoindex(interface)
        six = ip_address(group).version == 6
        self._socket = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        with contextlib.ExitStack() as undo:
            undo.callback(self._socket.close)
            if six:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            else:
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", b"", b"", index))
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
            undo.pop_all()

    def send(self, message: bytes) -> None:
        """Send one message."""
        self._socket.sendto(message, self._to)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()
