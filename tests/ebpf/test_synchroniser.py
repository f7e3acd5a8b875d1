"""The synchronisation daemon between a real sync ring and real sockets: role changes and failures."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from relevo.machines.sync_states import StartSync
from relevo.model.table import SyncRole, SyncTask
from relevo.planes.ebpf import synchroniser
from relevo.planes.ebpf.layout import SettingFlag, SyncExport
from relevo.planes.ebpf.synchroniser import Synchroniser
from relevo.wire import ipvs_sync
from relevo.wire.sync_messages import Message, ResyncEnd, verify
from tests.ebpf.packets import Director, syn

KEY = "a key for tests only"
MASTER, BACKUP = frozenset((SyncRole.MASTER,)), frozenset((SyncRole.BACKUP,))
READ, MANY = 100, 1000


@pytest.fixture(autouse=True)
def small_read_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' ring has hardly more room than the default limit."""
    monkeypatch.setattr(synchroniser, "READ_LIMIT", READ)


@pytest.fixture
def peer(director: Director) -> Iterator[socket.socket]:
    """A socket bound to 127.0.0.1: it receives what is sent there, rather than the daemon's socket bound to any address."""
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


def entries_received(peer: socket.socket) -> int:
    """Return how many entries have arrived."""
    return sum(len(ipvs_sync.decode(each, 1).entries) for each in datagrams(peer))


def export(director: Director, count: int) -> None:
    """Make the programs write entries of ``count`` connections to the ring."""
    for port in range(2000, 2000 + count):
        for flags in ("S", "FA"):
            director.run(syn(port=port, flags=flags))


def run(director: Director, given: SyncTask, dialogue: Callable[[Synchroniser], Awaitable[None]]) -> None:
    """Run a daemon with this task during the dialogue."""

    async def live() -> None:
        daemon = Synchroniser(director.instance, director.table, given, lambda _: None)
        assert daemon.match(given) == ""
        try:
            await dialogue(daemon)
        finally:
            daemon.close()

    asyncio.run(live())


def test_a_node_that_stops_being_master_sends_the_entries_left_in_the_ring(director: Director, peer: socket.socket) -> None:
    director.serve()

    async def dialogue(daemon: Synchroniser) -> None:
        export(director, MANY)
        daemon.match(SyncTask(roles=frozenset(), interface="lo", sync_id=1, port=task(peer).port, peers=("127.0.0.1",)))
        assert not director.settings.flags & SettingFlag.SYNC

    run(director, task(peer), dialogue)
    assert entries_received(peer) == MANY


def test_more_entries_than_the_read_limit_are_all_sent(director: Director, peer: socket.socket) -> None:
    director.serve()

    async def dialogue(daemon: Synchroniser) -> None:
        export(director, MANY)
        received = 0
        async with asyncio.timeout(10):
            while received < MANY:
                await asyncio.sleep(0.01)
                received += entries_received(peer)

    run(director, task(peer), dialogue)


def test_entries_left_in_the_ring_by_a_crashed_daemon_are_sent_by_the_next(director: Director, peer: socket.socket) -> None:
    director.serve()
    director.settings.flags |= SettingFlag.SYNC
    export(director, 3)

    async def dialogue(daemon: Synchroniser) -> None:
        pass

    run(director, task(peer), dialogue)
    assert entries_received(peer) == 3


def test_entries_from_a_time_without_a_daemon_are_not_sent(director: Director, peer: socket.socket) -> None:
    director.serve()

    async def dialogue(daemon: Synchroniser) -> None:
        pass

    director.settings.flags |= SettingFlag.SYNC
    export(director, 3)
    director.settings.flags &= ~SettingFlag.SYNC
    run(director, task(peer), dialogue)
    assert entries_received(peer) == 0


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o600)
    return file


def test_a_resync_that_fails_ends_as_not_full_and_the_next_one_is_sent(
    director: Director, peer: socket.socket, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    director.insert(director.serve())
    usual = type(director.instance).export_connections

    def fail(self: object, first: int, limit: int, which: SyncExport) -> int | None:
        monkeypatch.setattr(type(director.instance), "export_connections", usual)
        raise OSError(12, "Cannot allocate memory")

    async def resync(daemon: Synchroniser) -> list[ResyncEnd]:
        daemon._perform([StartSync(full=True, half_open=False)])
        async with asyncio.timeout(10):
            while daemon._sync_task is not None:
                await asyncio.sleep(0.01)
        messages = [verify(each, KEY.encode()) for each in datagrams(peer)]
        return [each.body for each in messages if isinstance(each, Message) and isinstance(each.body, ResyncEnd)]

    async def dialogue(daemon: Synchroniser) -> None:
        assert daemon._peers is not None
        monkeypatch.setattr(type(director.instance), "export_connections", fail)
        daemon._peers._running = StartSync(full=True, half_open=False)
        assert [end.full for end in await resync(daemon)] == [False]
        assert "cannot send all connections: Cannot allocate memory" in daemon.problem
        daemon._peers._running = StartSync(full=True, half_open=False)
        assert await resync(daemon) == [ResyncEnd(1, 1)]
        assert daemon.problem == ""

    run(director, task(peer, key_file=str(key_file)), dialogue)


def test_a_missing_key_file_is_a_problem_until_it_is_back(director: Director, peer: socket.socket, key_file: Path) -> None:
    async def dialogue(daemon: Synchroniser) -> None:
        wanted = task(peer, key_file=str(key_file))
        key_file.rename(f"{key_file}-away")
        assert str(key_file) in daemon.match(wanted)
        Path(f"{key_file}-away").rename(key_file)
        assert daemon.match(wanted) == ""

    run(director, task(peer, key_file=str(key_file)), dialogue)
