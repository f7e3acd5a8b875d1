"""One virtual router (RFC 9568 §6.4, with keepalived's additions).

The machine hears adverts that the wire already admitted, faults and recoveries of what it tracks, orders of its sync
group, and time. It answers with effects. It does not know sockets, and it does not run scripts or send mail: a
``Transition`` says what happened, the alerts room knows what follows from it.

Two points differ from the RFC on purpose:

* **LEAVING.** A polite stop sends priority 0 at once but keeps answering until the successor is heard, at most one advert
  interval. The RFC (and keepalived) drop the addresses first, which leaves clients without an answer for the skew time.
* **Resuming.** A director that is restarted where it was master continues as master, without waiting as backup.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from relevo.machines.machine import Rule, Timers, find_rule
from relevo.model import VrrpInstance
from relevo.wire.vrrp import PRIORITY_OWNER, PRIORITY_STOP, Advert, address_rank


class State(enum.StrEnum):
    """Where the router stands."""

    INIT = "INIT"
    BACKUP = "BACKUP"
    MASTER = "MASTER"
    FAULT = "FAULT"
    LEAVING = "LEAVING"
    """Has announced priority 0 and still answers until the successor does."""
    YIELDING = "YIELDING"
    """The same for a planned hand-over: backup when the successor is heard, master again when there is none."""


class Symbol(enum.StrEnum):
    """Columns of the transition table: every input and timer, classified against the router's own priority."""

    START = "start"
    STOP = "stop"
    FAIL = "fail"
    RECOVER = "recover"
    PRIORITY = "priority"
    ADVERT_ZERO = "advert_zero"
    ADVERT_HIGHER = "advert_higher"
    ADVERT_LOWER = "advert_lower"
    GROUP_MASTER = "group_master"
    GROUP_BACKUP = "group_backup"
    HAND_OVER = "hand_over"
    TAKE_BACK = "take_back"
    MASTER_DOWN_TIMER = "master_down_timer"
    ADVERT_TIMER = "advert_timer"
    GARP_TIMER = "garp_timer"
    REFRESH_TIMER = "refresh_timer"
    LEAVE_TIMER = "leave_timer"


TIMERS: Final = (
    Symbol.MASTER_DOWN_TIMER,
    Symbol.ADVERT_TIMER,
    Symbol.GARP_TIMER,
    Symbol.REFRESH_TIMER,
    Symbol.LEAVE_TIMER,
)

_I, _B, _M, _F, _L, _Y = State.INIT, State.BACKUP, State.MASTER, State.FAULT, State.LEAVING, State.YIELDING

