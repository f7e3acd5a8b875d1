"""The state of the daemon. Times ending in ``_at`` are Unix seconds."""

from __future__ import annotations

import msgspec

from relevo.model.table import SyncState


class CheckSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A check of a server: its verdict, and the last result with its reason."""

    kind: str
    target: str
    up: bool
    state: str
    failures: int = 0
    last_result: str = ""
    last_at: float | None = None


class ServerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A real server: its declaration, the verdicts of its checks, and its state in the plane."""

    address: str
    port: int
    up: bool
    in_plane: bool
    weight: int
    declared_weight: int
    forwarding: str
    active: int = 0
    inactive: int = 0
    persistent: int = 0
    connections: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    since_at: float
    sorry: bool = False
    order: str = ""
    """What ``relevo server`` said: drain, maint, or a weight."""
    checks: tuple[CheckSnapshot, ...] = ()


class ServiceSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual server and its pool; the members of a group share one pool."""

    name: str = ""
    """As logs and mails name it."""
    protocol: str
    address: str
    port: int
    mark: int = 0
    group: str = ""
    scheduler: str
    scheduler_flags: tuple[str, ...] = ()
    one_packet: bool = False
    persistence_timeout_s: int
    persistence_granularity: int
    up: bool
    since_at: float
    quorum: int
    live_weight: int
    uses_sorry_server: bool
    listening: str = ""
    refused: dict[str, int] = {}
    connections: int = 0
    servers: tuple[ServerSnapshot, ...] = ()


class TrackerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A source that an instance tracks, and what it means now.

    ``value`` is 0 or 1 for down and up, or the number in a file; ``None`` if it is unknown or cannot be observed.
    ``contribution`` is the part of the effective priority that comes from it.
    """

    kind: str
    name: str
    weight: int
    reverse: bool = False
    value: int | None = None
    contribution: int = 0
    fault: bool = False


class InstanceSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual router: its state with the reason, the present master, and counters."""

    name: str
    state: str
    reason: str
    since_at: float
    waiting: str = ""
    """Why a backup does not preempt a master of lower priority; empty if it may."""
    interface: str
    virtual_router_id: int
    version: int
    priority: int
    base_priority: int
    advert_interval_s: float
    addresses: tuple[str, ...]
    own_address: str
    master_address: str
    master_priority: int
    faults: tuple[str, ...] = ()
    trackers: tuple[TrackerSnapshot, ...] = ()
    """The effective priority is ``base_priority`` and their contributions, limited to 1..254; an owner's is 255."""
    adverts_sent: int = 0
    adverts_received: int = 0
    became_master: int = 0
    released_master: int = 0
    priority_zero_sent: int = 0
    priority_zero_received: int = 0
    address_list_mismatches: int = 0
    unanswered: int = 0
    refused: dict[str, int] = {}


class GroupSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A sync group."""

    name: str
    state: str
    members: tuple[str, ...]


class DirectorSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """State of the director worker."""

    instances: tuple[InstanceSnapshot, ...] = ()
    groups: tuple[GroupSnapshot, ...] = ()
    unknown_adverts: dict[str, int] = {}
    realtime: str = ""


class BalancerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """State of the balancer worker."""

    plane: str = ""
    plane_reason: str = ""
    plane_error: str = ""
    plane_attachments: tuple[str, ...] = ()
    """Attachment points of the plane (interfaces and hooks), as text."""
    packets: dict[str, int] = {}
    """Packets that were dropped or passed on, by reason."""
    sync: SyncState | None = None
    check_lateness_s: float = 0.0
    """Of the last checks, 99 in 100 began within this time after they were due."""
    services: tuple[ServiceSnapshot, ...] = ()


class WorkerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A process of the daemon. ``answered`` is False if its part of the snapshot is missing."""

    role: str
    pid: int
    restarts: int
    since_at: float
    answered: bool = True


class MailSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The queue of alerts."""

    waiting: int = 0
    delivered: int = 0
    dropped: int = 0
    last_error: str = ""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    router_id: str
    pid: int
    file: str
    started_at: float
    taken_at: float
    reloaded_at: float
    reload_error: str = ""
    workers: tuple[WorkerSnapshot, ...] = ()
    director: DirectorSnapshot = DirectorSnapshot()
    balancer: BalancerSnapshot = BalancerSnapshot()
    mail: MailSnapshot = MailSnapshot()
    scripts_failed: int = 0
