"""Overflow workers: processes that relay idle connections when the proxy runs short of descriptors.

A relayed connection takes two descriptors, and a system may grant a process no more than a thousand, or twenty thousand. When
the proxy fills up, it hands idle connections to an overflow worker, a process that only relays. Scheduling, counting and
resetting stay in the proxy; the worker reports the bytes it moved and which connections ended.

The two exchange messages over a pair of SOCK_SEQPACKET sockets: a kind, the number of the connection, two byte counts, and with
``ADOPT`` the two descriptors.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, NoReturn

from relevo.host import libc
from relevo.model import Endpoint
from relevo.model.table import ServerEntry
from relevo.planes.proxy.engine import ENDED, HALF_CLOSED, Engine, Report
from relevo.planes.proxy.loop import EDGES, Loop
from relevo.planes.proxy.relay import Relay
from relevo.planes.table import Assignment, Server

ADOPT: Final = 1
ABORT: Final = 2
MOVED: Final = 5
_MESSAGE: Final = struct.Struct("!BQQQ")
MAX_MESSAGES: Final = 512
"""Messages handled before connections get their turn."""


class Worker:
    """The proxy's end: starts the process. ``report`` is called with each of its reports, ``lost`` when it has ended."""

    def __init__(self, loop: Loop, report: Report, lost: Callable[[Any], None]) -> None:
        self.numbers: set[int] = set()
        self._loop = loop
        self._report = report
        self._lost = lost
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _serve(theirs, parent)
        theirs.close()
        self.socket.setblocking(False)
        loop.watch(self.socket.fileno(), select.EPOLLIN, self._on_event)

    def adopt(self, number: int, client: socket.socket, server: socket.socket) -> bool:
        """Hand a connection over; False when it cannot be taken now. The caller closes its own descriptors."""
        descriptors = struct.pack("ii", client.fileno(), server.fileno())
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
        try:
            self.socket.sendmsg([_MESSAGE.pack(ADOPT, number, 0, 0)], rights)
        except OSError:
            return False
        self.numbers.add(number)
        return True

    def abort(self, number: int) -> None:
        """Reset a connection, because its server was removed."""
        try:
            self.socket.send(_MESSAGE.pack(ABORT, number, 0, 0))
        except OSError:
            self.close()  # it does not read: its connections can no longer be controlled

    def _on_event(self, mask: int) -> None:
        for _ in range(MAX_MESSAGES):
            try:
                message = self.socket.recv(_MESSAGE.size)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if len(message) != _MESSAGE.size:
                self.close()
                return
            kind, number, up, down = _MESSAGE.unpack(message)
            if kind == ENDED:
                self.numbers.discard(number)
            self._report(kind, number, up, down)

    def close(self) -> None:
        """Kill the process, which ends every connection in it."""
        if self.socket.fileno() < 0:
            return
        self._loop.unwatch(self.socket.fileno())
        self.socket.close()
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        self._lost(self)


def _serve(sock: socket.socket, parent: int) -> NoReturn:
    """Run the worker in the forked child, which keeps no descriptor but its socket and the standard ones."""
    status = 1
    try:
        libc.die_with_parent()
        libc.set_process_name("relevo-overflow")
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != sock.fileno():
                try:
                    os.close(int(name))
                except OSError:
                    pass
        if os.getppid() == parent:
            _WorkerEngine(sock).run()
        status = 0
    finally:
        os._exit(status)


class _WorkerEngine(Engine):
    """The engine in the worker: relays only, each known by its number, without a table."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._socket = sock
        self._adopted: dict[int, Relay] = {}
        self._numbers: dict[Relay, int] = {}
        sock.setblocking(False)
        self.watch(sock.fileno(), select.EPOLLIN, lambda mask: self.later(self._receive))

    def _receive(self) -> None:
        """Handle the proxy's messages; at the end of a batch, because they bring new descriptors."""
        for _ in range(MAX_MESSAGES):
            try:
                message, rights, _, _ = self._socket.recvmsg(_MESSAGE.size, socket.CMSG_SPACE(2 * struct.calcsize("i")))
            except BlockingIOError:
                return
            if len(message) != _MESSAGE.size:
                self.stop()
                return
            kind, number, _, _ = _MESSAGE.unpack(message)
            if kind == ABORT and number in self._adopted:
                self._adopted[number].abort()
            elif kind == ADOPT and rights:
                self._adopt(number, *struct.unpack("ii", rights[0][2]))

    def _adopt(self, number: int, client: int, server: int) -> None:
        sides = (socket.socket(fileno=client), socket.socket(fileno=server))
        for side in sides:
            side.setblocking(False)
        no_server = Server(ServerEntry(endpoint=Endpoint("", 0)))
        relay = Relay(self, sides[0], ("", 0), Assignment(None, no_server, None))  # type: ignore[arg-type]
        relay.attach(sides[1], b"")
        relay.connected = True
        self._adopted[number], self._numbers[relay] = relay, number
        self._relays.add(relay)
        self.watch(client, EDGES, relay.on_client)
        self.watch(server, EDGES, relay.on_server)

    def half_closed(self, relay: Relay) -> None:
        """Report that one direction has ended."""
        self._send_report(HALF_CLOSED, relay)

    def forget(self, relay: Relay) -> None:
        """Report the end, and close the sockets."""
        self._handlers.pop(relay.client.fileno(), None)
        self._handlers.pop(relay.server.fileno(), None)
        relay.client.close()
        relay.server.close()
        self._relays.discard(relay)
        self._send_report(ENDED, relay)
        del self._adopted[self._numbers.pop(relay)]

    def _sweep(self) -> None:
        super()._sweep()
        self._count_open()
        for relay in self._relays:
            if relay.assignment.server.bytes_in or relay.assignment.server.bytes_out:
                self._send_report(MOVED, relay)

    def _send_report(self, kind: int, relay: Relay) -> None:
        server = relay.assignment.server
        message = _MESSAGE.pack(kind, self._numbers[relay], server.bytes_in, server.bytes_out)
        server.bytes_in = server.bytes_out = 0
        # An end must not get lost, and the proxy reads quickly: block until the message is sent.
        self._socket.setblocking(True)
        try:
            self._socket.send(message)
        except OSError:
            self.stop()
        finally:
            self._socket.setblocking(False)
