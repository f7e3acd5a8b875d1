"""The state machine of one virtual router (RFC 9568 §6.4).

Its inputs are adverts that passed ``wire.vrrp.admit``, faults, the effective priority, orders of its sync group, and time. Its
outputs are effects. ``has_addresses`` says whether the node must have the virtual addresses; the node sets them on interfaces,
runs scripts and sends mail.
"""

from __future__ import annotations

from relevo.machines.faults import Fault
from relevo.machines.machine import Rule, Timers, find_rule
from relevo.machines.preemption import Preemption, Waiting
from relevo.machines.vrrp import events, states, times
from relevo.machines.vrrp.classify import PLAIN, classify_advert
from relevo.machines.vrrp.counters import Counters
from relevo.machines.vrrp.events import (
    AdvertReceived,
    Announce,
    AskGroup,
    Claimed,
    Effect,
    Input,
    Log,
    LowerPriority,
    SendAdvert,
    Transition,
)
from relevo.machines.vrrp.limits import Defence, Quiet
from relevo.machines.vrrp.states import State, Symbol
from relevo.model import VrrpInstance
from relevo.model.vrrp import PRIORITY_OWNER
from relevo.wire.vrrp import PRIORITY_STOP


class VrrpMachine:
    """A virtual router. ``own_address`` is the source of its adverts; it breaks ties of priority.

    Before ``hold_until`` it does not take over (keepalived.conf(5), "vrrp_startup_delay"). ``was_announced``: the neighbours may
    still send to this node, which was master, and no other has announced the addresses since.
    """

    def __init__(self, instance: VrrpInstance, own_address: str, *, grouped: bool = False) -> None:
        self.instance = instance
        self.own_address = own_address
        self.grouped = grouped
        self.hold_until = 0.0
        self.was_announced = False
        self.state = State.INIT
        self.priority = instance.priority
        self.faults: tuple[Fault, ...] = ()
        self.master_address = ""
        self.master_priority = 0
        self.master_interval_s = instance.advert_interval_s
        self.since = 0.0
        self.reason = "not started"
        self.counters = Counters()
        self.preemption = Preemption(instance)
        self._preempted = ""
        self._second_burst = 0
        self._asked = False
        self._timers: Timers[Symbol] = Timers()
        self._resume = False
        self._restart_reason = ""
        self._received: AdvertReceived | None = None
        self._claimed: Claimed | None = None
        self._defence = Defence()
        self._quiet = Quiet()

    @property
    def has_addresses(self) -> bool:
        """Whether the virtual addresses belong on this node now."""
        return self.state in (State.MASTER, State.LEAVING, State.HANDING_OVER)

    @property
    def waiting(self) -> Waiting | None:
        """Why this backup does not preempt a lower master; ``None`` if it may."""
        return self.preemption.waiting if self.state is State.BACKUP else None

    # -- interface of every machine ----------------------------------------------------------------------------

    def receive(self, given: Input, now: float) -> list[Effect]:
        """Process an input; return effects in order."""
        symbol = self._classify(given)
        return [] if symbol is None else self._step(symbol, now)

    def deadline(self) -> float | None:
        """Return when ``expire`` must be called next."""
        return self._timers.deadline()

    def expire(self, now: float) -> list[Effect]:
        """Process every timer that is due."""
        effects: list[Effect] = []
        while (timer := self._timers.pop_due(now)) is not None:
            effects += self._step(timer, now)
        return effects

    def _step(self, symbol: Symbol, now: float) -> list[Effect]:
        rule: Rule = find_rule(states.TRANSITIONS, self.state, symbol, self.instance.name)
        effects: list[Effect] = getattr(self, rule.action)(now)
        assert self.state in rule.targets, f"{rule.action} led to {self.state}"
        return effects

    def _classify(self, given: Input) -> Symbol | None:
        match given:
            case events.Start(resume=resume):
                self._resume = resume
                return Symbol.START
            case events.SetFaults(faults=faults):
                return self._take_faults(faults)
            case events.SetPriority(priority=priority):
                self.priority = priority
                return Symbol.PRIORITY
            case events.Order(state=state):
                return Symbol.GROUP_MASTER if state is State.MASTER else Symbol.GROUP_BACKUP
            case events.SetSynced(synced=synced):
                self.preemption.synced = synced
            case events.SetPlaneReady(ready=ready):
                self.preemption.plane_ready = ready
                return Symbol.PLANE
            case events.Reconfigure(instance=instance, grouped=grouped):
                self.instance = self.preemption.instance = instance
                self.grouped = grouped
                return Symbol.RECONFIGURE
            case events.Restart(reason=reason):
                self._restart_reason = reason
                return Symbol.RESTART
            case AdvertReceived():
                return self._classify_advert(given)
            case Claimed():
                self._claimed = given
                return Symbol.CLAIM
            case _:
                return PLAIN.get(type(given))
        return None

    def _take_faults(self, faults: tuple[Fault, ...]) -> Symbol | None:
        before, self.faults = self.faults, faults
        if self.state is State.FAULT and faults:
            self.reason = self._fault_reason()
        return None if bool(before) is bool(faults) else Symbol.FAIL if faults else Symbol.RECOVER

    def _classify_advert(self, received: AdvertReceived) -> Symbol:
        self._received = received
        self.counters.adverts_received += 1
        self.counters.priority_zero_received += received.advert.priority == PRIORITY_STOP
        return classify_advert(received, self.state, self.priority, self.own_address)

    # -- times -------------------------------------------------------------------------------------------------

    def skew_s(self) -> float:
        """Skew time with the present priority and interval."""
        return times.skew_s(self.instance.version, self.priority, self.master_interval_s)

    def master_down_s(self) -> float:
        """Seconds without adverts after which the master counts as down."""
        instance = self.instance
        return times.master_down_s(instance.version, self.priority, self.master_interval_s, instance.down_timer_adverts)

    def _await_master(self, now: float) -> None:
        self._timers.set(Symbol.MASTER_DOWN_TIMER, max(now, self.hold_until) + self.master_down_s())

    # -- starting and stopping ---------------------------------------------------------------------------------

    def _ignore(self, now: float) -> list[Effect]:
        return []

    def _start(self, now: float) -> list[Effect]:
        if self.faults:
            return self._enter(State.FAULT, now, self._fault_reason())
        if self._resume:
            return self._become_master(now, "resumed after a restart of the worker")
        ready = self.preemption.plane_ready
        owner = self.priority == PRIORITY_OWNER
        if owner and ready and now >= self.hold_until:
            return self._become_master(now, "owner of the address")
        effects = self._enter(State.BACKUP, now, "started", remark=" (init)")
        if owner and ready:
            self._timers.set(Symbol.MASTER_DOWN_TIMER, self.hold_until)
        elif self._starts_quickly and ready:
            self._timers.set(Symbol.MASTER_DOWN_TIMER, max(now, self.hold_until) + self._first_wait_s())
        else:
            self._await_master(now)
        return effects

    def _stop(self, now: float) -> list[Effect]:
        return self._enter(State.INIT, now, "stopped")

    def _leave(self, now: float) -> list[Effect]:
        self.counters.released_master += 1
        self._wait_for_successor(State.LEAVING, now)
        return [*self._send(PRIORITY_STOP), Log(f"({self.instance.name}) sent 0 priority")]

    def _release(self, now: float) -> list[Effect]:
        return self._enter(State.INIT, now, "stopped", before=State.MASTER)

    def _fail(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if self.state is State.MASTER:
            self.counters.released_master += 1
            effects = self._send(PRIORITY_STOP)
        before = State.MASTER if self.has_addresses else self.state  # a hand-over is reported when it is finished
        return [*effects, *self._enter(State.FAULT, now, self._fault_reason(), before=before)]

    def _recover(self, now: float) -> list[Effect]:
        effects = self._enter(State.BACKUP, now, "recovered")
        self._await_master(now)
        return effects

    def _start_over(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if self.state is State.MASTER:
            self.counters.released_master += 1
            effects = self._send(PRIORITY_STOP)
        if self.state is not State.BACKUP:
            effects += self._enter(State.BACKUP, now, self._restart_reason, before=State.MASTER)
        else:
            self._forget_master()
        self._await_master(now)
        return effects

    # -- as backup ---------------------------------------------------------------------------------------------

    def _shorten_wait(self, now: float) -> list[Effect]:
        self._timers.set(Symbol.MASTER_DOWN_TIMER, now + self.skew_s())
        return self._say("priority 0", "Backup received priority 0 advertisement", now)

    def _say(self, kind: str, text: str, now: float) -> list[Effect]:
        """Write a line about an advert, unless one of its kind has just been written."""
        line = self._quiet.line(kind, f"({self.instance.name}) {text}", now)
        return [Log(line)] if line else []

    def _follow(self, now: float) -> list[Effect]:
        received = self._last_received()
        self.preemption.reset()
        self._preempted = ""
        self._await_announcement(now)
        return [*self._stay_behind(received, now), *self._warn_of_tie(received)]

    def _stay_behind(self, received: AdvertReceived, now: float) -> list[Effect]:
        self._adopt_master(received)
        self._await_master(now)
        withdrawn: list[Effect] = [AskGroup(False)] if self._asked else []
        self._asked = False
        return withdrawn

    def _adopt_master(self, received: AdvertReceived) -> None:
        known = self.master_address == received.source
        self.master_address, self.master_priority = received.source, received.advert.priority
        if self.instance.version == 3:
            self.master_interval_s = max(received.advert.interval_s, 0.01)
        if known and self.instance.skip_check_adv_addr:  # checked with the first advert of this master
            return
        if set(received.advert.addresses) != {a.address for a in self.instance.addresses}:
            self.counters.address_list_mismatches += 1

    def _warn_of_tie(self, received: AdvertReceived) -> list[Effect]:
        if received.advert.priority != self.priority or not self._quiet.first_of(received.source):
            return []
        what = f"equal priority {self.priority} advert received from {received.source}: the higher address wins"
        return [Log(f"({self.instance.name}) WARNING - {what}", warning=True)]

    def _consider_preemption(self, now: float) -> list[Effect]:
        received = self._last_received()
        verdict = self.preemption.consider(received.source, now)
        if verdict.waiting is not None:
            self._preempted = ""
            said: list[Effect] = [Log(verdict.message)] if verdict.message else []
            return [*said, *self._stay_behind(received, now)]
        self._preempted = f"{received.source} has only priority {received.advert.priority}"
        if not self._quiet.first_of(received.source):
            return []
        what = f"received lower priority ({received.advert.priority}) advert from {received.source} - discarding"
        return [Log(f"({self.instance.name}) {what}")]

    def _wait_again(self, now: float) -> list[Effect]:
        self._await_master(now)
        return []

    def _wait_no_longer(self, now: float) -> list[Effect]:
        """Use the new intervals from now on. Repeated reloads must not delay the takeover from a dead master."""
        former = self._timers.get(Symbol.MASTER_DOWN_TIMER)
        if self.instance.version == 2 or not self.master_address:
            self.master_interval_s = self.instance.advert_interval_s
        due = max(now, self.hold_until) + self.master_down_s()
        self._timers.set(Symbol.MASTER_DOWN_TIMER, due if former is None else min(former, due))
        self._asked = self._asked and self.grouped
        return []

    def _take_plane_up(self, now: float) -> list[Effect]:
        """Shorten the wait of a router declared MASTER that waited for its plane to the wait at a start."""
        due = self._timers.get(Symbol.MASTER_DOWN_TIMER)
        if due is not None and self.preemption.plane_ready and self._starts_quickly and self.master_priority < self.priority:
            self._timers.set(Symbol.MASTER_DOWN_TIMER, min(due, max(now, self.hold_until) + self._first_wait_s()))
        return []

    @property
    def _starts_quickly(self) -> bool:
        """Whether the first wait is the shorter one of ``state MASTER``. Members of a sync group begin as BACKUP (keepalived)."""
        return self.instance.starts_as_master and not self.grouped

    def _first_wait_s(self) -> float:
        """Return keepalived's shorter first wait of a node declared MASTER, in seconds."""
        return self.instance.advert_interval_s * 257 / 256

    # -- taking over -------------------------------------------------------------------------------------------

    def _take_over(self, now: float) -> list[Effect]:
        if self.grouped:
            self._await_master(now)
            self._asked = True
            return [AskGroup()]
        return self._become_master(now, self._silence(), Log(f"({self.instance.name}) Receive advertisement timeout"))

    def _silence(self) -> str:
        if self._preempted:
            return self._preempted
        if not self.master_address:
            return f"no advert received for {self.master_down_s():.3g} s"
        return f"no more adverts from master {self.master_address}"

    def _take_over_with_group(self, now: float) -> list[Effect]:
        return self._become_master(now, "with its sync group")

    def _become_master(self, now: float, reason: str, *first: Log) -> list[Effect]:
        garp, name = self.instance.garp, self.instance.name
        self.master_interval_s = self.instance.advert_interval_s
        self.counters.became_master += 1
        self.was_announced = True
        self.preemption.suppressed = False
        effects: list[Effect] = [*self._send(self.priority), Announce(garp.repeat), *first]
        effects += self._enter(State.MASTER, now, reason)
        self.master_address, self.master_priority = self.own_address, self.priority
        self._second_burst = garp.repeat
        self._start_master_timers(now)
        if garp.delay_s:
            self._timers.set(Symbol.GARP_TIMER, now + garp.delay_s)
        effects.append(Log(f"({name}) setting VIPs."))
        return effects

    def _start_master_timers(self, now: float) -> None:
        self._timers.set(Symbol.ADVERT_TIMER, now + self.instance.advert_interval_s)
        if self.instance.garp.refresh_s:
            self._timers.set(Symbol.REFRESH_TIMER, now + self.instance.garp.refresh_s)

    # -- as master ---------------------------------------------------------------------------------------------

    def _advertise(self, now: float) -> list[Effect]:
        # Relative to now: a stalled process must not send a burst afterwards.
        self._timers.set(Symbol.ADVERT_TIMER, now + self.instance.advert_interval_s)
        return self._send(self.priority)

    def _answer_zero(self, now: float) -> list[Effect]:
        """Send the other master, which is leaving, an advert."""
        if self._quiet.may_answer(now, self.instance.advert_interval_s):
            return self._advertise(now)
        self.counters.unanswered += 1
        return []

    def _announce_again(self, now: float) -> list[Effect]:
        return [Announce(self._second_burst)]

    def _refresh(self, now: float) -> list[Effect]:
        self._timers.set(Symbol.REFRESH_TIMER, now + self.instance.garp.refresh_s)
        return [Announce(self.instance.garp.refresh_repeat)]

    def _retime(self, now: float) -> list[Effect]:
        """Send an advert with the new declaration at once, and restart the intervals."""
        self._timers.cancel(Symbol.REFRESH_TIMER)
        self._start_master_timers(now)
        self.master_interval_s = self.instance.advert_interval_s
        self.master_address, self.master_priority = self.own_address, self.priority
        return self._send(self.priority)

    def _outrank(self, now: float) -> list[Effect]:
        received, garp = self._last_received(), self.instance.garp
        what = f"with lower priority {received.advert.priority}, ours {self.priority}, forcing new election"
        effects = self._say("lower priority", f"Received advert from {received.source} {what}", now)
        if not self._quiet.may_answer(now, self.instance.advert_interval_s):
            self.counters.unanswered += 1
            return effects
        effects.append(LowerPriority(received.source))
        if not self.instance.lower_prio_no_advert:
            effects += self._send(self.priority)
            self._timers.set(Symbol.ADVERT_TIMER, now + self.instance.advert_interval_s)
        if garp.lower_prio_repeat:
            effects.append(Announce(garp.lower_prio_repeat))
        if garp.lower_prio_delay_s:
            self._second_burst = garp.lower_prio_repeat
            self._timers.set(Symbol.GARP_TIMER, now + garp.lower_prio_delay_s)
        return effects

    def _give_way(self, now: float) -> list[Effect]:
        received = self._last_received()
        priority, source = received.advert.priority, received.source
        how = f"higher priority {priority}, ours {self.priority}"
        if priority == self.priority:
            how = f"same priority {priority} but higher IP address than ours"
        text = f"({self.instance.name}) Master received advert from {source} with {how}"
        effects: list[Effect] = [Log(text)]
        if self.instance.higher_prio_send_advert:
            effects += self._send(self.priority)
        effects += self._become_backup(now, f"{source} has priority {priority}", received)
        self._await_announcement(now)
        return effects

    def _await_announcement(self, now: float) -> None:
        """Give a master an interval to announce the addresses that this node has announced before."""
        instance = self.instance
        if not self.was_announced or instance.lower_prio_no_advert or instance.transport.udp_port:
            return  # adverts in UDP are for addresses that are not on a LAN
        if self._timers.get(Symbol.LAST_WORD_TIMER) is None:
            self._timers.set(Symbol.LAST_WORD_TIMER, now + self.instance.advert_interval_s)

    def _hear_announcement(self, now: float) -> list[Effect]:
        """Say no last word to a master that has just taken over: it announces the addresses."""
        if self._last_claim().announced:
            self.was_announced = False
            self._timers.cancel(Symbol.LAST_WORD_TIMER)
        return []

    def _say_last_word(self, now: float) -> list[Effect]:
        """Tell a master that was there all along that there were two, by one advert of lower priority.

        It then announces its addresses again (as keepalived does, too). Without it, the neighbours go on sending to this node,
        where nobody answers any more, until their caches expire. A master that has just taken over has announced them.
        """
        if self.master_priority < self.priority:  # it would give way
            return []
        self.was_announced = False
        return self._send(self.priority)

    def _hear_claim(self, now: float) -> list[Effect]:
        claimed = self._last_claim()
        who = claimed.hardware_address.hex(":")
        due = self._defence.due(now, self.instance.advert_interval_s)
        if self._timers.get(Symbol.DEFEND_TIMER) is None:
            self._timers.set(Symbol.DEFEND_TIMER, due)
        line = self._quiet.line("claim", f"({self.instance.name}) {who} uses {claimed.address} too", now)
        return [Log(line, warning=True)] if line else []

    def _defend(self, now: float) -> list[Effect]:
        self._defence.done(now)
        return [Announce(1)]

    def _give_way_with_group(self, now: float) -> list[Effect]:
        return self._become_backup(now, "with its sync group")

    def _become_backup(self, now: float, reason: str, received: AdvertReceived | None = None) -> list[Effect]:
        self.counters.released_master += 1
        effects = self._enter(State.BACKUP, now, reason, before=State.MASTER)
        if received is not None:
            self._adopt_master(received)
        self._await_master(now)
        return effects

    # -- planned hand-over -------------------------------------------------------------------------------------

    def _begin_hand_over(self, now: float) -> list[Effect]:
        self._wait_for_successor(State.HANDING_OVER, now)
        return [*self._send(PRIORITY_STOP), Log(f"({self.instance.name}) sent 0 priority, to hand over")]

    def _finish_hand_over(self, now: float) -> list[Effect]:
        received = self._last_received()
        self.preemption.suppressed = True
        return self._become_backup(now, f"handed over to {received.source}", received)

    def _stay(self, now: float) -> list[Effect]:
        self.state = State.MASTER
        self._timers.clear()
        self._start_master_timers(now)
        text = f"({self.instance.name}) WARNING - no other router takes over: staying master"
        return [*self._send(self.priority), Log(text, warning=True)]

    def _suppress_preemption(self, now: float) -> list[Effect]:
        self.preemption.suppressed = True
        return []

    def _restore(self, now: float) -> list[Effect]:
        self.preemption.suppressed = False
        return []

    # -- shared ------------------------------------------------------------------------------------------------

    def _wait_for_successor(self, state: State, now: float) -> None:
        self._timers.clear()
        self._timers.set(Symbol.LEAVE_TIMER, now + min(self.instance.advert_interval_s, 1.0))
        self.state = state

    def _send(self, priority: int) -> list[Effect]:
        self.counters.adverts_sent += 1
        self.counters.priority_zero_sent += priority == PRIORITY_STOP
        return [SendAdvert(priority)]

    def _enter(self, state: State, now: float, reason: str, *, before: State | None = None, remark: str = "") -> list[Effect]:
        before = self.state if before is None else before
        self.state, self.since, self.reason = state, now, reason
        self._forget_master()
        self._timers.clear()
        effects: list[Effect] = []
        if state is not State.INIT:
            effects.append(Log(f"({self.instance.name}) Entering {state} STATE{remark}"))
        return [*effects, Transition(before, state, reason)]

    def _forget_master(self) -> None:
        self.preemption.reset()
        self._preempted, self._asked = "", False
        self.master_address, self.master_priority = "", 0
        self.master_interval_s = self.instance.advert_interval_s

    def _fault_reason(self) -> str:
        return "; ".join(map(str, self.faults))

    def _last_claim(self) -> Claimed:
        assert self._claimed is not None
        return self._claimed

    def _last_received(self) -> AdvertReceived:
        assert self._received is not None
        return self._received
