"""Effects of the director. A driver executes them in order."""

from __future__ import annotations

from dataclasses import dataclass

from relevo.machines.vrrp import State
from relevo.node.observation import Link, SetAddress
from relevo.severity import Severity


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the log."""

    text: str
    severity: Severity = Severity.INFO


@dataclass(frozen=True, slots=True)
class PortSpec:
    """The socket that a router needs: raw on ``link`` (protocol 112), or UDP when ``udp_port`` is not 0.

    With a multicast ``group`` the socket joins it; without, adverts are unicast, with the time to live or hop limit ``ttl``.
    With ``ah`` it sends and receives whole IP packets with an authentication header (protocol 51).
    """

    source: str
    link: Link | None = None
    group: str = ""
    udp_port: int = 0
    ttl: int = 255
    ah: bool = False


@dataclass(frozen=True, slots=True)
class OpenPort:
    """Open the socket of ``router``; the answer is ``PortOpened`` or ``PortFailed``."""

    router: str
    spec: PortSpec


@dataclass(frozen=True, slots=True)
class ClosePort:
    """Close the socket of ``router``."""

    router: str


@dataclass(frozen=True, slots=True)
class LimitSenders:
    """Have the socket of ``router`` receive from ``senders`` and one in so many packets of others; ``None``: from everybody."""

    router: str
    senders: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class HearClaims:
    """Report from now on who else announces or uses one of ``addresses``, as ``AddressClaimed``."""

    addresses: frozenset[str]


@dataclass(frozen=True, slots=True)
class SendPacket:
    """Send an advert on the socket of ``router``; the answer to a failure is ``SendFailed``."""

    router: str
    payload: bytes
    destination: str


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Add an address. IPv6 ones skip duplicate address detection, because the former master had the address until now."""

    address: SetAddress


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    """Remove an address. ``survivors`` are secondary addresses that the kernel would remove with it, and that must stay."""

    address: SetAddress
    survivors: tuple[SetAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class Announce:
    """Send a gratuitous ARP or an unsolicited neighbour advertisement for ``address`` on ``link``."""

    link: Link
    address: str


@dataclass(frozen=True, slots=True)
class InstanceChanged:
    """A virtual router changed state; ``state`` is MASTER, BACKUP, FAULT, STOP, or DELETED by a reload."""

    name: str
    state: str
    priority: int
    reason: str


@dataclass(frozen=True, slots=True)
class InstanceNoticed:
    """Something that is no transition; ``what`` is MASTER_RX_LOWER_PRI, MASTER_PRIORITY or BACKUP_PRIORITY."""

    name: str
    what: str
    priority: int


@dataclass(frozen=True, slots=True)
class GroupChanged:
    """A sync group changed state; ``state`` is MASTER, BACKUP, FAULT or STOP."""

    name: str
    state: str


@dataclass(frozen=True, slots=True)
class LocalAddresses:
    """The virtual addresses on this node changed to ``addresses``.

    ``placed`` are the keys (index, address, prefix length) of those that it has set on interfaces.
    """

    addresses: frozenset[str]
    placed: frozenset[tuple[int, str, int]]


Effect = (
    Log
    | OpenPort
    | ClosePort
    | LimitSenders
    | HearClaims
    | SendPacket
    | AddAddress
    | RemoveAddress
    | Announce
    | InstanceChanged
    | InstanceNoticed
    | GroupChanged
    | LocalAddresses
)


def state_name(state: State) -> str:
    """Return the name of a state in scripts and mails."""
    return "STOP" if state is State.INIT else state.value
