"""Synchronisation between directors that share a key: verification, resyncs, acknowledgements and replayed messages."""

import heapq
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.machines import sync_peers, sync_states
from relevo.machines.sync_peers import HELLO_S, MAX_PEERS, PEER_TIMEOUT_S, RESYNC_RETRY_S, SyncPeers
from relevo.machines.sync_states import (
    Import,
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
from relevo.wire.sync_messages import Entries, Hello, Message, ResyncEnd, ResyncRequest
from tests.unit.machines.exerciser import assert_sound, walk

US, THEM = b"ourselve", b"themselv"
KNOWN = ((US, 0),)
BODY = {
    Symbol.HELLO_UNVERIFIED: Hello(True, 0),
    Symbol.HELLO_PEER: Hello(False, 0, KNOWN),
    Symbol.HELLO_CURRENT: Hello(True, 0, KNOWN),
    Symbol.HELLO_LAG: Hello(True, 9, KNOWN),
    Symbol.ENTRIES: Entries(1, b"message"),
    Symbol.RESYNC_REQUEST: ResyncRequest(US),
    Symbol.RESYNC_COMPLETE: ResyncEnd(1, 0),
    Symbol.RESYNC_GAP: ResyncEnd(1, 5),
}


class OnePeer:
    """A machine with one other director, after messages of the given symbols."""

    def __init__(self, *symbols):
        self.machine = SyncPeers(US, 51, 0.0)
        self.machine.receive(SetRoles(False, True), 0.0)
        self.numbers = itertools.count(1)
        for symbol in symbols:
            self.receive(BODY[symbol])

    def receive(self, body, now=0.0):
        message = Message(THEM, 51, next(self.numbers), body)
        return self.machine.receive(MessageReceived(message, "192.0.2.2"), now)

    @property
    def peer(self):
        return self.machine.peers[THEM]

    @property
    def state(self):
        return self.peer.state if THEM in self.machine.peers else State.UNVERIFIED


REACH = {
    State.UNVERIFIED: OnePeer,
    State.PEER: lambda: OnePeer(Symbol.HELLO_PEER),
    State.SYNCING: lambda: OnePeer(Symbol.HELLO_CURRENT),
    State.SYNCED: lambda: OnePeer(Symbol.HELLO_CURRENT, Symbol.RESYNC_COMPLETE),
}


FULL_SYNC = StartSync(full=True, half_open=False)


def bodies(effects):
    return [effect.message.body for effect in effects if isinstance(effect, Send)]


def test_the_table_is_sound():
    assert_sound(sync_states, SyncPeers(US, 51, 0.0), {State.UNVERIFIED}, set(State))


def test_every_pair_of_the_table_is_walked(monkeypatch):
    def feed(one, symbol):
        if symbol is not Symbol.BECAME_BACKUP:
            one.receive(BODY[symbol])
            return
        if THEM not in one.machine.peers:
            one.receive(BODY[Symbol.HELLO_UNVERIFIED])
        for backup in (False, True):
            one.machine.receive(SetRoles(False, backup), 0.0)

    walk(monkeypatch, sync_peers, REACH, feed)


# -- verification ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", [Symbol.ENTRIES, Symbol.RESYNC_REQUEST, Symbol.RESYNC_COMPLETE])
def test_a_director_that_has_not_named_our_session_is_refused(symbol):
    one = OnePeer(Symbol.HELLO_UNVERIFIED)
    one.machine.receive(SetRoles(True, False), 0.0)
    assert one.receive(BODY[symbol]) == [Refused(PeerRefusal.UNVERIFIED)]


def test_an_unverified_director_gets_one_hello_at_once():
    one = OnePeer()
    assert bodies(one.receive(Hello(False, 0))) == [Hello(False, 0, ((THEM, 0),))]
    assert one.receive(Hello(False, 0)) == []


def test_a_sequence_number_is_accepted_once_and_reordering_is_allowed():
    one = OnePeer(Symbol.HELLO_PEER)

    def receive(sequence):
        return one.machine.receive(MessageReceived(Message(THEM, 51, sequence, Entries(1, b"m")), ""), 0.0)

    assert receive(10) == [Import(b"m")]
    assert receive(8) == [Import(b"m")]
    assert receive(10) == receive(8) == [Refused(PeerRefusal.REPLAYED)]
    assert receive(5000) == [Import(b"m")]
    assert receive(9) == [Refused(PeerRefusal.REPLAYED)], "below the replay window"
    receive(2**64 - 1)
    assert receive(11) == [Refused(PeerRefusal.REPLAYED)]


def test_a_replay_of_a_director_that_timed_out_is_refused():
    one = OnePeer(Symbol.HELLO_PEER)
    one.machine.expire(PEER_TIMEOUT_S + 1)
    assert one.machine.peers == {}
    for sequence in (0, 1):
        old = MessageReceived(Message(THEM, 51, sequence, BODY[Symbol.HELLO_PEER]), "")
        assert one.machine.receive(old, PEER_TIMEOUT_S + 1) == [Refused(PeerRefusal.REPLAYED)]
    one.receive(BODY[Symbol.HELLO_PEER], PEER_TIMEOUT_S + 1)
    assert one.state is State.PEER
    assert one.machine.receive(MessageReceived(Message(THEM, 51, 1, BODY[Symbol.ENTRIES]), ""), 5.0) == [
        Refused(PeerRefusal.REPLAYED)
    ]


def test_another_sync_id_our_own_messages_and_too_many_sessions_are_not_accepted():
    machine = SyncPeers(US, 51, 0.0)
    assert machine.receive(MessageReceived(Message(THEM, 52, 1, Hello(False, 0)), ""), 0.0) == [Refused(PeerRefusal.SYNC_ID)]
    assert machine.receive(MessageReceived(Message(US, 51, 1, Hello(False, 0)), ""), 0.0) == []
    for number in range(MAX_PEERS):
        machine.receive(MessageReceived(Message(number.to_bytes(8, "big"), 51, 1, BODY[Symbol.HELLO_PEER]), ""), 0.0)
    assert machine.receive(MessageReceived(Message(THEM, 51, 1, Hello(False, 0)), ""), 0.0) == [Refused(PeerRefusal.TOO_MANY)]


def test_replays_of_many_sessions_do_not_keep_a_director_out():
    one = OnePeer()
    for number in range(3 * MAX_PEERS):
        one.machine.receive(MessageReceived(Message(number.to_bytes(8, "big"), 51, 1, Hello(False, 0)), ""), number / 100)
    one.receive(BODY[Symbol.HELLO_PEER], 1.0)
    assert one.state is State.PEER
    assert len(one.machine.peers) == MAX_PEERS
    again = MessageReceived(Message((0).to_bytes(8, "big"), 51, 1, Hello(False, 0)), "")
    assert one.machine.receive(again, 1.0) == [Refused(PeerRefusal.REPLAYED)]


# -- resyncs -----------------------------------------------------------------------------------------------------------


def test_a_backup_requests_a_resync_from_a_master_and_is_in_sync_when_it_is_complete():
    one = OnePeer()
    assert bodies(one.receive(Hello(True, 40, KNOWN)))[-1:] == [ResyncRequest(THEM)]
    for number in (41, 43, 42):
        assert one.receive(Entries(number, b"m")) == [Import(b"m")]
    effects = one.receive(ResyncEnd(41, 43))
    assert bodies(effects) == [Hello(False, 0, ((THEM, 43),))]
    assert effects[-1] == InSync(True)


@pytest.mark.parametrize("numbers", [(10, 12), (11, 12)], ids=["with-a-gap", "begun-before-the-request"])
def test_an_incomplete_resync_is_requested_again_after_the_next_hello(numbers):
    one = OnePeer(Symbol.HELLO_LAG)
    for number in numbers:
        one.receive(Entries(number, b"m"))
    assert one.receive(ResyncEnd(10, 12)) == []
    assert bodies(one.receive(Hello(True, 12, KNOWN))) == [ResyncRequest(THEM)]


def test_a_partial_sync_does_not_complete_a_resync():
    one = OnePeer(Symbol.HELLO_CURRENT)
    one.receive(Entries(5, b"m"))
    assert one.receive(ResyncEnd(5, 5, full=False)) == []
    assert one.receive(Hello(True, 5, KNOWN, sync_running=True)) == []
    assert one.receive(ResyncEnd(5, 5))[-1] == InSync(True)


def test_a_resync_whose_end_arrives_early_completes_with_its_last_message():
    one = OnePeer(Symbol.HELLO_LAG)
    one.receive(Entries(11, b"m"))
    one.receive(ResyncEnd(10, 12))
    one.receive(Entries(12, b"m"))
    assert one.receive(Entries(10, b"m"))[-1] == InSync(True)


def test_a_hello_reveals_a_lost_message_and_the_next_one_leads_to_a_resync_request():
    one = REACH[State.SYNCED]()
    one.receive(Entries(1, b"m"))
    assert one.receive(Hello(True, 1, KNOWN)) == []
    assert one.receive(Hello(True, 2, KNOWN)) == [InSync(False)]
    assert bodies(one.receive(Hello(True, 2, KNOWN))) == [ResyncRequest(THEM)]


def test_a_message_that_arrives_after_its_hello_closes_the_gap():
    one = REACH[State.SYNCED]()
    one.receive(Hello(True, 1, KNOWN))
    one.receive(Entries(1, b"m"))
    assert one.receive(Hello(True, 1, KNOWN)) == [InSync(True)]


def test_a_resync_is_requested_again_after_a_time_without_a_sync_under_way():
    one = OnePeer(Symbol.HELLO_CURRENT)
    assert one.receive(Hello(True, 9, KNOWN), RESYNC_RETRY_S - 0.1) == []
    one.receive(Hello(True, 9, KNOWN, sync_running=True), RESYNC_RETRY_S - 0.1)
    assert one.receive(Hello(True, 9, KNOWN), RESYNC_RETRY_S + 0.1) == []
    assert bodies(one.receive(Hello(True, 9, KNOWN), 2 * RESYNC_RETRY_S)) == [ResyncRequest(THEM)]


def test_entries_of_live_traffic_do_not_count_as_a_resync():
    one = OnePeer(Symbol.HELLO_CURRENT)
    for number in range(1, 40):
        one.receive(Entries(number, b"m"), number / 10)
    assert bodies(one.receive(Hello(True, 40, KNOWN), 4.0)) == [ResyncRequest(THEM)]


def test_a_node_that_becomes_backup_requests_the_entries_that_it_did_not_import():
    one = REACH[State.SYNCED]()
    one.machine.receive(SetRoles(True, False), 0.0)
    assert one.receive(Entries(1, b"m")) == []
    assert one.machine.receive(SetRoles(False, True), 1.0)[-1] == InSync(False)
    assert bodies(one.receive(Hello(True, 1, KNOWN))) == [ResyncRequest(THEM)]


def test_requests_share_a_resync_and_one_that_arrives_during_it_gets_another():
    one = OnePeer(Symbol.HELLO_PEER)
    assert one.receive(ResyncRequest(US)) == [], "a backup answers no requests"
    one.machine.receive(SetRoles(True, False), 0.0)
    assert one.receive(ResyncRequest(THEM)) == [], "the request is for another director"
    assert one.receive(ResyncRequest(US)) == [FULL_SYNC]
    assert one.receive(ResyncRequest(US)) == []
    one.machine.receive(SendEntries(b"m"), 0.0)
    done, again = one.machine.receive(SyncComplete(), 0.0)
    assert (done.message.body, again) == (ResyncEnd(1, 1), FULL_SYNC)
    assert bodies(one.machine.receive(SyncComplete(), 0.0)) == [ResyncEnd(2, 1)]


def test_a_request_during_a_resync_for_another_director_waits_for_the_next_resync():
    """A resync may take many hellos; a request at each of them would keep the master sending for ever."""
    one = OnePeer(Symbol.HELLO_CURRENT)
    for second in range(10):
        assert bodies(one.receive(Hello(True, 5 + second, KNOWN, sync_running=True), float(second))) == []
    one.receive(Entries(15, b"m"))
    assert one.receive(ResyncEnd(3, 15), 10.0) == [], "it began before our request"
    for second in range(10, 20):
        one.receive(Entries(second + 6, b"m"), float(second))
        assert bodies(one.receive(Hello(True, second + 6, KNOWN, sync_running=True), float(second))) == []
    assert one.receive(ResyncEnd(16, 25), 20.0)[-1] == InSync(True)


def test_a_resync_that_failed_is_requested_again():
    master = OnePeer(Symbol.HELLO_PEER)
    master.machine.receive(SetRoles(True, False), 0.0)
    assert master.receive(ResyncRequest(US)) == [FULL_SYNC]
    (done,) = bodies(master.machine.receive(SyncComplete(done=False), 0.0))
    backup = OnePeer(Symbol.HELLO_CURRENT)
    assert backup.receive(done) == []
    assert bodies(backup.receive(Hello(True, 0, KNOWN), RESYNC_RETRY_S + 0.1)) == [ResyncRequest(THEM)]
    assert master.receive(ResyncRequest(US)) == [FULL_SYNC]


def test_a_hand_over_sends_every_connection_and_directors_acknowledge_them():
    master = OnePeer(Symbol.HELLO_PEER)
    assert master.machine.receive(PrepareHandover(), 0.0) == [StartSync(full=True, half_open=True)]
    master.machine.receive(SendEntries(b"m"), 0.0)
    (done,) = bodies(master.machine.receive(SyncComplete(), 0.0))
    assert not master.machine.all_acked
    backup = REACH[State.SYNCED]()
    backup.receive(Entries(1, b"m"))
    (hello,) = bodies(backup.receive(done))
    assert hello.seen == ((THEM, 1),)
    master.receive(Hello(False, 0, ((US, 1),)))
    assert master.machine.all_acked
    assert master.machine.receive(PrepareHandover(), 0.0) == [StartSync(full=False, half_open=True)], "a partial sync is enough"


def test_a_hand_over_during_a_resync_starts_a_full_sync_with_half_open_connections():
    master = OnePeer(Symbol.HELLO_PEER)
    master.machine.receive(SetRoles(True, False), 0.0)
    assert master.receive(ResyncRequest(US)) == [FULL_SYNC]
    assert master.machine.receive(PrepareHandover(), 0.0) == []
    assert master.receive(ResyncRequest(US)) == []
    assert master.machine.receive(SyncComplete(), 0.0)[-1] == StartSync(full=True, half_open=True)


def test_a_node_without_a_master_is_not_in_sync():
    one = REACH[State.SYNCED]()
    assert one.machine.in_sync
    assert one.machine.expire(PEER_TIMEOUT_S + 1)[-1] == InSync(False)


def test_a_hello_every_second_lists_sessions_and_acknowledges_their_entries():
    one = REACH[State.SYNCED]()
    one.receive(Entries(1, b"m"))
    assert one.machine.deadline() == 0.0
    assert bodies(one.machine.expire(0.0)) == [Hello(False, 0, ((THEM, 1),))]
    assert one.machine.deadline() == HELLO_S
    assert one.machine.expire(HELLO_S / 2) == []


# -- a network that loses, duplicates and delays -----------------------------------------------------------------------


class Network:
    """Directors with tables of connections (numbers), on a network with seeded random faults. ``replay`` sends an old message."""

    def __init__(self, seed, directors, loss):
        self.random = random.Random(seed)
        self.loss = loss
        self.now = 0.0
        self.order = itertools.count()
        self.in_flight = []
        self.recorded = []
        self.nodes = {}
        for name in directors:
            self.start(name)

    def start(self, name):
        session = self.random.randbytes(8)
        self.nodes[name] = (SyncPeers(session, 1, self.now), set())
        self.nodes[name][0].receive(SetRoles(False, True), self.now)

    def perform(self, name, effects):
        machine, table = self.nodes[name]
        for effect in effects:
            if isinstance(effect, Send):
                self.send(name, effect.message)
            elif isinstance(effect, Import):
                table.add(effect.ipvs_message)
            elif isinstance(effect, StartSync):
                self.answer(name, machine, sorted(table), self.random.choice((0.0, 3.0, 8.0)))

    def answer(self, name, machine, messages, seconds):
        """Send ``messages`` evenly over ``seconds``, unless the director restarts meanwhile."""
        for at, message in enumerate((*messages, None), 1):
            given = SyncComplete() if message is None else SendEntries(message)
            when = self.now + seconds * at / (len(messages) + 1)
            heapq.heappush(self.in_flight, (when, next(self.order), name, (machine, given)))

    def send(self, source, message):
        self.recorded.append(message)
        for name in self.nodes:
            for _ in range(self.random.choice((1, 1, 1, 2))):
                if name != source and self.random.random() >= self.loss:
                    self.deliver(name, message)

    def deliver(self, name, message):
        heapq.heappush(self.in_flight, (self.now + self.random.random() / 50, next(self.order), name, message))

    def add(self, name, message):
        machine, table = self.nodes[name]
        table.add(message)
        self.perform(name, machine.receive(SendEntries(message), self.now))

    def replay(self, name):
        self.deliver(name, self.random.choice(self.recorded))

    def run(self, seconds):
        until = self.now + seconds
        while True:
            due = [(machine.deadline(), name) for name, (machine, _) in self.nodes.items()]
            when, name = min(due)
            if self.in_flight and self.in_flight[0][0] <= min(when, until):
                self.now, _, name, thing = heapq.heappop(self.in_flight)
                machine, given = (self.nodes[name][0], MessageReceived(thing, "")) if isinstance(thing, Message) else thing
                if machine is self.nodes[name][0]:
                    self.perform(name, machine.receive(given, self.now))
            elif when <= until:
                self.now = max(self.now, when)
                self.perform(name, self.nodes[name][0].expire(self.now))
            else:
                self.now = until
                return


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.3]))
def test_all_directors_have_the_master_s_connections_once_the_network_works_again(seed, loss):
    """Whatever was lost, duplicated, delayed or replayed before, a director that reports to be in sync has every connection."""
    network = Network(seed, ("a", "b", "c"), loss)
    network.perform("a", network.nodes["a"][0].receive(SetRoles(True, False), 0.0))
    for turn in range(60):
        network.add("a", b"%d" % turn)
        if turn % 7 == 3:
            network.replay(network.random.choice(("a", "b", "c")))
        if turn == 30:
            network.start("b")  # its table is empty
        network.run(network.random.random())
    network.loss = 0.0
    network.run(40.0)
    master = network.nodes["a"][1]
    for name in ("b", "c"):
        machine, table = network.nodes[name]
        assert machine.in_sync
        assert table == master


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_a_director_that_receives_only_replays_imports_nothing(seed):
    network = Network(seed, ("a", "b"), 0.0)
    network.perform("a", network.nodes["a"][0].receive(SetRoles(True, False), 0.0))
    for turn in range(10):
        network.add("a", b"%d" % turn)
        network.run(0.3)
    recorded, machine = network.recorded, SyncPeers(b"restarts", 1, network.now)
    machine.receive(SetRoles(False, True), network.now)
    for message in network.random.sample(recorded, len(recorded)):
        effects = machine.receive(MessageReceived(message, ""), network.now)
        assert not any(isinstance(effect, Import | StartSync | InSync) for effect in effects)
