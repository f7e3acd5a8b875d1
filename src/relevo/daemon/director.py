"""The director worker: drives the VRRP machines and carries out their effects.

It has a loop of its own, with nothing else on it, because its timers are a promise to the other directors. ``select`` with
a timeout is exact to some tens of microseconds, where epoll's own timeout, and so asyncio's, counts milliseconds; the
descriptors are in an epoll behind it, so that their number is not limited.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from relevo.daemon.channel import DirectorChannel
from relevo.daemon.messages import (
    DirectorReport,
    GroupEvent,
    HandOver,
    HeldEvent,
    InstanceEvent,
    LogLine,
    Ready,
    Reload,
    Synced,
    TakeSnapshot,
)
from relevo.daemon.messages import Stop as StopWorker
from relevo.errors import HostError
from relevo.host import privileges
from relevo.host.addresses import AddressHolder, local_everywhere
from relevo.host.interfaces import Interface, Interfaces, change_monitor, drain
from relevo.host.vrrp_port import ArpSender, Arrived, RawPort, UdpPort
from relevo.machines import sync_group, vrrp
from relevo.machines.sync_group import SyncGroupMachine
from relevo.machines.tracker import InterfaceTracker
from relevo.machines.vrrp import State, VrrpMachine
from relevo.model import Configuration, VirtualAddress, VrrpInstance
from relevo.observe.snapshot import DirectorSnapshot, GroupSnapshot, InstanceSnapshot
from relevo.wire import vrrp as wire
from relevo.wire.vrrp import Advert, Refusal

WARNING = 4
MAX_PACKETS = 64
"""Packets read from one socket before timers are looked at again."""


@dataclass(slots=True)
class Router:
    """A virtual router: its machine, and what the machine cannot hold because it is the outside world."""

    instance: VrrpInstance
    machine: VrrpMachine
    tracker: InterfaceTracker
    port: RawPort | UdpPort | None = None
    interface: Interface | None = None
    packets: dict[tuple[int, str], bytes] = field(default_factory=dict)
    port_fault: str = ""
    own_fault: bool = False
    last_send_error: str = ""


class Director:
    """All virtual routers of a configuration. ``resume`` names those that were master when the last worker died."""

    def __init__(self, configuration: Configuration, channel: DirectorChannel, resume: frozenset[str] = frozenset()) -> None:
        self.channel = channel
        self.routers: dict[str, Router] = {}
        self._synced = False
        self.groups: dict[str, SyncGroupMachine] = {}
        self.group_of: dict[str, SyncGroupMachine] = {}
        self.unknown: Counter[str] = Counter()
        self.realtime = ""
        self._interfaces = Interfaces()
        self._addresses = AddressHolder(self._interfaces)
        self._arp = ArpSender()
        self._paced: deque[tuple[float, Router, str]] = deque()
        self._epoll = select.epoll()
        self._by_descriptor: dict[int, list[Router]] = {}
        self._monitor = change_monitor()
        self._epoll.register(self._monitor.fileno(), select.EPOLLIN)
        self._epoll.register(channel.socket.fileno(), select.EPOLLIN)
        self._offset = time.time() - time.monotonic()
        self._stopping = False
        self._held: frozenset[str] = frozenset()
        self._configure(configuration, resume)

    # -- life --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until told to stop, or until the supervisor is gone."""
        while not (self._stopping and all(r.machine.state is State.INIT for r in self.routers.values())):
            self._wait()
            now = time.monotonic()
            for router in self.routers.values():
                due = router.machine.deadline()
                if due is not None and due <= now:
                    self._execute(router, router.machine.expire(now))
            self._send_paced(now)
            if self.channel.unsent:
                self.channel.flush()

    def _wait(self) -> None:
        due = [d for r in self.routers.values() if (d := r.machine.deadline()) is not None]
        if self._paced:
            due.append(self._paced[0][0])
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        readable, _, _ = select.select([self._epoll], [], [], timeout)
        if not readable:
            return
        for descriptor, _ in self._epoll.poll(0):
            if descriptor == self.channel.socket.fileno():
                self._hear_supervisor()
            elif descriptor == self._monitor.fileno():
                drain(self._monitor)
                self._look_at_interfaces()
            else:
                self._hear_peers(descriptor)

    def _hear_supervisor(self) -> None:
        messages = self.channel.receive()
        if messages is None:  # the supervisor died: nobody would restart us, so the addresses go to a peer
            self._epoll.unregister(self.channel.socket.fileno())
            self._stop()
            return
        for message in messages:
            match message:
                case TakeSnapshot():
                    self.channel.send(DirectorReport(self.snapshot()))
                case Reload(configuration=configuration):
                    self._configure(configuration, frozenset())
                case StopWorker():
                    self._stop()
                case HandOver():
                    self._hand_over(message)
                case Synced(synced=synced):
                    self._synced = synced
                    for router in self.routers.values():
                        self._tell(router, vrrp.SetSynced(synced))
                case _:
                    pass  # the balancer's

    def _stop(self) -> None:
        """Leave politely; told twice, at once."""
        self._stopping = True
        for router in self.routers.values():
            if router.machine.state is not State.INIT:
                self._tell(router, vrrp.Stop())

    def _hand_over(self, wanted: HandOver) -> None:
        """Hand an instance over, or let priorities decide again; members of a sync group go together."""
        group = self.group_of.get(wanted.instance)
        names = group.members if group is not None else (wanted.instance,)
        for name in names:
            if name in self.routers:
                self._tell(self.routers[name], vrrp.TakeBack() if wanted.back else vrrp.HandOver())

    # -- configuration -----------------------------------------------------------------------------------------

    def _configure(self, configuration: Configuration, resume: frozenset[str]) -> None:
        """Turn the routers that are into those that are wanted. What did not change is not touched."""
        grouped = {member: group.name for group in configuration.sync_groups for member in group.members}
        wanted = {instance.name: instance for instance in configuration.vrrp_instances}
        added: list[tuple[Router, bool]] = []
        for name in [n for n in self.routers if n not in wanted]:
            self._retire(name)
        for name, instance in wanted.items():
            present = self.routers.get(name)
            if present is not None and present.instance == instance and present.machine.grouped == (name in grouped):
                continue
            master = name in resume
            if present is not None:
                master = self._replace(present, instance)
            machine = VrrpMachine(instance, "", grouped=name in grouped)
            router = self.routers[name] = Router(instance, machine, InterfaceTracker(instance))
            added.append((router, master))
        self._configure_groups(configuration)
        for router, master in added:
            self._prepare(router)
            self._tell(router, vrrp.SetSynced(self._synced))
            self._tell(router, vrrp.Start(resume=master))

    def _configure_groups(self, configuration: Configuration) -> None:
        present = self.groups
        self.groups, self.group_of = {}, {}
        for group in configuration.sync_groups:
            machine = present.get(group.name)
            if machine is None or machine.members != group.members:
                machine = SyncGroupMachine(group.name, group.members)
            self.groups[group.name] = machine
            self.group_of.update(dict.fromkeys(group.members, machine))

    def _retire(self, name: str) -> None:
        """Stop a router that the new configuration does not have; its addresses go at once."""
        router = self.routers[name]
        for _ in range(2):  # the second stop does not wait for a successor
            if router.machine.state is not State.INIT:
                self._tell(router, vrrp.Stop())
        self._close_port(router)
        del self.routers[name]

    def _replace(self, router: Router, instance: VrrpInstance) -> bool:
        """Make room for a changed instance; return whether it goes on as master. Addresses that stay are not touched."""
        self._close_port(router)
        master = router.machine.state is State.MASTER
        staying = {str(a) for a in (*instance.addresses, *instance.excluded_addresses)}
        if master and router.instance.interface == instance.interface:
            for address in (*router.instance.addresses, *router.instance.excluded_addresses):
                if str(address) not in staying:
                    self._remove(router, address)
            return instance.virtual_router_id == router.instance.virtual_router_id
        self._remove_addresses(router)
        return False

    # -- interfaces --------------------------------------------------------------------------------------------

    def _prepare(self, router: Router) -> None:
        """Look at the interfaces of a new router and open its port."""
        for name in router.tracker.interfaces():
            self._track(router, name)
        self._open_port(router)

    def _look_at_interfaces(self) -> None:
        for router in self.routers.values():
            for name in router.tracker.interfaces():
                self._track(router, name)
            if router.port is None or self._moved(router):
                self._close_port(router)
                self._open_port(router)
            if router.machine.state is State.MASTER:
                self._restore_addresses(router)

    def _moved(self, router: Router) -> bool:
        """Whether the interface is another one now, or has another address: the port belongs to what it was."""
        instance, port = router.instance, router.port
        if port is None or isinstance(port, UdpPort) or not instance.interface:
            return False
        found = self._interfaces.find(instance.interface)
        if found is None or router.interface is None or found.index != router.interface.index:
            return True
        try:
            return not instance.source_address and self._own_address(found) not in ("", port.source)
        except HostError:
            return False

    def _own_address(self, interface: Interface) -> str:
        """Return the address that adverts come from: the interface's first that is not a virtual one, left over or held."""
        instances = [router.instance for router in self.routers.values()]
        virtual = {a.address for i in instances for a in (*i.addresses, *i.excluded_addresses)}
        return next((a for a in self._addresses.of(interface) if a not in virtual), "")

    def _track(self, router: Router, name: str) -> None:
        found = self._interfaces.find(name)
        for given in router.tracker.receive(name, found is not None and found.up):
            self._tell(router, given)

    def _restore_addresses(self, router: Router) -> None:
        """Put back what somebody else took from a master (network managers do)."""
        wanted = [(a, router.instance.interface) for a in (*router.instance.addresses, *router.instance.excluded_addresses)]
        try:
            missing = self._addresses.missing(wanted)
        except Exception as error:  # netlink answers are not ours to trust
            self._log(f"({router.instance.name}) cannot list addresses: {error}", WARNING)
            return
        for address, device in missing:
            self._log(
                f"({router.instance.name}) address {address} was removed from {address.device or device}: putting it back",
                WARNING,
            )
            self._add(router, address)

    # -- ports -------------------------------------------------------------------------------------------------

    def _open_port(self, router: Router) -> None:
        instance = router.instance
        try:
            port, router.interface = self._make_port(instance)
        except HostError as error:
            self._set_port_fault(router, str(error), error.hint)
            return
        router.port = port
        router.packets.clear()
        router.machine.own_address = port.source
        listeners = self._by_descriptor.setdefault(port.fileno(), [])
        if not listeners:
            self._epoll.register(port.fileno(), select.EPOLLIN)
        listeners.append(router)
        self._set_port_fault(router, "", "")

    def _set_port_fault(self, router: Router, fault: str, hint: str) -> None:
        """Let the machine know of ``fault`` instead of the former one; the new one comes first, so that nothing flaps."""
        former, router.port_fault = router.port_fault, fault
        if former == fault:
            return
        if fault:
            self._log(f"({router.instance.name}) {fault}" + (f" ({hint})" if hint else ""), WARNING)
            self._tell(router, vrrp.Fail(fault))
        if former:
            self._tell(router, vrrp.Recover(former))

    def _make_port(self, instance: VrrpInstance) -> tuple[RawPort | UdpPort, Interface | None]:
        interface = self._interfaces.find(instance.interface) if instance.interface else None
        if instance.transport.udp_port:
            key = (instance.source_address, instance.transport.udp_port)
            shared = (r.port for r in self.routers.values() if isinstance(r.port, UdpPort) and _udp_key(r.instance) == key)
            return next(shared, None) or UdpPort(*key), interface
        if interface is None:
            raise HostError(f"interface {instance.interface} does not exist", hint="waiting for it")
        source = instance.source_address or self._own_address(interface)
        if not source:
            raise HostError(f"interface {instance.interface} has no IPv4 address", hint="waiting for one")
        self._addresses.prepare()
        return RawPort(instance, interface, source), interface

    def _close_port(self, router: Router) -> None:
        if router.port is not None:
            listeners = self._by_descriptor[router.port.fileno()]
            listeners.remove(router)
            if not listeners:
                del self._by_descriptor[router.port.fileno()]
                self._epoll.unregister(router.port.fileno())
                router.port.close()
            router.port = None

    # -- adverts -----------------------------------------------------------------------------------------------

    def _hear_peers(self, descriptor: int) -> None:
        routers = list(self._by_descriptor.get(descriptor, ()))
        port = routers[0].port if routers else None
        for _ in range(MAX_PACKETS):
            arrived = port.receive() if port is not None else None
            if arrived is None:
                return
            number = wire.virtual_router_id(arrived.payload)
            # Every socket of an interface sees the adverts of all virtual routers there: only nobody's count.
            if number is not None and not any(r.instance.virtual_router_id == number for r in self.routers.values()):
                self.unknown[Refusal.UNKNOWN_ROUTER] += 1
            for router in routers:
                if number is None or router.instance.virtual_router_id == number:
                    self._hear(router, arrived)

    def _hear(self, router: Router, arrived: Arrived) -> None:
        instance, envelope = router.instance, arrived.envelope
        if envelope is None:
            self._refuse(router, Refusal.TRUNCATED, "?")
            return
        pseudo = instance.checksum_with_pseudo_header and not instance.transport.udp_port
        advert = wire.decode(arrived.payload, envelope, pseudo_header=pseudo)
        if isinstance(advert, Refusal):
            self._refuse(router, advert, envelope.source)
            return
        refusal = wire.admit(advert, envelope, instance, router.machine.own_address)
        if refusal is not None:
            self._refuse(router, refusal, envelope.source)
            return
        self._tell(router, vrrp.Heard(advert, envelope.source))

    def _refuse(self, router: Router, refusal: Refusal, source: str) -> None:
        counted = router.machine.counters.refused
        counted[refusal] = counted.get(refusal, 0) + 1
        if counted[refusal] == 1 and refusal is not Refusal.OWN:
            why = refusal.value.replace("_", " ")
            text = f"({router.instance.name}) advert from {source} dropped: {why}; further ones are only counted"
            self._log(text, WARNING)

    def _send(self, router: Router, priority: int) -> None:
        if router.port is None:
            return
        for destination in router.instance.unicast_peers or (router.instance.multicast_group,):
            key = (priority, destination)
            if key not in router.packets:
                router.packets[key] = self._encode(router, priority, destination)
            error = router.port.send(router.packets[key], destination)
            if error and error != router.last_send_error:
                self._log(f"({router.instance.name}) cannot send adverts to {destination}: {error}", WARNING)
            router.last_send_error = error

    @staticmethod
    def _encode(router: Router, priority: int, destination: str) -> bytes:
        instance = router.instance
        advert = Advert(
            version=instance.version,
            virtual_router_id=instance.virtual_router_id,
            priority=priority,
            interval_s=instance.advert_interval_s,
            addresses=tuple(address.address for address in instance.addresses),
            secret=wire.secret_of(instance),
            auth_type=wire.AUTH_PASS if instance.authentication else wire.AUTH_NONE,
        )
        pseudo = instance.checksum_with_pseudo_header and not instance.transport.udp_port
        return wire.encode(advert, router.machine.own_address, destination, pseudo_header=pseudo)

    # -- effects -----------------------------------------------------------------------------------------------

    def _tell(self, router: Router, given: vrrp.Input) -> None:
        self._execute(router, router.machine.receive(given, time.monotonic()))
        own_fault = bool(set(router.machine.faults) - {sync_group.GROUP_FAULT})
        if own_fault is not router.own_fault and router.machine.state is not State.INIT:
            router.own_fault = own_fault
            self._tell_group(router.instance.name, sync_group.Symbol.FAULT if own_fault else sync_group.Symbol.RECOVER)

    def _execute(self, router: Router, effects: list[vrrp.Effect]) -> None:
        for effect in effects:
            match effect:
                case vrrp.SendAdvert(priority=priority):
                    self._send(router, priority)
                case vrrp.AddAddresses():
                    for address in (*router.instance.addresses, *router.instance.excluded_addresses):
                        self._add(router, address)
                case vrrp.RemoveAddresses():
                    self._remove_addresses(router)
                case vrrp.Announce(count=count):
                    self._announce(router, count)
                case vrrp.Log(message=message):
                    self._log(message, WARNING if "WARNING" in message else 6)
                case vrrp.Transition():
                    self._report(router, effect)
                case vrrp.AskGroup(wish=wish):
                    symbol = sync_group.Symbol.ASK if wish else sync_group.Symbol.WITHDRAW
                    self._tell_group(router.instance.name, symbol)

    def _report(self, router: Router, transition: vrrp.Transition) -> None:
        name = router.instance.name
        state = "STOP" if transition.after is State.INIT else transition.after.value
        self._report_held()
        self.channel.send(InstanceEvent(name, state, router.machine.priority, transition.reason))
        if transition.after is State.MASTER:
            self._tell_group(name, sync_group.Symbol.MASTER)
        elif transition.after is State.BACKUP and transition.before is State.MASTER:
            self._tell_group(name, sync_group.Symbol.BACKUP)

    def _tell_group(self, member: str, symbol: sync_group.Symbol) -> None:
        group = self.group_of.get(member)
        if group is None:
            return
        for effect in group.receive(sync_group.Report(member, symbol), time.monotonic()):
            match effect:
                case sync_group.OrderMember(name=name, state=state):
                    self._tell(self.routers[name], vrrp.Order(state))
                case sync_group.FailMember(name=name):
                    self._tell(self.routers[name], vrrp.Fail(sync_group.GROUP_FAULT))
                case sync_group.RecoverMember(name=name):
                    self._tell(self.routers[name], vrrp.Recover(sync_group.GROUP_FAULT))
                case sync_group.GroupTransition(after=after):
                    self._log(f"VRRP_Group({group.name}) Syncing instances to {after} state")
                    self.channel.send(GroupEvent(group.name, after.value))

    def _report_held(self) -> None:
        holding = (State.MASTER, State.LEAVING, State.YIELDING)
        held = frozenset(
            address.address
            for router in self.routers.values()
            if router.machine.state in holding
            for address in (*router.instance.addresses, *router.instance.excluded_addresses)
        )
        if held != self._held:
            self._held = held
            self.channel.send(HeldEvent(held))

    # -- addresses ---------------------------------------------------------------------------------------------

    def _add(self, router: Router, address: VirtualAddress) -> None:
        try:
            self._addresses.add(address, router.instance.interface)
        except HostError as error:
            self._log(f"({router.instance.name}) {error}", 3)

    def _remove(self, router: Router, address: VirtualAddress) -> None:
        try:
            self._addresses.remove(address, router.instance.interface)
        except HostError as error:
            self._log(f"({router.instance.name}) {error}", 3)

    def _remove_addresses(self, router: Router) -> None:
        for address in (*router.instance.addresses, *router.instance.excluded_addresses):
            self._remove(router, address)

    def _announce(self, router: Router, count: int) -> None:
        interval = router.instance.garp.interval_s
        now = time.monotonic()
        addresses = [a.address for a in (*router.instance.addresses, *router.instance.excluded_addresses)]
        turn = 0
        for _ in range(count):
            for address in addresses:
                if ":" in address or local_everywhere(address):
                    continue
                if interval and turn:
                    self._paced.append((now + turn * interval, router, address))
                else:
                    self._send_arp(router, address)
                turn += 1

    def _send_paced(self, now: float) -> None:
        while self._paced and self._paced[0][0] <= now:
            _, router, address = self._paced.popleft()
            if router.machine.state is State.MASTER:
                self._send_arp(router, address)

    def _send_arp(self, router: Router, address: str) -> None:
        device = next((a.device for a in router.instance.addresses if a.address == address and a.device), "")
        interface = self._interfaces.find(device) if device else router.interface
        if interface is None:
            return
        error = self._arp.send(interface, address)
        if error and error != router.last_send_error:
            router.last_send_error = error
            self._log(f"({router.instance.name}) cannot announce {address} on {interface.name}: {error}", WARNING)

    # -- reports -----------------------------------------------------------------------------------------------

    def _log(self, text: str, level: int = 6) -> None:
        self.channel.send(LogLine(text, level))

    def snapshot(self) -> DirectorSnapshot:
        """Return what this worker knows."""
        return DirectorSnapshot(
            instances=tuple(self._instance_snapshot(router) for router in self.routers.values()),
            groups=tuple(GroupSnapshot(name=g.name, state=g.state.value, members=g.members) for g in self.groups.values()),
            unknown_adverts=dict(self.unknown),
            realtime=self.realtime,
        )

    def _instance_snapshot(self, router: Router) -> InstanceSnapshot:
        instance, machine = router.instance, router.machine
        counters = machine.counters
        return InstanceSnapshot(
            name=instance.name,
            state=machine.state.value,
            reason=machine.reason,
            since_at=machine.since + self._offset,
            interface=instance.interface,
            virtual_router_id=instance.virtual_router_id,
            version=instance.version,
            priority=machine.priority,
            base_priority=instance.priority,
            advert_interval_s=instance.advert_interval_s,
            addresses=tuple(str(a) for a in (*instance.addresses, *instance.excluded_addresses)),
            own_address=machine.own_address,
            master_address=machine.master_address,
            master_priority=machine.master_priority,
            faults=tuple(machine.faults),
            adverts_sent=counters.adverts_sent,
            adverts_received=counters.adverts_received,
            became_master=counters.became_master,
            released_master=counters.released_master,
            priority_zero_sent=counters.priority_zero_sent,
            priority_zero_received=counters.priority_zero_received,
            address_list_mismatches=counters.address_list_mismatches,
            refused={str(k): v for k, v in counters.refused.items()},
        )


def _udp_key(instance: VrrpInstance) -> tuple[str, int]:
    return instance.source_address, instance.transport.udp_port


def serve(configuration: Configuration, sock: socket.socket, resume: frozenset[str]) -> None:
    """Be the director worker."""
    channel = DirectorChannel(sock)
    wanted = configuration.global_defs.vrrp_realtime_priority
    refused = privileges.be_punctual(privileges.DEFAULT_REALTIME_PRIORITY if wanted is None else wanted)
    privileges.confine(privileges.DIRECTOR)
    director = Director(configuration, channel, resume)
    director.realtime = refused or "real-time scheduling"
    gc.collect()
    gc.freeze()
    channel.send(Ready())
    director.run()
    sock.setblocking(True)
    channel.flush()
