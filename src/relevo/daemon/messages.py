"""What supervisor and workers say to each other."""

from __future__ import annotations

import enum

import msgspec

from relevo.model import Configuration, PlaneTimeouts, ServiceKey
from relevo.model.table import Connection, ConnectionFilter, Operation, ServiceState, SyncState
from relevo.observe.snapshot import BalancerSnapshot, DirectorSnapshot
from relevo.planes.port import PlaneSettings


class Resume(msgspec.Struct, frozen=True):
    """What a new director worker goes on from: the instances that were master, the addresses that were set, what was observed."""

    masters: frozenset[str] = frozenset()
    placed: frozenset[tuple[int, str, int]] = frozenset()
    plane_ready: bool = True
    synced: bool = False


# -- from a worker ----------------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker does its work."""


class PlaneReady(msgspec.Struct, frozen=True, tag=True):
    """Whether the data plane can serve the virtual addresses; the supervisor passes it on to the director."""

    ready: bool


class LogLine(msgspec.Struct, frozen=True, tag=True):
    """A line for the log. ``level`` is that of syslog: 3 error, 4 warning, 5 notice, 6 info."""

    text: str
    level: int = 6


class InstanceEvent(msgspec.Struct, frozen=True, tag=True):
    """A virtual router changed state. ``holds`` tells whether its addresses are here now."""

    name: str
    state: str
    priority: int
    reason: str


class GroupEvent(msgspec.Struct, frozen=True, tag=True):
    """A sync group changed state."""

    name: str
    state: str


class HeldEvent(msgspec.Struct, frozen=True, tag=True):
    """The virtual addresses this node holds now; ``placed`` (index, address, prefix length) are those it set on interfaces."""

    addresses: frozenset[str]
    placed: frozenset[tuple[int, str, int]] = frozenset()


class ServerEvent(msgspec.Struct, frozen=True, tag=True):
    """A check of a real server changed. ``moved`` tells whether the server left or entered service by it."""

    service: str
    server: str
    up: bool
    moved: bool
    check: str
    reason: str


class QuorumEvent(msgspec.Struct, frozen=True, tag=True):
    """A virtual server gained or lost its quorum."""

    service: str
    up: bool
    weight: int


class SyncEvent(msgspec.Struct, frozen=True, tag=True):
    """The connections of the other directors' masters are all here now, or are not any more."""

    in_sync: bool


class ShutdownNotice(msgspec.Struct, frozen=True, tag=True):
    """The balancer is stopping: ``omega`` services want their down-notifiers."""

    servers: tuple[tuple[str, str], ...]


class DirectorReport(msgspec.Struct, frozen=True, tag=True):
    """Answer to ``TakeSnapshot``."""

    snapshot: DirectorSnapshot


class BalancerReport(msgspec.Struct, frozen=True, tag=True):
    """Answer to ``TakeSnapshot``."""

    snapshot: BalancerSnapshot


class TableView(msgspec.Struct, frozen=True):
    """The plane's table, whoever declared what is in it."""

    services: list[ServiceState] = []
    settings: PlaneSettings = PlaneSettings()


class PlaneAnswer(msgspec.Struct, frozen=True, tag=True):
    """Answer to the call of this number: how many connections were found or ended, and those that were to be listed; or the
    state of synchronisation, the table, the reason of each operation (empty: done).
    """

    number: int
    total: int = 0
    connections: list[Connection] = []
    sync: SyncState | None = None
    table: TableView | None = None
    refused: list[str] = []
    error: str = ""


FromWorker = (
    Ready
    | PlaneReady
    | LogLine
    | InstanceEvent
    | GroupEvent
    | HeldEvent
    | ServerEvent
    | QuorumEvent
    | SyncEvent
    | ShutdownNotice
    | DirectorReport
    | BalancerReport
    | PlaneAnswer
)

# -- to a worker ------------------------------------------------------------------------------------------------------


class TakeSnapshot(msgspec.Struct, frozen=True, tag=True):
    """Report what you know."""


class Reload(msgspec.Struct, frozen=True, tag=True):
    """This is the configuration from now on."""

    configuration: Configuration


class PlaneAtStop(enum.StrEnum):
    """What becomes of the data plane when the daemon stops."""

    REMOVE = "remove"
    """Nothing of it is left."""
    KEEP_CONNECTIONS = "keep_connections"
    """It is taken out of service, and its connections go on when a daemon is started again: the way of SIGTERM."""
    KEEP = "keep"
    """It stays at work without a daemon."""


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Stop gracefully and end."""

    plane: PlaneAtStop = PlaneAtStop.KEEP_CONNECTIONS


class Held(msgspec.Struct, frozen=True, tag=True):
    """The virtual addresses this node holds now."""

    addresses: frozenset[str]


class Masters(msgspec.Struct, frozen=True, tag=True):
    """The VRRP instances that are master on this node now."""

    instances: frozenset[str]


class PlaneRestarted(msgspec.Struct, frozen=True, tag=True):
    """The plane's process is new, and its table empty."""


class HandOver(msgspec.Struct, frozen=True, tag=True):
    """Let another node be master of an instance; with ``back`` let priorities decide again."""

    instance: str
    back: bool = False


class Synced(msgspec.Struct, frozen=True, tag=True):
    """Whether the connections that the present master has are on this node."""

    synced: bool


class CompleteSync(msgspec.Struct, frozen=True, tag=True):
    """Let the other directors know every connection, now; answered by a ``PlaneAnswer`` of this number."""

    number: int


class TakeSyncState(msgspec.Struct, frozen=True, tag=True):
    """Report how synchronisation goes, connections counted, in a ``PlaneAnswer`` of this number."""

    number: int


class TableCall(msgspec.Struct, frozen=True, tag=True):
    """Change the plane's table by hand, and show it: operations first, then time-outs, then zeroing counters (of ``zero``, or of
    everything with ``zero_all``). A service that is added so is no business of the configuration.
    """

    number: int
    operations: list[Operation] = []
    timeouts: PlaneTimeouts = PlaneTimeouts()
    zero: ServiceKey | None = None
    zero_all: bool = False
    show: bool = True


class PlaneCall(msgspec.Struct, frozen=True, tag=True):
    """List the connections that are meant, at most ``limit`` (0: all of them); or end them."""

    number: int
    meant: ConnectionFilter
    limit: int = 0
    ends: bool = False


ToWorker = (
    PlaneCall
    | TableCall
    | CompleteSync
    | TakeSyncState
    | HandOver
    | Synced
    | PlaneReady
    | TakeSnapshot
    | Reload
    | Stop
    | Held
    | Masters
    | PlaneRestarted
)
