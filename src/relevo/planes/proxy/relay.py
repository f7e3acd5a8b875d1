"""One TCP connection through the proxy: two flows, each from a source socket to a sink socket.

Small messages are read and written; a flow that keeps filling its buffer moves on to ``splice`` through a pipe, where the
octets never enter this process. A side that has finished sending is passed on as such (half-close), and the other
direction goes on.

Sockets are watched edge-triggered and registered once: a flow therefore moves data until the kernel says "again", and an
event is only ever a hint to try.
"""

from __future__ import annotations

import os
import socket
import struct
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import TYPE_CHECKING, Final

from relevo.planes.table import Assignment, Server

if TYPE_CHECKING:
    from relevo.planes.proxy.engine import Engine

CHUNK: Final = 32_768
"""Octets read at once. Requests and small answers fit; two full chunks in a row are taken for bulk."""
FULL_READS_BEFORE_SPLICE: Final = 2
SPLICE_SIZE: Final = 1 << 20
"""Octets asked of one ``splice``; the pipe (1 MiB, the unprivileged limit) is what bounds it."""
ROUNDS: Final = 16
"""Turns of one flow before the others get theirs."""
READABLE: Final = EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR
ENDED: Final = EPOLLRDHUP | EPOLLHUP | EPOLLERR
_SPLICE_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close sends RST

_read, _write, _splice = os.read, os.write, os.splice


