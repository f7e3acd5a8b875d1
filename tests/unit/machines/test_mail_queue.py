import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.errors import ImpossibleTransition
from relevo.machines import mail_queue
from relevo.machines.mail_queue import Deliver, Failed, Forget, MailQueueMachine, Postponed, Queued, Sent, State, Symbol
from tests.unit.machines.exerciser import assert_sound, force, walk

INPUTS = {
    Symbol.QUEUED: Queued(2),
    Symbol.SENT: Sent(1),
    Symbol.FAILED: Failed(1, "timeout"),
    Symbol.REJECTED: Failed(1, "550 no such user", permanent=True),
}


def queue(*given):
    machine = MailQueueMachine()
    for item in given:
        machine.receive(item, 0.0)
    return machine


REACH = {
    State.IDLE: queue,
    State.SENDING: lambda: queue(Queued(1)),
    State.WAITING: lambda: queue(Queued(1), Failed(1, "timeout")),
}


def feed(machine, symbol):
    return force(machine, symbol) if symbol is Symbol.RETRY else machine.receive(INPUTS[symbol], 0.0)


def test_the_table_is_sound():
    assert_sound(mail_queue, MailQueueMachine(), {State.IDLE}, State)


def test_every_pair_of_the_table_is_walked(monkeypatch):
    walk(monkeypatch, mail_queue, REACH, feed)


def test_a_mail_leaves_at_once_when_nothing_is_under_way():
    machine = MailQueueMachine()
    assert machine.receive(Queued(1), 0.0) == [Deliver(1)]
    assert machine.receive(Sent(1), 1.0) == [Forget(1, True)]
    assert (machine.state, len(machine), machine.deadline()) == (State.IDLE, 0, None)


def test_mails_leave_in_the_order_in_which_they_were_queued():
    machine = queue(Queued(1))
    assert machine.receive(Queued(2), 0.0) == []
    assert machine.receive(Queued(3), 0.0) == []
    assert machine.receive(Sent(1), 1.0) == [Forget(1, True), Deliver(2)]
    assert machine.receive(Sent(2), 2.0) == [Forget(2, True), Deliver(3)]


def test_a_mail_that_cannot_be_delivered_delays_the_others():
    machine = queue(Queued(1), Queued(2))
    assert machine.receive(Failed(1, "timeout"), 10.0) == [Postponed(1, 2.0, "timeout")]
    assert machine.receive(Queued(3), 11.0) == []
    assert machine.deadline() == 12.0
    assert machine.expire(11.9) == []
    assert machine.expire(12.0) == [Deliver(1)]


def test_the_delay_doubles_up_to_a_minute():
    machine, now, delays = queue(Queued(1)), 0.0, []
    for _ in range(8):
        [postponed] = machine.receive(Failed(1, "timeout"), now)
        delays.append(postponed.delay_s)
        now = machine.deadline()
        machine.expire(now)
    assert delays == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_a_delivery_starts_the_back_off_again():
    machine = queue(Queued(1), Queued(2), Failed(1, "timeout"))
    machine.expire(2.0)
    assert machine.last_error == "timeout"
    machine.receive(Sent(1), 3.0)
    assert (machine.attempts, machine.last_error) == (0, "")
    assert machine.receive(Failed(2, "reset"), 4.0) == [Postponed(2, 2.0, "reset")]


def test_a_permanent_refusal_drops_that_mail_alone():
    machine = queue(Queued(1), Queued(2))
    answer = Failed(1, "550 no such user", permanent=True)
    assert machine.receive(answer, 0.0) == [Forget(1, False, "550 no such user"), Deliver(2)]
    assert machine.last_error == "550 no such user"


def test_a_queue_whose_last_mail_is_refused_is_idle():
    machine = queue(Queued(1), Failed(1, "550", permanent=True))
    assert machine.state is State.IDLE


def test_beyond_the_limit_the_newest_mails_are_refused_and_counted(monkeypatch):
    monkeypatch.setattr(mail_queue, "MAX_QUEUED", 2)
    machine = queue(Queued(1), Queued(2))
    assert machine.receive(Queued(3), 0.0) == [Forget(3, False, "more than 2 mails are waiting")]
    assert (machine.refused, len(machine)) == (1, 2)
    machine.receive(Sent(1), 0.0)
    assert machine.receive(Queued(4), 0.0) == []


def test_an_unexpected_outcome_is_a_programming_error():
    with pytest.raises(ImpossibleTransition):
        MailQueueMachine().receive(Sent(1), 0.0)


def test_an_input_of_no_known_kind_is_no_input():
    assert not MailQueueMachine().receive(object(), 0.0)


def test_a_mail_server_may_be_away_for_days():
    machine, now = queue(Queued(1)), 0.0
    for _ in range(3000):
        [postponed] = machine.receive(Failed(1, "timeout"), now)
        now = machine.deadline()
        assert machine.expire(now) == [Deliver(1)]
    assert postponed.delay_s == 60.0


@given(st.lists(st.sampled_from(("queue", "sent", "failed", "rejected", "wait")), max_size=60))
def test_every_mail_is_forgotten_once_in_order_and_never_two_are_under_way(steps):
    machine, now, queued, forgotten, under_way = MailQueueMachine(), 0.0, 0, [], []
    for step in steps:
        effects = []
        if step == "queue":
            queued += 1
            effects = machine.receive(Queued(queued), now)
        elif step == "wait":
            now = max(now, machine.deadline() or now)
            effects = machine.expire(now)
        elif under_way:
            number = under_way.pop()
            answers = {"sent": Sent(number), "failed": Failed(number, "x"), "rejected": Failed(number, "x", permanent=True)}
            effects = machine.receive(answers[step], now)
        forgotten += [e.number for e in effects if isinstance(e, Forget)]
        under_way += [e.number for e in effects if isinstance(e, Deliver)]
        assert len(under_way) == (machine.state is State.SENDING)
        assert (machine.deadline() is not None) is (machine.state is State.WAITING)
        assert len(machine) == queued - len(forgotten)
    assert forgotten == list(range(1, len(forgotten) + 1))
