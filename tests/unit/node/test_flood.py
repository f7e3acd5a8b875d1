"""A flood of adverts on a socket: who is listened to, and for how long."""

from __future__ import annotations

from relevo.machines.vrrp import State
from relevo.model import Configuration, VrrpTransport
from relevo.node.effects import LimitSenders
from relevo.node.flood import KNOWN_S, MAX_SENDERS, QUIET_S, SENDER_PER_S, USELESS_PER_S, FloodGuard
from relevo.node.observation import Configure, PacketReceived, PortOpened
from relevo.wire.vrrp import Envelope
from tests.unit.node.test_director import PEER, file, instance, machine, receive_advert, started, texts, wait

MASTER, ROUTER = "10.0.0.2", "10.0.0.3"


def flood(guard: FloodGuard, count: int, at: float, *, sender: str = "") -> bool:
    """Feed useless packets within a tenth of a second; return whether the last one changed anything."""
    changed = False
    for n in range(count):
        who = sender or f"10.9.{n // 250 % 250}.{n % 250}"
        changed = guard.take(who, useful=False, trusted=lambda: (MASTER,), now=at + n / count / 10)
    return changed


def test_adverts_that_are_of_use_are_no_flood() -> None:
    guard = FloodGuard()
    assert not any(guard.take(f"10.0.0.{n % 20}", useful=True, trusted=tuple, now=n / 1500) for n in range(10_000))
    assert guard.deadline is None


def test_a_few_useless_packets_a_second_are_none_either() -> None:
    guard = FloodGuard()
    assert not any(guard.take("10.9.9.9", useful=False, trusted=tuple, now=n / (USELESS_PER_S - 10)) for n in range(5000))


def test_in_a_flood_trusted_senders_and_those_of_valid_adverts_are_listened_to() -> None:
    guard = FloodGuard()
    guard.take(ROUTER, useful=True, trusted=lambda: (MASTER,), now=1.0)
    assert flood(guard, USELESS_PER_S, 2.0) is False
    assert guard.take("10.9.9.9", useful=False, trusted=lambda: (MASTER,), now=2.2)
    assert guard.limited_to == (MASTER, ROUTER)
    assert guard.deadline == 2.2 + QUIET_S


def test_a_new_sender_of_valid_adverts_is_listened_to_from_the_first_that_is_heard() -> None:
    guard = FloodGuard()
    flood(guard, USELESS_PER_S + 1, 1.0)
    assert guard.limited_to == (MASTER,)
    assert guard.take(ROUTER, useful=True, trusted=lambda: (MASTER,), now=3.0)
    assert guard.limited_to == (MASTER, ROUTER)
    assert not guard.take(ROUTER, useful=True, trusted=lambda: (MASTER,), now=3.1)


def test_a_sender_that_is_not_heard_any_more_is_forgotten() -> None:
    guard = FloodGuard()
    guard.take(ROUTER, useful=True, trusted=lambda: (MASTER,), now=1.0)
    flood(guard, USELESS_PER_S + 1, 2.0)
    assert guard.take("10.9.9.9", useful=False, trusted=lambda: (MASTER,), now=3.0 + KNOWN_S)
    assert guard.limited_to == (MASTER,)


def test_a_sender_of_valid_adverts_without_end_is_a_flood_itself() -> None:
    guard = FloodGuard()
    for n in range(SENDER_PER_S + 1):
        guard.take(ROUTER, useful=True, trusted=lambda: (MASTER,), now=1.0 + n / 10_000)
    assert guard.limited_to == (MASTER,)


def test_the_flood_ends_after_a_time_without_a_useless_packet() -> None:
    guard = FloodGuard()
    flood(guard, USELESS_PER_S + 1, 1.0)
    guard.take("10.9.9.9", useful=False, trusted=lambda: (MASTER,), now=5.0)
    assert not guard.expire(1.0 + QUIET_S)
    assert guard.expire(5.0 + QUIET_S)
    assert guard.limited_to is None
    assert flood(guard, USELESS_PER_S + 1, 20.0), "a second one is noticed like the first"


