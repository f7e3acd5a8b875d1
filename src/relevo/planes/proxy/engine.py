"""The engine of the proxy plane: listeners, relays, datagram services and overflow workers, around the table they serve.

It decides which server a client gets, counts, and resets. The event loop is in ``loop``, the bytes are moved by ``relay`` and
``udp``.
"""

from __future__ import annotations

import errno
import math
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
from relevo.planes.proxy.loop import EDGES, Loop
from relevo.planes.proxy.pipes import PipePool
from relevo.planes.proxy.proxy_protocol import header
from relevo.planes.proxy.relay import NO_FLOW, Relay
from relevo.planes.proxy.udp import UdpListener
from relevo.planes.table import Assignment, Server, Service, ServiceTable

CONNECT_TIMEOUT_S: Final = 5.0
"""A connection to a server that is not established after this long is tried at another server."""
MAX_TRIES: Final = 3
"""Servers tried for one connection before the client is reset."""
IDLE_TCP_S: Final = 900.0
"""Idle connections are reset after this long: IPVS's time-out of ESTABLISHED."""
SWEEP_S: Final = 5.0
SPARE_DESCRIPTORS: Final = 256
"""Descriptors kept free for the control socket, listeners and reconnects."""
HIGH_WATER: Final = 0.75
"""Share of ``max_connections`` from which on idle connections are offloaded to an overflow worker."""
FLOOD_MARK: Final = 0.9
"""Share from which on they need not have been idle first: ten thousand connections may come within 0.25 s."""
IDLE_BEFORE_MOVE_S: Final = 0.5
MOVE_BATCH: Final = 256
MOVE_PAUSE_S: Final = 0.02
"""Connections are offloaded in batches with pauses: each costs a message, and the remaining ones must be served meanwhile."""
MAX_WORKERS: Final = 8
"""Overflow workers; with 20 000 descriptors each they hold some 80 000 connections."""
HALF_CLOSED: Final = 4
ENDED: Final = 3
"""Kinds of an overflow worker's reports that change what is counted."""


class OverflowWorker(Protocol_):
    """What the engine needs of an overflow worker (see ``overflow``)."""

    numbers: set[int]
    """Connections it relays."""

    def adopt(self, number: int, client: socket.socket, server: socket.socket) -> bool:
        """Take a connection over; False when it cannot now."""

    def abort(self, number: int) -> None:
        """Reset a connection."""

    def close(self) -> None:
        """End the process, and with it every connection it relays."""


Report = Callable[[int, int, int, int], None]
"""Called with the kind of a report, the number of the connection, and bytes towards server and client since the last one."""
StartWorker = Callable[[Loop, Report, Callable[[Any], None]], OverflowWorker]


@dataclass(slots=True, eq=False)
class OffloadedConnection:
    """A connection that an overflow worker relays; scheduling and counting stay here."""

    number: int
    worker: OverflowWorker
    assignment: Assignment
    client_address: tuple[str, int]

    def abort(self) -> None:
        self.worker.abort(self.number)


