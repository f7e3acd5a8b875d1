"""Inputs of a node: observations of links, addresses, packets and answers, as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from ipaddress import ip_address

from relevo.model import Configuration, TrackerKind
from relevo.wire.vrrp import Envelope


class Kind(enum.StrEnum):
    """Kinds of observations, beside those of trackers."""

    PLANE = "plane"
    """Whether the data plane can serve the virtual addresses."""
    SYNC = "sync"
    """Whether the connections of the present master are on this node."""


@dataclass(frozen=True, slots=True)
class Observation:
    """The observation ``kind`` has ``value`` now; repeating it changes nothing.

    The value of a tracker is 0 or 1 for down and up, or the number in a file; ``None`` says that it cannot be observed.
    """

    kind: Kind | TrackerKind
    value: int | None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as it is now. ``up`` means administratively up and with carrier; ``neighbours``: it uses ARP or ND."""

    name: str
    index: int
    up: bool
    hardware_address: bytes = bytes(6)
    neighbours: bool = True


@dataclass(frozen=True, slots=True)
class SetAddress:
    """An address on an interface, with the attributes that a configuration can set.

    ``label`` and ``broadcast`` are empty for none; a label that is the interface's name counts as none. ``flags`` are those of
    ``wire.rtnetlink.OPTIONS``.
    """

    index: int
    address: str
    prefix_length: int
    label: str = ""
    broadcast: str = ""
    scope: int = 0
    flags: int = 0

    @property
    def key(self) -> tuple[int, str, int]:
        """Return the identity of the address in the kernel: interface index, address and prefix length."""
        return (self.index, self.address, self.prefix_length)


@dataclass(frozen=True, slots=True)
class ObservedAddress:
    """An address as the kernel lists it. The kernel removes ``secondary`` ones together with the primary of their subnet.

    A ``tentative`` IPv6 address cannot be used: the kernel still looks for duplicates, or has found one.
    """

    set: SetAddress
    secondary: bool = False
    tentative: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """The observed network: links by name, and every address in the kernel's order."""

    links: dict[str, Link] = field(default_factory=dict)
    addresses: tuple[ObservedAddress, ...] = ()

    def is_up(self, name: str) -> bool:
        """Whether the link exists and is up."""
        link = self.links.get(name)
        return link is not None and link.up

    def on(self, index: int) -> tuple[SetAddress, ...]:
        """Return the addresses of the link with this index."""
        return tuple(each.set for each in self.addresses if each.set.index == index)

    def usable(self, index: int | None = None) -> tuple[str, ...]:
        """Return the addresses that packets can have as their source: those of the link with this index, or of all."""
        return tuple(
            each.set.address for each in self.addresses if not each.tentative and (index is None or each.set.index == index)
        )


# -- inputs of the director ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Configure:
    """Use this configuration; ``world`` has the links that it names."""

    configuration: Configuration
    world: World


@dataclass(frozen=True, slots=True)
class NetworkObserved:
    """Links or addresses changed to ``world``."""

    world: World


@dataclass(frozen=True, slots=True)
class PacketReceived:
    """The socket of ``routers`` received a packet; ``envelope`` is ``None`` if its IP header is broken."""

    routers: tuple[str, ...]
    payload: bytes
    envelope: Envelope | None


@dataclass(frozen=True, slots=True)
class AddressClaimed:
    """Somebody else used ``address`` on ``interface``, or ``announced`` it; ``hardware_address`` is his."""

    address: str
    interface: str
    hardware_address: bytes
    announced: bool = True


@dataclass(frozen=True, slots=True)
class PortOpened:
    """The socket that ``OpenPort`` asked for is open."""

    router: str


@dataclass(frozen=True, slots=True)
class PortFailed:
    """The socket that ``OpenPort`` asked for cannot be opened."""

    router: str
    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class SendFailed:
    """An advert could not be sent to ``destination``."""

    router: str
    destination: str
    reason: str


@dataclass(frozen=True, slots=True)
class AnnouncementFailed:
    """An address could not be announced."""

    address: str
    interface: str
    reason: str


@dataclass(frozen=True, slots=True)
class OperationFailed:
    """The kernel refused to add or remove an address."""

    address: SetAddress
    adding: bool
    reason: str


@dataclass(frozen=True, slots=True)
class HandOverRequested:
    """Hand ``instance`` over to another node; with ``back``, allow preemption by priority again."""

    instance: str
    back: bool = False


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Stop gracefully; a second request stops immediately."""


Input = (
    Configure
    | NetworkObserved
    | Observation
    | PacketReceived
    | AddressClaimed
    | PortOpened
    | PortFailed
    | SendFailed
    | AnnouncementFailed
    | OperationFailed
    | HandOverRequested
    | StopRequested
)


def is_local_everywhere(address: str) -> bool:
    """Whether ``address`` is a loopback address: every node has it, so it is not set on an interface."""
    return address.startswith("127.") or (":" in address and ip_address(address).is_loopback)


def own_addresses(world: World, virtual: frozenset[str]) -> tuple[SetAddress, ...]:
    """Return the machine's own addresses: those that are not ``virtual``."""
    return tuple(each.set for each in world.addresses if each.set.address not in virtual)
