"""Network interfaces: their state, and notification of changes.

The state comes from ioctl, which uses the network namespace of the socket; sysfs would use that of its mount.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Final

from relevo.node.observation import Link

_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFHWADDR: Final = 0x8927
_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_IFF_NOARP: Final = 0x80
_IFF_RUNNING: Final = 0x40
_RTMGRP_LINK: Final = 0x1
_RTMGRP_IPV4_IFADDR: Final = 0x10
_RTMGRP_IPV6_IFADDR: Final = 0x100


class Interfaces:
    """Looks interfaces up by name."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def find(self, name: str) -> Link | None:
        """Return the interface, ``None`` if there is none of that name."""
        try:
            index = socket.if_nametoindex(name)
            (flags,) = struct.unpack_from("=H", self._ask(_SIOCGIFFLAGS, name), 16)
            hardware = self._ask(_SIOCGIFHWADDR, name)[18:24]
        except OSError:
            return None
        up = bool(flags & _IFF_UP and flags & _IFF_RUNNING)
        return Link(name, index, up, hardware, neighbours=not flags & (_IFF_LOOPBACK | _IFF_NOARP))

    def _ask(self, request: int, name: str) -> bytes:
        return fcntl.ioctl(self._socket, request, struct.pack("=16s24x", name.encode()[:15]))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def change_monitor() -> socket.socket:
    """Return a non-blocking netlink socket that becomes readable when a link or address changes.

    The messages are not decoded: the reader drains them and looks up its interfaces. A receive buffer overrun therefore
    loses nothing.
    """
    monitor = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    monitor.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    return monitor


def drain(monitor: socket.socket) -> None:
    """Discard all pending messages of a monitor."""
    while True:
        try:
            if not monitor.recv(65_536):
                return
        except BlockingIOError:
            return
        except OSError:
            continue  # ENOBUFS: lost messages count as read
