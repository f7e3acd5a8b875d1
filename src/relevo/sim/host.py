"""A simulated host: a kernel, links on segments, and a director, driven as the worker drives it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from relevo.model import Configuration, TrackerKind
from relevo.model.plan import Step
from relevo.node.addresses import AddressKey
from relevo.node.director import Director
from relevo.node.effects import (
    AddAddress,
    Announce,
    ClosePort,
    Effect,
    GroupChanged,
    HearClaims,
    InstanceChanged,
    LimitSenders,
    LocalAddresses,
    Log,
    OpenPort,
    PortSpec,
    RemoveAddress,
    SendPacket,
)
from relevo.node.flood import SAMPLE
from relevo.node.observation import (
    AddressClaimed,
    Configure,
    Input,
    NetworkObserved,
    Observation,
    OperationFailed,
    PacketReceived,
    PortFailed,
    PortOpened,
    SendFailed,
    StopRequested,
    is_local_everywhere,
)
from relevo.node.plan import DirectorBefore, director_steps, rehearse_director
from relevo.node.sources import SourceKey
from relevo.sim.kernel import Kernel
from relevo.sim.lan import Simulation
from relevo.wire import ah
from relevo.wire.vrrp import TTL, Envelope, is_multicast


class Host:
    """One node of a simulation. ``log``, ``events``, ``operations`` and ``announced`` list its effects, oldest first.

    ``sources`` are the present values of its trackers.
    """

    def __init__(self, name: str, simulation: Simulation) -> None:
        self.name = name
        self.simulation = simulation
        self.kernel = Kernel()
        self.director: Director | None = None
        self.log: list[Log] = []
        self.events: list[InstanceChanged | GroupChanged] = []
        self.operations: list[tuple[float, AddAddress | RemoveAddress]] = []
        self.announced: list[tuple[float, str, str]] = []
        self.local = LocalAddresses(frozenset(), frozenset())
        self.firewall = False
        self.sources: dict[SourceKey, int | None] = {}
        self._segments: dict[str, str] = {}
        self._ports: dict[str, PortSpec] = {}
        self._senders: dict[str, tuple[str, ...] | None] = {}  # in a flood, by router
        self._others: Counter[str] = Counter()
        self._executed: list[Effect] | None = None  # during a reload
        self._refused = False
        self._heard: frozenset[str] = frozenset()
        simulation.hosts[name] = self

    # -- control ------------------------------------------------------------------------------------------------

    def attach(self, link: str, segment: str) -> None:
        """Connect a link to a segment, as a cable does: removing the link does not disconnect it."""
        self._segments[link] = segment
        self.simulation.segment(segment)

    def start(
        self,
        configuration: Configuration,
        *,
        resume: frozenset[str] = frozenset(),
        placed: Iterable[AddressKey] = (),
        plane_ready: bool = True,
    ) -> None:
        """Start a director, as after a boot or the death of its worker."""
        self._ports.clear()
        self._heard = frozenset()
        self.director = Director(
            configuration, self.kernel.world(), resume=resume, placed=placed, plane_ready=plane_ready, sources=self.sources
        )
        self._execute(self.director.start(self.simulation.now))

    def plan(self, configuration: Configuration) -> list[Step]:
        """Return what a reload would do."""
        if self.director is None:
            return []
        return rehearse_director(self.director, Configure(configuration, self.kernel.world()), self.simulation.now)

    def reload(self, configuration: Configuration) -> list[Step] | None:
        """Give the director another configuration; return what it did, ``None`` if the kernel refused a part of it."""
        if self.director is None:
            return []
        before, self._executed, self._refused = DirectorBefore(self.director), [], False
        self._give(Configure(configuration, self.kernel.world()))
        executed, self._executed = self._executed, None
        return None if self._refused else director_steps(before, executed, self.director)

    def observe(self) -> None:
        """Observe the network, as after a message of the kernel."""
        self._give(NetworkObserved(self.kernel.world()))

    def observe_source(self, observation: Observation) -> None:
        """Give the director an observation."""
        if isinstance(observation.kind, TrackerKind):
            self.sources[observation.kind, observation.name] = observation.value
        self._give(observation)

    def stop(self) -> None:
        """Stop gracefully."""
        self._give(StopRequested())

    def crash(self) -> None:
        """Crash: the addresses stay on the links."""
        self.director = None
        self._ports.clear()

    # -- the driver ---------------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """Return when ``expire`` must be called."""
        return self.director.deadline() if self.director is not None else None

    def expire(self) -> None:
        """Process the timers of the director that are due."""
        if self.director is not None and (due := self.director.deadline()) is not None and due <= self.simulation.now:
            self._execute(self.director.expire(self.simulation.now))

    def deliver(self, segment: str, source: str, destination: str, payload: bytes) -> None:
        """Deliver a packet to every socket that it matches."""
        for router, spec in list(self._ports.items()):
            senders = self._senders.get(router)
            if senders is not None and source not in senders:
                self._others[router] += 1
                if self._others[router] % SAMPLE:
                    continue
            if self._receives(spec, segment, source, destination):
                if spec.ah:
                    advert, envelope = ah.unwrap(payload) or (payload, None)
                else:
                    advert, envelope = payload, Envelope(source, destination, TTL if is_multicast(destination) else None)
                self._give(PacketReceived((router,), advert, envelope))

    def hear(self, segment: str, sender: str, address: str) -> None:
        """Hear that another host has announced an address, on every link of the segment."""
        if address in self._heard:
            for link in self.kernel.links.values():
                if link.up and self._segments.get(link.name) == segment:
                    self._give(AddressClaimed(address, link.name, sender.encode().ljust(6, b"\0")[:6]))

    def _receives(self, spec: PortSpec, segment: str, source: str, destination: str) -> bool:
        if (":" in source) is not (":" in spec.source):
            return False
        if spec.link is None:
            return destination == spec.source
        link = self.kernel.links.get(spec.link.name)
        if link is None or link.index != spec.link.index or not link.up or self._segments.get(link.name) != segment:
            return False
        return destination == spec.group or (not spec.group and self._has(destination))

    def _has(self, address: str) -> bool:
        return is_local_everywhere(address) or any(each.set.address == address for each in self.kernel.addresses)

    def _give(self, given: Input) -> None:
        if self.director is not None:
            self._execute(self.director.receive(given, self.simulation.now))

    def _execute(self, effects: list[Effect]) -> None:
        if self._executed is not None:
            self._executed += effects
        answers: list[Input] = []
        before = list(self.kernel.addresses)
        for effect in effects:
            match effect:
                case OpenPort(router=router, spec=spec):
                    answers.append(self._open(router, spec))
                case ClosePort(router=router):
                    self._ports.pop(router, None)
                    self._senders.pop(router, None)
                case LimitSenders(router=router, senders=senders):
                    self._senders[router] = senders
                case SendPacket():
                    failed = self._send(effect)
                    answers += [SendFailed(effect.router, effect.destination, failed)] if failed else []
                case AddAddress(address=address):
                    self.operations.append((self.simulation.now, effect))
                    failed = self.kernel.add(address)
                    answers += [OperationFailed(address, True, failed)] if failed not in ("", "File exists") else []
                case RemoveAddress(address=address, survivors=survivors):
                    self.operations.append((self.simulation.now, effect))
                    self.kernel.remove(address, survivors)
                case _:
                    self._note(effect)
        self._refused |= any(not isinstance(answer, PortOpened) for answer in answers)
        for answer in answers:
            self._give(answer)
        if self.kernel.addresses != before:
            self.observe()

    def _note(self, effect: Effect) -> None:
        match effect:
            case Announce(link=link, address=address):
                self.announced.append((self.simulation.now, link.name, address))
                present = self.kernel.links.get(link.name)
                if present is not None and present.up:
                    self.simulation.announce(self, self._segments.get(link.name, ""), address)
            case HearClaims(addresses=addresses):
                self._heard = addresses
            case Log():
                self.log.append(effect)
            case InstanceChanged() | GroupChanged():
                self.events.append(effect)
            case LocalAddresses():
                self.local = effect

    def _open(self, router: str, spec: PortSpec) -> PortOpened | PortFailed:
        if not self._has(spec.source):
            return PortFailed(router, f"cannot bind {spec.source}: Cannot assign requested address")
        self._ports[router] = spec
        return PortOpened(router)

    def _send(self, effect: SendPacket) -> str:
        spec = self._ports.get(effect.router)
        if spec is None:
            return ""
        if self.firewall:
            return "Operation not permitted"
        if not self._has(spec.source):
            return "Cannot assign requested address"
        if spec.link is None:
            self.simulation.carry(self, "", effect.destination, spec.source, effect.payload)
            return ""
        link = self.kernel.links.get(spec.link.name)
        if link is None or link.index != spec.link.index:
            return "No such device"
        if link.up:
            self.simulation.carry(self, self._segments.get(link.name, ""), effect.destination, spec.source, effect.payload)
        return ""
