"""What a node is given: the state of the world, as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from ipaddress import ip_address

from relevo.model import Configuration
from relevo.wire.vrrp import Envelope


class Kind(enum.StrEnum):
    """Sources of observations."""

    PLANE = "plane"
    """Whether the data plane can serve the virtual addresses."""
    SYNC = "sync"
    """Whether the connections of the present master are on this node."""


@dataclass(frozen=True, slots=True)
class Observation:
    """``name`` of a source of ``kind`` has ``value`` now. Given twice it says the same as once."""

    kind: Kind
    value: bool
    name: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as it is now. ``up`` means administratively up and with carrier; ``neighbours`` that ARP or ND work on it."""

    name: str
    index: int
    up: bool
    hardware_address: bytes = bytes(6)
    neighbours: bool = True


@dataclass(frozen=True, slots=True)
class SetAddress:
    """An address on an interface, with the attributes that a configuration can give it.

    ``label`` and ``broadcast`` are empty for none; a label that is the interface's name counts as none.
    """

    index: int
    address: str
    prefix_length: int
    label: str = ""
    broadcast: str = ""
    scope: int = 0

    @property
    def key(self) -> tuple[int, str, int]:
        """What the kernel tells addresses apart by."""
        return (self.index, self.address, self.prefix_length)


@dataclass(frozen=True, slots=True)
class ObservedAddress:
    """An address as the kernel has it. ``secondary`` ones go when the primary of their subnet does."""

    set: SetAddress
    secondary: bool = False


@dataclass(frozen=True, slots=True)
class World:
    """All of the network that a node looks at: links by name, and every address in the kernel's order."""

    links: dict[str, Link] = field(default_factory=dict)
    addresses: tuple[ObservedAddress, ...] = ()

    def is_up(self, name: str) -> bool:
        """Whether the link exists and is up."""
        link = self.links.get(name)
        return link is not None and link.up

    def on(self, index: int) -> tuple[SetAddress, ...]:
        """Addresses of the link with this index."""
        return tuple(each.set for each in self.addresses if each.set.index == index)


# -- inputs of the director ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Configure:
    """The configuration is this one from now on; ``world`` has the links that it names."""

    configuration: Configuration
    world: World


@dataclass(frozen=True, slots=True)
class NetworkObserved:
    """Links and addresses are these now."""

    world: World


@dataclass(frozen=True, slots=True)
class PacketReceived:
    """A packet came in by the socket of ``routers``; ``envelope`` is ``None`` when its IP header is broken."""

    routers: tuple[str, ...]
    payload: bytes
    envelope: Envelope | None


@dataclass(frozen=True, slots=True)
class PortOpened:
    """The socket that ``OpenPort`` asked for is open."""

    router: str


@dataclass(frozen=True, slots=True)
class PortFailed:
    """The socket that ``OpenPort`` asked for cannot be had."""

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
    """The kernel refused to set or remove an address."""

    address: SetAddress
    adding: bool
    reason: str


@dataclass(frozen=True, slots=True)
class HandOverRequested:
    """An administrator wants another node to be master of ``instance``; with ``back``, priorities to decide again."""

    instance: str
    back: bool = False


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Stop gracefully; a second one stops at once."""


Input = (
    Configure
    | NetworkObserved
    | Observation
    | PacketReceived
    | PortOpened
    | PortFailed
    | SendFailed
    | AnnouncementFailed
    | OperationFailed
    | HandOverRequested
    | StopRequested
)


def is_local_everywhere(address: str) -> bool:
    """Whether every node has ``address`` anyway: the loopback network. Directors share it by agreement, not on an interface."""
    return address.startswith("127.") or (":" in address and ip_address(address).is_loopback)


def own_addresses(world: World, virtual: frozenset[str]) -> tuple[SetAddress, ...]:
    """Return the addresses that are not ``virtual``: the machine's own."""
    return tuple(each.set for each in world.addresses if each.set.address not in virtual)