class Flow:
    """One direction of a relay. ``pending`` is what the sink did not take yet; ``piped`` counts octets in the pipe."""

    __slots__ = ("eof", "full_reads", "octets", "pending", "pipe", "piped", "relay", "shut", "sink", "source", "writes")

    def __init__(self, relay: Relay, source: int, sink: int) -> None:
        self.relay = relay
        self.source = source
        self.sink = sink
        self.pending = b""
        self.pipe: tuple[int, int] | None = None
        self.piped = 0
        self.full_reads = 0
        self.octets = 0
        self.writes = 0
        self.eof = False
        self.shut = False

    def pump(self, ended: bool) -> None:
        """Move what the source has. ``ended`` says that its end, or an error, is waiting behind the data."""
        if self.eof or ((self.pending or self.piped) and not self.flush()):
            return
        if self.pipe is not None:
            self._splice()
            return
        for _ in range(ROUNDS):
            size = self._copy()
            if size <= 0:
                return
            if size < CHUNK:
                if not ended:
                    return
                self.full_reads = 0
                continue
            self.full_reads += 1
            if self.full_reads >= FULL_READS_BEFORE_SPLICE and self._take_pipe():
                self._splice()
                return
        self.relay.engine.again(self)

    def _copy(self) -> int:
        """Read and write once; return the octets moved, 0 when there is nothing more to do now."""
        try:
            data = _read(self.source, CHUNK)
        except BlockingIOError:
            return 0
        except OSError:
            self.relay.abort()
            return 0
        size = len(data)
        if not size:
            self._finish()
            return 0
        self.octets += size
        try:
            sent = _write(self.sink, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.relay.abort()
            return 0
        if sent < size:
            self.pending = data[sent:]
            return 0
        self.writes += 1
        if self.writes == 2:
            self.relay.no_delay(self)
        return size

    def flush(self) -> bool:
        """Give the sink what is held back; True when nothing is left."""
        try:
            if self.pending:
                sent = _write(self.sink, self.pending)
                self.pending = self.pending[sent:]
                if self.pending:
                    return False
            while self.piped:
                assert self.pipe is not None
                self.piped -= _splice(self.pipe[0], self.sink, self.piped, flags=_SPLICE_FLAGS)
        except BlockingIOError:
            return False
        except OSError:
            self.relay.abort()
            return False
        if self.eof:
            self._shut_sink()
        return True

    def _splice(self) -> None:
        assert self.pipe is not None
        reader, writer = self.pipe
        for _ in range(ROUNDS):
            try:
                moved = _splice(self.source, writer, SPLICE_SIZE, flags=_SPLICE_FLAGS)
                if moved == 0:
                    self._finish()
                    return
                self.octets += moved
                self.piped += moved
            except BlockingIOError:
                if not self.piped:
                    return
            except OSError:
                self.relay.abort()
                return
            try:
                while self.piped:
                    self.piped -= _splice(reader, self.sink, self.piped, flags=_SPLICE_FLAGS)
            except BlockingIOError:
                return
            except OSError:
                self.relay.abort()
                return
        self.relay.engine.again(self)

    def _take_pipe(self) -> bool:
        self.pipe = self.relay.engine.take_pipe()
        return self.pipe is not None

    def _finish(self) -> None:
        self.eof = True
        if not self.pending and not self.piped:
            self._shut_sink()

    def _shut_sink(self) -> None:
        if not self.shut:
            self.shut = True
            self.relay.finished(self)


class Relay:
    """A client's connection and the one to its server. It is made connecting and ends by ``close`` or ``abort``."""

    __slots__ = (
        "assignment",
        "client",
        "client_address",
        "closed",
        "connect_by",
        "connected",
        "down",
        "engine",
        "seen",
        "server",
        "tried",
        "up",
    )  # fmt: skip

    def __init__(self, engine: Engine, client: socket.socket, address: tuple[str, int], assignment: Assignment) -> None:
        self.engine = engine
        self.client = client
        self.client_address = address
        self.assignment = assignment
        self.tried: list[Server] = []
        self.connected = False
        self.connect_by = 0.0
        self.closed = False
        self.seen = engine.now
        self.server: socket.socket
        self.up: Flow
        self.down: Flow

    def attach(self, server: socket.socket, preface: bytes) -> None:
        """Take the socket to the server; ``preface`` goes to it before the client's first octet."""
        self.server = server
        self.up = Flow(self, self.client.fileno(), server.fileno())
        self.down = Flow(self, server.fileno(), self.client.fileno())
        self.up.pending = preface
        self.assignment.server.connections.add(self)

    # -- events ------------------------------------------------------------------------------------------------

    def on_client(self, mask: int) -> None:
        """Something happened on the client's side."""
        self.seen = self.engine.now
        if mask & READABLE and self.connected:
            self.up.pump(bool(mask & ENDED))
        if mask & EPOLLOUT and not self.closed and (self.down.pending or self.down.piped) and self.down.flush():
            self.down.pump(True)

    def on_server(self, mask: int) -> None:
        """Something happened on the server's side."""
        self.seen = self.engine.now
        if not self.connected:
            if mask & (EPOLLERR | EPOLLHUP):
                self.engine.connect_failed(self)
                return
            if not mask & EPOLLOUT:
                return
            self.connected = True
            self.up.pump(True)  # what the client sent meanwhile, and its end
            if self.closed:
                return
        if mask & READABLE:
            self.down.pump(bool(mask & ENDED))
        if mask & EPOLLOUT and not self.closed and (self.up.pending or self.up.piped) and self.up.flush():
            self.up.pump(True)

    def no_delay(self, flow: Flow) -> None:
        """Send small messages at once: from the second one on, Nagle would hold them for an acknowledgement."""
        sink = self.server if flow is self.up else self.client
        sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def finished(self, flow: Flow) -> None:
        """``flow`` has delivered everything its source will ever send."""
        if self.up.shut and self.down.shut:
            self.close()
            return
        self.engine.half_closed(self)
        try:
            (self.server if flow is self.up else self.client).shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()

    def idle_since(self, before: float) -> bool:
        """Whether nothing has happened since ``before``, and nothing is under way."""
        flows = (self.up, self.down)
        return self.connected and self.seen < before and not any(f.pending or f.piped or f.eof for f in flows)

    # -- the end -----------------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Reset both sides."""
        if not self.closed:
            for side in (self.client, self.server):
                try:
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                except OSError:
                    pass
            self.close()

    def close(self) -> None:
        """Close both sides and count the connection out."""
        if self.closed:
            return
        self.closed = True
        self.assignment.server.connections.discard(self)
        self.assignment.server.bytes_in += self.up.octets
        self.assignment.server.bytes_out += self.down.octets
        for flow in (self.up, self.down):
            flow.eof = flow.shut = True
            if flow.pipe is not None:
                self.engine.return_pipe(flow.pipe, clean=not flow.piped)
                flow.pipe = None
                flow.piped = 0
            flow.pending = b""
        self.engine.forget(self)
