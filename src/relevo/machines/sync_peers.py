"""Which of the other directors' connections this node has: letters between directors that share a key.

A director proves that it is there now, and no recording, by naming the session of who hears it: nobody could know that before.
Who finds a master among the proven asks it for everything, and is in sync with it from the end of the answer on, as long as
no letter of entries is missing; the master's hellos tell how many there were. What is missing is asked for again.

The machine neither seals letters nor reads the table: it is told what came and what was told, and says what to send.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from relevo.machines.machine import Rule, find_rule
from relevo.wire.sync_letters import MAX_SEEN, Ask, Body, Done, Entries, Hello, Letter

HELLO_S: Final = 1.0
SILENCE_S: Final = 3.5
"""Who says nothing for so long is forgotten: three hellos were lost, or it is gone."""
ASK_AGAIN_S: Final = 3.0
"""After so long without an answer under way, the question or the end of the answer is taken for lost."""
MAX_PEERS: Final = MAX_SEEN
MAX_BEYOND: Final = 65_536
"""Letters of entries kept in mind behind a gap: of two and a half million connections."""
MAX_PAST: Final = 1024
"""Sessions whose last number is remembered after they fell silent, so that a recording of them is known as one."""
WINDOW: Final = 1024
"""How far letters may overtake each other."""


class State(enum.StrEnum):
    """What another director is to this one."""

    STRANGER = "stranger"
    """Has not shown yet that it hears us."""
    PEER = "peer"
    """No master: it has nothing that we lack."""
    MISSING = "missing"
    """A master, and not everything of its is here."""
    SYNCED = "synced"
    """A master, and all of its is here."""


class Symbol(enum.StrEnum):
    """Columns of the transition table: letters, classified, and this node's own change."""

    HELLO_STRANGE = "hello_strange"
    """It does not name our session."""
    HELLO_PEER = "hello_peer"
    HELLO_LEVEL = "hello_level"
    """Of a master that has told what we have heard."""
    HELLO_GAP = "hello_gap"
    """Of a master that has told more."""
    ENTRIES = "entries"
    ASK = "ask"
    DONE_WHOLE = "done_whole"
    DONE_GAP = "done_gap"
    """Not every letter of the answer is here: some may be late, or lost."""
    LISTEN = "listen"
    """This node takes entries in from now on; what came before is not here."""


_S, _P, _M, _Y = State.STRANGER, State.PEER, State.MISSING, State.SYNCED