TRANSITIONS: Final = {
    # State: INIT. Not taking part: before the start, and after the stop.
    (_I, Symbol.START): Rule("_start", (_B, _M, _F)),
    (_I, Symbol.STOP): Rule("_ignore", (_I,)),
    (_I, Symbol.FAIL): Rule("_ignore", (_I,)),
    (_I, Symbol.RECOVER): Rule("_ignore", (_I,)),
    (_I, Symbol.PRIORITY): Rule("_ignore", (_I,)),
    (_I, Symbol.ADVERT_ZERO): Rule("_ignore", (_I,)),
    (_I, Symbol.ADVERT_HIGHER): Rule("_ignore", (_I,)),
    (_I, Symbol.ADVERT_LOWER): Rule("_ignore", (_I,)),
    (_I, Symbol.GROUP_MASTER): Rule("_ignore", (_I,)),
    (_I, Symbol.GROUP_BACKUP): Rule("_ignore", (_I,)),
    (_I, Symbol.HAND_OVER): Rule("_ignore", (_I,)),
    (_I, Symbol.TAKE_BACK): Rule("_ignore", (_I,)),
    # State: BACKUP. RFC 9568 §6.4.2: listens; takes over when the master-down timer fires.
    (_B, Symbol.STOP): Rule("_stop", (_I,)),
    (_B, Symbol.FAIL): Rule("_fail", (_F,)),
    (_B, Symbol.PRIORITY): Rule("_ignore", (_B,)),
    (_B, Symbol.ADVERT_ZERO): Rule("_shorten_wait", (_B,)),
    (_B, Symbol.ADVERT_HIGHER): Rule("_follow", (_B,)),
    (_B, Symbol.ADVERT_LOWER): Rule("_hear_lower", (_B,)),
    (_B, Symbol.GROUP_MASTER): Rule("_take_over_with_group", (_M,)),
    (_B, Symbol.GROUP_BACKUP): Rule("_wait_again", (_B,)),
    (_B, Symbol.HAND_OVER): Rule("_stand_back", (_B,)),
    (_B, Symbol.TAKE_BACK): Rule("_take_back", (_B,)),
    (_B, Symbol.MASTER_DOWN_TIMER): Rule("_take_over", (_M, _B)),
    # State: MASTER. RFC 9568 §6.4.3: advertises; yields to a higher priority only.
    (_M, Symbol.STOP): Rule("_leave", (_L,)),
    (_M, Symbol.FAIL): Rule("_fail", (_F,)),
    (_M, Symbol.PRIORITY): Rule("_ignore", (_M,)),
    (_M, Symbol.ADVERT_ZERO): Rule("_advertise", (_M,)),
    (_M, Symbol.ADVERT_HIGHER): Rule("_give_way", (_B,)),
    (_M, Symbol.ADVERT_LOWER): Rule("_outrank", (_M,)),
    (_M, Symbol.GROUP_MASTER): Rule("_ignore", (_M,)),
    (_M, Symbol.GROUP_BACKUP): Rule("_give_way_with_group", (_B,)),
    (_M, Symbol.HAND_OVER): Rule("_yield", (_Y,)),
    (_M, Symbol.TAKE_BACK): Rule("_ignore", (_M,)),
    (_M, Symbol.ADVERT_TIMER): Rule("_advertise", (_M,)),
    (_M, Symbol.GARP_TIMER): Rule("_announce_again", (_M,)),
    (_M, Symbol.REFRESH_TIMER): Rule("_refresh", (_M,)),
    # State: FAULT. Something tracked is broken: silent until it recovers.
    (_F, Symbol.STOP): Rule("_stop", (_I,)),
    (_F, Symbol.RECOVER): Rule("_recover", (_B,)),
    (_F, Symbol.PRIORITY): Rule("_ignore", (_F,)),
    (_F, Symbol.ADVERT_ZERO): Rule("_ignore", (_F,)),
    (_F, Symbol.ADVERT_HIGHER): Rule("_ignore", (_F,)),
    (_F, Symbol.ADVERT_LOWER): Rule("_ignore", (_F,)),
    (_F, Symbol.GROUP_MASTER): Rule("_ignore", (_F,)),
    (_F, Symbol.GROUP_BACKUP): Rule("_ignore", (_F,)),
    (_F, Symbol.HAND_OVER): Rule("_ignore", (_F,)),
    (_F, Symbol.TAKE_BACK): Rule("_ignore", (_F,)),
    # State: LEAVING. The successor's first advert, the timer or an impatient second stop ends it.
    (_L, Symbol.STOP): Rule("_release", (_I,)),
    (_L, Symbol.FAIL): Rule("_release", (_I,)),
    (_L, Symbol.PRIORITY): Rule("_ignore", (_L,)),
    (_L, Symbol.ADVERT_ZERO): Rule("_ignore", (_L,)),
    (_L, Symbol.ADVERT_HIGHER): Rule("_release", (_I,)),
    (_L, Symbol.ADVERT_LOWER): Rule("_release", (_I,)),
    (_L, Symbol.GROUP_MASTER): Rule("_ignore", (_L,)),
    (_L, Symbol.GROUP_BACKUP): Rule("_ignore", (_L,)),
    (_L, Symbol.HAND_OVER): Rule("_ignore", (_L,)),
    (_L, Symbol.TAKE_BACK): Rule("_ignore", (_L,)),
    (_L, Symbol.LEAVE_TIMER): Rule("_release", (_I,)),
    # State: YIELDING. A planned hand-over: the successor's first advert ends it, or the timer when there is no successor.
    (_Y, Symbol.STOP): Rule("_release", (_I,)),
    (_Y, Symbol.FAIL): Rule("_fail", (_F,)),
    (_Y, Symbol.PRIORITY): Rule("_ignore", (_Y,)),
    (_Y, Symbol.ADVERT_ZERO): Rule("_ignore", (_Y,)),
    (_Y, Symbol.ADVERT_HIGHER): Rule("_hand_over", (_B,)),
    (_Y, Symbol.ADVERT_LOWER): Rule("_hand_over", (_B,)),
    (_Y, Symbol.GROUP_MASTER): Rule("_ignore", (_Y,)),
    (_Y, Symbol.GROUP_BACKUP): Rule("_give_way_with_group", (_B,)),
    (_Y, Symbol.HAND_OVER): Rule("_ignore", (_Y,)),
    (_Y, Symbol.TAKE_BACK): Rule("_stay", (_M,)),
    (_Y, Symbol.LEAVE_TIMER): Rule("_stay", (_M,)),
}
"""(state, symbol) → action and possible next states. Timers of one state cannot fire in another: leaving clears them."""


