"""Sockets of synchronisation: groups of both IP versions, peers by address; other senders are ignored."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest

from relevo.host.sync_port import SyncReceiver, SyncSender
from relevo.lab.namespaces import NetworkNamespaces, await_carrier, bring_up, index_of, netlink

pytestmark = [pytest.mark.namespaces, pytest.mark.usefixtures("namespaces")]

PORT = 8848
TIMEOUT_S = 8.0
ADDRESSES = {"here": ("10.9.0.1", "fd09::1"), "there": ("10.9.0.2", "fd09::2")}


@pytest.fixture
def spaces(namespaces: None) -> Iterator[NetworkNamespaces]:
    made = NetworkNamespaces()
    for name in ADDRESSES:
        made.make(name)
    with made.inside("here"), netlink() as ip:
        bring_up(ip, "lo")
        ip.link("add", ifname="wire", kind="veth", peer={"ifname": "wire", "net_ns_pid": made.holder("there")})
    for name, (four, six) in ADDRESSES.items():
        with made.inside(name), netlink() as ip:
            bring_up(ip, "wire")
            ip.addr("add", index=index_of(ip, "wire"), address=four, prefixlen=24, broadcast="10.9.0.255")
            ip.addr("add", index=index_of(ip, "wire"), address=six, prefixlen=64, flags=2)  # IFA_F_NODAD
    for name in ADDRESSES:
        with made.inside(name), netlink() as ip:
            await_carrier(ip, "wire")
    yield made
    made.close()


def received(receiver: SyncReceiver, expected: int) -> list[tuple[bytes, str]]:
    """Receive until ``expected`` messages have arrived. Neighbour discovery may take seconds: it retries once a second."""
    found: list[tuple[bytes, str]] = []
    while len(found) < expected and select.select([receiver], [], [], TIMEOUT_S)[0]:
        found += receiver.receive(10)
    return found


def nothing_received(receiver: SyncReceiver) -> bool:
    select.select([receiver], [], [], 1.0)
    return not list(receiver.receive(10))


@pytest.mark.parametrize(
    ("group", "peers", "source"),
    [
        ("224.0.0.81", ((), ()), "10.9.0.1"),
        ("ff02::81", ((), ()), None),
        ("224.0.0.81", (("10.9.0.2",), ("10.9.0.1",)), "10.9.0.1"),
        ("224.0.0.81", (("fd09::2",), ("fd09::1",)), "fd09::1"),
    ],
    ids=["group", "IPv6-group", "peer", "IPv6-peer"],
)
def test_messages_arrive_with_their_source(
    spaces: NetworkNamespaces, group: str, peers: tuple[tuple[str, ...], tuple[str, ...]], source: str | None
) -> None:
    with spaces.inside("there"):
        receiver = SyncReceiver("wire", group, PORT, peers[1])
    with spaces.inside("here"), SyncSender("wire", group, PORT, 1, peers[0]) as sender:
        for message in (b"one", b"two"):
            sender.send(message)
    found = received(receiver, 2)
    receiver.close()
    assert [message for message, _ in found] == [b"one", b"two"]
    assert source is None or {address for _, address in found} == {source}


def test_messages_of_an_unknown_peer_are_ignored(spaces: NetworkNamespaces) -> None:
    with spaces.inside("there"):
        receiver = SyncReceiver("wire", "224.0.0.81", PORT, ("10.9.0.77",))
    with spaces.inside("here"), SyncSender("wire", "224.0.0.81", PORT, 1, ("10.9.0.2",)) as sender:
        sender.send(b"one")
    assert nothing_received(receiver)
    receiver.close()


def test_our_own_messages_are_not_received(spaces: NetworkNamespaces) -> None:
    with spaces.inside("here"):
        receiver = SyncReceiver("wire", "224.0.0.81", PORT)
        with SyncSender("wire", "224.0.0.81", PORT, 1) as sender:
            sender.send(b"one")
        assert nothing_received(receiver)
        receiver.close()


def test_an_unreachable_peer_does_not_stop_messages_to_the_others(spaces: NetworkNamespaces) -> None:
    with spaces.inside("there"):
        receiver = SyncReceiver("wire", "224.0.0.81", PORT, ("10.9.0.1",))
    broadcast = "10.9.0.255"
    with (
        spaces.inside("here"),
        SyncSender("wire", "224.0.0.81", PORT, 1, (broadcast, "10.9.0.2")) as sender,
        pytest.raises(OSError, match="Permission denied"),
    ):
        sender.send(b"one")
    assert received(receiver, 1) == [(b"one", "10.9.0.1")]
    receiver.close()


def test_a_missing_interface_is_an_error(spaces: NetworkNamespaces) -> None:
    for open_ in (lambda: SyncSender("eth9", "224.0.0.81", PORT, 1), lambda: SyncReceiver("eth9", "224.0.0.81", PORT)):
        with pytest.raises(OSError, match="no interface with this name"):
            open_()


@pytest.mark.parametrize(("group", "stranger"), [("224.0.0.81", "10.9.0.9"), ("ff02::81", "fd09::9")])
def test_in_a_flood_of_forged_messages_known_directors_are_heard(spaces: NetworkNamespaces, group: str, stranger: str) -> None:
    with spaces.inside("there"):
        receiver = SyncReceiver("wire", group, PORT)
    with spaces.inside("here"):
        sender = SyncSender("wire", group, PORT, 1)
    try:
        sender.send(b"first")
        ((_, source),) = received(receiver, 1)
        receiver.limit([stranger], 1 << 20)
        for _ in range(100):
            sender.send(b"forged")
        assert nothing_received(receiver)
        receiver.limit([source], 1 << 20)
        sender.send(b"known")
        assert received(receiver, 1) == [(b"known", source)]
        receiver.limit(None, 1)
        receiver.limit(None, 1)
        sender.send(b"everybody")
        assert received(receiver, 1) == [(b"everybody", source)]
    finally:
        receiver.close()
        sender.close()
