"""What supervisor and workers say to each other."""

from __future__ import annotations

import msgspec

from relevo.api.schema import ConnectionList, Connections, PlaneAtStop, Sync, Table, TableAnswer
from relevo.model import Configuration
from relevo.model.table import SyncState
from relevo.observe.snapshot import BalancerSnapshot, DirectorSnapshot
from relevo.severity import Severity


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
    """A line for the log."""

    text: str
    severity: Severity = Severity.INFO


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


class LocalAddressesEvent(msgspec.Struct, frozen=True, tag=True):
    """The virtual addresses this node holds now; ``placed`` (index, address, prefix length) are those it set on interfaces."""

    addresses: frozenset[str]
    placed: frozenset[tuple[int, str, int]] = frozenset()


class ServerEvent(msgspec.Struct, frozen=True, tag=True):
    """A check of a real server changed. ``transition`` tells whether the server left or entered service by it."""

    service: str
    server: str
    up: bool
    transition: bool
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


class PlaneAnswer(msgspec.Struct, frozen=True, tag=True):
    """Answer to the call of this number: what was asked for, or the ``error``. ``total`` counts connections that were synced."""

    number: int
    total: int = 0
    connections: ConnectionList | None = None
    sync: SyncState | None = None
    table: TableAnswer | None = None
    error: str = ""


FromWorker = (
    Ready
    | PlaneReady
    | LogLine
    | InstanceEvent
    | GroupEvent
    | LocalAddressesEvent
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


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Stop gracefully and end."""

    plane: PlaneAtStop = PlaneAtStop.KEEP_CONNECTIONS


class LocalAddresses(msgspec.Struct, frozen=True, tag=True):
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


class CompleteSync(msgspec.Struct, frozen=True, tag_field="command", tag="completesync"):
    """Sync every connection to the other directors now."""


class PlaneCall(msgspec.Struct, frozen=True, tag=True):
    """Do what a client of the control socket, or a hand-over, asks of the plane; answered by a ``PlaneAnswer`` of this number."""

    number: int
    request: Connections | Table | Sync | CompleteSync


ToWorker = PlaneCall | HandOver | Synced | PlaneReady | TakeSnapshot | Reload | Stop | LocalAddresses | Masters | PlaneRestarted
