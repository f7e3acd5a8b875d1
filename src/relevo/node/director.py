"""The VRRP side of a node: every virtual router of a configuration, its sync groups, its addresses and gratuitous ARP.

The order of effects is that of RFC 9568 §6.4: an advert first, then addresses, then gratuitous ARP. Log lines and events
follow, so that a notify script runs after the addresses of the new state are set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from relevo.machines import sync_group, vrrp
from relevo.machines.faults import GROUP_FAULT, Fault
from relevo.machines.sync_group import SyncGroupMachine
from relevo.machines.vrrp import State
from relevo.model import Configuration, VrrpInstance
from relevo.model.diff import difference
from relevo.node import observation as see
from relevo.node.addresses import Addresses, AddressKey
from relevo.node.announcements import Announcements
from relevo.node.buffer import EffectBuffer
from relevo.node.effects import (
    AddAddress,
    ClosePort,
    Effect,
    GroupChanged,
    HearClaims,
    InstanceChanged,
    InstanceNoticed,
    LimitSenders,
    LocalAddresses,
    RemoveAddress,
    state_name,
)
from relevo.node.flood import SAMPLE, FloodGuard
from relevo.node.groups import Groups, judge
from relevo.node.network import expected_after, virtual_addresses
from relevo.node.observation import Input, Kind, Observation, SetAddress, World, own_addresses
from relevo.node.router import Router, identity_change
from relevo.node.sources import SourceKey, Sources
from relevo.severity import Severity
from relevo.wire import vrrp as wire
from relevo.wire.vrrp import AdvertRefusal


class Director:
    """All virtual routers. ``resume`` and ``placed`` are the masters and addresses of a worker that died.

    ``sources`` are the values of trackers that are known already. No router takes over in the first ``hold_s`` seconds.
    """

    def __init__(
        self,
        configuration: Configuration,
        world: World,
        *,
        resume: frozenset[str] = frozenset(),
        placed: Iterable[AddressKey] = (),
        plane_ready: bool = True,
        synced: bool = False,
        sources: Mapping[SourceKey, int | None] | None = None,
        hold_s: float = 0.0,
    ) -> None:
        self.configuration = Configuration()
        self.world = world
        self.routers: dict[str, Router] = {}
        self.groups = Groups()
        self.unknown: Counter[str] = Counter()
        self.stopping = False
        self.addresses = Addresses(placed)
        self.sources = Sources(sources or {})
        self._first = configuration
        self._hold_s = hold_s
        self._hold_until = 0.0
        self._resume = resume
        self._plane_ready = plane_ready
        self._synced = synced
        self._announcements = Announcements()
        self._floods: dict[tuple[str, ...], FloodGuard] = {}  # by the routers of a socket
        self._heard: frozenset[str] = frozenset()  # the addresses whose other owners are heard
        self._out = EffectBuffer()
        self._local: LocalAddresses | None = None  # the first state is reported even if it is empty

    # -- interface of every machine ----------------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Begin with the first configuration."""
        self._hold_until = now + self._hold_s if self._hold_s else 0.0
        self._configure(self._first, now)
        return self._settle(now)

    def receive(self, given: Input, now: float) -> list[Effect]:
        """Process an input; return effects in order."""
        match given:
            case see.Configure(configuration=configuration, world=world):
                self._observe(world, now)
                self._configure(configuration, now)
            case see.NetworkObserved(world=world):
                self._observe(world, now)
            case Observation():
                self._take_observation(given, now)
            case see.PacketReceived():
                self._take_packet(given, now)
                return self._settle(now) if self._out.state_changed else self._out.flush()
            case see.AddressClaimed():
                self._take_claim(given, now)
                return self._settle(now) if self._out.state_changed else self._out.flush()
            case see.PortOpened(router=name) | see.PortFailed(router=name) | see.SendFailed(router=name):
                if name in self.routers:
                    self._take_answer(self.routers[name], given, now)
            case see.OperationFailed():
                self._take_refusal(given, now)
            case see.AnnouncementFailed(address=address, interface=interface, reason=reason):
                self._out.warn_once((interface, address), f"cannot announce {address} on {interface}: {reason}")
            case see.HandOverRequested():
                self._hand_over(given, now)
            case see.StopRequested():
                self._stop(now)
        return self._settle(now)

    def deadline(self) -> float | None:
        """Return when ``expire`` must be called next."""
        due = [router.machine.deadline() for router in self.routers.values()]
        due += [trouble.retry_at for router in self.routers.values() for trouble in (router.port, router.sending)]
        due += [self._announcements.deadline(), self.addresses.retry_at]
        due += [guard.deadline for guard in self._floods.values()]
        return min((at for at in due if at is not None), default=None)

    def expire(self, now: float) -> list[Effect]:
        """Process every timer that is due."""
        announced = self._announcements.due(self.routers, self.world, now)  # those queued below leave after their address is set
        retried = False
        for router in self.routers.values():
            due = router.machine.deadline()
            if due is not None and due <= now:
                self._execute(router, router.machine.expire(now), now)
            retried |= router.retry(now)
        if self.addresses.retry_at is not None and self.addresses.retry_at <= now:
            self.addresses.try_again()
            retried = True
        self._end_floods(now)
        effects = self._settle(now) if retried or self._out.state_changed else self._out.flush()
        return [*announced, *effects]

    @property
    def finished(self) -> bool:
        """Whether a stop is complete."""
        return self.stopping and all(router.machine.state is State.INIT for router in self.routers.values())

    def virtual(self) -> frozenset[str]:
        """Return every declared virtual address."""
        instances = (router.instance for router in self.routers.values())
        return frozenset(a.address for i in instances for a in (*i.addresses, *i.excluded_addresses))

    # -- inputs ------------------------------------------------------------------------------------------------

    def _observe(self, world: World, now: float) -> None:
        former, self.world = self.world, world
        self.addresses.observe(world)
        virtual = self.virtual()
        if former.links != world.links or own_addresses(former, virtual) != own_addresses(world, virtual):
            for router in self.routers.values():
                router.retry_at_once()
        for router in self.routers.values():
            self._announcements.link_changed(router, former, world, now)

    def _take_observation(self, given: Observation, now: float) -> None:
        match given.kind:
            case Kind.PLANE:
                self._plane_ready = bool(given.value)
                every: vrrp.Input = vrrp.SetPlaneReady(self._plane_ready)
            case Kind.SYNC:
                self._synced = bool(given.value)
                every = vrrp.SetSynced(self._synced)
            case tracker:
                self.sources.take(tracker, given)
                return
        for router in self.routers.values():
            self._feed(router, every, now)

    def _take_packet(self, given: see.PacketReceived, now: float) -> None:
        number = wire.virtual_router_id(given.payload)
        # Every socket of an interface receives the adverts of all virtual routers: count only VRIDs that no local router uses.
        if number is not None and not any(r.instance.virtual_router_id == number for r in self.routers.values()):
            self.unknown[AdvertRefusal.UNKNOWN_ROUTER] += 1
            self._log_unknown(number, given)
            self._watch_for_flood(given, False, now)
            return
        source = given.envelope.source if given.envelope is not None else "?"
        useful = None
        for name in given.routers:
            router = self.routers.get(name)
            if router is None or number not in (None, router.instance.virtual_router_id) or router.is_deaf:
                continue
            advert = router.decode(given.payload, given.envelope)
            if not isinstance(advert, AdvertRefusal):
                self._feed(router, vrrp.AdvertReceived(advert, source), now)
                # Adverts of lower priority than ours are of use only from the master that a backup follows.
                useful = advert.priority >= router.machine.priority or source == router.machine.master_address
                continue
            useful = bool(useful)
            if router.refuse(advert) and advert is not AdvertRefusal.OWN:
                why = advert.value.replace("_", " ")
                self._out.log(f"({name}) advert from {source} dropped: {why}; further ones are only counted", Severity.WARNING)

        if useful is not None:
            self._watch_for_flood(given, useful, now)

    def _take_claim(self, given: see.AddressClaimed, now: float) -> None:
        if any(link.hardware_address == given.hardware_address for link in self.world.links.values()):
            return  # a loop of the network brings back what this node sends
        for router in self.routers.values():
            interface = router.instance.interface
            if any(
                each.address == given.address and (each.device or interface) == given.interface
                for each in virtual_addresses(router.instance)
            ):
                self._feed(router, vrrp.Claimed(given.address, given.hardware_address, given.announced), now)

    def _watch_for_flood(self, given: see.PacketReceived, useful: bool, now: float) -> None:
        """Count a packet, and limit the senders of its socket if it is one too many."""
        if given.envelope is None or not given.routers:
            return
        guard = self._floods.get(given.routers)
        if guard is None:
            guard = self._floods[given.routers] = FloodGuard()
        begins = guard.limited_to is None

        def trusted() -> set[str]:
            routers = [self.routers[name] for name in given.routers if name in self.routers]
            return {each for r in routers for each in (r.machine.master_address, *r.instance.unicast_peers)}

        if not guard.take(given.envelope.source, useful=useful, trusted=trusted, now=now):
            return
        assert guard.limited_to is not None
        self._out.packets.append(LimitSenders(given.routers[0], guard.limited_to))
        if begins:
            what = f"a flood of adverts, the last from {given.envelope.source}"
            only = f"{', '.join(guard.limited_to) or 'nobody'} and one in {SAMPLE} packets of others"
            self._out.log(f"({given.routers[0]}) {what}: listening to {only}", Severity.WARNING)

    def _end_floods(self, now: float) -> None:
        for names, guard in list(self._floods.items()):
            left = [name for name in names if name in self.routers]
            if guard.expire(now) and left:
                self._out.packets.append(LimitSenders(left[0], None))
                self._out.log(f"({left[0]}) the flood of adverts has ended")
            if not left:
                del self._floods[names]

    def _forget_flood(self, router: str) -> None:
        """Begin to count anew at a socket that has been opened: one that routers share may still have its filter."""
        for names in [names for names in self._floods if router in names]:
            if self._floods.pop(names).limited_to is not None:
                self._out.packets.append(LimitSenders(router, None))

    def _log_unknown(self, number: int, given: see.PacketReceived) -> None:
        if self.configuration.global_defs.log_unknown_vrids and given.envelope is not None:
            text = f"advert of unknown virtual router {number} from {given.envelope.source}"
            self._out.warn_once((given.envelope.source, str(number)), text)

    def _take_answer(self, router: Router, given: see.PortOpened | see.PortFailed | see.SendFailed, now: float) -> None:
        name = router.instance.name
        match given:
            case see.PortOpened():
                self._forget_flood(name)
                router.opened = router.spec is not None
                router.port.end()
            case see.PortFailed(reason=reason, hint=hint):
                router.spec, router.opened = None, False
                router.port.begin(f"{reason} ({hint})" if hint else reason, now)
            case see.SendFailed(destination=destination, reason=reason):
                router.failed(destination, reason, now)
                self._out.warn_once((name, destination), f"({name}) cannot send adverts to {destination}: {reason}")

    def _take_refusal(self, given: see.OperationFailed, now: float) -> None:
        """Correct the assumed state of an address."""
        address = given.address
        self.world = expected_after(self.world, RemoveAddress(address) if given.adding else AddAddress(address))
        if self.addresses.refuse(given, now):
            self._out.log(given.reason, Severity.ERROR)

    def _hand_over(self, wanted: see.HandOverRequested, now: float) -> None:
        """Hand an instance over, or allow preemption again; the members of a sync group stay together."""
        group = self.groups.of.get(wanted.instance)
        for name in group.members if group is not None else (wanted.instance,):
            if name in self.routers:
                self._feed(self.routers[name], vrrp.Restore() if wanted.back else vrrp.HandOver(), now)

    def _stop(self, now: float) -> None:
        self.stopping = True
        self._resume = frozenset()
        for router in self.routers.values():
            if router.machine.state is not State.INIT:
                self._feed(router, vrrp.Stop(), now)

    # -- configuration -----------------------------------------------------------------------------------------

    def _configure(self, configuration: Configuration, now: float) -> None:
        """Use a configuration. Unchanged instances are not touched; changed ones keep their state where possible."""
        if self.stopping:
            return
        former, self.configuration = self.configuration, configuration
        self.sources.configure(configuration)
        changes = difference(former, configuration).instances
        for new in changes.added:
            self.routers[new.name] = Router(new.value, grouped=False)
            self.routers[new.name].machine.hold_until = self._hold_until
            self.routers[new.name].machine.was_announced = self._has_left(new.value)
        for stopped, effects in self.groups.configure(configuration.sync_groups, self.routers, now):
            self._carry_orders(stopped, effects, now)  # first: a group must not react to a former member
        for gone in changes.removed:
            self._delete(gone.name, now)
        self._order_routers(configuration)
        for instance in configuration.vrrp_instances:
            router, grouped = self.routers[instance.name], instance.name in self.groups.of
            if router.instance != instance or router.machine.grouped is not grouped:
                self._change(router, instance, grouped, now)
        for new in changes.added:
            self._feed(self.routers[new.name], vrrp.SetSynced(self._synced), now)
            self._feed(self.routers[new.name], vrrp.SetPlaneReady(self._plane_ready), now)
        for group in self.groups.machines.values():
            self._unite(group, now)

    def _has_left(self, instance: VrrpInstance) -> bool:
        """Whether a daemon that was master here has left addresses behind. Real servers have them too, but on the loopback."""
        links = self.world.links
        return any(
            each.address == present.address
            for each in virtual_addresses(instance)
            if (link := links.get(each.device or instance.interface)) is not None
            for present in self.world.on(link.index)
        )

    def _order_routers(self, configuration: Configuration) -> None:
        self.routers = {instance.name: self.routers[instance.name] for instance in configuration.vrrp_instances}

    def _delete(self, name: str, now: float) -> None:
        """Stop a router that the new configuration does not have, and remove its addresses at once."""
        router = self.routers[name]
        for _ in range(2):  # the second stop does not wait for a successor
            if router.machine.state is not State.INIT:
                self._feed(router, vrrp.Stop(), now)
        self._out.packets.append(ClosePort(name))
        self._out.rename_stop(name)
        self._resume -= {name}
        del self.routers[name]

    def _change(self, router: Router, instance: VrrpInstance, grouped: bool, now: float) -> None:
        reason = identity_change(router.instance, instance)
        if reason:
            self._feed(router, vrrp.Restart(reason), now)  # priority 0 is sent with the old identity
            router.port.end()
            router.sending.end()
        router.instance = instance
        router.forget_packets()
        self._feed(router, vrrp.Reconfigure(instance, grouped), now)

    def _unite(self, group: SyncGroupMachine, now: float) -> None:
        masters = [name for name in group.members if self.routers[name].machine.state is State.MASTER]
        self._carry_orders(group, group.unite(masters), now)

    # -- settling ----------------------------------------------------------------------------------------------

    def _settle(self, now: float) -> list[Effect]:
        """Update faults, priorities, ports and addresses after a change; return all effects."""
        virtual = self.virtual()
        self._match_ports(virtual)
        self._match_claims()
        self._judge(virtual, now)
        self._match_network(now)
        return self._out.flush()

    def _judge(self, virtual: frozenset[str], now: float) -> None:
        """Update the faults and priority of every router, and the FAULT state of every group."""
        standings = {name: router.standing(self.world, virtual, self.sources) for name, router in self.routers.items()}
        failed = self.groups.failed(standings)
        for name, group in self.groups.machines.items():
            before = group.state
            if not self.stopping:
                self._carry_orders(group, judge(group, bool(failed[name]), now), now)
            if group.state is not before:
                self._unite(group, now)  # members that joined meanwhile may be master
        for name, router in self.routers.items():
            faults = standings[name].faults + ((GROUP_FAULT,) if self.groups.others_failed(name, failed) else ())
            self._match_machine(router, faults, standings[name].priority, now)
        self._start_routers(now)
        if self.stopping:
            self._stop_groups(now)

    def _match_machine(self, router: Router, faults: tuple[Fault, ...], priority: int, now: float) -> None:
        machine = router.machine
        if machine.priority != priority:
            if machine.state is not State.INIT:
                self._notice_priority(router, priority)
                self._out.log(f"({router.instance.name}) Changing effective priority from {machine.priority} to {priority}")
            self._feed(router, vrrp.SetPriority(priority), now)
        if machine.faults != faults:
            self._log_faults(router.instance.name, machine.faults, faults)
            self._feed(router, vrrp.SetFaults(faults), now)

    def _notice_priority(self, router: Router, priority: int) -> None:
        if router.instance.notify_priority_changes and router.machine.state in (State.MASTER, State.BACKUP):
            what = f"{router.machine.state}_PRIORITY"
            self._out.events.append(InstanceNoticed(router.instance.name, what, priority))

    def _start_routers(self, now: float) -> None:
        """Start the routers that have a socket or a fault, and that need not wait for a tracker."""
        if self.stopping:
            return
        starting = {name: router for name, router in self.routers.items() if router.machine.state is State.INIT}
        awaited = {name: self.sources.awaited(router.instance) for name, router in starting.items() if name not in self._resume}
        for name, router in starting.items():
            self._wait_for(router, self.groups.awaited(name, awaited))
            if not router.awaited and (router.opened or router.machine.faults):
                self._feed(router, vrrp.Start(resume=name in self._resume), now)
                self._resume -= {name}

    def _wait_for(self, router: Router, tracker: str) -> None:
        if tracker and tracker != router.awaited:
            router.machine.reason = f"waits for the first result of {tracker}"
            self._out.log(f"({router.instance.name}) {router.machine.reason}")
        router.awaited = tracker

    def _stop_groups(self, now: float) -> None:
        for group in self.groups.machines.values():
            if all(self.routers[name].machine.state is State.INIT for name in group.members):
                self._report(group, sync_group.Symbol.STOP, "", now)

    def _log_faults(self, name: str, before: tuple[Fault, ...], after: tuple[Fault, ...]) -> None:
        for fault in after:
            if fault not in before:
                self._out.log(f"({name}) {fault}", Severity.WARNING)
        for fault in before:
            if fault not in after:
                self._out.log(f"({name}) no longer: {fault}")

    def _match_ports(self, virtual: frozenset[str]) -> None:
        for router in self.routers.values():
            waits = router.port.fault is not None and router.port.retry_at is not None
            wanted = None if waits or (self.stopping and router.spec is None) else router.wanted_spec(self.world, virtual)
            self._out.packets += router.match_port(wanted)

    def _match_claims(self) -> None:
        """Hear who else has the virtual addresses. Adverts in UDP are for machines whose addresses are not on a LAN."""
        instances = (router.instance for router in self.routers.values() if not router.instance.transport.udp_port)
        wanted = frozenset(each.address for i in instances for each in virtual_addresses(i) if ":" not in each.address)
        if wanted != self._heard:
            self._heard = wanted
            self._out.packets.append(HearClaims(wanted))

    def _match_network(self, now: float) -> None:
        """Add and remove addresses; announce those that a master gets without a takeover."""
        active = [router for router in self.routers.values() if self._has_addresses(router)]
        instances = [router.instance for router in self.routers.values()]
        for operation in self.addresses.operations(self.world, [router.instance for router in active], instances):
            self.world = expected_after(self.world, operation)
            self._out.network.append(operation)
            if isinstance(operation, AddAddress):
                for router in self._announcements.added(operation.address, active, now):
                    self._say_put_back(router, operation.address)
            self.addresses.done(operation)
        self.addresses.lost.clear()
        self._announcements.settle(self.routers)
        self._report_local(active)

    def _has_addresses(self, router: Router) -> bool:
        """Whether the virtual addresses stay or are set. A master that resumes keeps them while its socket is being opened."""
        return router.machine.has_addresses or router.instance.name in self._resume

    def _say_put_back(self, router: Router, address: SetAddress) -> None:
        if address.key in self.addresses.lost:
            text = f"({router.instance.name}) address {address.address} was removed by another program: putting it back"
            self._out.log(text, Severity.WARNING)

    def _report_local(self, active: list[Router]) -> None:
        addresses = frozenset(a.address for r in active for a in (*r.instance.addresses, *r.instance.excluded_addresses))
        local = LocalAddresses(addresses, frozenset(self.addresses.placed))
        if local != self._local:
            self._local = local
            self._out.network.append(local)

    # -- effects -----------------------------------------------------------------------------------------------

    def _feed(self, router: Router, given: vrrp.Input, now: float) -> None:
        self._execute(router, router.machine.receive(given, now), now)

    def _execute(self, router: Router, effects: list[vrrp.Effect], now: float) -> None:
        name = router.instance.name
        for effect in effects:
            match effect:
                case vrrp.SendAdvert(priority=priority):
                    self._out.packets += router.send(priority)
                case vrrp.Announce(count=count):
                    self._announcements.all(router, count, now)
                case vrrp.LowerPriority():
                    self._out.events.append(InstanceNoticed(name, "MASTER_RX_LOWER_PRI", router.machine.priority))
                case vrrp.Log(message=message, warning=warning):
                    self._out.log(message, Severity.WARNING if warning else Severity.INFO)
                case vrrp.Transition():
                    self._report_transition(router, effect, now)
                case vrrp.AskGroup(wish=wish):
                    symbol = sync_group.Symbol.ASK if wish else sync_group.Symbol.WITHDRAW
                    self._report(self.groups.of.get(name), symbol, name, now)

    def _report_transition(self, router: Router, transition: vrrp.Transition, now: float) -> None:
        name, after = router.instance.name, transition.after
        self._out.state_changed = True
        self._out.events.append(InstanceChanged(name, state_name(after), router.machine.priority, transition.reason))
        if after is State.MASTER:
            self._report(self.groups.of.get(name), sync_group.Symbol.MASTER, name, now)
        elif after is State.BACKUP and transition.before is State.MASTER:
            self._report(self.groups.of.get(name), sync_group.Symbol.BACKUP, name, now)
        elif after is State.BACKUP and name in self.groups.of:
            self._unite(self.groups.of[name], now)  # it may have joined a group that is master

    def _report(self, group: SyncGroupMachine | None, symbol: sync_group.Symbol, member: str, now: float) -> None:
        if group is not None:
            self._carry_orders(group, group.receive(sync_group.Report(symbol, member), now), now)

    def _carry_orders(self, group: SyncGroupMachine, effects: list[sync_group.Effect], now: float) -> None:
        for effect in effects:
            match effect:
                case sync_group.OrderMember(name=name, state=state):
                    self._feed(self.routers[name], vrrp.Order(state), now)
                case sync_group.GroupTransition(after=after):
                    if after is not State.INIT:
                        self._out.log(f"VRRP_Group({group.name}) Syncing instances to {after} state")
                    self._out.events.append(GroupChanged(group.name, state_name(after)))


def startup_hold_s(configuration: Configuration, uptime_s: float) -> float:
    """Return the seconds that a starting daemon waits before it takes over; ``uptime_s`` is the machine's age."""
    wanted = configuration.global_defs
    return max(wanted.vrrp_startup_delay_s, wanted.vrrp_delay_after_boot_s - uptime_s, 0.0)
