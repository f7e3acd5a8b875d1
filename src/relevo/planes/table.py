"""The table of the planes that schedule in user space: services, servers, persistence, thresholds, counters.

It picks the server of a connection and counts open connections; it moves no bytes. Time is an argument. The memory plane is
this table alone, the proxy plane is this table with sockets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey
from relevo.model.table import (
    AddServer,
    AddService,
    Connection,
    DeleteServer,
    DeleteService,
    EditServer,
    EditService,
    Operation,
    ServerEntry,
    ServerState,
    ServiceEntry,
    ServiceState,
    Traffic,
)
from relevo.planes.port import Capabilities, PickRefusal, Refused
from relevo.schedulers import SCHEDULERS, Scheduler
from relevo.schedulers.base import fold

MAX_TEMPLATES: Final = 1_000_000
"""Persistence templates of one service; beyond it clients are scheduled without one. So many take about 200 MB."""


def capabilities_of_user_space(name: str) -> Capabilities:
    """What a plane built on this table can do."""
    return Capabilities(
        name=name,
        transports=frozenset((Protocol.TCP, Protocol.UDP)),
        schedulers=frozenset(SCHEDULERS),
        forwarding=frozenset((Forwarding.NAT, Forwarding.FULLNAT)),
        survives_daemon=False,
        any_port=False,
        marks=False,
        one_packet=False,
        tunnels=frozenset(),
        keeps_connections=False,
    )


class Server:
    """A server of a service: its entry, its counters, and what the scheduler reads."""

    __slots__ = (
        "active",
        "bytes_in",
        "bytes_out",
        "connections",
        "entry",
        "inactive",
        "overloaded",
        "templates",
        "total",
        "weight",
    )

    def __init__(self, entry: ServerEntry) -> None:
        self.entry = entry
        self.weight = entry.weight
        self.active = 0
        self.inactive = 0
        self.templates = 0
        self.overloaded = False
        self.total = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.connections: set[object] = set()  # of the plane, to reset when the server is removed

    @property
    def place(self) -> tuple[int, int]:
        """Its address folded to 32 bits, and its port."""
        return fold(address_number(self.entry.endpoint.address)[0]), self.entry.endpoint.port

    def update_overload(self) -> None:
        """Set or clear the overload flag: on at the upper threshold, off below the lower one, or below ¾ (IPVS)."""
        upper, lower = self.entry.upper_threshold, self.entry.lower_threshold
        connections = self.active + self.inactive
        if not upper:
            self.overloaded = False
        elif connections >= upper:
            self.overloaded = True
        elif self.overloaded and connections < (lower or upper - upper // 4):
            self.overloaded = False


@dataclass(slots=True)
class Template:
    """A persistence template: the server of a client. It outlives its time-out while it ``controlled`` open connections."""

    server: Server
    expires_at: float
    controlled: int = 0


@dataclass(slots=True)
class Assignment:
    """The server that a connection was assigned to; ``close`` takes it when the connection ends."""

    service: Service
    server: Server
    template: Template | None
    inactive: bool = False


@dataclass(slots=True)
class Service:
    """A service and its servers, newest first."""

    entry: ServiceEntry
    scheduler: Scheduler
    servers: list[Server] = field(default_factory=list)
    templates: dict[int, Template] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    total: int = 0
    listening: str = ""

    def find(self, endpoint: Endpoint) -> Server | None:
        """Return the server at ``endpoint``."""
        return next((server for server in self.servers if server.entry.endpoint == endpoint), None)


Removed = Callable[[Server], None]


class ServiceTable:
    """Services by key. ``removed`` is called for every server that is deleted, alone or with its service."""

    def __init__(self, removed: Removed = lambda server: None) -> None:
        self.services: dict[ServiceKey, Service] = {}
        self._removed = removed

    # -- operations --------------------------------------------------------------------------------------------

    def apply(self, operations: Sequence[Operation]) -> list[Refused]:
        """Carry operations out in order; return those refused, which change nothing, with their reasons."""
        refused = []
        for operation in operations:
            reason = self._apply(operation)
            if reason:
                refused.append(Refused(operation, reason))
        return refused

    def _apply(self, operation: Operation) -> str:
        match operation:
            case AddService(service=entry):
                return self._add_service(entry)
            case EditService(service=entry):
                return self._edit_service(entry)
            case DeleteService(key=key):
                return self._delete_service(key)
            case AddServer(key=key, server=server):
                return self._add_server(key, server)
            case EditServer(key=key, server=server):
                return self._edit_server(key, server)
            case DeleteServer(key=key, endpoint=endpoint):
                return self._delete_server(key, endpoint)

    def _add_service(self, entry: ServiceEntry) -> str:
        if entry.key in self.services:
            return "service already exists"
        if entry.key.mark:
            return "a firewall mark's service needs plane ipvs or ebpf"
        if entry.key.endpoint.port == 0:
            return "a service of every port needs plane ipvs or ebpf"
        self.services[entry.key] = Service(entry, _scheduler(entry))
        return ""

    def _edit_service(self, entry: ServiceEntry) -> str:
        service = self.services.get(entry.key)
        if service is None:
            return "no such service"
        same = (entry.scheduler, entry.scheduler_flags) == (service.entry.scheduler, service.entry.scheduler_flags)
        if not same:
            service.scheduler = _scheduler(entry)
            service.scheduler.changed(service.servers)
        if entry.persistence_granularity != service.entry.persistence_granularity or not entry.persistence_timeout_s:
            self._clear_templates(service)
        service.entry = entry
        return ""

    def _delete_service(self, key: ServiceKey) -> str:
        service = self.services.pop(key, None)
        if service is None:
            return "no such service"
        for server in service.servers:
            self._removed(server)
        return ""

    def _add_server(self, key: ServiceKey, entry: ServerEntry) -> str:
        service = self.services.get(key)
        if service is None:
            return "service not defined"
        if service.find(entry.endpoint) is not None:
            return "destination already exists"
        service.servers.insert(0, Server(entry))
        service.scheduler.changed(service.servers)
        return ""

    def _edit_server(self, key: ServiceKey, entry: ServerEntry) -> str:
        service = self.services.get(key)
        server = service.find(entry.endpoint) if service else None
        if service is None or server is None:
            return "no such destination"
        server.entry, server.weight = entry, entry.weight
        server.update_overload()
        service.scheduler.changed(service.servers)
        return ""

    def _delete_server(self, key: ServiceKey, endpoint: Endpoint) -> str:
        service = self.services.get(key)
        server = service.find(endpoint) if service else None
        if service is None or server is None:
            return "no such destination"
        service.scheduler.changed(service.servers, removed=server)
        service.servers.remove(server)
        service.templates = {k: t for k, t in service.templates.items() if t.server is not server}
        self._removed(server)
        return ""

    @staticmethod
    def _clear_templates(service: Service) -> None:
        for server in service.servers:
            server.templates = 0
        service.templates.clear()

    # -- connections -------------------------------------------------------------------------------------------

    def open(
        self, service: Service, client: str, port: int, now: float, *, active: bool = True, tried: Iterable[Server] = ()
    ) -> Assignment | PickRefusal:
        """Pick a server for a new connection and count the connection there.

        ``active`` is False for UDP, whose entries IPVS never counts as active. ``tried`` are servers that refused this
        connection: they are skipped, persistence or not.
        """
        number, width = address_number(client)
        tried = tuple(tried)
        template: Template | None = None
        key = 0
        persistent = service.entry.persistence_timeout_s
        if persistent:
            key = number >> (width - service.entry.persistence_granularity)
            template = self._live_template(service, key, now)
            if template is not None and template.server in tried:
                self._remove_template(service, key, template)
                template = None
        server = template.server if template else self._schedule(service, fold(number), port, tried)
        if server is None:
            if not tried:
                service.refused[PickRefusal.NO_DESTINATION] += 1
            return PickRefusal.NO_DESTINATION
        if persistent:
            if template is None and len(service.templates) < MAX_TEMPLATES:
                template = service.templates[key] = Template(server, 0.0)
                server.templates += 1
            if template is not None:
                template.expires_at = now + persistent
                template.controlled += 1
        service.total += not tried
        return self._count(service, server, template, active)

    @staticmethod
    def _schedule(service: Service, client: int, port: int, tried: tuple[Server, ...]) -> Server | None:
        if not tried:
            picked = service.scheduler.pick(service.servers, client, port)
        else:
            before = [server.overloaded for server in tried]
            for server in tried:
                server.overloaded = True
            picked = service.scheduler.pick(service.servers, client, port)
            for server, overloaded in zip(tried, before, strict=True):
                server.overloaded = overloaded
        assert picked is None or isinstance(picked, Server)
        return picked

    @staticmethod
    def _count(service: Service, server: Server, template: Template | None, active: bool) -> Assignment:
        server.total += 1
        if active:
            server.active += 1
        else:
            server.inactive += 1
        if server.entry.upper_threshold:
            server.update_overload()
        return Assignment(service, server, template, inactive=not active)

    @staticmethod
    def half_close(assignment: Assignment) -> None:
        """Count the connection as inactive: one side has finished (FIN_WAIT in IPVS)."""
        if not assignment.inactive:
            assignment.inactive = True
            assignment.server.active -= 1
            assignment.server.inactive += 1

    @staticmethod
    def close(assignment: Assignment) -> None:
        """Count the connection out, of its server and its template."""
        server = assignment.server
        if assignment.inactive:
            server.inactive -= 1
        else:
            server.active -= 1
        if assignment.template is not None:
            assignment.template.controlled -= 1
        if server.entry.upper_threshold:
            server.update_overload()

    def expire(self, now: float) -> None:
        """Remove persistence templates that have expired."""
        for service in self.services.values():
            over = [key for key, t in service.templates.items() if t.expires_at <= now and not t.controlled]
            for key in over:
                self._remove_template(service, key, service.templates[key])

    def _live_template(self, service: Service, key: int, now: float) -> Template | None:
        template = service.templates.get(key)
        if template is not None and template.expires_at <= now and not template.controlled:
            self._remove_template(service, key, template)
            return None
        return template

    @staticmethod
    def _remove_template(service: Service, key: int, template: Template) -> None:
        del service.templates[key]
        template.server.templates -= 1

    # -- observation -------------------------------------------------------------------------------------------

    def observe(self) -> list[ServiceState]:
        """Return every service, its servers in the order in which they were added."""
        return [_service_state(service) for service in self.services.values()]

    def templates(self, now: float) -> list[Connection]:
        """Return the persistence templates as connections from port 0."""
        return [
            _template_connection(service, key, template, now)
            for service in self.services.values()
            for key, template in service.templates.items()
        ]

    def drop_templates(self, matches: Callable[[Connection], bool], now: float) -> int:
        """Remove the templates that match, unless they control an open connection; return how many."""
        dropped = 0
        for service in self.services.values():
            chosen = [
                (k, t)
                for k, t in service.templates.items()
                if not t.controlled and matches(_template_connection(service, k, t, now))
            ]
            for key, template in chosen:
                self._remove_template(service, key, template)
            dropped += len(chosen)
        return dropped


def _template_connection(service: Service, key: int, template: Template, now: float) -> Connection:
    return Connection(
        protocol=service.entry.key.protocol,
        client=Endpoint(_unmasked(key, service.entry), 0),
        virtual=service.entry.key.endpoint,
        server=template.server.entry.endpoint,
        state="ASSURED",  # a template is made by a connection
        expires_s=max(0.0, template.expires_at - now),
        template=True,
    )


def _scheduler(entry: ServiceEntry) -> Scheduler:
    return SCHEDULERS.get(entry.scheduler, SCHEDULERS["wlc"])(entry.scheduler_flags)


def _service_state(service: Service) -> ServiceState:
    servers = tuple(
        ServerState(
            server=server.entry,
            active=server.active,
            inactive=server.inactive,
            persistent=server.templates,
            overloaded=server.overloaded,
            traffic=Traffic(connections=server.total, bytes_in=server.bytes_in, bytes_out=server.bytes_out),
        )
        for server in reversed(service.servers)
    )
    traffic = Traffic(
        connections=service.total,
        bytes_in=sum(server.bytes_in for server in service.servers),
        bytes_out=sum(server.bytes_out for server in service.servers),
    )
    return ServiceState(
        service=service.entry,
        servers=servers,
        traffic=traffic,
        refused=dict(service.refused),
        listening=service.listening,
    )


@lru_cache(maxsize=16_384)
def address_number(address: str) -> tuple[int, int]:
    """Return an address as an integer, and its width in bits: 32 or 128."""
    parsed = ip_address(address)
    return int(parsed), parsed.max_prefixlen


def _unmasked(key: int, entry: ServiceEntry) -> str:
    width = 128 if ":" in entry.key.endpoint.address else 32
    number = key << (width - entry.persistence_granularity)
    return str(ip_address(number.to_bytes(width // 8, "big")))
