"""UDP services: a session per client, with a connected socket to its server; idle sessions expire.

A client keeps its server while its session exists, as with a UDP entry of IPVS. Replies are sent from the service's address.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relevo.model import Endpoint, Protocol
from relevo.model.table import Connection
from relevo.planes.port import PickRefusal
from relevo.planes.proxy.listener import bound_socket
from relevo.planes.proxy.loop import Loop
from relevo.planes.proxy.proxy_protocol import header
from relevo.planes.table import Assignment, Server, Service, ServiceTable

IDLE_S: Final = 300.0
"""IPVS's UDP time-out."""
DATAGRAMS: Final = 64
"""Datagrams read from one socket before the other sockets get their turn."""
MAX_DATAGRAM: Final = 65_535

Address = tuple[str, int]


@dataclass(slots=True, eq=False)
class Session:
    """A client, and the socket connected to its server. ``seen`` is when the last datagram passed."""

    client: Address
    socket: socket.socket
    assignment: Assignment
    seen: float


class UdpListener:
    """The socket of a UDP service, and its sessions, of which there are at most ``max_sessions``."""

    def __init__(self, loop: Loop, table: ServiceTable, service: Service, max_sessions: int) -> None:
        self.loop = loop
        self.table = table
        self.service = service
        self.max_sessions = max_sessions
        self.socket: socket.socket | None = None
        self._sessions: dict[Address, Session] = {}

    def open(self) -> None:
        """Bind; ``OSError`` when the address cannot be bound."""
        self.socket = bound_socket(self.service.entry.key)
        self.loop.watch(self.socket.fileno(), select.EPOLLIN, lambda mask: self.loop.later(self._receive))

    def close(self) -> None:
        """Close the socket and every session."""
        for session in list(self._sessions.values()):
            self._close(session)
        if self.socket is not None:
            self.loop.unwatch(self.socket.fileno())
            self.socket.close()
            self.socket = None

    def _receive(self) -> None:
        for _ in range(DATAGRAMS):
            if self.socket is None:
                return
            try:
                data, address = self.socket.recvfrom(MAX_DATAGRAM)
            except OSError:
                return
            client = (address[0], address[1])
            session = self._sessions.get(client) or self._open(client)
            if session is not None:
                self._forward(session, data)

    def _open(self, client: Address) -> Session | None:
        if len(self._sessions) >= self.max_sessions:
            self.service.refused[PickRefusal.TOO_MANY] += 1
            return None
        assignment = self.table.open(self.service, *client, self.loop.clock(), active=False)
        if isinstance(assignment, PickRefusal):
            return None
        endpoint = assignment.server.entry.endpoint
        family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            sock.connect((endpoint.address, endpoint.port))
        except OSError:
            self.service.refused[PickRefusal.CONNECT_FAILED] += 1
            self.table.close(assignment)
            return None
        session = Session(client, sock, assignment, self.loop.now)
        self._sessions[client] = session
        assignment.server.connections.add(session)
        self.loop.watch(sock.fileno(), select.EPOLLIN, lambda mask: self._reply(session))
        return session

    def _forward(self, session: Session, data: bytes) -> None:
        session.seen = self.loop.now
        entry = session.assignment.server.entry
        if entry.proxy_protocol:
            data = header(entry.proxy_protocol, Endpoint(*session.client), self.service.entry.key.endpoint, stream=False) + data
        try:
            session.assignment.server.bytes_in += session.socket.send(data)
        except OSError:
            pass  # the buffer is full, or an ICMP error of an earlier datagram is reported: UDP may lose datagrams

    def _reply(self, session: Session) -> None:
        for _ in range(DATAGRAMS):
            if self.socket is None or session.socket.fileno() < 0:
                return
            try:
                data = session.socket.recv(MAX_DATAGRAM)
            except OSError:
                return
            session.seen = self.loop.now
            session.assignment.server.bytes_out += len(data)
            try:
                self.socket.sendto(data, session.client)
            except OSError:
                pass

    def expire(self, now: float) -> None:
        """Close sessions that were idle for ``IDLE_S``."""
        for session in [s for s in self._sessions.values() if s.seen + IDLE_S <= now]:
            self._close(session)

    def reset(self, server: Server) -> None:
        """Close the sessions of a removed server."""
        for session in [s for s in self._sessions.values() if s.assignment.server is server]:
            self._close(session)

    def _close(self, session: Session) -> None:
        self._sessions.pop(session.client, None)
        session.assignment.server.connections.discard(session)
        self.loop.unwatch(session.socket.fileno())
        session.socket.close()
        self.table.close(session.assignment)

    def connections(self) -> list[Connection]:
        """Return the sessions as connections."""
        return [self._to_connection(session) for session in self._sessions.values()]

    def drop(self, matches: Callable[[Connection], bool]) -> int:
        """Close the sessions that match; return how many."""
        chosen = [session for session in self._sessions.values() if matches(self._to_connection(session))]
        for session in chosen:
            self._close(session)
        return len(chosen)

    def _to_connection(self, session: Session) -> Connection:
        return Connection(
            protocol=Protocol.UDP,
            client=Endpoint(*session.client),
            virtual=self.service.entry.key.endpoint,
            server=session.assignment.server.entry.endpoint,
            state="UDP",
            expires_s=max(0.0, session.seen + IDLE_S - self.loop.now),
        )
