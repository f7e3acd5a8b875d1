"""Directors that share a key: who believes whom, who has what, and that recordings are of no use."""

import heapq
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.machines import sync_peers
from relevo.machines.sync_peers import (
    ASK_AGAIN_S,
    HELLO_S,
    MAX_PEERS,
    SILENCE_S,
    Complete,
    Heard,
    InSync,
    Refusal,
    Refused,
    Send,
    SetRoles,
    State,
    Symbol,
    SyncPeers,
    Take,
    Tell,
    TellAll,
    ToldAll,
)
from relevo.wire.sync_letters import Ask, Done, Entries, Hello, Letter
from tests.unit.machines.exerciser import assert_sound, walk

US, THEM = b"ourselve", b"themselv"
KNOWN = ((US, 0),)
BODY = {
    Symbol.HELLO_STRANGE: Hello(True, 0),
    Symbol.HELLO_PEER: Hello(False, 0, KNOWN),
    Symbol.HELLO_LEVEL: Hello(True, 0, KNOWN),
    Symbol.HELLO_GAP: Hello(True, 9, KNOWN),
    Symbol.ENTRIES: Entries(1, b"message"),
    Symbol.ASK: Ask(US),
    Symbol.DONE_WHOLE: Done(1, 0),
    Symbol.DONE_GAP: Done(1, 5),
}


class OnePeer:
    """A machine and what it makes of one other director."""

    def __init__(self, *symbols):
        self.machine = SyncPeers(US, 51, 0.0)
        self.machine.receive(SetRoles(False, True), 0.0)
        self.numbers = itertools.count(1)
        for symbol in symbols:
            self.hear(BODY[symbol])

    def hear(self, body, now=0.0):
        letter = Letter(THEM, 51, next(self.numbers), body)
        return self.machine.receive(Heard(letter, "192.0.2.2"), now)

    @property
    def peer(self):
        return self.machine.peers[THEM]

    @property
    def state(self):
        return self.peer.state if THEM in self.machine.peers else State.STRANGER


REACH = {
    State.STRANGER: OnePeer,
    State.PEER: lambda: OnePeer(Symbol.HELLO_PEER),
    State.MISSING: lambda: OnePeer(Symbol.HELLO_LEVEL),
    State.SYNCED: lambda: OnePeer(Symbol.HELLO_LEVEL, Symbol.DONE_WHOLE),
}


EVERYTHING = TellAll(whole=True, half_open=False)


def bodies(effects):
    return [effect.letter.body for effect in effects if isinstance(effect, Send)]


def test_the_table_is_sound():
    assert_sound(sync_peers, SyncPeers(US, 51, 0.0), {State.STRANGER}, set(State))


def test_every_pair_of_the_table_is_walked(monkeypatch):
    def feed(one, symbol):
        if symbol is not Symbol.LISTEN:
            one.hear(BODY[symbol])
            return
        if THEM not in one.machine.peers:
            one.hear(BODY[Symbol.HELLO_STRANGE])
        for backup in (False, True):
            one.machine.receive(SetRoles(False, backup), 0.0)

    walk(monkeypatch, sync_peers, REACH, feed)


# -- who is believed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", [Symbol.ENTRIES, Symbol.ASK, Symbol.DONE_WHOLE])
def test_who_has_not_named_our_session_may_be_a_recording(symbol):
    one = OnePeer(Symbol.HELLO_STRANGE)
    one.machine.receive(SetRoles(True, False), 0.0)
    assert one.hear(BODY[symbol]) == [Refused(Refusal.STRANGER)]


def test_a_stranger_gets_to_know_our_session_at_once_and_once():
    one = OnePeer()
    assert bodies(one.hear(Hello(False, 0))) == [Hello(False, 0, ((THEM, 0),))]
    assert one.hear(Hello(False, 0)) == []


def test_the_same_number_is_believed_once_and_overtaking_is_allowed():
    one = OnePeer(Symbol.HELLO_PEER)

    def hear(sequence):
        return one.machine.receive(Heard(Letter(THEM, 51, sequence, Entries(1, b"m")), ""), 0.0)

    assert hear(10) == [Take(b"m")]
    assert hear(8) == [Take(b"m")]
    assert hear(10) == hear(8) == [Refused(Refusal.REPLAYED)]
    assert hear(5000) == [Take(b"m")]
    assert hear(9) == [Refused(Refusal.REPLAYED)], "too old to be known"
    hear(2**64 - 1)
    assert hear(11) == [Refused(Refusal.REPLAYED)]


