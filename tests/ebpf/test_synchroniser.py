"""The daemon of synchronisation between a real ring and real sockets: roles that change, what goes wrong on the way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from relevo.machines.sync_peers import TellAll
from relevo.model.table import SyncRole, SyncTask
from relevo.planes.ebpf import synchroniser
from relevo.planes.ebpf.layout import Announced, SettingFlag
from relevo.planes.ebpf.synchroniser import Synchroniser
from relevo.wire import ipvs_sync
from relevo.wire.sync_letters import Done, Letter, unseal
from tests.ebpf.packets import Director, syn

KEY = "no secret of anybody's"
MASTER, BACKUP = frozenset((SyncRole.MASTER,)), frozenset((SyncRole.BACKUP,))
READ, MANY = 100, 1000


@pytest.fixture(autouse=True)
def small_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring of the tests holds hardly more than a usual turn takes."""
    monkeypatch.setattr(synchroniser, "READ", READ)


@pytest.fixture
def peer(director: Director) -> Iterator[socket.socket]:
    """Hears what is sent to 127.0.0.1, before a daemon that listens on the whole interface does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


def task(peer: socket.socket, roles: frozenset[SyncRole] = MASTER, key_file: str = "") -> SyncTask:
    port = peer.getsockname()[1]
    return SyncTask(roles=roles, interface="lo", sync_id=1, port=port, peers=("127.0.0.1",), key_file=key_file)


def datagrams(peer: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield peer.recv(65_535)


def heard(peer: socket.socket) -> int:
    """How many entries have come."""
    return sum(len(ipvs_sync.decode(each, 1).entries) for each in datagrams(peer))


def announce(director: Director, count: int) -> None:
    """Let the programs announce as many connections."""
    for port in range(2000, 2000 + count):
        for flags in ("S", "FA"):
            director.run(syn(port=port, flags=flags))


def run(director: Director, given: SyncTask, dialogue: Callable[[Synchroniser], Awaitable[None]]) -> None:
    """Be a daemon with this task, which works, for as long as the dialogue takes."""

    async def live() -> None:
        daemon = Synchroniser(director.instance, director.table, given, lambda _: None)
        assert daemon.match(given) == ""
        try:
            await dialogue(daemon)
        finally:
            daemon.close()

    asyncio.run(live())


def test_who_is_master_no_more_tells_the_rest_of_what_it_has_first(director: Director, peer: socket.socket) -> None:
    director.serve()

    async def dialogue(daemon: Synchroniser) -> None:
        announce(director, MANY)
        daemon.match(SyncTask(roles=frozenset(), interface="lo", sync_id=1, port=task(peer).port, peers=("127.0.0.1",)))
        assert not director.settings.flags & SettingFlag.ANNOUNCE

    run(director, task(peer), dialogue)
    assert heard(peer) == MANY


def test_a_burst_of_several_turns_is_sent_whole(director: Director, peer: socket.socket) -> None:
    director.serve()

    async def dialogue(daemon: Synchroniser) -> None:
        announce(director, MANY)
        came = 0
        async with asyncio.timeout(10):
            while came < MANY:
                await asyncio.sleep(0.01)
                came += heard(peer)

    run(director, task(peer), dialogue)


def test_what_a_daemon_that_died_has_left_in_the_ring_is_sent_by_the_next(director: Director, peer: socket.socket) -> None:
    director.serve()
    director.settings.flags |= SettingFlag.ANNOUNCE
    announce(director, 3)

    async def dialogue(daemon: Synchroniser) -> None:
        pass

    run(director, task(peer), dialogue)
    assert heard(peer) == 3


def test_what_was_announced_to_nobody_is_not_sent_later(director: Director, peer: socket.socket) -> None:
    director.serve()

    async def dialogue(daemon: Synchroniser) -> None:
        pass

    director.settings.flags |= SettingFlag.ANNOUNCE
    announce(director, 3)
    director.settings.flags &= ~SettingFlag.ANNOUNCE
    run(director, task(peer), dialogue)
    assert heard(peer) == 0


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o600)
    return file


def test_an_answer_that_fails_is_said_to_be_none_and_the_next_one_is_given(
    director: Director, peer: socket.socket, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    director.enter(director.serve())
    usual = type(director.instance).announce

    def fail(self: object, first: int, limit: int, which: Announced) -> int | None:
        monkeypatch.setattr(type(director.instance), "announce", usual)
        raise OSError(12, "Cannot allocate memory")

    async def answer(daemon: Synchroniser) -> list[Done]:
        daemon._perform([TellAll(whole=True, half_open=False)])
        async with asyncio.timeout(10):
            while daemon._telling is not None:
                await asyncio.sleep(0.01)
        letters = [unseal(each, KEY.encode()) for each in datagrams(peer)]
        return [each.body for each in letters if isinstance(each, Letter) and isinstance(each.body, Done)]

    async def dialogue(daemon: Synchroniser) -> None:
        assert daemon._peers is not None
        monkeypatch.setattr(type(director.instance), "announce", fail)
        daemon._peers._telling = TellAll(whole=True, half_open=False)
        assert [done.whole for done in await answer(daemon)] == [False]
        assert "cannot tell everything: Cannot allocate memory" in daemon.problem
        daemon._peers._telling = TellAll(whole=True, half_open=False)
        assert await answer(daemon) == [Done(1, 1)]
        assert daemon.problem == ""

    run(director, task(peer, key_file=str(key_file)), dialogue)


def test_a_key_that_vanishes_is_a_problem_until_it_is_back(director: Director, peer: socket.socket, key_file: Path) -> None:
    async def dialogue(daemon: Synchroniser) -> None:
        wanted = task(peer, key_file=str(key_file))
        key_file.rename(f"{key_file}-away")
        assert str(key_file) in daemon.match(wanted)
        Path(f"{key_file}-away").rename(key_file)
        assert daemon.match(wanted) == ""

    run(director, task(peer, key_file=str(key_file)), dialogue)
