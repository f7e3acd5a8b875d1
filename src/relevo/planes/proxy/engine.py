"""The event loop of the proxy plane: listeners, relays, datagram services, and the table they serve.

One thread, one epoll, edge-triggered for connections. Within a batch of events file descriptors are only ever closed;
whatever opens one (accepting, connecting anew) waits for the end of the batch, so that a stale event cannot meet a
recycled descriptor.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import islice
from typing import Any, Final
from typing import Protocol as Protocol_

from relevo.host.privileges import raise_descriptor_limit
from relevo.model import Endpoint, Protocol, ServiceKey
from relevo.model.table import Connection, ConnectionFilter, Operation, ServiceState
from relevo.planes.port import PickRefusal, Refused
from relevo.planes.proxy.listener import REBIND_S, TcpListener
from relevo.planes.proxy.proxy_protocol import header
from relevo.planes.proxy.relay import Flow, Relay
from relevo.planes.proxy.udp import UdpListener
from relevo.planes.table import Assignment, Server, Service, ServiceTable

WATCH: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
BATCH: Final = 512
"""Events fetched at once."""
CONNECT_TIMEOUT_S: Final = 5.0
"""A server that does not answer a SYN for this long is passed over."""
MAX_TRIES: Final = 3
"""Servers tried for one connection before the client is reset."""
IDLE_TCP_S: Final = 900.0
"""Idle connections are reset after this long, as IPVS forgets them (ESTABLISHED)."""
SWEEP_S: Final = 5.0
MAX_PIPES: Final = 256
"""Idle pipes kept for reuse; each holds two descriptors."""
SPARE_DESCRIPTORS: Final = 256
"""Descriptors kept free for the control socket, listeners and reconnects."""
HIGH_WATER: Final = 0.75
"""Part of the descriptors in use from which on idle connections move to an annex."""
FLOOD_MARK: Final = 0.9
"""Part from which on they move at once: ten thousand connections may come within a quarter of a second."""
IDLE_BEFORE_MOVE_S: Final = 0.5
MOVE_BATCH: Final = 256
MOVE_PAUSE_S: Final = 0.02
"""Idle connections move in batches with pauses: each costs a message, and the others want their turn."""
MAX_ANNEXES: Final = 8
"""Processes beside this one; with 20 000 descriptors each that is some 80 000 connections."""
HALF_CLOSED: Final = 4
ENDED: Final = 3
"""Kinds of an annex's reports that change what is counted."""
_F_SETPIPE_SZ: Final = 1031


class Annex(Protocol_):
    """What the engine needs of an annex (see ``annex``): a process that relays what is handed to it."""

    held: set[int]

    def adopt(self, number: int, client: socket.socket, server: socket.socket) -> bool:
        """Take a connection over; False when it cannot now."""
        ...

    def abort(self, number: int) -> None:
        """Reset a connection."""
        ...

    def close(self) -> None:
        """End every connection."""
        ...


Report = Callable[[int, int, int, int], None]
"""Called with the kind of a report, the number of the connection, and octets towards server and client since the last one."""
NewAnnex = Callable[["Engine", Report, Callable[[Any], None]], Annex]


@dataclass(slots=True, eq=False)
class Elsewhere:
    """A connection that an annex relays; scheduling and counting stay here."""

    number: int
    annex: Annex
    assignment: Assignment
    client_address: tuple[str, int]

    def abort(self) -> None:
        """Reset it."""
        self.annex.abort(self.number)