def test_who_fell_silent_is_known_when_a_recording_of_it_comes():
    one = OnePeer(Symbol.HELLO_PEER)
    one.machine.expire(SILENCE_S + 1)
    assert one.machine.peers == {}
    for sequence in (0, 1):
        old = Heard(Letter(THEM, 51, sequence, BODY[Symbol.HELLO_PEER]), "")
        assert one.machine.receive(old, SILENCE_S + 1) == [Refused(Refusal.REPLAYED)]
    one.hear(BODY[Symbol.HELLO_PEER], SILENCE_S + 1)
    assert one.state is State.PEER
    assert one.machine.receive(Heard(Letter(THEM, 51, 1, BODY[Symbol.ENTRIES]), ""), 5.0) == [Refused(Refusal.REPLAYED)]


def test_another_sync_id_our_own_letters_and_too_many_sessions_are_passed_over():
    machine = SyncPeers(US, 51, 0.0)
    assert machine.receive(Heard(Letter(THEM, 52, 1, Hello(False, 0)), ""), 0.0) == [Refused(Refusal.SYNC_ID)]
    assert machine.receive(Heard(Letter(US, 51, 1, Hello(False, 0)), ""), 0.0) == []
    for number in range(MAX_PEERS):
        machine.receive(Heard(Letter(number.to_bytes(8, "big"), 51, 1, BODY[Symbol.HELLO_PEER]), ""), 0.0)
    assert machine.receive(Heard(Letter(THEM, 51, 1, Hello(False, 0)), ""), 0.0) == [Refused(Refusal.TOO_MANY)]


def test_recordings_of_many_sessions_do_not_keep_a_director_out():
    one = OnePeer()
    for number in range(3 * MAX_PEERS):
        one.machine.receive(Heard(Letter(number.to_bytes(8, "big"), 51, 1, Hello(False, 0)), ""), number / 100)
    one.hear(BODY[Symbol.HELLO_PEER], 1.0)
    assert one.state is State.PEER
    assert len(one.machine.peers) == MAX_PEERS
    again = Heard(Letter((0).to_bytes(8, "big"), 51, 1, Hello(False, 0)), "")
    assert one.machine.receive(again, 1.0) == [Refused(Refusal.REPLAYED)]


# -- who has what ------------------------------------------------------------------------------------------------------


def test_a_master_is_asked_for_everything_and_its_whole_answer_is_being_in_sync():
    one = OnePeer()
    assert bodies(one.hear(Hello(True, 40, KNOWN)))[-1:] == [Ask(THEM)]
    for number in (41, 43, 42):
        assert one.hear(Entries(number, b"m")) == [Take(b"m")]
    effects = one.hear(Done(41, 43))
    assert bodies(effects) == [Hello(False, 0, ((THEM, 43),))]
    assert effects[-1] == InSync(True)


@pytest.mark.parametrize("numbers", [(10, 12), (11, 12)], ids=["with-a-gap", "begun-before-it-was-asked-for"])
def test_an_answer_that_is_not_whole_is_asked_for_again_after_the_next_hello(numbers):
    one = OnePeer(Symbol.HELLO_GAP)
    for number in numbers:
        one.hear(Entries(number, b"m"))
    assert one.hear(Done(10, 12)) == []
    assert bodies(one.hear(Hello(True, 12, KNOWN))) == [Ask(THEM)]


def test_the_end_of_what_others_lacked_is_no_answer_to_who_lacks_everything():
    one = OnePeer(Symbol.HELLO_LEVEL)
    one.hear(Entries(5, b"m"))
    assert one.hear(Done(5, 5, whole=False)) == []
    assert one.hear(Hello(True, 5, KNOWN, telling=True)) == []
    assert one.hear(Done(5, 5))[-1] == InSync(True)


def test_an_end_that_overtook_the_answer_counts_when_the_rest_is_there():
    one = OnePeer(Symbol.HELLO_GAP)
    one.hear(Entries(11, b"m"))
    one.hear(Done(10, 12))
    one.hear(Entries(12, b"m"))
    assert one.hear(Entries(10, b"m"))[-1] == InSync(True)


def test_a_lost_letter_is_noticed_by_the_next_hello_and_asked_about_by_the_one_after():
    one = REACH[State.SYNCED]()
    one.hear(Entries(1, b"m"))
    assert one.hear(Hello(True, 1, KNOWN)) == []
    assert one.hear(Hello(True, 2, KNOWN)) == [InSync(False)]
    assert bodies(one.hear(Hello(True, 2, KNOWN))) == [Ask(THEM)]


