"""Synchronisation between directors that share a key: which of the other directors' connections this node has.

A hello lists the sessions that its sender has received from. Echoing the receiver's random session id proves that a message is
not replayed. A backup requests a full sync (a resync) from each verified master. It is in sync with that master from the end of
the resync on, as long as no message of entries is missing. The master's hellos carry the number of messages that it has sent;
when some are missing, the backup requests another resync.

The machine does no cryptography and reads no table: the caller authenticates messages, sends them and runs syncs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from relevo.machines.machine import find_rule
from relevo.machines.sync_states import (
    TRANSITIONS,
    Effect,
    Import,
    Input,
    InSync,
    MessageReceived,
    PeerRefusal,
    PrepareHandover,
    Refused,
    Send,
    SendEntries,
    SetRoles,
    StartSync,
    State,
    Symbol,
    SyncComplete,
)
from relevo.wire.sync_messages import MAX_SEEN, Body, Entries, Hello, Message, ResyncEnd, ResyncRequest

HELLO_S: Final = 1.0
PEER_TIMEOUT_S: Final = 3.5
"""A director without a message for so long is forgotten: three hellos were lost, or it is gone."""
RESYNC_RETRY_S: Final = 3.0
"""After so long without a sync under way, the request or the end of the resync is taken for lost."""
MAX_PEERS: Final = MAX_SEEN
MAX_OUT_OF_ORDER: Final = 65_536
"""Message numbers stored behind the first gap; as many messages have two and a half million connections."""
MAX_PAST_SESSIONS: Final = 1024
"""Sessions of forgotten directors whose last sequence number is kept, to recognise a replay of them."""
REPLAY_WINDOW: Final = 1024
"""How many sequence numbers below the highest are accepted, each once (an anti-replay window as in RFC 4303 §3.4.3)."""


@dataclass(slots=True)
class Peer:
    """Another director, by session.

    Every message of entries up to ``contiguous_seq`` has been received, or was sent before the resync began (``None``: no resync
    has ended). ``out_of_order`` are the numbers received above the first gap. ``resync_last`` is the number of the last message
    of the requested resync (``None``: its end has not been received).
    """

    session: bytes
    source: str
    heard_at: float
    state: State = State.UNVERIFIED
    sent: int = 0
    """How many messages of entries it has sent."""
    acked: int = 0
    """The number of our messages of entries that it has without a gap."""
    contiguous_seq: int | None = None
    resync_last: int | None = None
    requested_at: float | None = None
    greeted: bool = False
    highest_sequence: int = 0
    replay_bits: int = 0
    out_of_order: set[int] = field(default_factory=set)

    def record(self, number: int) -> None:
        """Record that a message of entries was received."""
        if len(self.out_of_order) < MAX_OUT_OF_ORDER and (self.contiguous_seq is None or number > self.contiguous_seq):
            self.out_of_order.add(number)
        self._advance()

    def reset(self) -> None:
        """Discard what is known of received messages."""
        self.contiguous_seq = self.resync_last = self.requested_at = None
        self.out_of_order.clear()

    def end_resync(self, first: int, last: int) -> None:
        """Record that the resync consists of the messages ``first`` to ``last``."""
        self.resync_last = last
        self.contiguous_seq = max(self.contiguous_seq or 0, first - 1)
        self._advance()

    def _advance(self) -> None:
        if self.contiguous_seq is None:
            return
        while self.contiguous_seq + 1 in self.out_of_order:
            self.contiguous_seq += 1
            self.out_of_order.discard(self.contiguous_seq)

    @property
    def resync_complete(self) -> bool:
        """Whether every message of the resync has been received."""
        return self.resync_last is not None and self.contiguous_seq is not None and self.contiguous_seq >= self.resync_last

    @property
    def lag(self) -> int:
        """The number of messages of entries that it has sent and this node has not received."""
        return max(0, self.sent - (self.contiguous_seq or 0))


class SyncPeers:
    """The directors that share a key. ``session`` must be random, and new for every machine."""

    def __init__(self, session: bytes, sync_id: int, now: float) -> None:
        self.session = session
        self.sync_id = sync_id
        self.peers: dict[bytes, Peer] = {}
        self.master = self.backup = False
        self.in_sync = False
        self.sent = 0
        self._sequence = 0
        self._hello_at = now
        self._past_sessions: dict[bytes, int] = {}
        self._running: StartSync | None = None
        self._pending: StartSync | None = None
        self._first = 1
        self._body: Body | None = None

    # -- the shape every machine has ---------------------------------------------------------------------------

    def receive(self, given: Input, now: float) -> list[Effect]:
        """Take an input; return what must be done, in order."""
        match given:
            case MessageReceived():
                return self._receive_message(given, now)
            case SendEntries(ipvs_message=ipvs_message):
                self.sent += 1
                return [self._send(Entries(self.sent, ipvs_message))]
            case SetRoles(master=master, backup=backup):
                return self._set_roles(master, backup, now)
            case PrepareHandover():
                complete = self.sent > 0 and self.all_acked
                return self._queue_sync(StartSync(full=not complete, half_open=True))
            case SyncComplete(done=done):
                return self._end_sync(done)

    def _set_roles(self, master: bool, backup: bool, now: float) -> list[Effect]:
        became_backup, self.backup = backup and not self.backup, backup
        effects: list[Effect] = []
        if became_backup:
            for peer in self.peers.values():
                effects += self._step(peer, Symbol.BECAME_BACKUP, now)
        if master != self.master:
            self.master = master
            effects.append(self._hello())
        return effects + self._update_in_sync()

    def deadline(self) -> float:
        """When ``expire`` must be called next."""
        return self._hello_at

    def expire(self, now: float) -> list[Effect]:
        """Send a hello, and forget directors that have timed out."""
        if now < self._hello_at:
            return []
        self._hello_at = now + HELLO_S
        for peer in [peer for peer in self.peers.values() if now - peer.heard_at > PEER_TIMEOUT_S]:
            self._forget(peer)
        return [self._hello(), *self._update_in_sync()]

    @property
    def all_acked(self) -> bool:
        """Whether every verified director has acknowledged all messages of entries."""
        return all(peer.acked >= self.sent for peer in self.peers.values() if peer.state is not State.UNVERIFIED)

    # -- messages ----------------------------------------------------------------------------------------------

    def _send(self, body: Body) -> Send:
        self._sequence += 1
        return Send(Message(self.session, self.sync_id, self._sequence, body))

    def _hello(self) -> Send:
        seen = tuple((peer.session, peer.contiguous_seq or 0) for peer in self.peers.values())
        return self._send(Hello(self.master, self.sent, seen, self._running is not None))

    def _receive_message(self, received: MessageReceived, now: float) -> list[Effect]:
        message = received.message
        if message.session == self.session:
            return []  # our own, looped back
        if message.sync_id != self.sync_id:
            return [Refused(PeerRefusal.SYNC_ID)]
        peer = self.peers.get(message.session)
        if peer is None:
            if message.sequence <= self._past_sessions.get(message.session, 0):
                return [Refused(PeerRefusal.REPLAYED)]
            if len(self.peers) >= MAX_PEERS and not self._evict_unverified():
                return [Refused(PeerRefusal.TOO_MANY)]
            peer = self.peers[message.session] = Peer(message.session, received.source, now)
            peer.highest_sequence = self._past_sessions.pop(message.session, 0)
            peer.replay_bits = (1 << REPLAY_WINDOW) - 1  # sequence numbers from before it was forgotten count as received
        if not _is_new(peer, message.sequence):
            return [Refused(PeerRefusal.REPLAYED)]
        peer.heard_at, peer.source = now, received.source
        self._body = message.body
        return self._step(peer, self._classify(peer, message.body), now) + self._update_in_sync()

    def _step(self, peer: Peer, symbol: Symbol, now: float) -> list[Effect]:
        rule = find_rule(TRANSITIONS, peer.state, symbol, peer.source)
        effects: list[Effect] = getattr(self, rule.action)(peer, now)
        assert peer.state in rule.targets, f"{rule.action} led to {peer.state}"
        return effects

    def _classify(self, peer: Peer, body: Body) -> Symbol:
        match body:
            case Hello(master=master, sent=sent, seen=seen):
                peer.sent = sent
                acked = dict(seen)
                if self.session not in acked:
                    return Symbol.HELLO_UNVERIFIED
                peer.acked = acked[self.session]
                if not master:
                    return Symbol.HELLO_PEER
                return Symbol.HELLO_LAG if peer.lag else Symbol.HELLO_CURRENT
            case Entries(number=number):
                if peer.state is not State.UNVERIFIED and self.backup:
                    peer.record(number)
                    peer.sent = max(peer.sent, number)
                return Symbol.ENTRIES
            case ResyncRequest():
                return Symbol.RESYNC_REQUEST
            case ResyncEnd(first=first, last=last, full=full):
                if peer.state is State.SYNCING:
                    if not full:
                        return Symbol.RESYNC_GAP  # the full sync that we requested is still to come
                    peer.end_resync(first, last)
                return Symbol.RESYNC_COMPLETE if (peer.contiguous_seq or 0) >= last else Symbol.RESYNC_GAP

    # -- actions -----------------------------------------------------------------------------------------------

    def _ignore(self, peer: Peer, now: float) -> list[Effect]:
        return []

    def _refuse(self, peer: Peer, now: float) -> list[Effect]:
        return [Refused(PeerRefusal.UNVERIFIED)]

    def _reply_hello(self, peer: Peer, now: float) -> list[Effect]:
        peer.state = State.UNVERIFIED
        if peer.greeted:
            return []  # the next periodic hello names its session again
        peer.greeted = True
        return [self._hello()]

    def _accept_peer(self, peer: Peer, now: float) -> list[Effect]:
        greeted, peer.greeted = peer.greeted, True
        peer.state = State.PEER
        peer.requested_at = None
        return [] if greeted else [self._hello()]

    def _accept_master(self, peer: Peer, now: float) -> list[Effect]:
        greeted, peer.greeted = peer.greeted, True
        peer.state = State.SYNCING
        hello: list[Effect] = [] if greeted else [self._hello()]
        return hello + self._request_resync(peer, now)

    def _request_resync(self, peer: Peer, now: float) -> list[Effect]:
        if not self.backup:
            return []
        peer.reset()
        peer.requested_at = now
        return [self._send(ResyncRequest(peer.session))]

    def _wait_or_request(self, peer: Peer, now: float) -> list[Effect]:
        assert isinstance(self._body, Hello)
        if peer.requested_at is None:
            if self.backup and peer.contiguous_seq is not None and not peer.lag:
                peer.state = State.SYNCED
                return []
            return self._request_resync(peer, now)
        if self._body.sync_running:  # for our request, or for an earlier one, after which ours follows
            peer.requested_at = now
            return []
        incomplete = peer.resync_last is not None  # it has ended, with messages missing
        return self._request_resync(peer, now) if incomplete or now - peer.requested_at > RESYNC_RETRY_S else []

    def _import(self, peer: Peer, now: float) -> list[Effect]:
        assert isinstance(self._body, Entries)
        if not self.backup:
            return []
        effects: list[Effect] = [Import(self._body.ipvs_message)]
        complete = peer.requested_at is not None and peer.resync_complete
        return effects + (self._complete_resync(peer, now) if complete else [])

    def _complete_resync(self, peer: Peer, now: float) -> list[Effect]:
        peer.state, peer.requested_at, peer.resync_last = State.SYNCED, None, None
        return [self._hello()]  # acknowledges

    def _acknowledge(self, peer: Peer, now: float) -> list[Effect]:
        return [self._hello()]

    def _lose_sync(self, peer: Peer, now: float) -> list[Effect]:
        peer.state, peer.requested_at = State.SYNCING, None
        return []

    def _restart(self, peer: Peer, now: float) -> list[Effect]:
        peer.reset()
        peer.state = State.SYNCING
        return []

    def _serve_resync(self, peer: Peer, now: float) -> list[Effect]:
        assert isinstance(self._body, ResyncRequest)
        if self._body.session != self.session or not self.master:
            return []
        return self._queue_sync(StartSync(full=True, half_open=False))

    def _queue_sync(self, wanted: StartSync) -> list[Effect]:
        self._pending = wanted.merge(self._pending)
        return self._start_sync() if self._running is None else []

    def _start_sync(self) -> list[Effect]:
        if self._pending is None:
            return []
        self._running, self._pending, self._first = self._pending, None, self.sent + 1
        return [self._running]

    def _end_sync(self, done: bool) -> list[Effect]:
        full = done and self._running is not None and self._running.full
        self._running = None
        return [self._send(ResyncEnd(self._first, self.sent, full)), *self._start_sync()]

    # -- shared ------------------------------------------------------------------------------------------------

    def _update_in_sync(self) -> list[Effect]:
        masters = [peer.state for peer in self.peers.values() if peer.state in (State.SYNCING, State.SYNCED)]
        in_sync = bool(masters) and all(state is State.SYNCED for state in masters)
        if in_sync == self.in_sync:
            return []
        self.in_sync = in_sync
        return [InSync(in_sync)]

    def _evict_unverified(self) -> bool:
        """Forget the unverified peer that has been silent longest: replayed sessions must not keep a new director out."""
        unverified = [peer for peer in self.peers.values() if peer.state is State.UNVERIFIED]
        if unverified:
            self._forget(min(unverified, key=lambda peer: peer.heard_at))
        return bool(unverified)

    def _forget(self, peer: Peer) -> None:
        del self.peers[peer.session]
        if len(self._past_sessions) >= MAX_PAST_SESSIONS:
            del self._past_sessions[next(iter(self._past_sessions))]
        self._past_sessions[peer.session] = peer.highest_sequence


def _is_new(peer: Peer, sequence: int) -> bool:
    """Mark a sequence number as received; return whether it was not yet. ``replay_bits`` has a bit for each in the window."""
    ahead = sequence - peer.highest_sequence
    if ahead > 0:
        peer.replay_bits = (peer.replay_bits << min(ahead, REPLAY_WINDOW) | 1) & ((1 << REPLAY_WINDOW) - 1)
        peer.highest_sequence = sequence
        return True
    if -ahead >= REPLAY_WINDOW:
        return False
    bit = 1 << -ahead
    if peer.replay_bits & bit:
        return False
    peer.replay_bits |= bit
    return True
