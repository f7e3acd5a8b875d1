"""Messages between supervisor and workers."""

from __future__ import annotations

import msgspec

from relevo.api.schema import ConnectionList, Connections, Sync, Table, TableAnswer
from relevo.host.keys import Key
from relevo.model import Configuration, ServerOrder, TrackerKind
from relevo.model.plan import Step
from relevo.model.process import PlaneAtStop
from relevo.model.table import SyncState
from relevo.observe.snapshot import BalancerSnapshot, DirectorSnapshot
from relevo.severity import Severity


class Observed(msgspec.Struct, frozen=True, tag=True):
    """The present value of a tracker: 0 or 1 for down and up, the number in a file, ``None`` if it cannot be observed."""

    kind: TrackerKind
    name: str
    value: int | None


class Resume(msgspec.Struct, frozen=True):
    """State from which a new director worker continues: former masters, addresses that were set, and observations.

    ``first`` marks the worker with which the daemon starts.
    """

    masters: frozenset[str] = frozenset()
    placed: frozenset[tuple[int, str, int]] = frozenset()
    plane_ready: bool = True
    synced: bool = False
    sources: tuple[Observed, ...] = ()
    first: bool = False


# -- from a worker ----------------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker is ready."""


class PlaneReady(msgspec.Struct, frozen=True, tag=True):
    """Whether the data plane serves the virtual addresses. The supervisor forwards it to the director."""

    ready: bool


class LogLine(msgspec.Struct, frozen=True, tag=True):
    """A line for the log."""

    text: str
    severity: Severity = Severity.INFO


class InstanceEvent(msgspec.Struct, frozen=True, tag=True):
    """A virtual router changed state, or was deleted by a reload."""

    name: str
    state: str
    priority: int
    reason: str


class NoticeEvent(msgspec.Struct, frozen=True, tag=True):
    """Something of a virtual router that is no transition: MASTER_RX_LOWER_PRI, MASTER_PRIORITY or BACKUP_PRIORITY."""

    name: str
    what: str
    priority: int


class GroupEvent(msgspec.Struct, frozen=True, tag=True):
    """A sync group changed state."""

    name: str
    state: str


class LocalAddressesEvent(msgspec.Struct, frozen=True, tag=True):
    """The virtual addresses on this node; ``placed`` (index, address, prefix length) are those that it set on interfaces."""

    addresses: frozenset[str]
    placed: frozenset[tuple[int, str, int]] = frozenset()


class ServerEvent(msgspec.Struct, frozen=True, tag=True):
    """A check of a real server changed. ``transition``: the server left or entered service by it."""

    service: str
    server: str
    up: bool
    transition: bool
    check: str
    reason: str


class ServerFound(msgspec.Struct, frozen=True, tag=True):
    """A server is in service from the start."""

    service: str
    server: str


class QuorumEvent(msgspec.Struct, frozen=True, tag=True):
    """A virtual server gained or lost its quorum."""

    service: str
    up: bool
    weight: int


class ServiceFound(msgspec.Struct, frozen=True, tag=True):
    """A virtual server that a VRRP instance tracks since now, and whether it has its quorum."""

    service: str
    up: bool


class SyncEvent(msgspec.Struct, frozen=True, tag=True):
    """Whether this node has all connections of the masters on other directors."""

    in_sync: bool


class ShutdownNotice(msgspec.Struct, frozen=True, tag=True):
    """The balancer is stopping; ``servers`` are those of ``omega`` services, whose down-notifiers must run."""

    servers: tuple[tuple[str, str], ...]


class DirectorReport(msgspec.Struct, frozen=True, tag=True):
    """Answer to ``TakeSnapshot``."""

    snapshot: DirectorSnapshot


class BalancerReport(msgspec.Struct, frozen=True, tag=True):
    """Answer to ``TakeSnapshot``."""

    snapshot: BalancerSnapshot