TRANSITIONS: Final = {
    # State: STRANGER. Nothing is believed; it gets to know our session, and so can prove that it is no recording.
    (_S, Symbol.HELLO_STRANGE): Rule("_greet", (_S,)),
    (_S, Symbol.HELLO_PEER): Rule("_meet", (_P,)),
    (_S, Symbol.HELLO_LEVEL): Rule("_meet_master", (_M,)),
    (_S, Symbol.HELLO_GAP): Rule("_meet_master", (_M,)),
    (_S, Symbol.ENTRIES): Rule("_refuse", (_S,)),
    (_S, Symbol.ASK): Rule("_refuse", (_S,)),
    (_S, Symbol.DONE_WHOLE): Rule("_refuse", (_S,)),
    (_S, Symbol.DONE_GAP): Rule("_refuse", (_S,)),
    (_S, Symbol.LISTEN): Rule("_ignore", (_S,)),
    # State: PEER.
    (_P, Symbol.HELLO_STRANGE): Rule("_greet", (_S,)),
    (_P, Symbol.HELLO_PEER): Rule("_ignore", (_P,)),
    (_P, Symbol.HELLO_LEVEL): Rule("_meet_master", (_M,)),
    (_P, Symbol.HELLO_GAP): Rule("_meet_master", (_M,)),
    (_P, Symbol.ENTRIES): Rule("_take", (_P,)),
    (_P, Symbol.ASK): Rule("_tell_all", (_P,)),
    (_P, Symbol.DONE_WHOLE): Rule("_ignore", (_P,)),
    (_P, Symbol.DONE_GAP): Rule("_ignore", (_P,)),
    (_P, Symbol.LISTEN): Rule("_ignore", (_P,)),
    # State: MISSING. Asked, or about to ask; what comes is taken all the same.
    (_M, Symbol.HELLO_STRANGE): Rule("_greet", (_S,)),
    (_M, Symbol.HELLO_PEER): Rule("_meet", (_P,)),
    (_M, Symbol.HELLO_LEVEL): Rule("_wait_or_ask", (_M, _Y)),
    (_M, Symbol.HELLO_GAP): Rule("_wait_or_ask", (_M,)),
    (_M, Symbol.ENTRIES): Rule("_take", (_M, _Y)),
    (_M, Symbol.ASK): Rule("_tell_all", (_M,)),
    (_M, Symbol.DONE_WHOLE): Rule("_complete", (_Y,)),
    (_M, Symbol.DONE_GAP): Rule("_ignore", (_M,)),
    (_M, Symbol.LISTEN): Rule("_begin_again", (_M,)),
    # State: SYNCED. A gap may close: letters overtake each other. It is asked about at the next hello.
    (_Y, Symbol.HELLO_STRANGE): Rule("_greet", (_S,)),
    (_Y, Symbol.HELLO_PEER): Rule("_meet", (_P,)),
    (_Y, Symbol.HELLO_LEVEL): Rule("_ignore", (_Y,)),
    (_Y, Symbol.HELLO_GAP): Rule("_lose", (_M,)),
    (_Y, Symbol.ENTRIES): Rule("_take", (_Y,)),
    (_Y, Symbol.ASK): Rule("_tell_all", (_Y,)),
    (_Y, Symbol.DONE_WHOLE): Rule("_acknowledge", (_Y,)),
    (_Y, Symbol.DONE_GAP): Rule("_ignore", (_Y,)),
    (_Y, Symbol.LISTEN): Rule("_begin_again", (_M,)),
}
"""(state of a director, symbol) → action and possible next states."""


class Refusal(enum.StrEnum):
    """Why a letter was not believed. The values are names in status and metrics; they do not change."""

    STRANGER = "stranger"
    REPLAYED = "replayed"
    SYNC_ID = "sync_id"
    TOO_MANY = "too_many_peers"


# -- inputs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """A letter with the right seal, from ``source``."""

    letter: Letter
    source: str


@dataclass(frozen=True, slots=True)
class SetRoles:
    """This node announces connections now, or takes in those of others, or both, or neither."""

    master: bool
    backup: bool


@dataclass(frozen=True, slots=True)
class Tell:
    """A message of entries to send."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Complete:
    """Somebody is about to take over: let everybody have everything, and say so."""


@dataclass(frozen=True, slots=True)
class ToldAll:
    """What ``TellAll`` asked for is over, and ``done`` or not."""

    done: bool = True


Input = Heard | SetRoles | Tell | Complete | ToldAll


# -- effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Seal and send a letter."""

    letter: Letter


@dataclass(frozen=True, slots=True)
class Take:
    """A message of entries came from a proven director."""

    message: bytes


@dataclass(frozen=True, slots=True)
class TellAll:
    """Announce the table, ``whole`` or only what is news to the others, and say ``ToldAll`` afterwards.

    ``half_open``: connections that are not established yet too, for who takes over.
    """

    whole: bool
    half_open: bool

    def with_(self, other: TellAll | None) -> TellAll:
        """Both of them in one."""
        return self if other is None else TellAll(self.whole or other.whole, self.half_open or other.half_open)


