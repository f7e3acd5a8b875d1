"""The director worker: the driver of ``relevo.node.director``, with sockets and a clock.

It has its own event loop, because late adverts make other directors take over. ``select`` with
a timeout is exact to some tens of microseconds; epoll's own timeout, and so asyncio's, has milliseconds. The
descriptors are in an epoll object, which select polls, so that their number is not limited.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from dataclasses import dataclass, field

from relevo.daemon import confinement
from relevo.daemon.channel import DirectorChannel
from relevo.daemon.messages import (
    DirectorReport,
    GroupEvent,
    HandOver,
    InstanceEvent,
    LocalAddressesEvent,
    LogLine,
    NoticeEvent,
    Observed,
    PlaneReady,
    Ready,
    Rehearse,
    Reload,
    Resume,
    StepsTaken,
    Synced,
    TakeSnapshot,
    ToWorker,
)
from relevo.daemon.messages import Stop as StopWorker
from relevo.errors import HostError
from relevo.host import privileges
from relevo.host.addresses import AddressTable
from relevo.host.claims import PAUSE_S, ClaimListener
from relevo.host.interfaces import Interfaces, change_monitor, drain
from relevo.host.vrrp_port import NeighbourSender, RawPort, UdpPort, open_port
from relevo.model import Configuration
from relevo.node import effects as do
from relevo.node import observation as see
from relevo.node.director import Director, startup_hold_s
from relevo.node.observation import Kind, Observation, World
from relevo.node.plan import DirectorBefore, director_steps, rehearse_director
from relevo.node.router import interfaces_of
from relevo.observe.director import director_snapshot
from relevo.severity import Severity

MAX_PACKETS = 64
"""Packets read from one socket before timers are checked again."""


@dataclass(slots=True)
class Port:
    """An open socket, and the routers that share it."""

    spec: do.PortSpec
    socket: RawPort | UdpPort
    routers: list[str] = field(default_factory=list)


class DirectorWorker:
    """Executes the effects of a ``Director`` in order, and passes it packets, messages and observations."""

    def __init__(self, configuration: Configuration, channel: DirectorChannel, resume: Resume) -> None:
        self.channel = channel
        self.realtime = ""
        self._interfaces = Interfaces()
        self._addresses = AddressTable()
        self._neighbours = NeighbourSender()
        self._by_router: dict[str, Port] = {}
        self._by_descriptor: dict[int, Port] = {}
        self._epoll = select.epoll()
        self._monitor = change_monitor()
        self._epoll.register(self._monitor.fileno(), select.EPOLLIN)
        self._epoll.register(channel.socket.fileno(), select.EPOLLIN)
        self._claims: ClaimListener | None = None
        self._hear_at: float | None = None  # when claims are read again
        self._offset = time.time() - time.monotonic()
        self._executed: list[do.Effect] | None = None  # during a reload
        self.director = Director(
            configuration,
            self._look(interfaces_of(configuration), ()),
            resume=resume.masters,
            placed=resume.placed,
            plane_ready=resume.plane_ready,
            synced=resume.synced,
            sources={(source.kind, source.name): source.value for source in resume.sources},
            hold_s=startup_hold_s(configuration, time.monotonic()) if resume.first else 0.0,
        )

    # -- life --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until a stop is complete. The end of the supervisor is a stop too."""
        self._execute(self.director.start(time.monotonic()))
        while not self.director.finished:
            self._wait()
            now = time.monotonic()
            due = self.director.deadline()
            if due is not None and due <= now:
                self._execute(self.director.expire(now))
            if self.channel.unsent:
                self.channel.flush()

    def _wait(self) -> None:
        due = min((at for at in (self.director.deadline(), self._hear_at) if at is not None), default=None)
        timeout = None if due is None else max(0.0, due - time.monotonic())
        readable, _, _ = select.select([self._epoll], [], [], timeout)
        if self._hear_at is not None and self._hear_at <= time.monotonic():
            self._hear_again()
        if not readable:
            return
        ready = [descriptor for descriptor, _ in self._epoll.poll(0)]
        for descriptor in ready:
            if descriptor == self.channel.socket.fileno():
                self._read_supervisor()
            elif descriptor == self._monitor.fileno():
                drain(self._monitor)
                self._observe()
            elif descriptor in self._by_descriptor:
                self._read_packets(self._by_descriptor[descriptor])
        if self._claims is not None and self._claims.fileno() in ready:  # an advert is read before the announcement behind it
            self._read_claims(self._claims)

    def _give(self, given: see.Input) -> None:
        self._execute(self.director.receive(given, time.monotonic()))

    # -- observations ------------------------------------------------------------------------------------------

    def _read_supervisor(self) -> None:
        messages = self.channel.receive()
        if messages is None:  # the supervisor died and cannot restart this worker, so a peer must take over
            self._epoll.unregister(self.channel.socket.fileno())
            self._give(see.StopRequested())
            return
        for message in messages:
            self._take(message)

    def _take(self, message: ToWorker) -> None:
        match message:
            case TakeSnapshot():
                self.channel.send(DirectorReport(director_snapshot(self.director, self._offset, self.realtime)))
            case Reload(configuration=configuration, number=number):
                self._reload(configuration, number)
            case Rehearse(configuration=configuration, number=number):
                given = self._configure(configuration)
                steps = rehearse_director(self.director, given, time.monotonic())
                self.channel.send(StepsTaken(number, tuple(steps)))
            case StopWorker():
                self._give(see.StopRequested())
            case HandOver(instance=instance, back=back):
                self._give(see.HandOverRequested(instance, back))
            case Synced(synced=synced):
                self._give(Observation(Kind.SYNC, synced))
            case PlaneReady(ready=ready):
                self._give(Observation(Kind.PLANE, ready))
            case Observed(kind=kind, name=name, value=value):
                self._give(Observation(kind, value, name))
            case _:
                pass  # for the balancer

    def _configure(self, configuration: Configuration) -> see.Configure:
        return see.Configure(configuration, self._look(interfaces_of(configuration), self.director.world.addresses))

    def _reload(self, configuration: Configuration, number: int) -> None:
        before, self._executed = DirectorBefore(self.director), []
        self._give(self._configure(configuration))
        steps = director_steps(before, self._executed, self.director)
        self._executed = None
        self.channel.send(StepsTaken(number, tuple(steps)))

    def _observe(self) -> None:
        world = self._look(interfaces_of(self.director.configuration), self.director.world.addresses)
        self._give(see.NetworkObserved(world))

    def _look(self, names: frozenset[str], known: tuple[see.ObservedAddress, ...]) -> World:
        """Return the links of these names and all addresses; the ``known`` addresses if they cannot be listed."""
        links = {name: link for name in names if (link := self._interfaces.find(name)) is not None}
        try:
            addresses = self._addresses.addresses({link.index: link.name for link in links.values()})
        except HostError as error:
            self._log(str(error), Severity.WARNING)
            addresses = known
        return World(links, addresses)

    def _read_packets(self, port: Port) -> None:
        for _ in range(MAX_PACKETS):
            arrived = port.socket.receive()
            if arrived is None:
                return
            self._give(see.PacketReceived(tuple(port.routers), arrived.payload, arrived.envelope))

    def _read_claims(self, claims: ClaimListener) -> None:
        for interface, claim in claims.receive():
            self._give(see.AddressClaimed(claim.address, interface, claim.hardware_address, claim.gratuitous))
        self._epoll.unregister(claims.fileno())
        self._hear_at = time.monotonic() + PAUSE_S

    def _hear_again(self) -> None:
        assert self._claims is not None
        self._epoll.register(self._claims.fileno(), select.EPOLLIN)
        self._hear_at = None

    # -- effects -----------------------------------------------------------------------------------------------

    def _execute(self, effects: list[do.Effect]) -> None:
        """Execute effects; failures are passed to the director afterwards, in the same order."""
        if self._executed is not None:
            self._executed += effects
        answers: list[see.Input] = []
        for effect in effects:
            match effect:
                case do.OpenPort(router=router, spec=spec):
                    answers.append(self._open(router, spec))
                case do.ClosePort(router=router):
                    self._close(router)
                case do.SendPacket():
                    answers += self._send(effect)
                case do.LimitSenders(router=router, senders=senders):
                    self._limit(router, senders)
                case do.HearClaims(addresses=addresses):
                    self._hear_claims(addresses)
                case do.AddAddress() | do.RemoveAddress():
                    answers += self._operate(effect)
                case do.Announce(link=link, address=address):
                    forwards = ":" in address and self._addresses.forwards_ipv6(link.index)
                    reason = self._neighbours.send(link, address, router=forwards)
                    if reason:
                        answers.append(see.AnnouncementFailed(address, link.name, reason))
                case _:
                    self._report(effect)
        for answer in answers:
            self._give(answer)

    def _open(self, router: str, spec: do.PortSpec) -> see.PortOpened | see.PortFailed:
        shared = (port for port in self._by_descriptor.values() if spec.udp_port and port.spec == spec)
        port = next(shared, None)
        if port is None:
            try:
                port = Port(spec, open_port(spec))
            except HostError as error:
                return see.PortFailed(router, str(error), error.hint)
            self._epoll.register(port.socket.fileno(), select.EPOLLIN)
            self._by_descriptor[port.socket.fileno()] = port
        port.routers.append(router)
        self._by_router[router] = port
        return see.PortOpened(router)

    def _close(self, router: str) -> None:
        port = self._by_router.pop(router, None)
        if port is None:
            return
        port.routers.remove(router)
        if not port.routers:
            del self._by_descriptor[port.socket.fileno()]
            self._epoll.unregister(port.socket.fileno())
            port.socket.close()

    def _limit(self, router: str, senders: tuple[str, ...] | None) -> None:
        port = self._by_router.get(router)
        if port is not None and (reason := port.socket.limit(senders)):
            self._log(f"({router}) the socket cannot be limited: {reason}", Severity.WARNING)

    def _hear_claims(self, addresses: frozenset[str]) -> None:
        try:
            if self._claims is None and addresses:
                self._claims = ClaimListener()
                self._hear_again()
            if self._claims is not None:
                self._claims.listen_for(addresses)
        except HostError as error:
            self._log(str(error), Severity.WARNING)

    def _send(self, effect: do.SendPacket) -> list[see.Input]:
        port = self._by_router.get(effect.router)
        reason = port.socket.send(effect.payload, effect.destination) if port is not None else ""
        return [see.SendFailed(effect.router, effect.destination, reason)] if reason else []

    def _operate(self, effect: do.AddAddress | do.RemoveAddress) -> list[see.Input]:
        adding = isinstance(effect, do.AddAddress)
        try:
            if isinstance(effect, do.AddAddress):
                self._addresses.add(effect.address)
            else:
                self._addresses.remove(effect.address, effect.survivors)
        except HostError as error:
            return [see.OperationFailed(effect.address, adding, f"{error} ({error.hint})" if error.hint else str(error))]
        return []

    def _report(self, effect: do.Effect) -> None:
        match effect:
            case do.Log(text=text, severity=severity):
                self._log(text, severity)
            case do.InstanceChanged():
                self.channel.send(InstanceEvent(effect.name, effect.state, effect.priority, effect.reason))
            case do.InstanceNoticed():
                self.channel.send(NoticeEvent(effect.name, effect.what, effect.priority))
            case do.GroupChanged():
                self.channel.send(GroupEvent(effect.name, effect.state))
            case do.LocalAddresses():
                self.channel.send(LocalAddressesEvent(effect.addresses, effect.placed))

    def _log(self, text: str, severity: Severity) -> None:
        self.channel.send(LogLine(text, severity))


def serve(configuration: Configuration, sock: socket.socket, resume: Resume) -> None:
    """Run the director worker."""
    channel = DirectorChannel(sock)
    settings = configuration.global_defs.processes.director
    wanted = settings.realtime_priority
    lacking = privileges.apply_settings(settings)
    refused = privileges.enable_realtime(privileges.DEFAULT_REALTIME_PRIORITY if wanted is None else wanted)
    lacking += confinement.confine(confinement.DIRECTOR)
    worker = DirectorWorker(configuration, channel, resume)
    worker.realtime = refused or "real-time scheduling"
    gc.collect()
    gc.freeze()
    for each in lacking:
        channel.send(LogLine(each, Severity.WARNING))
    channel.send(Ready())
    worker.run()
    sock.setblocking(True)
    channel.flush()