class Engine(Loop):
    """The engine. Without ``start_worker`` no connection is offloaded when descriptors run short."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, start_worker: StartWorker | None = None) -> None:
        super().__init__(clock)
        self._start_worker = start_worker
        self._workers: list[OverflowWorker] = []
        self._offloaded: dict[int, OffloadedConnection] = {}
        self._next_number = 1
        self._next_offload = 0.0
        self.table = ServiceTable(self._reset_server)
        self.pipes = PipePool()
        self.local: frozenset[str] | None = None
        self.max_connections = max(16, (raise_descriptor_limit() - SPARE_DESCRIPTORS) // 2)
        self._relays: set[Relay] = set()
        self._listeners: dict[ServiceKey, TcpListener | UdpListener] = {}
        self._connecting: deque[tuple[float, Relay]] = deque()
        self._next_sweep = self.now + SWEEP_S
        self._next_bind: float | None = None
        self._paused: list[TcpListener] = []

    # -- the port's operations ---------------------------------------------------------------------------------

    def apply(self, operations: Sequence[Operation]) -> list[Refused]:
        """Change the table, then open and close listeners to match."""
        refused = self.table.apply(operations)
        self._match_listeners()
        return refused

    def set_local(self, addresses: frozenset[str]) -> None:
        """Set the virtual addresses that are on this node.

        Only loopback addresses depend on it: every node of a machine has them at once, so two directors on one machine would
        both listen.
        """
        self.local = addresses
        self._match_listeners()

    def observe(self) -> list[ServiceState]:
        """Return the table with counters that include open connections."""
        self._count_open()
        self.table.expire(self.clock())
        return self.table.observe()

    def connections(self) -> list[Connection]:
        """Return open connections, datagram sessions and templates."""
        found = [self._to_connection(relay) for relay in self._relays] + [
            _offloaded_connection(one) for one in self._offloaded.values()
        ]
        for listener in self._listeners.values():
            if isinstance(listener, UdpListener):
                found += listener.connections()
        return found + self.table.templates(self.clock())

    def drop(self, wanted: ConnectionFilter) -> int:
        """Reset connections, drop sessions and templates; return how many."""
        matches = wanted.test()
        chosen: list[Relay | OffloadedConnection] = [relay for relay in self._relays if matches(self._to_connection(relay))]
        chosen += [one for one in self._offloaded.values() if matches(_offloaded_connection(one))]
        for connection in chosen:
            connection.abort()
        dropped = len(chosen)
        for listener in self._listeners.values():
            if isinstance(listener, UdpListener):
                dropped += listener.drop(matches)
        return dropped + self.table.drop_templates(matches, self.clock())

    def _to_connection(self, relay: Relay) -> Connection:
        return Connection(
            protocol=Protocol.TCP,
            client=Endpoint(*relay.client_address),
            virtual=relay.assignment.service.entry.key.endpoint,
            server=relay.assignment.server.entry.endpoint,
            state=("FIN_WAIT" if relay.assignment.inactive else "ESTABLISHED") if relay.connected else "SYN_SENT",
            expires_s=max(0.0, relay.seen + IDLE_TCP_S - self.now),
        )

    def _count_open(self) -> None:
        """Move the bytes that open flows have counted into the counters of their servers."""
        for relay in self._relays:
            relay.assignment.server.bytes_in += relay.up.transferred
            relay.assignment.server.bytes_out += relay.down.transferred
            relay.up.transferred = relay.down.transferred = 0

    # -- timers ------------------------------------------------------------------------------------------------

    def _wait_s(self, limit_s: float | None) -> float:
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
        for worker in list(self._workers):
            worker.close()
        self.pipes.close()
        super().close()

    # -- listeners ---------------------------------------------------------------------------------------------

    def _wants_listener(self, service: Service) -> bool:
        address = service.entry.key.endpoint.address
        if self.local is not None and address not in self.local and ip_address(address).is_loopback:
            return False
        return bool(service.servers)

    def pause(self, listener: TcpListener, pause_s: float) -> None:
        """Stop watching a listener for a while: nothing can be accepted now, and its event would recur at once."""
        assert listener.socket is not None
        self.unwatch(listener.socket.fileno())
        self._paused.append(listener)
        self._next_bind = min(self._next_bind or math.inf, self.now + pause_s)

    def _match_listeners(self) -> None:
        self._next_bind = None
        for paused in self._paused:
            if paused.socket is not None:
                self.watch(paused.socket.fileno(), select.EPOLLIN, paused.on_event)
        self._paused.clear()
        for key in self._listeners.keys() - self.table.services.keys():
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
        listener: TcpListener | UdpListener
        if key.protocol is Protocol.TCP:
            listener = TcpListener(self, self, service)
        else:
            listener = UdpListener(self, self.table, service, self.max_connections)
        try:
            listener.open()
        except (OSError, OverflowError) as error:  # OverflowError: the port is above 65535
            service.listening = f"cannot listen on {key.endpoint}: {getattr(error, 'strerror', None) or error}"
            self._next_bind = self.now + REBIND_S
            self._listeners.pop(key, None)
            return
        service.listening = ""
        self._listeners[key] = listener

    # -- connections -------------------------------------------------------------------------------------------

    def accepted(self, listener: TcpListener, client: socket.socket, address: tuple[str, int]) -> None:
        """Connect a new client to a server, or reset it."""
        assignment = self.table.open(listener.service, address[0], address[1], self.clock())
        if isinstance(assignment, PickRefusal):
            _reset(client)
            return
        relay = Relay(self, client, (address[0], address[1]), assignment)
        self._connect(relay)

    def _connect(self, relay: Relay) -> None:
        """Connect to the assigned server; an immediate refusal is handled like a late one."""
        entry = relay.assignment.server.entry
        endpoint = entry.endpoint
        family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
        try:
            server = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:  # no descriptor is left
            self.table.close(relay.assignment)
            self._reset_client(relay, PickRefusal.TOO_MANY)
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
        self.watch(server.fileno(), EDGES, relay.on_server)
        if relay.client.fileno() not in self._handlers:
            self.watch(relay.client.fileno(), EDGES, relay.on_client)

    def connect_failed(self, relay: Relay) -> None:
        """Try another server; none of the client's data has been sent yet."""
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
            self._reset_client(relay, PickRefusal.CONNECT_FAILED)
            return
        relay.assignment = assignment  # type: ignore[assignment]
        self._connect(relay)

    def _reset_client(self, relay: Relay, reason: PickRefusal) -> None:
        """Reset a client that has no connection to a server."""
        relay.assignment.service.refused[reason] += 1
        relay.closed = True
        self._relays.discard(relay)
        self.unwatch(relay.client.fileno())
        _reset(relay.client)

    def half_closed(self, relay: Relay) -> None:
        """Count a relay as inactive: one direction has ended."""
        self.table.half_close(relay.assignment)

    def forget(self, relay: Relay) -> None:
        """Forget a relay that has ended, and close its sockets."""
        handlers = self._handlers
        handlers.pop(relay.client.fileno(), None)
        handlers.pop(relay.server.fileno(), None)
        relay.client.close()
        relay.server.close()
        self._relays.discard(relay)
        self.table.close(relay.assignment)

    def _reset_server(self, server: Server) -> None:
        """Reset every connection to a removed server."""
        for connection in list(server.connections):
            if isinstance(connection, Relay | OffloadedConnection):
                connection.abort()
        for listener in self._listeners.values():
            if isinstance(listener, UdpListener):
                listener.reset(server)

    # -- overflow workers --------------------------------------------------------------------------------------

    def full(self) -> bool:
        """Whether no further connection can be accepted now; offloads connections when the limit is near."""
        if len(self._relays) >= self.max_connections * HIGH_WATER:
            self._offload()
        return len(self._relays) >= self.max_connections

    def _offload(self) -> None:
        """Hand a batch of connections to a worker: idle ones, or near the limit any that has no data in flight."""
        urgent = len(self._relays) >= self.max_connections * FLOOD_MARK
        if self._start_worker is None or (self.now < self._next_offload and not urgent):
            return
        self._next_offload = self.now + MOVE_PAUSE_S
        worker = next((w for w in self._workers if len(w.numbers) < self.max_connections * HIGH_WATER), None)
        if worker is None:
            if len(self._workers) >= MAX_WORKERS:
                return
            worker = self._start_worker(self, self._on_report, self._on_worker_lost)
            self._workers.append(worker)
        before = self.now if urgent else self.now - IDLE_BEFORE_MOVE_S
        quiet = (relay for relay in list(self._relays) if relay.idle_since(before))
        for relay in islice(quiet, MOVE_BATCH):
            if not self._move(relay, worker):
                return

    def _move(self, relay: Relay, worker: OverflowWorker) -> bool:
        number = self._next_number
        if not worker.adopt(number, relay.client, relay.server):
            return False
        self._next_number += 1
        moved = self._offloaded[number] = OffloadedConnection(number, worker, relay.assignment, relay.client_address)
        server = relay.assignment.server
        server.connections.discard(relay)
        server.connections.add(moved)
        server.bytes_in += relay.up.transferred
        server.bytes_out += relay.down.transferred
        relay.closed = True
        self._relays.discard(relay)
        for flow in (relay.up, relay.down):
            if flow.pipe is not None:
                self.pipes.put(flow.pipe, clean=True)
        relay.up = relay.down = NO_FLOW
        for side in (relay.client, relay.server):
            self.unwatch(side.fileno())  # the worker has the socket open: closing alone would leave it in the epoll set
            side.close()
        return True

    def _on_report(self, kind: int, number: int, up: int, down: int) -> None:
        moved = self._offloaded.get(number)
        if moved is None:
            return
        moved.assignment.server.bytes_in += up
        moved.assignment.server.bytes_out += down
        if kind == HALF_CLOSED:
            self.table.half_close(moved.assignment)
        elif kind == ENDED:
            self._forget_offloaded(moved)

    def _forget_offloaded(self, moved: OffloadedConnection) -> None:
        del self._offloaded[moved.number]
        moved.assignment.server.connections.discard(moved)
        self.table.close(moved.assignment)

    def _on_worker_lost(self, worker: OverflowWorker) -> None:
        """Count out the connections of a worker that died."""
        self._workers.remove(worker)
        for number in list(worker.numbers):
            if number in self._offloaded:
                self._forget_offloaded(self._offloaded[number])


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


def _offloaded_connection(moved: OffloadedConnection) -> Connection:
    return Connection(
        protocol=Protocol.TCP,
        client=Endpoint(*moved.client_address),
        virtual=moved.assignment.service.entry.key.endpoint,
        server=moved.assignment.server.entry.endpoint,
        state="FIN_WAIT" if moved.assignment.inactive else "ESTABLISHED",
    )