class PlaneAnswer(msgspec.Struct, frozen=True, tag=True):
    """Answer to the call of this number: a result or the ``error``. ``total`` counts synced connections."""

    number: int
    total: int = 0
    connections: ConnectionList | None = None
    sync: SyncState | None = None
    table: TableAnswer | None = None
    error: str = ""


class StepsTaken(msgspec.Struct, frozen=True, tag=True):
    """What a reload did, or would do; ``error`` says why that is not known, or not done."""

    number: int
    steps: tuple[Step, ...] = ()
    error: str = ""


class RunCheck(msgspec.Struct, frozen=True, tag=True):
    """Run the command of MISC_CHECK ``check`` of a real server, counted from 0; the answer is ``ScriptEnded``."""

    number: int
    service: str
    server: str
    check: int


class CancelCheck(msgspec.Struct, frozen=True, tag=True):
    """Nobody needs the result of this ``RunCheck`` any more."""

    number: int


FromWorker = (
    Ready
    | RunCheck
    | CancelCheck
    | PlaneReady
    | LogLine
    | InstanceEvent
    | NoticeEvent
    | GroupEvent
    | LocalAddressesEvent
    | ServerEvent
    | ServerFound
    | QuorumEvent
    | ServiceFound
    | SyncEvent
    | ShutdownNotice
    | DirectorReport
    | BalancerReport
    | PlaneAnswer
    | StepsTaken
)

# -- to a worker ------------------------------------------------------------------------------------------------------


class TakeSnapshot(msgspec.Struct, frozen=True, tag=True):
    """Send a snapshot; the answer is a report."""


class Reload(msgspec.Struct, frozen=True, tag=True):
    """Use this configuration from now on. ``StepsTaken`` with the same number says what that did."""

    configuration: Configuration
    number: int = 0


class Keys(msgspec.Struct, frozen=True, tag=True):
    """The keys of synchronisation, by file, which only the supervisor can read; before the configuration that names the files."""

    keys: dict[str, Key]


class Rehearse(msgspec.Struct, frozen=True, tag=True):
    """Say what using this configuration would do, in a ``StepsTaken`` with the same number."""

    configuration: Configuration
    number: int


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Stop gracefully and end."""

    plane: PlaneAtStop = PlaneAtStop.KEEP_CONNECTIONS


class LocalAddresses(msgspec.Struct, frozen=True, tag=True):
    """The virtual addresses on this node."""

    addresses: frozenset[str]


class Masters(msgspec.Struct, frozen=True, tag=True):
    """The VRRP instances that are master on this node now."""

    instances: frozenset[str]


class PlaneRestarted(msgspec.Struct, frozen=True, tag=True):
    """The plane's process was restarted, and its table is empty."""


class HandOver(msgspec.Struct, frozen=True, tag=True):
    """Hand an instance over to another node; with ``back`` allow preemption by priority again."""

    instance: str
    back: bool = False


class Synced(msgspec.Struct, frozen=True, tag=True):
    """Whether this node has every connection of the present master."""

    synced: bool


class CompleteSync(msgspec.Struct, frozen=True, tag_field="command", tag="completesync"):
    """Sync every connection to the other directors now."""


class Orders(msgspec.Struct, frozen=True, tag=True):
    """What an administrator says of servers now: all of it."""

    orders: tuple[ServerOrder, ...] = ()


class ScriptEnded(msgspec.Struct, frozen=True, tag=True):
    """Answer to ``RunCheck``: the exit status, -1 of a command that was killed, ``None`` of one that cannot run; and why."""

    number: int
    status: int | None
    reason: str = ""


class PlaneCall(msgspec.Struct, frozen=True, tag=True):
    """Call the plane for a client of the control socket or a hand-over. The ``PlaneAnswer`` has the same number."""

    number: int
    request: Connections | Table | Sync | CompleteSync


ToWorker = (
    PlaneCall
    | ScriptEnded
    | Orders
    | HandOver
    | Synced
    | PlaneReady
    | Observed
    | TakeSnapshot
    | Reload
    | Keys
    | Rehearse
    | Stop
    | LocalAddresses
    | Masters
    | PlaneRestarted
)
