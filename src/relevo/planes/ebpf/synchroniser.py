"""The daemon of connection synchronisation that IPVS has in the kernel: ours goes from the ring to the others, theirs comes in.

It speaks version 1 of IPVS's protocol and reads version 0, so that either end may be a kernel. With a key it speaks to
directors that have it too, and to nobody else (``machines.sync_peers``).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final

from relevo.errors import HostError
from relevo.host.files import read_key
from relevo.host.sync_port import SyncReceiver, SyncSender, interface_index
from relevo.machines import sync_peers
from relevo.machines.sync_peers import SyncPeers
from relevo.model.table import SyncPeer, SyncRole, SyncState, SyncTask
from relevo.planes.ebpf.announcements import Ring
from relevo.planes.ebpf.arrivals import Arrivals
from relevo.planes.ebpf.instance import Instance
from relevo.planes.ebpf.layout import Announced, SettingFlag
from relevo.planes.ebpf.table import Table
from relevo.wire import ipvs_sync, sync_letters
from relevo.wire.sync_letters import Letter

GATHER_S: Final = 0.02
"""Announcements wait so long for company. What is lost when a director dies is younger than this."""
READ: Final = 2048
"""Announcements put into messages in one go: some milliseconds, in which nothing else has its turn."""
RECEIVE: Final = 32
"""Messages taken in one go."""
BURST: Final = 16
BURST_PAUSE_S: Final = 0.01
"""The whole table goes out in bursts of so many messages: a receiver's buffer may have room for hardly a hundred."""
CONFIRM_S: Final = 1.0
"""How long a hand-over waits for the others to say that they have everything."""
CONFIRM_PAUSE_S: Final = 0.005


