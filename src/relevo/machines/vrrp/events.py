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
    """Start VRRP. With ``resume`` the router continues as master, after a worker crashed and left its addresses in place."""

    resume: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop gracefully; a second stop is immediate."""


@dataclass(frozen=True, slots=True)
class SetFaults:
    """All present faults; empty if there are none."""

    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class SetPriority:
    """The effective priority, with the weights of trackers."""

    priority: int


@dataclass(frozen=True, slots=True)
class AdvertReceived:
    """An advert from ``source`` that passed the checks of RFC 9568 §7.1."""

    advert: Advert
    source: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """Somebody else, with ``hardware_address``, used the virtual ``address``, or ``announced`` it."""

    address: str
    hardware_address: bytes
    announced: bool = True


@dataclass(frozen=True, slots=True)
class Order:
    """The sync group orders a state, MASTER or BACKUP."""

    state: State


@dataclass(frozen=True, slots=True)
class HandOver:
    """Hand mastery over to a router of any priority. Preemption is suppressed until its adverts stop, or until ``Restore``."""


@dataclass(frozen=True, slots=True)
class Restore:
    """Allow preemption by priority again."""


@dataclass(frozen=True, slots=True)
class SetSynced:
    """Whether this node has every connection of the present master."""

    synced: bool


@dataclass(frozen=True, slots=True)
class SetPlaneReady:
    """Whether the data plane serves the addresses of this router."""

    ready: bool


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """A reload changed the declaration; ``grouped`` says whether the router is in a sync group now."""

    instance: VrrpInstance
    grouped: bool


@dataclass(frozen=True, slots=True)
class Restart:
    """Release mastery and begin as backup, because the router gets another identity; ``reason`` says which part changed."""

    reason: str


Input = (
    Start
    | Stop
    | SetFaults
    | SetPriority
    | AdvertReceived
    | Claimed
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
    """The router changed state, because of ``reason``; see also ``VrrpMachine.has_addresses``."""

    before: State
    after: State
    reason: str


@dataclass(frozen=True, slots=True)
class AskGroup:
    """The master-down timer of a group member fired: ask the group for mastery. A false ``wish`` withdraws the request."""

    wish: bool = True


@dataclass(frozen=True, slots=True)
class LowerPriority:
    """A master received an advert of lower priority from ``source``: there were two masters."""

    source: str


@dataclass(frozen=True, slots=True)
class Log:
    """A log line in keepalived's words; a ``warning`` needs the administrator's attention."""

    message: str
    warning: bool = False


Effect = SendAdvert | Announce | Transition | AskGroup | LowerPriority | Log