def test_senders_without_end_take_no_memory() -> None:
    guard = FloodGuard()
    for n in range(100_000):
        guard.take(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", useful=True, trusted=tuple, now=n / 400)
    assert len(guard._known) <= MAX_SENDERS
    assert len(guard._by_sender) <= USELESS_PER_S
    flood(guard, 100_000, 300.0)
    assert len(guard._by_sender) <= USELESS_PER_S + 1


# -- a director in a flood -----------------------------------------------------------------------------------------------


def forge(host, count, *, priority=50, vrid=51, seconds=1.0):
    """Send adverts of ``count`` forged senders within some seconds, beside those of the peer, which come every second."""
    for n in range(count):
        receive_advert(host, priority, source=f"10.9.{n // 250 % 250}.{n % 250 + 1}", vrid=vrid)
        wait(host, seconds / count)


def test_a_backup_in_a_flood_stays_backup_and_hears_its_master():
    host = started(instance(priority=100), settle=0.5)
    receive_advert(host, 200)
    for _ in range(20):
        forge(host, 3000, vrid=77)
        receive_advert(host, 200)
    assert machine(host).state is State.BACKUP
    assert machine(host).master_address == PEER
    flood = [line for line in texts(host) if "flood" in line]
    assert flood == [f"(V) a flood of adverts, the last from 10.9.2.1: listening to {PEER} and one in 1024 packets of others"]
    wait(host, 2.0)
    receive_advert(host, 200)
    for _ in range(12):
        wait(host, 1.0)
        receive_advert(host, 200)
    assert [line for line in texts(host) if "flood" in line][1:] == ["(V) the flood of adverts has ended"]
    assert machine(host).state is State.BACKUP


def test_a_master_in_a_flood_of_lower_adverts_yields_to_a_higher_one_that_is_found_among_them():
    host = started(instance(priority=100))
    assert machine(host).state is State.MASTER
    forge(host, 2000)
    assert any("flood" in line for line in texts(host))
    for n in range(2000):
        for last in (n, n + 1):  # three packets a turn: whatever is sampled is not always the same
            receive_advert(host, 50, source=f"10.8.{last // 250}.{last % 250 + 1}")
        receive_advert(host, 200)
    assert machine(host).state is State.BACKUP
    assert machine(host).master_address == PEER


def test_a_flood_on_a_socket_that_is_opened_again_is_noticed_again():
    host = started(instance(priority=100), settle=0.5)
    forge(host, 2000, vrid=77)
    for group in ("224.0.0.19", "224.0.0.18"):
        host.reload(file(instance(priority=100, multicast_group=group)))
    wait(host, 1.5)
    forge(host, 2000, vrid=77)
    assert len([line for line in texts(host) if "a flood" in line]) == 2


def test_a_filter_that_routers_share_is_lifted_though_the_one_that_got_it_has_gone():
    shared = {"source_address": "10.0.0.1", "unicast_peers": (PEER,), "transport": VrrpTransport(udp_port=1985)}
    both = [instance(name, virtual_router_id=vrid, addresses=(), **shared) for name, vrid in (("A", 51), ("B", 52))]
    director = started(*both, settle=0.5).director
    packet = PacketReceived(("A", "B"), bytes([0x31, 77, 1, 0, 0, 1, 0, 0]), Envelope("10.0.0.77", "10.0.0.1"))
    for n in range(USELESS_PER_S + 1):
        effects = director.receive(packet, 10.0 + n / 10_000)
    assert [effect for effect in effects if isinstance(effect, LimitSenders)] == [LimitSenders("A", (PEER,))]
    director.receive(Configure(file(both[1]), director.world), 11.0)
    effects = director.expire(30.0)
    assert [effect for effect in effects if isinstance(effect, LimitSenders)] == [LimitSenders("B", None)]
    assert director._floods.keys() == {("A", "B")}
    director.receive(Configure(Configuration(), director.world), 31.0)
    director.expire(40.0)
    assert not director._floods


def test_a_filter_that_routers_share_is_lifted_when_one_of_them_opens_the_socket_again():
    director = started(instance(), settle=0.5).director
    packet = PacketReceived(("V",), bytes([0x31, 77, 1, 0, 0, 1, 0, 0]), Envelope("10.0.0.77", "224.0.0.18", 255))
    for n in range(USELESS_PER_S + 1):
        director.receive(packet, 10.0 + n / 10_000)
    assert LimitSenders("V", None) in director.receive(PortOpened("V"), 11.0)
    assert LimitSenders("V", None) not in director.receive(PortOpened("V"), 11.0)