class Engine:
    """The proxy plane's loop. ``clock`` is monotonic seconds; ``new_annex`` makes room when descriptors run short."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, new_annex: NewAnnex | None = None) -> None:
        self.clock = clock
        self._new_annex = new_annex
        self._annexes: list[Annex] = []
        self._elsewhere: dict[int, Elsewhere] = {}
        self._next_number = 1
        self._next_move = 0.0
        self.now = clock()
        self.table = ServiceTable(self._reset_server)
        self.held: frozenset[str] | None = None
        self.max_connections = max(16, (raise_descriptor_limit() - SPARE_DESCRIPTORS) // 2)
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._relays: set[Relay] = set()
        self._listeners: dict[ServiceKey, TcpListener | UdpListener] = {}
        self._connecting: deque[tuple[float, Relay]] = deque()
        self._later: list[Callable[[], None]] = []
        self._pipes: list[tuple[int, int]] = []
        self._next_sweep = self.now + SWEEP_S
        self._next_bind: float | None = None
        self._resting: list[TcpListener] = []
        self._stopped = False

    # -- the port's operations ---------------------------------------------------------------------------------

    def apply(self, operations: Sequence[Operation]) -> list[Refused]:
        """Change the table, then open and close listeners to match."""
        refused = self.table.apply(operations)
        self._match_listeners()
        return refused

    def set_local(self, addresses: frozenset[str]) -> None:
        """Take note of the virtual addresses this node holds.

        It matters for loopback addresses alone: those are on every node of a machine at once, so the kernel cannot
        keep two directors apart.
        """
        self.held = addresses
        self._match_listeners()

    def observe(self) -> list[ServiceState]:
        """Return the table with counters that include open connections."""
        self._count_open()
        self.table.expire(self.clock())
        return self.table.observe()

    def connections(self) -> list[Connection]:
        """Return open connections, datagram sessions and templates."""
        found = [self._shown(relay) for relay in self._relays] + [_shown_elsewhere(away) for away in self._elsewhere.values()]
        for listener in self._listeners.values():
            if isinstance(listener, UdpListener):
                found += listener.connections()
        return found + self.table.templates(self.clock())

    def drop(self, wanted: ConnectionFilter) -> int:
        """Reset connections, end sessions and forget templates; return how many."""
        matches = wanted.test()
        chosen: list[Relay | Elsewhere] = [relay for relay in self._relays if matches(self._shown(relay))]
        chosen += [away for away in self._elsewhere.values() if matches(_shown_elsewhere(away))]
        for connection in chosen:
            connection.abort()
        dropped = len(chosen)
        for listener in self._listeners.values():
            if isinstance(listener, UdpListener):
                dropped += listener.end(matches)
        return dropped + self.table.forget(matches, self.clock())

    def _shown(self, relay: Relay) -> Connection:
        return Connection(
            protocol=Protocol.TCP,
            client=Endpoint(*relay.client_address),
            virtual=relay.assignment.service.entry.key.endpoint,
            server=relay.assignment.server.entry.endpoint,
            state=("FIN_WAIT" if relay.assignment.inactive else "ESTABLISHED") if relay.connected else "SYN_SENT",
            expires_s=max(0.0, relay.seen + IDLE_TCP_S - self.now),
        )

    def _count_open(self) -> None:
        """Move the octets of open flows into the counters of their servers."""
        for relay in self._relays:
            relay.assignment.server.bytes_in += relay.up.octets
            relay.assignment.server.bytes_out += relay.down.octets
            relay.up.octets = relay.down.octets = 0

    # -- the loop ----------------------------------------------------------------------------------------------

    def watch(self, descriptor: int, mask: int, handler: Callable[[int], None]) -> None:
        """Call ``handler`` with the event mask whenever something happens on ``descriptor``."""
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, mask)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching a descriptor that is about to be closed."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def later(self, task: Callable[[], None]) -> None:
        """Run ``task`` when the current batch of events is done."""
        self._later.append(task)

    def again(self, flow: Flow) -> None:
        """Give ``flow`` another turn: it stopped for the others' sake, and no new event will come."""
        self._later.append(lambda: None if flow.relay.closed else flow.pump(True))

    def stop(self) -> None:
        """Leave ``run`` after the current batch."""
        self._stopped = True

    def run(self) -> None:
        """Serve until ``stop``."""
        while not self._stopped:
            self.turn(None)
        self.close()

    def turn(self, limit_s: float | None) -> None:
        """Wait for events, at most ``limit_s``, and handle one batch."""
        events = self._epoll.poll(self._patience(limit_s), BATCH)
        self.now = self.clock()
        for descriptor, mask in events:
            handler = self._handlers.get(descriptor)
            if handler is not None:
                handler(mask)
        tasks, self._later = self._later, []
        for task in tasks:
            task()
        self._timers()

    def _patience(self, limit_s: float | None) -> float:
        if self._later:
            return 0.0
        due = [self._next_sweep]
        if self._connecting:
            due.append(self._connecting[0][0])
        if self._next_bind is not None:
            due.append(self._next_bind)
        wait = max(0.0, min(due) - self.clock())
        return wait if limit_s is None else min(wait, limit_s)

    def _timers(self) -> None:
        while self._connecting and (self._connecting[0][0] <= self.now or self._connecting[0][1].connected):
            due, relay = self._connecting.popleft()
            if due == relay.connect_by and not relay.connected and not relay.closed:
                self.connect_failed(relay)
        if self._next_bind is not None and self._next_bind <= self.now:
            self._match_listeners()
        if self._next_sweep <= self.now:
            self._next_sweep = self.now + SWEEP_S
            self._sweep()

    def _sweep(self) -> None:
        for relay in [r for r in self._relays if r.seen + IDLE_TCP_S <= self.now]:
            relay.abort()
        for listener in self._listeners.values():
            if isinstance(listener, UdpListener):
                listener.expire(self.now)
        self.table.expire(self.now)

    def close(self) -> None:
        """Close everything."""
        for listener in self._listeners.values():
            listener.close()
        for relay in list(self._relays):
            relay.abort()
        for annex in list(self._annexes):
            annex.close()
        for pipe in self._pipes:
            _close_pipe(pipe)
        self._epoll.close()

    # -- listeners ---------------------------------------------------------------------------------------------

    def _wants_listener(self, service: Service) -> bool:
        address = service.entry.key.endpoint.address
        if self.held is not None and address not in self.held and ip_address(address).is_loopback:
            return False
        return bool(service.servers)

    def rest(self, listener: TcpListener, pause_s: float) -> None:
        """Leave a listener alone for a moment: nothing can be accepted now, and its event would come again at once."""
        assert listener.socket is not None
        self.unwatch(listener.socket.fileno())
        self._resting.append(listener)
        self._next_bind = min(self._next_bind or math.inf, self.now + pause_s)

    def _match_listeners(self) -> None:
        self._next_bind = None
        for resting in self._resting:
            if resting.socket is not None:
                self.watch(resting.socket.fileno(), select.EPOLLIN, resting.on_event)
        self._resting.clear()
        for key in [k for k in self._listeners if k not in self.table.services]:
            self._listeners.pop(key).close()
        for key, service in self.table.services.items():
            listener = self._listeners.get(key)
            if listener is not None and listener.service is not service:
                listener.close()
                listener = None
            if not self._wants_listener(service):
                if listener is not None:
                    self._listeners.pop(key).close()
                service.listening = "" if service.servers else "no server"
            elif listener is None or listener.socket is None:
                self._open_listener(key, service)

    def _open_listener(self, key: ServiceKey, service: Service) -> None:
        kind = TcpListener if key.protocol is Protocol.TCP else UdpListener
        listener = kind(self, service)
        try:
            listener.open()
        except (OSError, OverflowError) as error:  # OverflowError: no port, whatever said so
            service.listening = f"cannot listen on {key.endpoint}: {getattr(error, 'strerror', None) or error}"
            self._next_bind = self.now + REBIND_S
            self._listeners.pop(key, None)
            return
        service.listening = ""
        self._listeners[key] = listener

    # -- connections -------------------------------------------------------------------------------------------

    def accepted(self, listener: TcpListener, client: socket.socket, address: tuple[str, int]) -> None:
        """Give a new client a server, or reset it."""
        assignment = self.table.open(listener.service, address[0], address[1], self.clock())
        if isinstance(assignment, PickRefusal):
            _reset(client)
            return
        relay = Relay(self, client, (address[0], address[1]), assignment)
        self._connect(relay)

    def _connect(self, relay: Relay) -> None:
        """Open the connection to the leased server; an immediate refusal is handled like a late one."""
        entry = relay.assignment.server.entry
        endpoint = entry.endpoint
        family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
        try:
            server = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:  # no descriptor is left
            self.table.close(relay.assignment)
            self._turn_away(relay, PickRefusal.TOO_MANY)
            return
        preface = b""
        if entry.proxy_protocol:
            preface = header(entry.proxy_protocol, Endpoint(*relay.client_address), relay.assignment.service.entry.key.endpoint)
        relay.attach(server, preface)
        self._relays.add(relay)
        result = server.connect_ex((endpoint.address, endpoint.port))
        if result not in (0, errno.EINPROGRESS):
            self.connect_failed(relay)
            return
        relay.connect_by = self.now + CONNECT_TIMEOUT_S
        self._connecting.append((relay.connect_by, relay))
        self.watch(server.fileno(), WATCH, relay.on_server)
        if relay.client.fileno() not in self._handlers:
            self.watch(relay.client.fileno(), WATCH, relay.on_client)

    def connect_failed(self, relay: Relay) -> None:
        """Pass the client on to another server; nothing of its data has left yet."""
        failed = relay.assignment.server
        failed.connections.discard(relay)
        self.unwatch(relay.server.fileno())
        relay.server.close()
        self.table.close(relay.assignment)
        relay.tried.append(failed)
        relay.connect_by = 0.0
        self.later(lambda: self._retry(relay))

    def _retry(self, relay: Relay) -> None:
        if relay.closed:
            return
        service = relay.assignment.service
        assignment: object = PickRefusal.NO_DESTINATION
        if len(relay.tried) < MAX_TRIES:
            client, port = relay.client_address
            assignment = self.table.open(service, client, port, self.clock(), tried=relay.tried)
        if isinstance(assignment, PickRefusal):
            self._turn_away(relay, PickRefusal.CONNECT_FAILED)
            return
        relay.assignment = assignment  # type: ignore[assignment]
        self._connect(relay)

    def _turn_away(self, relay: Relay, reason: PickRefusal) -> None:
        """Reset a client that has no connection to a server."""
        relay.assignment.service.refused[reason] += 1
        relay.closed = True
        self._relays.discard(relay)
        self.unwatch(relay.client.fileno())
        _reset(relay.client)

    def half_closed(self, relay: Relay) -> None:
        """One direction of ``relay`` is done."""
        self.table.half_close(relay.assignment)

    def forget(self, relay: Relay) -> None:
        """Drop a relay that has dropped, and close its sockets."""
        handlers = self._handlers
        handlers.pop(relay.client.fileno(), None)
        handlers.pop(relay.server.fileno(), None)
        relay.client.close()
        relay.server.close()
        self._relays.discard(relay)
        self.table.close(relay.assignment)

    def _reset_server(self, server: Server) -> None:
        """Reset every connection to a server that leaves."""
        for connection in list(server.connections):
            if isinstance(connection, Relay | Elsewhere):
                connection.abort()
        for listener in self._listeners.values():
            if isinstance(listener, UdpListener):
                listener.reset(server)

    # -- annexes -----------------------------------------------------------------------------------------------

    def full(self) -> bool:
        """Whether no further connection can be taken now; makes room if there is any to make."""
        if len(self._relays) >= self.max_connections * HIGH_WATER:
            self._make_room()
        return len(self._relays) >= self.max_connections

    def _make_room(self) -> None:
        """Hand connections to an annex, some at a time: idle ones, or near the limit any that has nothing under way."""
        urgent = len(self._relays) >= self.max_connections * FLOOD_MARK
        if self._new_annex is None or (self.now < self._next_move and not urgent):
            return
        self._next_move = self.now + MOVE_PAUSE_S
        annex = next((a for a in self._annexes if len(a.held) < self.max_connections * HIGH_WATER), None)
        if annex is None:
            if len(self._annexes) >= MAX_ANNEXES:
                return
            annex = self._new_annex(self, self._hear_annex, self._annex_lost)
            self._annexes.append(annex)
        before = self.now if urgent else self.now - IDLE_BEFORE_MOVE_S
        quiet = (relay for relay in list(self._relays) if relay.idle_since(before))
        for relay in islice(quiet, MOVE_BATCH):
            if not self._move(relay, annex):
                return

    def _move(self, relay: Relay, annex: Annex) -> bool:
        number = self._next_number
        if not annex.adopt(number, relay.client, relay.server):
            return False
        self._next_number += 1
        away = self._elsewhere[number] = Elsewhere(number, annex, relay.assignment, relay.client_address)
        server = relay.assignment.server
        server.connections.discard(relay)
        server.connections.add(away)
        server.bytes_in += relay.up.octets
        server.bytes_out += relay.down.octets
        relay.closed = True
        self._relays.discard(relay)
        for flow in (relay.up, relay.down):
            if flow.pipe is not None:
                self.return_pipe(flow.pipe, clean=True)
        for side in (relay.client, relay.server):
            self.unwatch(side.fileno())  # closing alone would leave it watched: the annex has it open
            side.close()
        return True

    def _hear_annex(self, kind: int, number: int, up: int, down: int) -> None:
        away = self._elsewhere.get(number)
        if away is None:
            return
        away.assignment.server.bytes_in += up
        away.assignment.server.bytes_out += down
        if kind == HALF_CLOSED:
            self.table.half_close(away.assignment)
        elif kind == ENDED:
            self._end_elsewhere(away)

    def _end_elsewhere(self, away: Elsewhere) -> None:
        del self._elsewhere[away.number]
        away.assignment.server.connections.discard(away)
        self.table.close(away.assignment)

    def _annex_lost(self, annex: Annex) -> None:
        """Count out what an annex that died has lost."""
        self._annexes.remove(annex)
        for number in list(annex.held):
            if number in self._elsewhere:
                self._end_elsewhere(self._elsewhere[number])

    # -- pipes -------------------------------------------------------------------------------------------------

    def take_pipe(self) -> tuple[int, int] | None:
        """Lend a pipe for splicing; ``None`` when no descriptor is left, and the flow goes on copying."""
        if self._pipes:
            return self._pipes.pop()
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.fcntl(pipe[0], _F_SETPIPE_SZ, 1 << 20)
        except OSError:
            pass  # the per-user limit of pipe pages is reached: a smaller pipe works too
        return pipe

    def return_pipe(self, pipe: tuple[int, int], *, clean: bool) -> None:
        """Take a pipe back; one with octets in it is closed."""
        if clean and len(self._pipes) < MAX_PIPES:
            self._pipes.append(pipe)
        else:
            _close_pipe(pipe)


def _close_pipe(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    os.close(pipe[1])


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


def _shown_elsewhere(away: Elsewhere) -> Connection:
    return Connection(
        protocol=Protocol.TCP,
        client=Endpoint(*away.client_address),
        virtual=away.assignment.service.entry.key.endpoint,
        server=away.assignment.server.entry.endpoint,
        state="FIN_WAIT" if away.assignment.inactive else "ESTABLISHED",
    )
