"""Listening for the clients of a service."""

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING, Final

from relevo.model import Protocol, ServiceKey
from relevo.planes.port import PickRefusal
from relevo.planes.table import Service

if TYPE_CHECKING:
    from relevo.planes.proxy.engine import Engine

ACCEPTS: Final = 64
"""Connections accepted from one listener before its neighbours get their turn."""
BACKLOG: Final = 4096
"""Connections the kernel may hold for us; the kernel caps it by net.core.somaxconn."""
ROOM_PAUSE_S: Final = 0.01
"""A full proxy leaves new connections in the kernel's queue and looks again after this long."""
_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78
_TRANSIENT: Final = (errno.ECONNABORTED, errno.EPROTO, errno.EINTR)
REBIND_S: Final = 1.0
"""How often a listener that could not bind tries again."""


class TcpListener:
    """The listening socket of a TCP service. It is open only while the service has a server, so that else the kernel refuses."""

    def __init__(self, engine: Engine, service: Service) -> None:
        self.engine = engine
        self.service = service
        self.socket: socket.socket | None = None

    def open(self) -> None:
        """Listen; ``OSError`` when the address cannot be had."""
        self.socket = bound_socket(self.service.entry.key)
        self.socket.listen(BACKLOG)
        self.engine.watch(self.socket.fileno(), select.EPOLLIN, self.on_event)

    def close(self) -> None:
        """Stop listening. Connections stay."""
        if self.socket is not None:
            self.engine.unwatch(self.socket.fileno())
            self.socket.close()
            self.socket = None

    def on_event(self, mask: int) -> None:
        """Somebody knocks."""
        self.engine.later(self.accept)

    def accept(self) -> None:
        """Accept a bounded number of connections."""
        for _ in range(ACCEPTS):
            if self.socket is None:
                return
            if self.engine.full():  # the kernel keeps them for us meanwhile
                self.engine.rest(self, ROOM_PAUSE_S)
                return
            try:
                client, address = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _TRANSIENT:
                    self.service.refused[PickRefusal.TOO_MANY] += 1
                    self.engine.rest(self, REBIND_S)
                    return
                continue
            client.setblocking(False)
            self.engine.accepted(self, client, address)


def bound_socket(key: ServiceKey) -> socket.socket:
    """Return a non-blocking socket bound to a service's address, which need not be on this machine yet."""
    family = socket.AF_INET6 if ":" in key.endpoint.address else socket.AF_INET
    kind = socket.SOCK_STREAM if key.protocol is Protocol.TCP else socket.SOCK_DGRAM
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sock.bind((key.endpoint.address, key.endpoint.port))
    except OSError:
        sock.close()
        raise
    return sock