def test_a_letter_that_was_overtaken_by_a_hello_closes_the_gap():
    one = REACH[State.SYNCED]()
    one.hear(Hello(True, 1, KNOWN))
    one.hear(Entries(1, b"m"))
    assert one.hear(Hello(True, 1, KNOWN)) == [InSync(True)]


def test_an_answer_that_does_not_come_is_asked_for_again_but_not_while_it_comes():
    one = OnePeer(Symbol.HELLO_LEVEL)
    assert one.hear(Hello(True, 9, KNOWN), ASK_AGAIN_S - 0.1) == []
    one.hear(Hello(True, 9, KNOWN, telling=True), ASK_AGAIN_S - 0.1)
    assert one.hear(Hello(True, 9, KNOWN), ASK_AGAIN_S + 0.1) == []
    assert bodies(one.hear(Hello(True, 9, KNOWN), 2 * ASK_AGAIN_S)) == [Ask(THEM)]


def test_what_is_announced_meanwhile_does_not_pass_for_an_answer():
    one = OnePeer(Symbol.HELLO_LEVEL)
    for number in range(1, 40):
        one.hear(Entries(number, b"m"), number / 10)
    assert bodies(one.hear(Hello(True, 40, KNOWN), 4.0)) == [Ask(THEM)]


def test_what_comes_while_nothing_is_taken_in_is_asked_for_afterwards():
    one = REACH[State.SYNCED]()
    one.machine.receive(SetRoles(True, False), 0.0)
    assert one.hear(Entries(1, b"m")) == []
    assert one.machine.receive(SetRoles(False, True), 1.0)[-1] == InSync(False)
    assert bodies(one.hear(Hello(True, 1, KNOWN))) == [Ask(THEM)]


def test_a_master_tells_everything_once_for_all_who_asked_and_again_for_who_asked_meanwhile():
    one = OnePeer(Symbol.HELLO_PEER)
    assert one.hear(Ask(US)) == [], "no master has nothing to tell"
    one.machine.receive(SetRoles(True, False), 0.0)
    assert one.hear(Ask(THEM)) == [], "somebody else is asked"
    assert one.hear(Ask(US)) == [EVERYTHING]
    assert one.hear(Ask(US)) == []
    one.machine.receive(Tell(b"m"), 0.0)
    done, again = one.machine.receive(ToldAll(), 0.0)
    assert (done.letter.body, again) == (Done(1, 1), EVERYTHING)
    assert bodies(one.machine.receive(ToldAll(), 0.0)) == [Done(2, 1)]


def test_who_asks_amid_an_answer_to_somebody_else_waits_for_its_own():
    """An answer may take many hellos; asking at each would have everything told for ever."""
    one = OnePeer(Symbol.HELLO_LEVEL)
    for second in range(10):
        assert bodies(one.hear(Hello(True, 5 + second, KNOWN, telling=True), float(second))) == []
    one.hear(Entries(15, b"m"))
    assert one.hear(Done(3, 15), 10.0) == [], "it began before we asked"
    for second in range(10, 20):
        one.hear(Entries(second + 6, b"m"), float(second))
        assert bodies(one.hear(Hello(True, second + 6, KNOWN, telling=True), float(second))) == []
    assert one.hear(Done(16, 25), 20.0)[-1] == InSync(True)


def test_an_answer_that_failed_is_asked_for_again():
    master = OnePeer(Symbol.HELLO_PEER)
    master.machine.receive(SetRoles(True, False), 0.0)
    assert master.hear(Ask(US)) == [EVERYTHING]
    (done,) = bodies(master.machine.receive(ToldAll(done=False), 0.0))
    backup = OnePeer(Symbol.HELLO_LEVEL)
    assert backup.hear(done) == []
    assert bodies(backup.hear(Hello(True, 0, KNOWN), ASK_AGAIN_S + 0.1)) == [Ask(THEM)]
    assert master.hear(Ask(US)) == [EVERYTHING]


def test_everything_is_told_before_a_hand_over_and_everybody_says_that_it_has_it():
    master = OnePeer(Symbol.HELLO_PEER)
    assert master.machine.receive(Complete(), 0.0) == [TellAll(whole=True, half_open=True)]
    master.machine.receive(Tell(b"m"), 0.0)
    (done,) = bodies(master.machine.receive(ToldAll(), 0.0))
    assert not master.machine.everybody_has_everything
    backup = REACH[State.SYNCED]()
    backup.hear(Entries(1, b"m"))
    (hello,) = bodies(backup.hear(done))
    assert hello.seen == ((THEM, 1),)
    master.hear(Hello(False, 0, ((US, 1),)))
    assert master.machine.everybody_has_everything
    assert master.machine.receive(Complete(), 0.0) == [TellAll(whole=False, half_open=True)], "what is new is enough"