# -- inputs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Take part. ``resume`` continues as master, for a worker that died and left its addresses in place."""

    resume: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Leave politely."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Something tracked broke; ``cause`` names it, once per cause."""

    cause: str


@dataclass(frozen=True, slots=True)
class Recover:
    """What was reported as ``cause`` works again."""

    cause: str


@dataclass(frozen=True, slots=True)
class SetPriority:
    """The effective priority changed by weighted trackers."""

    priority: int


@dataclass(frozen=True, slots=True)
class Heard:
    """An admitted advert from ``source``."""

    advert: Advert
    source: str


@dataclass(frozen=True, slots=True)
class Order:
    """The sync group orders a state, MASTER or BACKUP."""

    state: State


@dataclass(frozen=True, slots=True)
class HandOver:
    """Let another be master, whatever its priority, until it falls silent or ``TakeBack`` comes."""


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Priorities decide again."""


@dataclass(frozen=True, slots=True)
class SetSynced:
    """Whether the connections that the present master announces are on this node."""

    synced: bool


Input = Start | Stop | Fail | Recover | SetPriority | Heard | Order | HandOver | TakeBack | SetSynced


# -- effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendAdvert:
    """Send an advert with this priority."""

    priority: int


@dataclass(frozen=True, slots=True)
class AddAddresses:
    """Put the virtual addresses on their interfaces."""


@dataclass(frozen=True, slots=True)
class RemoveAddresses:
    """Take the virtual addresses away."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Send ``count`` gratuitous ARP messages per address."""

    count: int


@dataclass(frozen=True, slots=True)
class Transition:
    """The router changed state, because of ``reason``."""

    before: State
    after: State
    reason: str


@dataclass(frozen=True, slots=True)
class AskGroup:
    """The master-down timer fired in a member of a sync group: may the group take over? A false ``wish`` takes that back."""

    wish: bool = True


@dataclass(frozen=True, slots=True)
class Log:
    """A line in keepalived's words."""

    message: str


Effect = SendAdvert | AddAddresses | RemoveAddresses | Announce | Transition | AskGroup | Log