class Synchroniser:
    """One task for one instance, from ``match`` to ``close``, on the running loop. ``in_sync`` hears of changes."""

    def __init__(self, instance: Instance, table: Table, task: SyncTask, in_sync: Callable[[bool], None]) -> None:
        self.task = task
        self._open_problem = self._send_problem = self._tell_problem = ""
        self._instance = instance
        self._in_sync = in_sync
        self._interface_index = 0
        self._left_over = bool(instance.settings.flags & SettingFlag.ANNOUNCE)  # by a worker that died
        self._ring = Ring(instance.maps["announcements"])
        self._arrivals = Arrivals(instance, table)
        self._sender: SyncSender | None = None
        self._receivers: list[SyncReceiver] = []
        self._announcing = False
        self._gathering: asyncio.TimerHandle | None = None
        self._telling_all = asyncio.Lock()
        self._telling: asyncio.Task[None] | None = None
        self._key = b""
        self._peers: SyncPeers | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._entries_sent = self._entries_received = 0
        self._sent_at: float | None = None
        self._received_at: float | None = None

    # -- life --------------------------------------------------------------------------------------------------

    @property
    def problem(self) -> str:
        """What stands against it now; empty when nothing does."""
        return self._open_problem or self._send_problem or self._tell_problem

    def match(self, task: SyncTask) -> str:
        """Do ``task`` from now on; open again what does not work any more. Return what stands against it, or nothing."""
        index = interface_index(task.interface)
        if self._open_problem or index != self._interface_index or _elsewhere(task) != _elsewhere(self.task):
            self._close_sockets()
        self.task, self._interface_index = task, index
        self._open_problem = ""
        try:
            self._match_peers()
            self._match_sender(SyncRole.MASTER in task.roles or bool(task.key_file))
            self._match_receiver(SyncRole.BACKUP in task.roles or bool(task.key_file))
        except OSError as error:
            self._open_problem = f"{task.interface}: {error.strerror or error}"
        except HostError as error:
            self._open_problem = f"{error}" + (f" ({error.hint})" if error.hint else "")
        else:
            self._match_roles()
        return self.problem

    def _match_sender(self, wanted: bool) -> None:
        if wanted and self._sender is None:
            task = self.task
            self._sender = SyncSender(task.interface, task.group, task.port, task.ttl, task.peers)
        elif not wanted and self._sender is not None:
            self._close_sender()

    def _match_receiver(self, wanted: bool) -> None:
        task = self.task
        if not wanted:
            self._close_receivers()
        elif not self._receivers:
            for port in range(task.port, min(task.port + task.ports, 65_536)):
                receiver = SyncReceiver(task.interface, task.group, port, task.peers)
                self._receivers.append(receiver)
                asyncio.get_running_loop().add_reader(receiver.fileno(), self._receive, receiver)

    def _match_roles(self) -> None:
        self._match_announcing(SyncRole.MASTER in self.task.roles)
        if self._peers is not None:
            roles = sync_peers.SetRoles(SyncRole.MASTER in self.task.roles, SyncRole.BACKUP in self.task.roles)
            self._perform(self._peers.receive(roles, time.monotonic()))

    def _match_announcing(self, wanted: bool) -> None:
        """Let the programs tell of connections, or no more."""
        if wanted and not self._announcing:
            if not self._left_over:
                self._ring.skip()
            self._instance.set_flag(SettingFlag.ANNOUNCE, True)
            self._attend()
        elif not wanted and (self._announcing or self._left_over):
            self._instance.set_flag(SettingFlag.ANNOUNCE, False)
            self._drain()
            self._rest()
        self._announcing, self._left_over = wanted, False

    def _close_sender(self) -> None:
        if self._announcing:
            self._match_announcing(False)
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def _close_receivers(self) -> None:
        while self._receivers:
            receiver = self._receivers.pop()
            asyncio.get_running_loop().remove_reader(receiver.fileno())
            receiver.close()

    def _close_sockets(self) -> None:
        self._close_sender()
        self._close_receivers()

    def close(self) -> None:
        """Tell what is left to be told, and end."""
        self._close_sockets()
        self._match_announcing(False)
        self._leave_peers()
        self._ring.close()

    # -- sending -----------------------------------------------------------------------------------------------

    def _attend(self) -> None:
        asyncio.get_running_loop().add_reader(self._ring.descriptor, self._gather)

    def _rest(self) -> None:
        """Wait for nothing in the ring."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        asyncio.get_running_loop().remove_reader(self._ring.descriptor)

    def _gather(self) -> None:
        """There is something in the ring: look when there is more."""
        self._rest()
        self._gathering = asyncio.get_running_loop().call_later(GATHER_S, self._gathered)

    def _gathered(self) -> None:
        """Send what has come, in turns, so that others have theirs."""
        self._gathering = None
        if self._send_some():
            self._gathering = asyncio.get_running_loop().call_later(0, self._gathered)
        elif self._announcing:
            self._attend()

    def _send_some(self) -> bool:
        """Send what a turn allows; say whether there may be more."""
        entries = self._ring.read(READ)
        for message in self._messages(entries):
            self._send(message)
        return len(entries) >= READ

    def _drain(self) -> None:
        """Send what is left, now that nothing is added."""
        while self._send_some():
            pass

    def _messages(self, entries: Sequence[bytes]) -> list[bytes]:
        self._entries_sent += len(entries)
        length = self.task.max_length or ipvs_sync.MAX_LENGTH
        if self._peers is not None:
            length -= sync_letters.OVERHEAD
        return list(ipvs_sync.assemble(self.task.sync_id, entries, length))

    def _send(self, message: bytes) -> None:
        if self._peers is None:
            self._put(message)
        else:
            self._perform(self._peers.receive(sync_peers.Tell(message), time.monotonic()))

    def _put(self, datagram: bytes) -> None:
        if self._sender is None:
            return
        try:
            self._sender.send(datagram)
            self._sent_at, self._send_problem = time.time(), ""
        except OSError as error:  # the interface may be down: what is announced now is lost, as it is to IPVS
            self._send_problem = f"{self.task.interface}: {error.strerror or error}"

    async def complete(self) -> int:
        """Tell of every connection, half-open ones too, for whoever takes over now; return how many.

        Directors with our key have said what they have: where that is everything, only what is news to them is told. They get
        ``CONFIRM_S`` to say that they have this too.
        """
        peers = self._peers
        if peers is None:
            return await self._tell_all(Announced.HALF_OPEN)
        before = self._entries_sent
        self._perform(peers.receive(sync_peers.Complete(), time.monotonic()))
        while self._telling is not None and peers is self._peers:
            await asyncio.wait({self._telling})
        until = time.monotonic() + CONFIRM_S
        while not peers.everybody_has_everything and peers is self._peers and time.monotonic() < until:
            await asyncio.sleep(CONFIRM_PAUSE_S)
        return self._entries_sent - before

    async def _tell_all(self, which: Announced) -> int:
        async with self._telling_all:
            if not self._announcing:
                return 0
            self._rest()
            before, following = self._entries_sent, 0
            try:
                await self._send_in_bursts()
                at: int | None = following
                while at is not None and self._announcing:
                    at = await asyncio.to_thread(self._instance.announce, at, self._ring.room // 2, which)
                    await self._send_in_bursts()
            finally:
                if self._announcing:
                    self._attend()
            return self._entries_sent - before

    async def _send_in_bursts(self) -> None:
        while entries := self._ring.read(READ):
            for number, message in enumerate(self._messages(entries), 1):
                self._send(message)
                if number % BURST == 0:
                    await asyncio.sleep(BURST_PAUSE_S)

    # -- receiving ---------------------------------------------------------------------------------------------

    def _receive(self, receiver: SyncReceiver) -> None:
        entries: list[ipvs_sync.Entry] = []
        with contextlib.suppress(OSError):  # the interface is going: ``match`` opens anew when it is another one
            for datagram, source in receiver.receive(RECEIVE):
                for message in [datagram] if self._peers is None else self._unsealed(self._peers, datagram, source):
                    found = ipvs_sync.decode(message, self.task.sync_id)
                    self._arrivals.refused.update(reason.value for reason in found.refused)
                    entries += found.entries
        if entries and SyncRole.BACKUP in self.task.roles:
            self._received_at = time.time()
            self._entries_received += len(entries)
            self._arrivals.take(entries, time.monotonic())

    def _unsealed(self, peers: SyncPeers, datagram: bytes, source: str) -> list[bytes]:
        letter = sync_letters.unseal(datagram, self._key)
        if not isinstance(letter, Letter):
            self._arrivals.refused[letter.value] += 1
            return []
        return self._perform(peers.receive(sync_peers.Heard(letter, source), time.monotonic()))

    def table_changed(self) -> None:
        """Services or servers came or went."""
        self._arrivals.table_changed(time.monotonic())

    # -- directors that share a key ----------------------------------------------------------------------------

    def _match_peers(self) -> None:
        key = read_key(self.task.key_file) if self.task.key_file else b""
        if key == self._key and (self._peers is None or self._peers.sync_id == self.task.sync_id):
            return
        self._leave_peers()
        self._key = key
        self._peers = SyncPeers(secrets.token_bytes(sync_letters.SESSION), self.task.sync_id, time.monotonic()) if key else None
        self._wait_for_peers()

    def _leave_peers(self) -> None:
        """Know nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if self._peers is not None and self._peers.in_sync:
            self._in_sync(False)
        self._peers = None

    def _wait_for_peers(self) -> None:
        if self._peers is None:
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._peers.deadline() - time.monotonic(), self._expired)

    def _expired(self) -> None:
        if self._peers is not None:
            self._perform(self._peers.expire(time.monotonic()))
            self._wait_for_peers()

    def _perform(self, effects: Sequence[sync_peers.Effect]) -> list[bytes]:
        """Carry effects out; return the messages of entries to take in."""
        messages = []
        for effect in effects:
            match effect:
                case sync_peers.Send(letter=letter):
                    self._put(sync_letters.seal(letter, self._key))
                case sync_peers.Take(message=message):
                    messages.append(message)
                case sync_peers.TellAll(whole=whole, half_open=half_open):
                    which = Announced.HALF_OPEN * half_open | Announced.NEWS * (not whole)
                    self._telling = asyncio.create_task(self._answer(Announced(which)), name="synchronisation: everything")
                case sync_peers.InSync(in_sync=in_sync):
                    self._in_sync(in_sync)
                case sync_peers.Refused(reason=reason):
                    self._arrivals.refused[reason.value] += 1
        return messages

    async def _answer(self, which: Announced) -> None:
        """Tell everything, for who asked; who has not got it asks again."""
        peers, done = self._peers, False
        try:
            await self._tell_all(which)
            done, self._tell_problem = self._announcing, ""
        except OSError as error:
            self._tell_problem = f"cannot tell everything: {error.strerror or error}"
        if peers is not None and peers is self._peers:
            self._telling = None
            self._perform(peers.receive(sync_peers.ToldAll(done), time.monotonic()))

    # -- state -------------------------------------------------------------------------------------------------

    def state(self, local: int | None, received: int | None) -> SyncState:
        """How it goes; the numbers of connections are counted by who has the table."""
        task, offset = self.task, time.time() - time.monotonic()
        peers = self._peers
        return SyncState(
            roles=tuple(role for role in SyncRole if role in task.roles),
            interface=task.interface,
            sync_id=task.sync_id,
            group="" if task.peers else task.group,
            peers=task.peers,
            port=task.port,
            local=local,
            received=received,
            waiting=self._arrivals.waiting(time.monotonic()),
            entries_sent=self._entries_sent,
            entries_received=self._entries_received,
            last_sent_at=self._sent_at,
            last_received_at=self._received_at,
            refused=dict(self._arrivals.refused),
            in_sync=None if peers is None else peers.in_sync,
            directors=() if peers is None else tuple(
                SyncPeer(
                    address=peer.source,
                    state=peer.state.value,
                    heard_at=peer.heard_at + offset,
                    missing_here=peer.behind if peer.told else 0,
                    missing_there=max(0, peers.told - peer.has),
                )
                for peer in peers.peers.values()
            ),
            problem=self.problem,
        )  # fmt: skip


def _elsewhere(task: SyncTask) -> tuple[object, ...]:
    """What sockets are opened for."""
    return (task.interface, task.group, task.port, task.ports, task.ttl, task.peers)
