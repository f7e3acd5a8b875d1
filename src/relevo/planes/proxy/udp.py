"""Datagram services: a session per client, with a connected socket to its server, forgotten when idle.

A client's datagrams keep their server while the session lives, as IPVS keeps a UDP entry. The answer leaves from the
service's own address.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from relevo.model import Endpoint, Protocol
from relevo.model.table import Connection
from relevo.planes.port import PickRefusal
from relevo.planes.proxy.listener import bound_socket
from relevo.planes.proxy.proxy_protocol import header
from relevo.planes.table import Assignment, Server, Service

if TYPE_CHECKING:
    from relevo.planes.proxy.engine import Engine

IDLE_S: Final = 300.0
"""IPVS's UDP time-out."""
DATAGRAMS: Final = 64
"""Datagrams read from one socket before the others get their turn."""
MAX_DATAGRAM: Final = 65_535

Address = tuple[str, int]


@dataclass(slots=True, eq=False)
class Session:
    """A client's path to a server."""

    client: Address
    socket: socket.socket
    assignment: Assignment
    seen: float


class UdpListener:
    """The socket of a UDP service, and its sessions."""

    def __init__(self, engine: Engine, service: Service) -> None:
        self.engine = engine
        self.service = service
        self.socket: socket.socket | None = None
        self._sessions: dict[Address, Session] = {}

    def open(self) -> None:
        """Bind; ``OSError`` when the address cannot be had."""
        self.socket = bound_socket(self.service.entry.key)
        self.engine.watch(self.socket.fileno(), select.EPOLLIN, lambda mask: self.engine.later(self._receive))

    def close(self) -> None:
        """Stop serving; sessions end."""
        for session in list(self._sessions.values()):
            self._end(session)
        if self.socket is not None:
            self.engine.unwatch(self.socket.fileno())
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
            session = self._sessions.get(client) or self._begin(client)
            if session is not None:
                self._forward(session, data)

    def _begin(self, client: Address) -> Session | None:
        if len(self._sessions) >= self.engine.max_connections:
            self.service.refused[PickRefusal.TOO_MANY] += 1
            return None
        assignment = self.engine.table.open(self.service, *client, self.engine.clock(), active=False)
        if isinstance(assignment, PickRefusal):
            return None
        endpoint = assignment.server.entry.endpoint
        family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            sock.connect((endpoint.address, endpoint.port))
        except OSError:
            self.service.refused[PickRefusal.CONNECT_FAILED] += 1
            self.engine.table.close(assignment)
            return None
        session = Session(client, sock, assignment, self.engine.now)
        self._sessions[client] = session
        assignment.server.connections.add(session)
        self.engine.watch(sock.fileno(), select.EPOLLIN, lambda mask: self._answer(session))
        return session

    def _forward(self, session: Session, data: bytes) -> None:
        session.seen = self.engine.now
        entry = session.assignment.server.entry
        if entry.proxy_protocol:
            data = header(entry.proxy_protocol, Endpoint(*session.client), self.service.entry.key.endpoint, stream=False) + data
        try:
            session.assignment.server.bytes_in += session.socket.send(data)
        except OSError:
            pass  # full, or an ICMP error of an earlier datagram: UDP promises nothing

    def _answer(self, session: Session) -> None:
        for _ in range(DATAGRAMS):
            if self.socket is None or session.socket.fileno() < 0:
                return
            try:
                data = session.socket.recv(MAX_DATAGRAM)
            except OSError:
                return
            session.seen = self.engine.now
            session.assignment.server.bytes_out += len(data)
            try:
                self.socket.sendto(data, session.client)
            except OSError:
                pass

    def expire(self, now: float) -> None:
        """End sessions that were idle too long."""
        for session in [s for s in self._sessions.values() if s.seen + IDLE_S <= now]:
            self._end(session)

    def reset(self, server: Server) -> None:
        """End the sessions of a server that leaves."""
        for session in [s for s in self._sessions.values() if s.assignment.server is server]:
            self._end(session)

    def _end(self, session: Session) -> None:
        self._sessions.pop(session.client, None)
        session.assignment.server.connections.discard(session)
        self.engine.unwatch(session.socket.fileno())
        session.socket.close()
        self.engine.table.close(session.assignment)

    def connections(self) -> list[Connection]:
        """Return the sessions."""
        return [self._shown(session) for session in self._sessions.values()]

    def end(self, meant: Callable[[Connection], bool]) -> int:
        """End sessions that ``meant`` is true of; return how many."""
        chosen = [session for session in self._sessions.values() if meant(self._shown(session))]
        for session in chosen:
            self._end(session)
        return len(chosen)

    def _shown(self, session: Session) -> Connection:
        return Connection(
            protocol=Protocol.UDP,
            client=Endpoint(*session.client),
            virtual=self.service.entry.key.endpoint,
            server=session.assignment.server.entry.endpoint,
            state="UDP",
            expires_s=max(0.0, session.seen + IDLE_S - self.engine.now),
        )
