"""Inputs and effects of a virtual router. All are frozen values; times are the caller's monotonic seconds."""

from __future__ import annotations

from dataclasses import dataclass

from relevo.machines.faults import Fault
from relevo.machines.vrrp.states import State
from relevo.model import VrrpInstance
from relevo.wire.vrrp import Advert

# -- inputs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Take part. ``resume`` continues as master, for a worker that died and left its addresses in place."""

    resume: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop gracefully; a second one stops at once."""


@dataclass(frozen=True, slots=True)
class SetFaults:
    """All present causes that forbid mastery; an empty tuple when there are none."""

    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class SetPriority:
    """The effective priority, after the weights of trackers."""

    priority: int


@dataclass(frozen=True, slots=True)
class AdvertReceived:
    """An admitted advert from ``source``."""

    advert: Advert
    source: str


@dataclass(frozen=True, slots=True)
class Order:
    """The sync group orders a state, MASTER or BACKUP."""

    state: State


@dataclass(frozen=True, slots=True)
class HandOver:
    """Let another router be master, whatever its priority, until it falls silent or ``Restore`` comes."""


@dataclass(frozen=True, slots=True)
class Restore:
    """Priorities decide again."""


@dataclass(frozen=True, slots=True)
class SetSynced:
    """Whether the connections that the present master announces are on this node."""

    synced: bool


@dataclass(frozen=True, slots=True)
class SetPlaneReady:
    """Whether the data plane can serve the addresses of this router."""

    ready: bool


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """The declaration changed, by a reload; ``grouped`` tells whether the router is in a sync group now."""

    instance: VrrpInstance
    grouped: bool


@dataclass(frozen=True, slots=True)
class Restart:
    """Give mastery up and begin as backup: the router is about to get another identity, ``reason`` says which part."""

    reason: str


Input = (
    Start
    | Stop
    | SetFaults
    | SetPriority
    | AdvertReceived
    | Order
    | HandOver
    | Restore
    | SetSynced
    | SetPlaneReady
    | Reconfigure
    | Restart
)

# -- effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendAdvert:
    """Send an advert with this priority."""

    priority: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Announce each virtual address ``count`` times, by gratuitous ARP or unsolicited neighbour advertisement."""

    count: int


@dataclass(frozen=True, slots=True)
class Transition:
    """The router changed state, because of ``reason``. Whether it holds its addresses now says ``VrrpMachine.has_addresses``."""

    before: State
    after: State
    reason: str


@dataclass(frozen=True, slots=True)
class AskGroup:
    """The master-down timer fired in a member of a sync group: may the group take over? A false ``wish`` takes that back."""

    wish: bool = True


@dataclass(frozen=True, slots=True)
class Log:
    """A line in keepalived's words; a ``warning`` is something that an administrator should look into."""

    message: str
    warning: bool = False


Effect = SendAdvert | Announce | Transition | AskGroup | Log
