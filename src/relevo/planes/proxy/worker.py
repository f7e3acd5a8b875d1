"""The process of the proxy plane: an engine, and the socket on which it takes the balancer's requests.

It outlives the balancer: when the balancer dies, connections go on and the next balancer finds the table as it was. It listens
on a Unix socket that the supervisor made, so that a restarted process keeps the same address.
"""

from __future__ import annotations

import gc
import select
import socket
from collections.abc import Callable

from relevo.planes.proxy.engine import Engine
from relevo.planes.proxy.messages import (
    Apply,
    DropConnections,
    ListConnections,
    Observe,
    Reply,
    SetLocal,
    decode_request,
    pack,
)
from relevo.planes.proxy.overflow import Worker
from relevo.wire.framing import Deframer

READ_SIZE = 1 << 16


class Commander:
    """One connection from a balancer: requests in, replies out, in order."""

    def __init__(self, engine: Engine, connection: socket.socket) -> None:
        self.engine = engine
        self.connection = connection
        self.received = Deframer()
        self.unsent = b""
        connection.setblocking(False)
        engine.watch(connection.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET, self.on_event)

    def on_event(self, mask: int) -> None:
        """Read requests, reply to complete ones, send what is unsent."""
        try:
            if mask & select.EPOLLOUT and self.unsent:
                self._send(b"")
            while data := self.connection.recv(READ_SIZE):
                for body in self.received.feed(data):
                    self._send(pack(self._handle(body)))
            self.close()
        except BlockingIOError:
            return
        except (OSError, ValueError):
            self.close()

    def _handle(self, body: bytes) -> Reply:
        match decode_request(body):
            case Apply(operations=operations):
                return Reply(refused=self.engine.apply(operations))
            case Observe():
                return Reply(services=self.engine.observe())
            case ListConnections():
                return Reply(connections=self.engine.connections())
            case DropConnections(wanted=wanted):
                return Reply(dropped=self.engine.drop(wanted))
            case SetLocal(addresses=addresses):
                self.engine.set_local(addresses)
        return Reply()

    def _send(self, data: bytes) -> None:
        self.unsent += data
        try:
            sent = self.connection.send(self.unsent)
        except BlockingIOError:
            return
        self.unsent = self.unsent[sent:]

    def close(self) -> None:
        """Close the connection; the engine is not affected."""
        self.engine.unwatch(self.connection.fileno())
        self.connection.close()


def serve(commands: socket.socket, alive: socket.socket, ready: Callable[[], None] = lambda: None) -> None:
    """Run the plane until the supervisor's end of ``alive`` closes. ``commands`` listens for balancers."""
    engine = Engine(start_worker=Worker)
    commands.setblocking(False)

    def accept(mask: int) -> None:
        engine.later(accept_pending)

    def accept_pending() -> None:
        try:
            connection, _ = commands.accept()
        except OSError:
            return  # the balancer has closed it, or no descriptor is left: it connects again
        Commander(engine, connection)

    engine.watch(commands.fileno(), select.EPOLLIN, accept)
    engine.watch(alive.fileno(), select.EPOLLIN | select.EPOLLRDHUP, lambda mask: engine.stop())
    gc.collect()
    gc.freeze()
    # Closing breaks the cycle of a relay and its flows, so that collections find next to nothing, and a full one
    # over 10 000 connections would delay every packet by tens of milliseconds.
    gc.set_threshold(200_000, 50, 1000)
    ready()
    engine.run()
