"""The listening socket of a TCP service, and the binding of service addresses."""

from __future__ import annotations

import errno
import select
import socket
from typing import Final
from typing import Protocol as Protocol_

from relevo.model import Protocol, ServiceKey
from relevo.planes.port import PickRefusal
from relevo.planes.proxy.loop import Loop
from relevo.planes.table import Service

ACCEPTS: Final = 64
"""Connections accepted from one listener before the others get their turn."""
BACKLOG: Final = 4096
"""Length of the accept queue; net.core.somaxconn caps it."""
ROOM_PAUSE_S: Final = 0.01
"""A full proxy leaves new connections in the accept queue and tries again after this long."""
_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78
_TRANSIENT: Final = (errno.ECONNABORTED, errno.EPROTO, errno.EINTR)
REBIND_S: Final = 1.0
"""Interval at which a listener that could not bind tries again."""


class Acceptor(Protocol_):
    """What a listener needs of the engine that made it."""

    def full(self) -> bool:
        """Whether no further connection can be accepted now."""
        ...

    def pause(self, listener: TcpListener, pause_s: float) -> None:
        """Stop watching the listener for a while."""
        ...

    def accepted(self, listener: TcpListener, client: socket.socket, address: tuple[str, int]) -> None:
        """Take a new connection over."""
        ...


class TcpListener:
    """The listening socket of a TCP service, open only while the service has a server: otherwise the kernel refuses clients."""

    def __init__(self, loop: Loop, acceptor: Acceptor, service: Service) -> None:
        self.loop = loop
        self.acceptor = acceptor
        self.service = service
        self.socket: socket.socket | None = None

    def open(self) -> None:
        """Listen; ``OSError`` when the address cannot be bound."""
        self.socket = bound_socket(self.service.entry.key)
        self.socket.listen(BACKLOG)
        self.loop.watch(self.socket.fileno(), select.EPOLLIN, self.on_event)

    def close(self) -> None:
        """Stop listening. Connections stay."""
        if self.socket is not None:
            self.loop.unwatch(self.socket.fileno())
            self.socket.close()
            self.socket = None

    def on_event(self, mask: int) -> None:
        """Accept pending connections, at the end of the batch."""
        self.loop.later(self.accept)

    def accept(self) -> None:
        """Accept a bounded number of connections."""
        for _ in range(ACCEPTS):
            if self.socket is None:
                return
            if self.acceptor.full():  # the accept queue holds them meanwhile
                self.acceptor.pause(self, ROOM_PAUSE_S)
                return
            try:
                client, address = self.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _TRANSIENT:
                    self.service.refused[PickRefusal.TOO_MANY] += 1
                    self.acceptor.pause(self, REBIND_S)
                    return
                continue
            client.setblocking(False)
            self.acceptor.accepted(self, client, address)


def bound_socket(key: ServiceKey) -> socket.socket:
    """Return a non-blocking socket bound to a service's address, which need not be on this machine yet (IP_FREEBIND)."""
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
