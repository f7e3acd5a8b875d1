"""One TCP connection through the proxy: two flows, each from a source socket to a sink socket.

Small messages are read and written; a flow that keeps filling its buffer changes to ``splice`` through a pipe, so that the
bytes never enter this process. The end of one direction is passed on as a half-close, and the other direction goes on.

Sockets are watched edge-triggered and registered once: a flow therefore moves data until the kernel returns EAGAIN, and an
event is only a hint to try.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import Final, Protocol

from relevo.planes.proxy.pipes import PipePool
from relevo.planes.table import Assignment, Server

CHUNK: Final = 32_768
"""Bytes read at once. Requests and small answers fit; two full chunks in a row are taken for bulk."""
FULL_READS_BEFORE_SPLICE: Final = 2
SPLICE_SIZE: Final = 1 << 20
"""Bytes asked of one ``splice``; the size of the pipe (1 MiB, the unprivileged limit) bounds it."""
ROUNDS: Final = 16
"""Chunks that one flow moves before the other connections get their turn."""
READABLE: Final = EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR
ENDED: Final = EPOLLRDHUP | EPOLLHUP | EPOLLERR
_SPLICE_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close sends RST

_read, _write, _splice = os.read, os.write, os.splice


class RelayOwner(Protocol):
    """What a relay needs of the engine that made it."""

    now: float
    pipes: PipePool

    def later(self, task: Callable[[], None]) -> None:
        """Run ``task`` when the current batch of events is done."""
        ...

    def connect_failed(self, relay: Relay) -> None:
        """The connection to the server was refused; the relay may get another server."""
        ...

    def half_closed(self, relay: Relay) -> None:
        """One direction has ended."""
        ...

    def forget(self, relay: Relay) -> None:
        """The relay has ended; close its sockets."""
        ...


class Flow:
    """One direction of a relay. ``pending`` is what the sink did not take yet; ``piped`` counts bytes in the pipe."""

    __slots__ = ("eof", "full_reads", "pending", "pipe", "piped", "relay", "shut", "sink", "source", "transferred", "writes")

    relay: Relay

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self.sink = sink
        self.pending = b""
        self.pipe: tuple[int, int] | None = None
        self.piped = 0
        self.full_reads = 0
        self.transferred = 0
        self.writes = 0
        self.eof = False
        self.shut = False

    def pump(self, ended: bool) -> None:
        """Move what the source has. With ``ended``, its end or an error follows the data."""
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
        self.relay.owner.later(self._resume)

    def _copy(self) -> int:
        """Read and write once; return the bytes moved, 0 when there is nothing more to do now."""
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
        self.transferred += size
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
        """Write pending data to the sink; True when nothing is left."""
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
                self.transferred += moved
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
        self.relay.owner.later(self._resume)

    def _resume(self) -> None:
        """Go on where the flow stopped to let others have their turn: no new event will come for this data."""
        if not self.relay.closed:
            self.pump(True)

    def _take_pipe(self) -> bool:
        self.pipe = self.relay.owner.pipes.take()
        return self.pipe is not None

    def _finish(self) -> None:
        self.eof = True
        if not self.pending and not self.piped:
            self._shut_sink()

    def _shut_sink(self) -> None:
        if not self.shut:
            self.shut = True
            self.relay.finished(self)


NO_FLOW: Final = Flow(-1, -1)
"""Both flows of a relay that has ended."""
NO_FLOW.eof = NO_FLOW.shut = True


class Relay:
    """A client's connection and the one to its server. It starts unconnected and ends by ``close`` or ``abort``."""

    __slots__ = (
        "assignment",
        "client",
        "client_address",
        "closed",
        "connect_by",
        "connected",
        "down",
        "owner",
        "seen",
        "server",
        "tried",
        "up",
    )  # fmt: skip

    def __init__(self, owner: RelayOwner, client: socket.socket, address: tuple[str, int], assignment: Assignment) -> None:
        self.owner = owner
        self.client = client
        self.client_address = address
        self.assignment = assignment
        self.tried: list[Server] = []
        self.connected = False
        self.connect_by = 0.0
        self.closed = False
        self.seen = owner.now
        self.server: socket.socket
        self.up: Flow
        self.down: Flow

    def attach(self, server: socket.socket, preface: bytes) -> None:
        """Set the socket to the server; ``preface`` is sent before the client's first byte."""
        self.server = server
        self.up = Flow(self.client.fileno(), server.fileno())
        self.down = Flow(server.fileno(), self.client.fileno())
        self.up.relay = self.down.relay = self
        self.up.pending = preface
        self.assignment.server.connections.add(self)

    # -- events ------------------------------------------------------------------------------------------------

    def on_client(self, mask: int) -> None:
        """Handle events of the client's socket."""
        self.seen = self.owner.now
        if mask & READABLE and self.connected:
            self.up.pump(bool(mask & ENDED))
        if mask & EPOLLOUT and not self.closed and (self.down.pending or self.down.piped) and self.down.flush():
            self.down.pump(True)

    def on_server(self, mask: int) -> None:
        """Handle events of the server's socket."""
        self.seen = self.owner.now
        if not self.connected:
            if mask & (EPOLLERR | EPOLLHUP):
                self.owner.connect_failed(self)
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
        """Turn Nagle's algorithm off: it would hold small messages back from the second one on, until an acknowledgement."""
        sink = self.server if flow is self.up else self.client
        sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def finished(self, flow: Flow) -> None:
        """Pass on the end of ``flow``, which has delivered everything; close when both directions have ended."""
        if self.up.shut and self.down.shut:
            self.close()
            return
        self.owner.half_closed(self)
        try:
            (self.server if flow is self.up else self.client).shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()

    def idle_since(self, before: float) -> bool:
        """Whether there was no event since ``before``, and no data is in flight."""
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
        self.assignment.server.bytes_in += self.up.transferred
        self.assignment.server.bytes_out += self.down.transferred
        for flow in (self.up, self.down):
            flow.eof = flow.shut = True
            if flow.pipe is not None:
                self.owner.pipes.put(flow.pipe, clean=not flow.piped)
                flow.pipe = None
                flow.piped = 0
            flow.pending = b""
        self.owner.forget(self)
        # Flows refer to their relay. Without this, every connection would stay in memory until a collection of garbage.
        self.up = self.down = NO_FLOW
