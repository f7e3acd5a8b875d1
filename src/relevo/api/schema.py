"""What a client may ask of the daemon, and what it is answered.

A request is a JSON object on a line, told apart by ``command``; the answer is one too, of the type that stands beside the
request here, or a ``RequestRefusal``. Times ending in ``_at`` are Unix seconds.
"""

from __future__ import annotations

import enum
from typing import Final, Generic, TypeVar

import msgspec

from relevo.model import PlaneTimeouts, ServiceKey
from relevo.model.table import Connection, ConnectionFilter, Operation, PlaneSettings, ServiceState, SyncState
from relevo.observe.snapshot import Snapshot

A = TypeVar("A")


class RequestRefusal(msgspec.Struct, frozen=True):
    """Why a request was not carried out."""

    error: str = ""


class PlaneAtStop(enum.StrEnum):
    """What becomes of the data plane when the daemon stops."""

    REMOVE = "remove"
    """Nothing of it is left."""
    KEEP_CONNECTIONS = "keep_connections"
    """It is taken out of service, and its connections go on when a daemon is started again: the way of SIGTERM."""
    KEEP = "keep"
    """It stays at work without a daemon."""


class _Request(msgspec.Struct, Generic[A], frozen=True, tag_field="command", tag=lambda name: name.lower()):
    """A request that is answered by an ``A``."""


class Status(_Request[Snapshot], frozen=True):
    """Everything that the daemon knows."""


class Done(msgspec.Struct, frozen=True):
    """It was done."""

    done: bool = True


class Reload(_Request[Done], frozen=True):
    """Read the configuration file again; refused as a whole when it cannot be used."""


class Stop(_Request[Done], frozen=True):
    """Stop gracefully; answered when the stop begins."""

    plane: PlaneAtStop = PlaneAtStop.REMOVE


class PlaneName(msgspec.Struct, frozen=True):
    """Name of the data plane in charge."""

    plane: str


class Plane(_Request[PlaneName], frozen=True):
    """Which data plane is in charge."""


class ConnectionList(msgspec.Struct, frozen=True):
    """How many connections match (or were dropped), and those that were to be listed."""

    total: int = 0
    connections: list[Connection] = []


class Connections(_Request[ConnectionList], frozen=True):
    """List the connections that match, at most ``limit`` (0: all of them); or drop them."""

    filter: ConnectionFilter = ConnectionFilter()
    limit: int = 0
    drop: bool = False


class TableView(msgspec.Struct, frozen=True):
    """The plane's table, whoever declared what is in it."""

    services: list[ServiceState] = []
    settings: PlaneSettings = PlaneSettings()


class TableAnswer(msgspec.Struct, frozen=True):
    """The reason of each operation (empty: done), what stands against the time-outs, and the table if it was asked for."""

    refused: list[str] = []
    problem: str = ""
    table: TableView | None = None


class Table(_Request[TableAnswer], frozen=True):
    """Change the plane's table manually, and show it: operations first, then time-outs, then counters to zero (of ``zero``, or
    of everything with ``zero_all``). A service that is added so is left alone by the configuration.
    """

    operations: list[Operation] = []
    timeouts: PlaneTimeouts = PlaneTimeouts()
    zero: ServiceKey | None = None
    zero_all: bool = False
    show: bool = True


class HandedOver(msgspec.Struct, frozen=True):
    """Whether another node is master of the instance now."""

    handed_over: bool


class Failover(_Request[HandedOver], frozen=True):
    """Hand an instance over to another node, with connections first; or with ``back`` let priorities decide again."""

    instance: str
    back: bool = False


class SyncReport(msgspec.Struct, frozen=True):
    """Connection synchronisation as the plane does it; ``state`` is ``None`` when the plane takes no part in any."""

    plane: str
    taken_at: float
    state: SyncState | None = None


class Sync(_Request[SyncReport], frozen=True):
    """How connection synchronisation goes, with connections counted."""


Request = Status | Reload | Stop | Plane | Connections | Table | Failover | Sync

ANSWERS: Final = {
    Status: Snapshot,
    Reload: Done,
    Stop: Done,
    Plane: PlaneName,
    Connections: ConnectionList,
    Table: TableAnswer,
    Failover: HandedOver,
    Sync: SyncReport,
}
COMMANDS: Final = tuple(sorted(request.__name__.lower() for request in ANSWERS))

ANSWER_S: Final = 5.0
"""How long a client waits for a short answer."""
CALL_S: Final = 30.0
"""How long a request to the plane may take: listing a million connections takes seconds."""


def limit_s(request: _Request[A]) -> float:
    """Return how long the answer to a request may take, in seconds."""
    return CALL_S if isinstance(request, Connections | Table | Failover | Sync) else ANSWER_S
