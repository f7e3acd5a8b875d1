"""Sync import: inserts entries received from other directors into the table.

Each entry is matched to a service and a server of this table; entries without a server are kept until it is added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

import msgspec

from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey
from relevo.planes.ebpf.entries import PROTOCOL_OF, Server, Service
from relevo.planes.ebpf.instance import Instance
from relevo.planes.ebpf.layout import (
    CONNECTION,
    ConnectionFlag,
    Outcome,
    ServiceFlag,
    TcpState,
    jiffies_of,
    mapped,
    packed,
    port_to,
)
from relevo.planes.ebpf.table import Table
from relevo.wire import ipvs_sync
from relevo.wire.ipvs_sync import Entry

MAX_WAITING: Final = 65_536
"""Entries kept whose server is not in the table: it may be down on this node only, or not configured yet."""
MAX_TARGETS: Final = 65_536
"""Looked-up targets cached. The limit bounds the memory that entries with ever new addresses can take."""
TEMPLATE_S: Final = 180
"""Time-out of a template that carries none, as in version 0; IPVS uses the same."""

NO_SERVER: Final = "no_server"
NO_ROOM: Final = "no_room"
UNSUITABLE: Final = "unsuitable"
"""This plane cannot continue such a connection: SCTP, a persistence engine, or a server that is FULLNAT here."""
SUPERSEDED: Final = "superseded"
"""The table has the connection with another server, and the received one is inactive (IPVS's rule)."""


@dataclass(slots=True)
class Target:
    """A service of the table, and the server of it that an entry belongs to."""

    service: Service
    server: Server
    generation: int


@dataclass(slots=True)
class SyncImport:
    """Inserts received entries. Entries without a server wait for it. Entries not inserted at once are counted by reason."""

    instance: Instance
    table: Table
    refused: Counter[str] = field(default_factory=Counter)
    inserted: int = 0
    _targets: dict[tuple[object, ...], Target] = field(default_factory=dict)
    _waiting: dict[tuple[object, ...], tuple[Entry, float]] = field(default_factory=dict)

    def waiting(self, now: float) -> int:
        """Drop the waiting entries that have expired; return how many still wait for their server."""
        expired = [key for key, (entry, since) in self._waiting.items() if _remaining_s(entry, since, now) <= 0]
        for key in expired:
            del self._waiting[key]
        return len(self._waiting)

    def receive(self, entries: Sequence[Entry], now: float) -> None:
        """Insert the entries that can be inserted; count the others by reason. ``now`` is in seconds of the monotonic clock."""
        connections = []
        for entry in entries:
            if entry.protocol not in (0, *PROTOCOL_OF) or entry.engine or entry.engine_data:
                self.refused[UNSUITABLE] += 1
                continue
            target = self._target(entry)
            if target is None:
                self.refused[NO_SERVER] += 1
                self._wait(entry, now)
                continue
            if self._waiting:
                self._waiting.pop(_connection_key(entry), None)  # an older entry of the same connection
            if target.server.entry.forwarding is Forwarding.FULLNAT:
                self.refused[UNSUITABLE] += 1
            else:
                connections.append(self._connection(entry, target))
        self._insert(connections)

    def _insert(self, connections: Sequence[bytes]) -> None:
        for outcome, _ in self.instance.insert(connections):
            if outcome is Outcome.NO_ROOM:
                self.refused[NO_ROOM] += 1
            elif outcome is Outcome.IGNORED:
                self.refused[SUPERSEDED] += 1
            else:
                self.inserted += 1

    def table_changed(self, now: float) -> None:
        """Insert the waiting entries whose server has been added, with the rest of their time-out."""
        self._targets.clear()
        self.waiting(now)
        present = {packed(s.entry.endpoint.address) for service in self.table.services.values() for s in service.servers}
        ready = [(key, *waiting) for key, waiting in self._waiting.items() if mapped(waiting[0].server) in present]
        connections = []
        for key, entry, since in ready:
            target = self._target(entry)
            if target is not None:
                del self._waiting[key]
                if target.server.entry.forwarding is not Forwarding.FULLNAT:
                    connections.append(
                        self._connection(msgspec.structs.replace(entry, seconds=_remaining_s(entry, since, now)), target)
                    )
        self._insert(connections)

    def _wait(self, entry: Entry, now: float) -> None:
        key = _connection_key(entry)
        self._waiting.pop(key, None)
        if entry.state in (TcpState.TIME_WAIT, TcpState.CLOSE) and entry.protocol == ipvs_sync.TCP:
            return  # the connection is closed
        if len(self._waiting) >= MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[key] = entry, now

    # -- look-up ----------------------------------------------------------------------------------------------

    def _target(self, entry: Entry) -> Target | None:
        key = (entry.protocol, entry.virtual, entry.virtual_port, entry.mark, entry.server, entry.server_port)
        target = self._targets.get(key)
        if target is None or target.server.value.generation != target.generation:
            target = self._find(entry)
            if target is None:
                return None
            if len(self._targets) >= MAX_TARGETS:
                self._targets.clear()
            self._targets[key] = target
        return target

    def _find(self, entry: Entry) -> Target | None:
        address = str(ip_address(entry.server))
        for key in _keys(entry):
            service = self.table.services.get(key)
            if service is None:
                continue
            server = service.find(Endpoint(address, entry.server_port))
            if server is None and (entry.server_port in (0, entry.virtual_port) or service.value.flags & ServiceFlag.ANY_PORT):
                server = next((s for s in service.servers if s.entry.endpoint.address == address), None)
            if server is not None:
                return Target(service, server, int(server.value.generation))
        return None

    def _connection(self, entry: Entry, target: Target) -> bytes:
        value = target.server.value
        flags = ConnectionFlag.FOREIGN
        if entry.is_template:
            flags |= ConnectionFlag.TEMPLATE | (ConnectionFlag.ASSURED if entry.state else 0)
            state, seconds = 0, entry.seconds or TEMPLATE_S
        else:
            if value.forwarding or value.is_local:
                flags |= ConnectionFlag.NO_OUTPUT
            if target.service.value.flags & ServiceFlag.ANY_PORT:
                flags |= ConnectionFlag.KEEP_PORT
            if not entry.flags & ipvs_sync.INACTIVE and entry.protocol == ipvs_sync.TCP:
                flags |= ConnectionFlag.ACTIVE
            state = entry.state if entry.protocol == ipvs_sync.TCP else TcpState.UDP
            seconds = entry.seconds
        settings = self.instance.settings
        # What others send cannot live longer than what is made here: it would fill the table for as long as it says.
        longest = jiffies_of(target.service.entry.persistence_timeout_s or TEMPLATE_S, settings.hz)
        longest = longest if entry.is_template else settings.timeout[state]
        jiffies = min(jiffies_of(seconds, settings.hz) or longest, longest)
        virtual = entry.virtual
        if entry.is_template and not entry.protocol:
            virtual = entry.mark.to_bytes(4, "big")
        return CONNECTION.pack(
            mapped(entry.client),
            mapped(virtual),
            port_to(entry.client_port),
            port_to(entry.virtual_port),
            entry.protocol,
            state,
            flags,
            target.server.number,
            jiffies,
            0,
            settings.sync_threshold,
            0,
            0,
            0,
            target.generation,
        )


def _remaining_s(entry: Entry, since: float, now: float) -> int:
    """Return the seconds until an entry received at ``since`` expires."""
    return (entry.seconds or TEMPLATE_S) - int(now - since)


def _connection_key(entry: Entry) -> tuple[object, ...]:
    return (entry.protocol, entry.client, entry.client_port, entry.virtual, entry.virtual_port)


def _keys(entry: Entry) -> list[ServiceKey]:
    """Return the keys of services to try, in the order of IPVS: by mark, by address and port, by address alone."""
    keys = []
    if entry.mark:
        keys.append(ServiceKey.of_mark(entry.mark, ipv6=len(entry.client) == 16))
    protocol: Protocol | None = PROTOCOL_OF.get(entry.protocol)
    if protocol is not None:
        virtual = str(ip_address(entry.virtual))
        keys += [ServiceKey(protocol, Endpoint(virtual, port)) for port in (entry.virtual_port, 0)]
    return keys