@dataclass(frozen=True, slots=True)
class InSync:
    """Whether this node has what the masters have; told when it changes."""

    in_sync: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A letter was not believed."""

    reason: Refusal


Effect = Send | Take | TellAll | InSync | Refused


# -- the machine ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Peer:
    """Another director, by session.

    ``upto``: every letter of entries up to this one is here, or was told before an answer that is (``None``: nothing is known to
    be whole); ``last`` ends the answer that is awaited, ``beyond`` are the letters behind the first gap.
    """

    session: bytes
    source: str
    heard_at: float
    state: State = State.STRANGER
    told: int = 0
    has: int = 0
    """How many of our letters of entries it has without a gap."""
    upto: int | None = None
    last: int | None = None
    asked_at: float | None = None
    greeted: bool = False
    highest: int = 0
    recent: int = 0
    beyond: set[int] = field(default_factory=set)

    def note(self, number: int) -> None:
        """A letter of entries is here."""
        if len(self.beyond) < MAX_BEYOND and (self.upto is None or number > self.upto):
            self.beyond.add(number)
        self._advance()

    def begin_again(self) -> None:
        """Nothing counts that came so far."""
        self.upto = self.last = self.asked_at = None
        self.beyond.clear()

    def end_answer(self, first: int, last: int) -> None:
        """The answer that is awaited is said to be these letters."""
        self.last = last
        self.upto = max(self.upto or 0, first - 1)
        self._advance()

    def _advance(self) -> None:
        if self.upto is None:
            return
        while self.upto + 1 in self.beyond:
            self.upto += 1
            self.beyond.discard(self.upto)

    @property
    def is_whole(self) -> bool:
        """Whether the answer that was awaited is here."""
        return self.last is not None and self.upto is not None and self.upto >= self.last

    @property
    def behind(self) -> int:
        """Letters of entries that it has told and that are not here."""
        return max(0, self.told - (self.upto or 0))


class SyncPeers:
    """The directors that share a key. ``session`` is chosen at random by who makes the machine."""

    def __init__(self, session: bytes, sync_id: int, now: float) -> None:
        self.session = session
        self.sync_id = sync_id
        self.peers: dict[bytes, Peer] = {}
        self.master = self.backup = False
        self.in_sync = False
        self.told = 0
        self._sequence = 0
        self._hello_at = now
        self._past: dict[bytes, int] = {}
        self._telling: TellAll | None = None
        self._wanted: TellAll | None = None
        self._first = 1
        self._body: Body | None = None

    # -- the shape every machine has ---------------------------------------------------------------------------

    def receive(self, given: Input, now: float) -> list[Effect]:
        """Take an input; return what must be done, in order."""
        match given:
            case Heard():
                return self._hear(given, now)
            case Tell(message=message):
                self.told += 1
                return [self._send(Entries(self.told, message))]
            case SetRoles(master=master, backup=backup):
                return self._set_roles(master, backup, now)
            case Complete():
                have = self.told > 0 and self.everybody_has_everything
                return self._want_telling(TellAll(whole=not have, half_open=True))
            case ToldAll(done=done):
                return self._end_telling(done)

    def _set_roles(self, master: bool, backup: bool, now: float) -> list[Effect]:
        listens, self.backup = backup and not self.backup, backup
        effects: list[Effect] = []
        if listens:
            for peer in self.peers.values():
                effects += self._step(peer, Symbol.LISTEN, now)
        if master != self.master:
            self.master = master
            effects.append(self._hello())
        return effects + self._judge()

    def deadline(self) -> float:
        """When ``expire`` must be called next."""
        return self._hello_at

    def expire(self, now: float) -> list[Effect]:
        """Say hello, and forget who fell silent."""
        if now < self._hello_at:
            return []
        self._hello_at = now + HELLO_S
        for peer in [peer for peer in self.peers.values() if now - peer.heard_at > SILENCE_S]:
            self._forget(peer)
        return [self._hello(), *self._judge()]

    @property
    def everybody_has_everything(self) -> bool:
        """Whether every proven director has said that it has all that was told."""
        return all(peer.has >= self.told for peer in self.peers.values() if peer.state is not State.STRANGER)

    # -- letters -----------------------------------------------------------------------------------------------

    def _send(self, body: Body) -> Send:
        self._sequence += 1
        return Send(Letter(self.session, self.sync_id, self._sequence, body))

    def _hello(self) -> Send:
        seen = tuple((peer.session, peer.upto or 0) for peer in self.peers.values())
        return self._send(Hello(self.master, self.told, seen, self._telling is not None))

    def _hear(self, heard: Heard, now: float) -> list[Effect]:
        letter = heard.letter
        if letter.session == self.session:
            return []  # our own, looped back
        if letter.sync_id != self.sync_id:
            return [Refused(Refusal.SYNC_ID)]
        peer = self.peers.get(letter.session)
        if peer is None:
            if letter.sequence <= self._past.get(letter.session, 0):
                return [Refused(Refusal.REPLAYED)]
            if len(self.peers) >= MAX_PEERS and not self._make_room():
                return [Refused(Refusal.TOO_MANY)]
            peer = self.peers[letter.session] = Peer(letter.session, heard.source, now)
            peer.highest = self._past.pop(letter.session, 0)
            peer.recent = (1 << WINDOW) - 1  # what it said before it fell silent counts as heard
        if not _is_new(peer, letter.sequence):
            return [Refused(Refusal.REPLAYED)]
        peer.heard_at, peer.source = now, heard.source
        self._body = letter.body
        return self._step(peer, self._classify(peer, letter.body), now) + self._judge()

    def _step(self, peer: Peer, symbol: Symbol, now: float) -> list[Effect]:
        rule = find_rule(TRANSITIONS, peer.state, symbol, peer.source)
        effects: list[Effect] = getattr(self, rule.action)(peer, now)
        assert peer.state in rule.targets, f"{rule.action} led to {peer.state}"
        return effects

    def _classify(self, peer: Peer, body: Body) -> Symbol:
        match body:
            case Hello(master=master, told=told, seen=seen):
                peer.told = told
                known = dict(seen)
                if self.session not in known:
                    return Symbol.HELLO_STRANGE
                peer.has = known[self.session]
                if not master:
                    return Symbol.HELLO_PEER
                return Symbol.HELLO_GAP if peer.behind else Symbol.HELLO_LEVEL
            case Entries(number=number):
                if peer.state is not State.STRANGER and self.backup:
                    peer.note(number)
                    peer.told = max(peer.told, number)
                return Symbol.ENTRIES
            case Ask():
                return Symbol.ASK
            case Done(first=first, last=last, whole=whole):
                if peer.state is State.MISSING:
                    if not whole:
                        return Symbol.DONE_GAP  # the answer to our question is still to come
                    peer.end_answer(first, last)
                return Symbol.DONE_WHOLE if (peer.upto or 0) >= last else Symbol.DONE_GAP

    # -- actions -----------------------------------------------------------------------------------------------

    def _ignore(self, peer: Peer, now: float) -> list[Effect]:
        return []

    def _refuse(self, peer: Peer, now: float) -> list[Effect]:
        return [Refused(Refusal.STRANGER)]

    def _greet(self, peer: Peer, now: float) -> list[Effect]:
        peer.state = State.STRANGER
        if peer.greeted:
            return []  # the next hello names it again
        peer.greeted = True
        return [self._hello()]

    def _meet(self, peer: Peer, now: float) -> list[Effect]:
        greeted, peer.greeted = peer.greeted, True
        peer.state = State.PEER
        peer.asked_at = None
        return [] if greeted else [self._hello()]

    def _meet_master(self, peer: Peer, now: float) -> list[Effect]:
        greeted, peer.greeted = peer.greeted, True
        peer.state = State.MISSING
        hello: list[Effect] = [] if greeted else [self._hello()]
        return hello + self._ask(peer, now)

    def _ask(self, peer: Peer, now: float) -> list[Effect]:
        if not self.backup:
            return []
        peer.begin_again()
        peer.asked_at = now
        return [self._send(Ask(peer.session))]

    def _wait_or_ask(self, peer: Peer, now: float) -> list[Effect]:
        assert isinstance(self._body, Hello)
        if peer.asked_at is None:
            if self.backup and peer.upto is not None and not peer.behind:
                peer.state = State.SYNCED
                return []
            return self._ask(peer, now)
        if self._body.telling:  # us, or somebody who asked before: then our answer follows
            peer.asked_at = now
            return []
        ended = peer.last is not None  # and is not whole
        return self._ask(peer, now) if ended or now - peer.asked_at > ASK_AGAIN_S else []

    def _take(self, peer: Peer, now: float) -> list[Effect]:
        assert isinstance(self._body, Entries)
        if not self.backup:
            return []
        taken: list[Effect] = [Take(self._body.message)]
        return taken + (self._complete(peer, now) if peer.asked_at is not None and peer.is_whole else [])

    def _complete(self, peer: Peer, now: float) -> list[Effect]:
        peer.state, peer.asked_at, peer.last = State.SYNCED, None, None
        return [self._hello()]  # tells the master how far we are

    def _acknowledge(self, peer: Peer, now: float) -> list[Effect]:
        return [self._hello()]

    def _lose(self, peer: Peer, now: float) -> list[Effect]:
        peer.state, peer.asked_at = State.MISSING, None
        return []

    def _begin_again(self, peer: Peer, now: float) -> list[Effect]:
        peer.begin_again()
        peer.state = State.MISSING
        return []

    def _tell_all(self, peer: Peer, now: float) -> list[Effect]:
        assert isinstance(self._body, Ask)
        if self._body.session != self.session or not self.master:
            return []
        return self._want_telling(TellAll(whole=True, half_open=False))

    def _want_telling(self, wanted: TellAll) -> list[Effect]:
        self._wanted = wanted.with_(self._wanted)
        return self._begin_telling() if self._telling is None else []

    def _begin_telling(self) -> list[Effect]:
        if self._wanted is None:
            return []
        self._telling, self._wanted, self._first = self._wanted, None, self.told + 1
        return [self._telling]

    def _end_telling(self, done: bool) -> list[Effect]:
        whole = done and self._telling is not None and self._telling.whole
        self._telling = None
        return [self._send(Done(self._first, self.told, whole)), *self._begin_telling()]

    # -- shared ------------------------------------------------------------------------------------------------

    def _judge(self) -> list[Effect]:
        masters = [peer.state for peer in self.peers.values() if peer.state in (State.MISSING, State.SYNCED)]
        in_sync = bool(masters) and all(state is State.SYNCED for state in masters)
        if in_sync == self.in_sync:
            return []
        self.in_sync = in_sync
        return [InSync(in_sync)]

    def _make_room(self) -> bool:
        """Let the stranger that was heard longest ago go: it may be a recording, whoever comes may be a director."""
        strangers = [peer for peer in self.peers.values() if peer.state is State.STRANGER]
        if strangers:
            self._forget(min(strangers, key=lambda peer: peer.heard_at))
        return bool(strangers)

    def _forget(self, peer: Peer) -> None:
        del self.peers[peer.session]
        if len(self._past) >= MAX_PAST:
            del self._past[next(iter(self._past))]
        self._past[peer.session] = peer.highest


def _is_new(peer: Peer, sequence: int) -> bool:
    """Whether a number has not been met before. ``recent`` has a bit for each of the last ``WINDOW``."""
    ahead = sequence - peer.highest
    if ahead > 0:
        peer.recent = (peer.recent << min(ahead, WINDOW) | 1) & ((1 << WINDOW) - 1)
        peer.highest = sequence
        return True
    if -ahead >= WINDOW:
        return False
    bit = 1 << -ahead
    if peer.recent & bit:
        return False
    peer.recent |= bit
    return True
