"""Requests to the daemon, and their answers.

A request is a JSON object on one line; ``command`` names it. The answer is a JSON object on one line too: of the type in
brackets after the request, or a ``RequestRefusal``. Times ending in ``_at`` are Unix seconds.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

import msgspec

from relevo.model import PlaneTimeouts, ServerMode, ServerOrder, ServiceKey
from relevo.model.plan import Step
from relevo.model.process import PlaneAtStop
from relevo.model.table import Connection, ConnectionFilter, Operation, PlaneSettings, ServiceState, SyncState
from relevo.observe.difference import Difference
from relevo.observe.snapshot import Snapshot

A = TypeVar("A")


class RequestRefusal(msgspec.Struct, frozen=True):
    """Answer to a request that failed, with the reason."""

    error: str = ""


class _Request(msgspec.Struct, Generic[A], frozen=True, tag_field="command", tag=lambda name: name.lower()):
    """A request with an answer of type ``A``."""


class Status(_Request[Snapshot], frozen=True):
    """Return the state of the daemon."""


class Done(msgspec.Struct, frozen=True):
    """Answer to a request without a result."""

    done: bool = True


class Reloaded(msgspec.Struct, frozen=True):
    """What a reload did, in order; ``problems`` are what went wrong in doing it."""

    steps: list[Step] = []
    problems: list[str] = []


class Reload(_Request[Reloaded], frozen=True):
    """Read the configuration file again. A file with fatal findings changes nothing and is refused."""


class ReloadPlan(msgspec.Struct, frozen=True):
    """What a reload would do now.

    ``refused`` says why it would be refused, empty if it would not. ``changes`` are those of the configuration, ``steps`` the
    operations in order; ``problems`` are what is not known.
    """

    refused: str = ""
    changes: list[Difference] = []
    steps: list[Step] = []
    problems: list[str] = []


class Plan(_Request[ReloadPlan], frozen=True):
    """Return what a reload would do if the configuration file were ``file`` (empty: the daemon's own). Nothing changes."""

    file: str = ""


class Stop(_Request[Done], frozen=True):
    """Stop gracefully. The answer comes when the stop begins."""

    plane: PlaneAtStop = PlaneAtStop.REMOVE


class PlaneName(msgspec.Struct, frozen=True):
    """Name of the data plane in use."""

    plane: str


class Plane(_Request[PlaneName], frozen=True):
    """Return the data plane in use."""


class ConnectionList(msgspec.Struct, frozen=True):
    """``total`` counts the connections that match or were dropped; ``connections`` lists up to the limit."""

    total: int = 0
    connections: list[Connection] = []


class Connections(_Request[ConnectionList], frozen=True):
    """List the connections that match, at most ``limit`` (0: all), or drop them."""

    filter: ConnectionFilter = ConnectionFilter()
    limit: int = 0
    drop: bool = False


class TableView(msgspec.Struct, frozen=True):
    """The plane's table, with services of the configuration and manual ones."""

    services: list[ServiceState] = []
    settings: PlaneSettings = PlaneSettings()


class TableAnswer(msgspec.Struct, frozen=True):
    """Results: the plane's reason for each operation (empty: success), that for the time-outs, and the table on request."""

    refused: list[str] = []
    problem: str = ""
    table: TableView | None = None


class Table(_Request[TableAnswer], frozen=True):
    """Change the plane's table manually, and return it.

    Operations come first, then time-outs, then zeroing of counters: of service ``zero``, or all with ``zero_all``. A reload
    does not change services that were added manually.
    """

    operations: list[Operation] = []
    timeouts: PlaneTimeouts = PlaneTimeouts()
    zero: ServiceKey | None = None
    zero_all: bool = False
    show: bool = True


class HandedOver(msgspec.Struct, frozen=True):
    """Whether another node is master of the instance now; False after ``back``."""

    handed_over: bool


class Failover(_Request[HandedOver], frozen=True):
    """Sync all connections, then hand an instance over to another node; with ``back`` allow preemption by priority again."""

    instance: str
    back: bool = False


class ServersSet(msgspec.Struct, frozen=True):
    """The orders that a request made, ``ready`` ones too."""

    servers: list[ServerOrder] = []


class Server(_Request[ServersSet], frozen=True):
    """Say what a server does, whatever its checks say. It stays so until ``ready``, over reloads that keep the server.

    ``service`` is a virtual server as logs name it, its address and port, its group, or ``all``; ``server`` an address with or
    without a port. ``weight`` is for the mode of that name.
    """

    service: str
    server: str
    mode: ServerMode
    weight: int = 0


class SyncReport(msgspec.Struct, frozen=True):
    """Connection synchronisation as the plane does it; ``state`` is ``None`` if the plane does not synchronise."""

    plane: str
    taken_at: float
    state: SyncState | None = None


class Sync(_Request[SyncReport], frozen=True):
    """Return the state of connection synchronisation, with counts of connections."""


Request = Status | Reload | Plan | Stop | Plane | Connections | Table | Failover | Server | Sync

ANSWERS: Final = {
    Status: Snapshot,
    Reload: Reloaded,
    Plan: ReloadPlan,
    Stop: Done,
    Plane: PlaneName,
    Connections: ConnectionList,
    Table: TableAnswer,
    Failover: HandedOver,
    Server: ServersSet,
    Sync: SyncReport,
}
COMMANDS: Final = tuple(sorted(request.__name__.lower() for request in ANSWERS))

ANSWER_S: Final = 5.0
"""Seconds that a client waits for an ordinary answer."""
CALL_S: Final = 30.0
"""Seconds that a request to the plane, or a reload, may take: listing a million connections takes seconds."""


def limit_s(request: _Request[A]) -> float:
    """Return how long the answer to a request may take, in seconds."""
    return CALL_S if isinstance(request, Connections | Table | Failover | Sync | Reload | Plan) else ANSWER_S
