"""One virtual router of a node: its machine, and its interfaces, socket and packets."""

from __future__ import annotations

from typing import Final

from relevo.machines.faults import Fault, FaultKind
from relevo.machines.tracker import Standing, evaluate
from relevo.machines.vrrp import VrrpMachine
from relevo.model import Configuration, TrackerKind, VrrpInstance
from relevo.model.vrrp import PRIORITY_OWNER, is_link_local
from relevo.node.effects import ClosePort, Effect, OpenPort, PortSpec, SendPacket
from relevo.node.network import virtual_addresses
from relevo.node.observation import World, is_local_everywhere
from relevo.node.sources import Sources
from relevo.wire import ah
from relevo.wire import vrrp as wire
from relevo.wire.vrrp import Advert, AdvertRefusal, Envelope

MAX_FAILED_ADVERTS: Final = 3
"""Adverts in a row that may fail to be sent: backups take over after three intervals."""
RETRY_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Pauses in seconds before a failed socket or destination is retried, unless the network changes before."""


class Backoff:
    """Retries of an operation that failed: the fault, and the time of the next try."""

    def __init__(self, kind: FaultKind) -> None:
        self.kind = kind
        self.fault: Fault | None = None
        self.tries = 0
        self.retry_at: float | None = None

    def begin(self, reason: str, now: float) -> None:
        """Record a failure; each failure in a row makes the pause longer."""
        self.fault = Fault(self.kind, reason)
        self.retry_at = now + RETRY_S[min(self.tries, len(RETRY_S) - 1)]
        self.tries += 1

    def suspend(self) -> None:
        """Clear the fault for a new try, and keep the number of failures."""
        self.fault, self.retry_at = None, None

    def end(self) -> None:
        """Record a success."""
        self.suspend()
        self.tries = 0


class Router:
    """The declaration ``instance``, its machine, the retries of its socket, and those of sending.

    ``awaited`` names the tracker for whose first value the start waits.
    """

    def __init__(self, instance: VrrpInstance, *, grouped: bool) -> None:
        self.instance = instance
        self.machine = VrrpMachine(instance, "", grouped=grouped)
        self.spec: PortSpec | None = None
        self.opened = False
        self.awaited = ""
        self.port = Backoff(FaultKind.SOCKET)
        self.sending = Backoff(FaultKind.SENDING)
        self._packets: dict[tuple[int, str], bytes] = {}
        self._failed_adverts = 0
        self.send_errors: dict[str, str] = {}
        self._sequence = 0  # the last number of AH that was sent or received
        self._identification = 0

    @property
    def is_deaf(self) -> bool:
        """Whether adverts of others change nothing: an owner may ignore them (keepalived.conf(5), "owner_ignore_adverts")."""
        return self.instance.owner_ignore_adverts and self.instance.priority == PRIORITY_OWNER

    # -- faults and socket --------------------------------------------------------------------------------------

    def standing(self, world: World, virtual: frozenset[str], sources: Sources) -> Standing:
        """Return faults and effective priority. ``virtual`` are all virtual addresses: none is an interface's own."""
        instance = self.instance
        tracked = evaluate(instance.priority, instance.tracked, sources.observed(world))
        faults = [*self._interface_faults(world), *tracked.faults]
        if not any(fault.kind is FaultKind.INTERFACE_MISSING for fault in faults) and not self._source(world, virtual):
            faults.append(self._no_source())
        if instance.unicast_fault_no_peer and not instance.unicast_peers:
            faults.append(Fault(FaultKind.NO_PEER))
        faults += [trouble.fault for trouble in (self.port, self.sending) if trouble.fault is not None]
        return Standing(tuple(dict.fromkeys(faults)), tracked.priority)

    def _interface_faults(self, world: World) -> list[Fault]:
        instance = self.instance
        own = instance.interface
        required = [a.device or own for a in virtual_addresses(instance)]
        if not instance.transport.udp_port or instance.track_primary:
            required.append(own)
        tolerated = () if instance.track_primary else (own,)
        faults: list[Fault] = []
        for name in dict.fromkeys(filter(None, required)):
            if name not in world.links:
                faults.append(Fault(FaultKind.INTERFACE_MISSING, name))
            elif not world.links[name].up and name not in tolerated:
                faults.append(Fault(FaultKind.INTERFACE_DOWN, name))
        return faults

    def _no_source(self) -> Fault:
        instance = self.instance
        if instance.source_address:
            return Fault(FaultKind.NO_SOURCE_ADDRESS, f"the source address {instance.source_address} is not on this machine")
        kind = "IPv6 link-local" if instance.is_ipv6 and not instance.unicast_peers else f"IPv{6 if instance.is_ipv6 else 4}"
        return Fault(FaultKind.NO_SOURCE_ADDRESS, f"interface {instance.interface} has no {kind} address of its own")

    def _source(self, world: World, virtual: frozenset[str]) -> str:
        """Return the source address of adverts, empty if there is none now."""
        instance = self.instance
        if instance.source_address:
            present = is_local_everywhere(instance.source_address) or instance.source_address in world.usable()
            return instance.source_address if present else ""
        link = world.links.get(instance.interface)
        if link is None:
            return ""
        others = frozenset() if instance.priority == PRIORITY_OWNER else virtual
        on_link = [each for each in world.usable(link.index) if (":" in each) is instance.is_ipv6 and each not in others]
        if instance.is_ipv6:
            on_link = [*filter(self._reaches_peers, on_link), *filter(is_link_local, on_link)]
        return next(iter(on_link), "")

    def _reaches_peers(self, source: str) -> bool:
        """Whether an IPv6 address is of the peers' kind. Multicast adverts have link-local sources (RFC 9568 §5.1.2.1)."""
        peers = self.instance.unicast_peers
        return bool(peers) and is_link_local(source) is all(map(is_link_local, peers))

    def wanted_spec(self, world: World, virtual: frozenset[str]) -> PortSpec | None:
        """Return the socket that this router needs now, ``None`` if it can have none."""
        instance = self.instance
        source = self._source(world, virtual)
        if not source:
            return None
        if instance.transport.udp_port:
            return PortSpec(source, udp_port=instance.transport.udp_port)
        link = world.links.get(instance.interface)
        if link is None:
            return None
        if instance.unicast_peers:
            return PortSpec(source, link, ttl=instance.unicast_ttl, ah=instance.has_ah)
        return PortSpec(source, link, instance.multicast_group, ah=instance.has_ah)

    def match_port(self, wanted: PortSpec | None) -> list[Effect]:
        """Return the effects that close the present socket and open the ``wanted`` one, as far as they differ."""
        if wanted == self.spec:
            return []
        name = self.instance.name
        effects: list[Effect] = [ClosePort(name)] if self.spec is not None else []
        self.spec, self.opened = wanted, False
        if wanted is not None:
            if self.machine.own_address != wanted.source:
                self.machine.own_address = wanted.source
                self.forget_packets()
            effects.append(OpenPort(name, wanted))
        return effects

    def retry(self, now: float) -> bool:
        """Retry a failed socket or destination when its pause is over; return whether there was one."""
        retried = False
        if self.port.retry_at is not None and self.port.retry_at <= now:
            self.port.retry_at, retried = None, True  # the fault stays until the socket is open
        if self.sending.retry_at is not None and self.sending.retry_at <= now:
            self.sending.suspend()
            retried = True
        return retried

    def retry_at_once(self) -> None:
        """Retry without a pause, after a change of the network."""
        if self.port.fault is not None:
            self.port.retry_at = None
        if self.sending.fault is not None:
            self.sending.suspend()

    # -- adverts ------------------------------------------------------------------------------------------------

    def destinations(self) -> tuple[str, ...]:
        """Return the destinations of adverts."""
        return self.instance.unicast_peers or (self.instance.multicast_group,)

    def send(self, priority: int) -> list[SendPacket]:
        """Return the packets of one advert, one for each destination."""
        if not self.opened:
            return []
        if self.send_errors.keys() < set(self.destinations()):
            self._failed_adverts = 0
            if self.sending.fault is None:
                self.sending.tries = 0
        self.send_errors.clear()
        return [
            SendPacket(self.instance.name, self._packet(priority, destination), destination)
            for destination in self.destinations()
        ]

    def failed(self, destination: str, reason: str, now: float) -> bool:
        """Record a packet that could not be sent; return whether sending becomes a fault by it."""
        if not self.instance.track_primary:  # dont_track_primary: failures on the interface do not count
            return False
        self.send_errors[destination] = reason
        if self.send_errors.keys() < set(self.destinations()):
            return False
        self._failed_adverts += 1
        if self.sending.fault is not None or (not self.sending.tries and self._failed_adverts < MAX_FAILED_ADVERTS):
            return False
        self.sending.begin(reason, now)
        return True

    def forget_packets(self) -> None:
        """Discard encoded adverts, after a change of the declaration or the source address."""
        self._packets.clear()

    def _packet(self, priority: int, destination: str) -> bytes:
        key = (priority, destination)
        if key not in self._packets:
            self._packets[key] = self._encode(priority, destination)
        return self._wrap(self._packets[key], destination) if self.instance.has_ah else self._packets[key]

    def _wrap(self, advert: bytes, destination: str) -> bytes:
        """Return the packet with the next number in the sequence; the packets to all peers have the same one."""
        if destination == self.destinations()[0]:
            self._sequence = self._sequence % ah.MAX_SEQUENCE + 1
        self._identification = self._identification % 0xFFFF + 1
        ttl = self.instance.unicast_ttl if self.instance.unicast_peers else wire.TTL
        header = ah.Header(self.machine.own_address, destination, ttl, self._identification, self._sequence)
        return ah.wrap(advert, header, wire.secret_of(self.instance))

    def _encode(self, priority: int, destination: str) -> bytes:
        instance = self.instance
        advert = Advert(
            version=instance.version,
            virtual_router_id=instance.virtual_router_id,
            priority=priority,
            interval_s=instance.advert_interval_s,
            addresses=tuple(a.address for a in instance.addresses if (":" in a.address) is instance.is_ipv6),
            secret=b"" if instance.has_ah else wire.secret_of(instance),
            auth_type=wire.auth_type(instance),
        )
        return wire.encode(advert, self.machine.own_address, destination, pseudo_header=self._pseudo_header())

    def _pseudo_header(self) -> bool:
        """Whether checksums cover addresses: not in UDP, where they may be translated on the way."""
        return (self.instance.checksum_with_pseudo_header or self.instance.is_ipv6) and not self.instance.transport.udp_port

    def decode(self, payload: bytes, envelope: Envelope | None) -> Advert | AdvertRefusal:
        """Decode and check a packet from this router's socket; return the advert or why it is refused."""
        if envelope is None:
            return AdvertRefusal.TRUNCATED
        number = ah.verify(payload, envelope, wire.secret_of(self.instance)) if self.instance.has_ah else self._sequence + 1
        if isinstance(number, AdvertRefusal):
            return number
        advert = wire.decode(payload, envelope, pseudo_header=self._pseudo_header())
        if isinstance(advert, AdvertRefusal):
            return advert
        refusal = wire.admit(advert, envelope, self.instance, self.machine.own_address)
        if refusal is None and number <= self._sequence:
            refusal = AdvertRefusal.SEQUENCE
        if refusal is not None:
            return refusal
        if self.instance.has_ah:
            self._sequence = number
        return advert

    def refuse(self, refusal: AdvertRefusal) -> bool:
        """Count a refused packet; return whether it is the first with this reason."""
        counted = self.machine.counters.refused
        counted[refusal] = counted.get(refusal, 0) + 1
        return counted[refusal] == 1


def identity_change(former: VrrpInstance, new: VrrpInstance) -> str:
    """Return which change makes a declaration another virtual router, empty if it stays the same one."""
    for name in ("virtual_router_id", "interface", "version", "transport"):
        if getattr(former, name) != getattr(new, name):
            return f"{name} changed"
    return ""


def tracked_interfaces(instance: VrrpInstance) -> frozenset[str]:
    """Return the names of the interfaces that an instance tracks."""
    return frozenset(each.name for each in instance.tracked if each.kind is TrackerKind.INTERFACE)


def interfaces_of_instance(instance: VrrpInstance) -> frozenset[str]:
    """Return the names of the interfaces of an instance: its own, those of its addresses, and those that it tracks."""
    names = set(tracked_interfaces(instance))
    names.update(address.device for address in virtual_addresses(instance))
    names.add(instance.interface)
    return frozenset(names - {""})


def interfaces_of(configuration: Configuration) -> frozenset[str]:
    """Return the names of all interfaces that a driver must observe."""
    return frozenset(name for instance in configuration.vrrp_instances for name in interfaces_of_instance(instance))