# -- the machine ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Counters:
    """What the router did and heard since it was made."""

    adverts_sent: int = 0
    adverts_received: int = 0
    became_master: int = 0
    released_master: int = 0
    priority_zero_sent: int = 0
    priority_zero_received: int = 0
    address_list_mismatches: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class VrrpMachine:
    """A virtual router. ``own_address`` is the source of its adverts; ties of priority are broken by it."""

    def __init__(self, instance: VrrpInstance, own_address: str, *, grouped: bool = False) -> None:
        self.instance = instance
        self.own_address = own_address
        self.grouped = grouped
        self.state = State.INIT
        self.priority = instance.priority
        self.faults: dict[str, None] = {}
        self.master_address = ""
        self.master_priority = 0
        self.master_interval_s = instance.advert_interval_s
        self.since = 0.0
        self.reason = "not started"
        self.counters = Counters()
        self._preempt_at: float | None = None
        self._preempted = ""
        self._second_burst = 0
        self._asked = False
        self._timers: Timers[Symbol] = Timers()
        self._resume = False
        self._heard: Heard | None = None
        self._warned: set[str] = set()
        self._stands_back = False
        self._synced = False
        self._sync_until: float | None = None

    # -- the shape every machine has ---------------------------------------------------------------------------

    def receive(self, given: Input, now: float) -> list[Effect]:
        """Take an input; return what must be done, in order."""
        symbol = self._classify(given)
        return [] if symbol is None else self._step(symbol, now)

    def deadline(self) -> float | None:
        """When ``expire`` must be called next."""
        return self._timers.deadline()

    def expire(self, now: float) -> list[Effect]:
        """Act on every timer that is due."""
        effects: list[Effect] = []
        while (timer := self._timers.pop_due(now)) is not None:
            effects += self._step(timer, now)
        return effects

    def _step(self, symbol: Symbol, now: float) -> list[Effect]:
        rule = find_rule(TRANSITIONS, self.state, symbol, self.instance.name)
        effects: list[Effect] = getattr(self, rule.action)(now)
        assert self.state in rule.targets, f"{rule.action} led to {self.state}"
        return effects

    def _classify(self, given: Input) -> Symbol | None:
        match given:
            case Start(resume=resume):
                self._resume = resume
                return Symbol.START
            case Stop():
                return Symbol.STOP
            case Fail(cause=cause):
                first = not self.faults
                self.faults[cause] = None
                return Symbol.FAIL if first else None
            case Recover(cause=cause):
                if cause not in self.faults:
                    return None
                del self.faults[cause]
                return None if self.faults else Symbol.RECOVER
            case SetPriority(priority=priority):
                self.priority = priority
                return Symbol.PRIORITY
            case Order(state=state):
                return Symbol.GROUP_MASTER if state is State.MASTER else Symbol.GROUP_BACKUP
            case HandOver():
                return Symbol.HAND_OVER
            case TakeBack():
                return Symbol.TAKE_BACK
            case SetSynced(synced=synced):
                self._synced = synced
                return None
            case Heard():
                return self._classify_advert(given)

    def _classify_advert(self, heard: Heard) -> Symbol:
        self._heard = heard
        priority = heard.advert.priority
        self.counters.adverts_received += 1
        if priority == PRIORITY_STOP:
            self.counters.priority_zero_received += 1
            return Symbol.ADVERT_ZERO
        if priority != self.priority:
            return Symbol.ADVERT_HIGHER if priority > self.priority else Symbol.ADVERT_LOWER
        if self.state is State.BACKUP or address_rank(heard.source) > address_rank(self.own_address):
            return Symbol.ADVERT_HIGHER
        return Symbol.ADVERT_LOWER

    # -- times -------------------------------------------------------------------------------------------------

    def skew_s(self) -> float:
        """Seconds that a lower priority waits longer (RFC 9568 §6.1; version 2: of one second)."""
        whole = 1.0 if self.instance.version == 2 else self.master_interval_s
        return (256 - self.priority) * whole / 256

    def master_down_s(self) -> float:
        """Seconds of silence after which the master is taken for dead."""
        return self.instance.down_timer_adverts * self.master_interval_s + self.skew_s()

    def _await_master(self, now: float) -> None:
        self._timers.set(Symbol.MASTER_DOWN_TIMER, now + self.master_down_s())

    # -- actions -----------------------------------------------------------------------------------------------

    def _ignore(self, now: float) -> list[Effect]:
        return []

    def _start(self, now: float) -> list[Effect]:
        if self.faults:
            return [RemoveAddresses(), *self._enter(State.FAULT, now, self._fault_reason())]
        if self._resume:
            return self._become_master(now, "resumed after a restart of the worker")
        if self.priority == PRIORITY_OWNER:
            return self._become_master(now, "owner of the address")
        effects = [RemoveAddresses(), *self._enter(State.BACKUP, now, "started", remark=" (init)")]
        if self.instance.starts_as_master:
            # keepalived's shorter first wait of a node declared MASTER
            self._timers.set(Symbol.MASTER_DOWN_TIMER, now + self.instance.advert_interval_s * 257 / 256)
        else:
            self._await_master(now)
        return effects

    def _stop(self, now: float) -> list[Effect]:
        return self._enter(State.INIT, now, "stopped")

    def _fail(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if self.state is State.MASTER:
            self.counters.released_master += 1
            effects = [*self._send(PRIORITY_STOP), RemoveAddresses()]
        elif self.state is State.YIELDING:  # has said so, and still holds them
            effects = [RemoveAddresses()]
        before = State.MASTER if effects else self.state
        return [*effects, *self._enter(State.FAULT, now, self._fault_reason(), before=before)]

    def _recover(self, now: float) -> list[Effect]:
        effects = self._enter(State.BACKUP, now, "recovered")
        self._await_master(now)
        return effects

    def _shorten_wait(self, now: float) -> list[Effect]:
        self._timers.set(Symbol.MASTER_DOWN_TIMER, now + self.skew_s())
        return [Log(f"({self.instance.name}) Backup received priority 0 advertisement")]

    def _follow(self, now: float) -> list[Effect]:
        heard = self._last_heard()
        self._preempt_at, self._sync_until, self._preempted = None, None, ""
        self._adopt_master(heard)
        self._await_master(now)
        withdrawn: list[Effect] = [AskGroup(False)] if self._asked else []
        self._asked = False
        return [*withdrawn, *self._warn_of_tie(heard)]

    def _adopt_master(self, heard: Heard) -> None:
        self.master_address, self.master_priority = heard.source, heard.advert.priority
        if self.instance.version == 3:
            self.master_interval_s = max(heard.advert.interval_s, 0.01)
        if set(heard.advert.addresses) != {a.address for a in self.instance.addresses}:
            self.counters.address_list_mismatches += 1

    def _warn_of_tie(self, heard: Heard) -> list[Effect]:
        if heard.advert.priority != self.priority or heard.source in self._warned:
            return []
        self._warned.add(heard.source)
        text = (
            f"({self.instance.name}) WARNING - equal priority {self.priority} advert received from {heard.source}: "
            "the higher address wins"
        )
        return [Log(text)]

    def _hear_lower(self, now: float) -> list[Effect]:
        heard = self._last_heard()
        if not self.instance.preempt or self._stands_back:
            return self._follow(now)
        if self.instance.preempt_when_synced_s and not self._synced:
            waiting = self._wait_for_connections(heard, now)
            if waiting is not None:
                return waiting
        if self.instance.preempt_delay_s and self._preempt_at is None:
            self._preempt_at = now + self.instance.preempt_delay_s
            text = f"({self.instance.name}) start preempt delay ({self.instance.preempt_delay_s:g} secs)"
            self._adopt_master(heard)
            self._await_master(now)
            return [Log(text)]
        if self._preempt_at is not None and now < self._preempt_at:
            self._adopt_master(heard)
            self._await_master(now)
            return []
        self._preempted = f"{heard.source} has only priority {heard.advert.priority}"
        if heard.source in self._warned:
            return []
        self._warned.add(heard.source)
        text = f"({self.instance.name}) received lower priority ({heard.advert.priority}) advert from {heard.source} - discarding"
        return [Log(text)]

    def _wait_for_connections(self, heard: Heard, now: float) -> list[Effect] | None:
        """Leave a lower master alone while its connections are not here; ``None`` when that has lasted too long."""
        limit_s, name = self.instance.preempt_when_synced_s, self.instance.name
        effects: list[Effect] = []
        if self._sync_until is None:
            self._sync_until = now + limit_s
            effects = [Log(f"({name}) waits for the connections of {heard.source}, at most {limit_s:g} secs")]
        if now < self._sync_until:
            self._adopt_master(heard)
            self._await_master(now)
            return effects
        return None

    def _wait_again(self, now: float) -> list[Effect]:
        self._await_master(now)
        return []

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
            return f"no master heard for {self.master_down_s():.3g} s"
        return f"master {self.master_address} fell silent"

    def _take_over_with_group(self, now: float) -> list[Effect]:
        return self._become_master(now, "with its sync group")

    def _become_master(self, now: float, reason: str, *first: Log) -> list[Effect]:
        garp, name = self.instance.garp, self.instance.name
        self.master_interval_s = self.instance.advert_interval_s
        self.counters.became_master += 1
        self._preempt_at, self._stands_back = None, False
        effects: list[Effect] = [*self._send(self.priority), AddAddresses(), Announce(garp.repeat), *first]
        effects += self._enter(State.MASTER, now, reason)
        self.master_address, self.master_priority = self.own_address, self.priority
        self._timers.set(Symbol.ADVERT_TIMER, now + self.instance.advert_interval_s)
        self._second_burst = garp.repeat
        if garp.delay_s:
            self._timers.set(Symbol.GARP_TIMER, now + garp.delay_s)
        if garp.refresh_s:
            self._timers.set(Symbol.REFRESH_TIMER, now + garp.refresh_s)
        effects.append(Log(f"({name}) setting VIPs."))
        return effects

    def _advertise(self, now: float) -> list[Effect]:
        # Counted from now, so that a stall is not followed by a burst.
        self._timers.set(Symbol.ADVERT_TIMER, now + self.instance.advert_interval_s)
        return self._send(self.priority)

    def _announce_again(self, now: float) -> list[Effect]:
        return [Announce(self._second_burst)]

    def _refresh(self, now: float) -> list[Effect]:
        self._timers.set(Symbol.REFRESH_TIMER, now + self.instance.garp.refresh_s)
        return [Announce(self.instance.garp.refresh_repeat)]

    def _outrank(self, now: float) -> list[Effect]:
        heard, garp, name = self._last_heard(), self.instance.garp, self.instance.name
        effects: list[Effect] = [
            Log(
                f"({name}) Received advert from {heard.source} with lower priority {heard.advert.priority}, "
                f"ours {self.priority}, forcing new election"
            )
        ]
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
        heard = self._last_heard()
        priority, source = heard.advert.priority, heard.source
        how = f"higher priority {priority}, ours {self.priority}"
        if priority == self.priority:
            how = f"same priority {priority} but higher IP address than ours"
        text = f"({self.instance.name}) Master received advert from {source} with {how}"
        effects: list[Effect] = [Log(text)]
        if self.instance.higher_prio_send_advert:
            effects += self._send(self.priority)
        return [*effects, *self._yield_to_backup(now, f"{source} has priority {priority}", heard)]

    def _give_way_with_group(self, now: float) -> list[Effect]:
        return self._yield_to_backup(now, "with its sync group")

    def _yield_to_backup(self, now: float, reason: str, heard: Heard | None = None) -> list[Effect]:
        self.counters.released_master += 1
        effects: list[Effect] = [RemoveAddresses(), *self._enter(State.BACKUP, now, reason, before=State.MASTER)]
        if heard is not None:
            self._adopt_master(heard)
        self._await_master(now)
        return effects

    def _leave(self, now: float) -> list[Effect]:
        self.counters.released_master += 1
        self._timers.clear()
        self._timers.set(Symbol.LEAVE_TIMER, now + min(self.instance.advert_interval_s, 1.0))
        self.state = State.LEAVING
        return [*self._send(PRIORITY_STOP), Log(f"({self.instance.name}) sent 0 priority")]

    def _yield(self, now: float) -> list[Effect]:
        self._timers.clear()
        self._timers.set(Symbol.LEAVE_TIMER, now + min(self.instance.advert_interval_s, 1.0))
        self.state = State.YIELDING
        return [*self._send(PRIORITY_STOP), Log(f"({self.instance.name}) sent 0 priority, to hand over")]

    def _hand_over(self, now: float) -> list[Effect]:
        heard = self._last_heard()
        self._stands_back = True
        return self._yield_to_backup(now, f"handed over to {heard.source}", heard)

    def _stay(self, now: float) -> list[Effect]:
        self.state = State.MASTER
        self._timers.clear()
        self._timers.set(Symbol.ADVERT_TIMER, now + self.instance.advert_interval_s)
        return [*self._send(self.priority), Log(f"({self.instance.name}) WARNING - nobody takes over: staying master")]

    def _stand_back(self, now: float) -> list[Effect]:
        self._stands_back = True
        return []

    def _take_back(self, now: float) -> list[Effect]:
        self._stands_back = False
        return []

    def _release(self, now: float) -> list[Effect]:
        return [RemoveAddresses(), *self._enter(State.INIT, now, "stopped", before=State.MASTER)]

    # -- shared ------------------------------------------------------------------------------------------------

    def _send(self, priority: int) -> list[Effect]:
        self.counters.adverts_sent += 1
        self.counters.priority_zero_sent += priority == PRIORITY_STOP
        return [SendAdvert(priority)]

    def _enter(self, state: State, now: float, reason: str, *, before: State | None = None, remark: str = "") -> list[Effect]:
        before = self.state if before is None else before
        self.state, self.since, self.reason = state, now, reason
        self._preempt_at, self._sync_until, self._preempted, self._asked = None, None, "", False
        self.master_address, self.master_priority = "", 0
        self.master_interval_s = self.instance.advert_interval_s
        self._timers.clear()
        effects: list[Effect] = []
        if state is not State.INIT:
            effects.append(Log(f"({self.instance.name}) Entering {state} STATE{remark}"))
        return [*effects, Transition(before, state, reason)]

    def _fault_reason(self) -> str:
        return "; ".join(self.faults)

    def _last_heard(self) -> Heard:
        assert self._heard is not None
        return self._heard