def test_a_hand_over_amid_an_answer_gets_what_it_needs():
    master = OnePeer(Symbol.HELLO_PEER)
    master.machine.receive(SetRoles(True, False), 0.0)
    assert master.hear(Ask(US)) == [EVERYTHING]
    assert master.machine.receive(Complete(), 0.0) == []
    assert master.hear(Ask(US)) == []
    assert master.machine.receive(ToldAll(), 0.0)[-1] == TellAll(whole=True, half_open=True)


def test_without_a_master_nobody_is_in_sync():
    one = REACH[State.SYNCED]()
    assert one.machine.in_sync
    assert one.machine.expire(SILENCE_S + 1)[-1] == InSync(False)


def test_a_hello_every_second_says_who_was_heard_and_how_much_of_it_is_here():
    one = REACH[State.SYNCED]()
    one.hear(Entries(1, b"m"))
    assert one.machine.deadline() == 0.0
    assert bodies(one.machine.expire(0.0)) == [Hello(False, 0, ((THEM, 1),))]
    assert one.machine.deadline() == HELLO_S
    assert one.machine.expire(HELLO_S / 2) == []


# -- a network that loses, doubles and delays --------------------------------------------------------------------------


class Network:
    """Directors with tables of connections (numbers), on a wire from a seed; an eavesdropper sends recordings."""

    def __init__(self, seed, directors, loss):
        self.random = random.Random(seed)
        self.loss = loss
        self.now = 0.0
        self.order = itertools.count()
        self.flying = []
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
                self.send(name, effect.letter)
            elif isinstance(effect, Take):
                table.add(effect.message)
            elif isinstance(effect, TellAll):
                self.answer(name, machine, sorted(table), self.random.choice((0.0, 3.0, 8.0)))

    def answer(self, name, machine, messages, seconds):
        """Tell everything, in the time that this takes; a director that started anew meanwhile does not."""
        for at, message in enumerate((*messages, None), 1):
            given = ToldAll() if message is None else Tell(message)
            when = self.now + seconds * at / (len(messages) + 1)
            heapq.heappush(self.flying, (when, next(self.order), name, (machine, given)))

    def send(self, source, letter):
        self.recorded.append(letter)
        for name in self.nodes:
            for _ in range(self.random.choice((1, 1, 1, 2))):
                if name != source and self.random.random() >= self.loss:
                    self.fly(name, letter)

    def fly(self, name, letter):
        heapq.heappush(self.flying, (self.now + self.random.random() / 50, next(self.order), name, letter))

    def add(self, name, message):
        machine, table = self.nodes[name]
        table.add(message)
        self.perform(name, machine.receive(Tell(message), self.now))

    def replay(self, name):
        self.fly(name, self.random.choice(self.recorded))

    def run(self, seconds):
        until = self.now + seconds
        while True:
            due = [(machine.deadline(), name) for name, (machine, _) in self.nodes.items()]
            when, name = min(due)
            if self.flying and self.flying[0][0] <= min(when, until):
                self.now, _, name, thing = heapq.heappop(self.flying)
                machine, given = (self.nodes[name][0], Heard(thing, "")) if isinstance(thing, Letter) else thing
                if machine is self.nodes[name][0]:
                    self.perform(name, machine.receive(given, self.now))
            elif when <= until:
                self.now = max(self.now, when)
                self.perform(name, self.nodes[name][0].expire(self.now))
            else:
                self.now = until
                return


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.3]))
def test_everybody_has_what_the_master_has_when_the_wire_holds_again(seed, loss):
    """And who says that it is in sync at a quiet moment is, whatever was lost, doubled, late or replayed before."""
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


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32))
def test_a_director_that_hears_recordings_alone_takes_nothing(seed):
    network = Network(seed, ("a", "b"), 0.0)
    network.perform("a", network.nodes["a"][0].receive(SetRoles(True, False), 0.0))
    for turn in range(10):
        network.add("a", b"%d" % turn)
        network.run(0.3)
    recorded, machine = network.recorded, SyncPeers(b"restarts", 1, network.now)
    machine.receive(SetRoles(False, True), network.now)
    for letter in network.random.sample(recorded, len(recorded)):
        effects = machine.receive(Heard(letter, ""), network.now)
        assert not any(isinstance(effect, Take | TellAll | InSync) for effect in effects)
