"""What other directors announce, as connections of this table: of which service and server, and what must not come in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

import msgspec

from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey
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
from relevo.planes.ebpf.table import PROTOCOL_OF, Server, Service, Table
from relevo.wire import ipvs_sync
from relevo.wire.ipvs_sync import Entry

MAX_WAITING: Final = 65_536
"""Connections kept whose server is not in the table: it may be down for this node alone, or not configured yet."""
MAX_PLACES: Final = 65_536
"""Ends of connections whose service and server are remembered; whoever names ever new ones costs time, not memory."""
TEMPLATE_S: Final = 180
"""A template without a time-out, as version 0 announces them, lasts as long as it does in IPVS."""

NO_SERVER: Final = "no_server"
NO_ROOM: Final = "no_room"
UNSUITABLE: Final = "unsuitable"
"""This plane cannot carry such a connection on: SCTP, a persistence engine, FULLNAT here."""
SUPERSEDED: Final = "superseded"
"""Another server has the connection here, and the one announced is about to end (IPVS's rule)."""


@dataclass(slots=True)
class Place:
    """Where connections of a service to one of its servers belong."""

    service: Service
    server: Server
    generation: int


@dataclass(slots=True)
class Arrivals:
    """Enters what is announced. Entries without a server wait for it; whatever does not enter at once is counted by reason."""

    instance: Instance
    table: Table
    refused: Counter[str] = field(default_factory=Counter)
    entered: int = 0
    _places: dict[tuple[object, ...], Place] = field(default_factory=dict)
    _waiting: dict[tuple[object, ...], tuple[Entry, float]] = field(default_factory=dict)

    def waiting(self, now: float) -> int:
        """Return how many connections wait for their server; those whose time is over do no more."""
        ended = [identity for identity, (entry, since) in self._waiting.items() if _left(entry, since, now) <= 0]
        for identity in ended:
            del self._waiting[identity]
        return len(self._waiting)

    def take(self, entries: Sequence[Entry], now: float) -> None:
        """Enter what can be entered; count the rest by reason. ``now`` is a clock's seconds that never goes back."""
        connections = []
        for entry in entries:
            if entry.protocol not in (0, *PROTOCOL_OF) or entry.engine or entry.engine_data:
                self.refused[UNSUITABLE] += 1
                continue
            place = self._place(entry)
            if place is None:
                self.refused[NO_SERVER] += 1
                self._wait(entry, now)
                continue
            if self._waiting:
                self._waiting.pop(_identity(entry), None)  # what waited was older
            if place.server.entry.forwarding is Forwarding.FULLNAT:
                self.refused[UNSUITABLE] += 1
            else:
                connections.append(self._connection(entry, place))
        self._enter(connections)

    def _enter(self, connections: Sequence[bytes]) -> None:
        for outcome, _ in self.instance.enter(connections):
            if outcome is Outcome.NO_ROOM:
                self.refused[NO_ROOM] += 1
            elif outcome is Outcome.IGNORED:
                self.refused[SUPERSEDED] += 1
            else:
                self.entered += 1

    def table_changed(self, now: float) -> None:
        """Services or servers came or went: what waits for one that is there now enters, with the time that it has left."""
        self._places.clear()
        self.waiting(now)
        here = {packed(s.entry.endpoint.address) for service in self.table.services.values() for s in service.servers}
        ready = [(identity, *held) for identity, held in self._waiting.items() if mapped(held[0].server) in here]
        connections = []
        for identity, entry, since in ready:
            place = self._place(entry)
            if place is not None:
                del self._waiting[identity]
                if place.server.entry.forwarding is not Forwarding.FULLNAT:
                    connections.append(self._connection(msgspec.structs.replace(entry, seconds=_left(entry, since, now)), place))
        self._enter(connections)

    def _wait(self, entry: Entry, now: float) -> None:
        identity = _identity(entry)
        self._waiting.pop(identity, None)
        if entry.state in (TcpState.TIME_WAIT, TcpState.CLOSE) and entry.protocol == ipvs_sync.TCP:
            return  # it is over
        if len(self._waiting) >= MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[identity] = entry, now

    # -- whose it is -------------------------------------------------------------------------------------------

    def _place(self, entry: Entry) -> Place | None:
        key = (entry.protocol, entry.virtual, entry.virtual_port, entry.mark, entry.server, entry.server_port)
        place = self._places.get(key)
        if place is None or place.server.value.generation != place.generation:
            place = self._find(entry)
            if place is None:
                return None
            if len(self._places) >= MAX_PLACES:
                self._places.clear()
            self._places[key] = place
        return place

    def _find(self, entry: Entry) -> Place | None:
        address = str(ip_address(entry.server))
        for key in _keys(entry):
            service = self.table.services.get(key)
            if service is None:
                continue
            server = service.find(Endpoint(address, entry.server_port))
            if server is None and (entry.server_port in (0, entry.virtual_port) or service.value.flags & ServiceFlag.ANY_PORT):
                server = next((s for s in service.servers if s.entry.endpoint.address == address), None)
            if server is not None:
                return Place(service, server, int(server.value.generation))
        return None

    def _connection(self, entry: Entry, place: Place) -> bytes:
        value = place.server.value
        flags = ConnectionFlag.FOREIGN
        if entry.is_template:
            flags |= ConnectionFlag.TEMPLATE | (ConnectionFlag.ASSURED if entry.state else 0)
            state, seconds = 0, entry.seconds or TEMPLATE_S
        else:
            if value.forwarding or value.is_local:
                flags |= ConnectionFlag.NO_OUTPUT
            if place.service.value.flags & ServiceFlag.ANY_PORT:
                flags |= ConnectionFlag.KEEP_PORT
            if not entry.flags & ipvs_sync.INACTIVE and entry.protocol == ipvs_sync.TCP:
                flags |= ConnectionFlag.ACTIVE
            state = entry.state if entry.protocol == ipvs_sync.TCP else TcpState.UDP
            seconds = entry.seconds
        settings = self.instance.settings
        jiffies = jiffies_of(seconds, settings.hz) or settings.timeout[state]
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
            place.server.number,
            jiffies,
            0,
            settings.sync_threshold,
            0,
            0,
            0,
            place.generation,
        )


def _left(entry: Entry, since: float, now: float) -> int:
    """Seconds until the time of an entry that came at ``since`` is over."""
    return (entry.seconds or TEMPLATE_S) - int(now - since)


def _identity(entry: Entry) -> tuple[object, ...]:
    return (entry.protocol, entry.client, entry.client_port, entry.virtual, entry.virtual_port)


def _keys(entry: Entry) -> list[ServiceKey]:
    """The services that a connection may be of, in the order of IPVS: by mark, by address and port, by address alone."""
    keys = []
    if entry.mark:
        keys.append(ServiceKey.of_mark(entry.mark, ipv6=len(entry.client) == 16))
    protocol: Protocol | None = PROTOCOL_OF.get(entry.protocol)
    if protocol is not None:
        virtual = str(ip_address(entry.virtual))
        keys += [ServiceKey(protocol, Endpoint(virtual, port)) for port in (entry.virtual_port, 0)]
    return keys
