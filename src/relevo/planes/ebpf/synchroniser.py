"""Synchronisation daemon of the eBPF plane: sends entries from the sync ring, and imports the entries of other directors.

It sends version 1 of IPVS's protocol and reads versions 0 and 1, so the other director may be a kernel. With a key it
exchanges authenticated messages, with directors that have the same key only (``machines.sync_peers``).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final

from relevo.errors import HostError
from relevo.host.keys import key_of
from relevo.host.sync_port import SyncReceiver, SyncSender, interface_index
from relevo.machines import sync_states
from relevo.machines.sync_peers import SyncPeers
from relevo.model.table import SyncPeer, SyncRole, SyncState, SyncTask
from relevo.node.flood import SAMPLE, FloodGuard
from relevo.planes.ebpf.instance import Instance
from relevo.planes.ebpf.layout import SettingFlag, SyncExport
from relevo.planes.ebpf.sync_export import Ring
from relevo.planes.ebpf.sync_import import SyncImport
from relevo.planes.ebpf.table import Table
from relevo.wire import ipvs_sync, sync_messages
from relevo.wire.sync_messages import Message

BATCH_S: Final = 0.02
"""Entries wait so long to be sent together. A crash loses those younger than this."""
READ_LIMIT: Final = 2048
"""Entries put into messages at once, which keeps the event loop busy for some milliseconds."""
RECEIVE_LIMIT: Final = 32
"""Messages received at once."""
BURST_MESSAGES: Final = 16
BURST_PAUSE_S: Final = 0.01
"""The whole table is sent in bursts: a receiver's socket buffer may have room for hardly a hundred messages."""
ACK_TIMEOUT_S: Final = 1.0
"""How long a hand-over waits for the other directors to acknowledge all entries."""
ACK_POLL_S: Final = 0.005
WINDOW_S: Final = 0.05
WINDOW_MESSAGES: Final = 120
"""Messages without a key that are read in this time: half as many again as a director sends that hands a million over. A
message of thirty entries costs 0.3 ms."""


def new_guard() -> FloodGuard:
    """Return a guard that limits the number of forged messages alone: whoever has the key may send as much as there is."""
    return FloodGuard(sender_per_s=math.inf)


class Synchroniser:
    """Does one synchronisation task for one instance, from ``match`` to ``close``, on the running event loop.

    ``in_sync`` is called with each change of ``SyncPeers.in_sync``.
    """

    def __init__(self, instance: Instance, table: Table, task: SyncTask, in_sync: Callable[[bool], None]) -> None:
        self.task = task
        self._open_problem = self._send_problem = self._sync_problem = ""
        self._instance = instance
        self._in_sync = in_sync
        self._interface_index = 0
        self._left_over = bool(instance.settings.flags & SettingFlag.SYNC)  # set by a worker that crashed
        self._ring = Ring(instance.maps["sync_ring"])
        self._import = SyncImport(instance, table)
        self._sender: SyncSender | None = None
        self._receivers: list[SyncReceiver] = []
        self._exporting = False
        self._batch_timer: asyncio.TimerHandle | None = None
        self._sync_lock = asyncio.Lock()
        self._sync_task: asyncio.Task[None] | None = None
        self._key = b""
        self._peers: SyncPeers | None = None
        self._guard = new_guard()
        self._window_at, self._window_messages = 0.0, 0
        self._timer: asyncio.TimerHandle | None = None
        self._entries_sent = self._entries_received = 0
        self._sent_at: float | None = None
        self._received_at: float | None = None

    # -- life --------------------------------------------------------------------------------------------------

    @property
    def problem(self) -> str:
        """Why synchronisation does not work now; empty when it does."""
        return self._open_problem or self._send_problem or self._sync_problem

    def match(self, task: SyncTask) -> str:
        """Do ``task`` from now on; reopen sockets that no longer fit it. Return the current problem, empty for none."""
        index = interface_index(task.interface)
        if self._open_problem or index != self._interface_index or _socket_settings(task) != _socket_settings(self.task):
            self._close_sockets()
        self.task, self._interface_index = task, index
        self._open_problem = ""
        try:
            self._match_peers()
            if self._guard.expire(time.monotonic()):
                self._limit_senders()
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
        self._match_export(SyncRole.MASTER in self.task.roles)
        if self._peers is not None:
            roles = sync_states.SetRoles(SyncRole.MASTER in self.task.roles, SyncRole.BACKUP in self.task.roles)
            self._perform(self._peers.receive(roles, time.monotonic()))

    def _match_export(self, wanted: bool) -> None:
        """Start or stop the programs writing entries to the ring."""
        if wanted and not self._exporting:
            if not self._left_over:
                self._ring.skip()
            self._instance.set_flag(SettingFlag.SYNC, True)
            self._watch_ring()
        elif not wanted and (self._exporting or self._left_over):
            self._instance.set_flag(SettingFlag.SYNC, False)
            self._drain()
            self._unwatch_ring()
        self._exporting, self._left_over = wanted, False

    def _close_sender(self) -> None:
        if self._exporting:
            self._match_export(False)
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def _close_receivers(self) -> None:
        while self._receivers:
            receiver = self._receivers.pop()
            asyncio.get_running_loop().remove_reader(receiver.fileno())
            receiver.close()
        self._guard = new_guard()

    def _close_sockets(self) -> None:
        self._close_sender()
        self._close_receivers()

    def close(self) -> None:
        """Send the entries left in the ring, and stop."""
        self._close_sockets()
        self._match_export(False)
        self._leave_peers()
        self._ring.close()

    # -- sending -----------------------------------------------------------------------------------------------

    def _watch_ring(self) -> None:
        asyncio.get_running_loop().add_reader(self._ring.descriptor, self._ring_readable)

    def _unwatch_ring(self) -> None:
        """Stop waiting for entries in the ring."""
        if self._batch_timer is not None:
            self._batch_timer.cancel()
            self._batch_timer = None
        asyncio.get_running_loop().remove_reader(self._ring.descriptor)

    def _ring_readable(self) -> None:
        """The ring has entries: read it after ``BATCH_S``, when there are more."""
        self._unwatch_ring()
        self._batch_timer = asyncio.get_running_loop().call_later(BATCH_S, self._export)

    def _export(self) -> None:
        """Send the entries in the ring, ``READ_LIMIT`` at a time, so that other tasks can run in between."""
        self._batch_timer = None
        if self._send_some():
            self._batch_timer = asyncio.get_running_loop().call_later(0, self._export)
        elif self._exporting:
            self._watch_ring()

    def _send_some(self) -> bool:
        """Send up to ``READ_LIMIT`` entries; return whether there may be more."""
        entries = self._ring.read(READ_LIMIT)
        for message in self._messages(entries):
            self._send(message)
        return len(entries) >= READ_LIMIT

    def _drain(self) -> None:
        """Send all entries left in the ring."""
        while self._send_some():
            pass

    def _messages(self, entries: Sequence[bytes]) -> list[bytes]:
        self._entries_sent += len(entries)
        length = self.task.max_length or ipvs_sync.MAX_LENGTH
        if self._peers is not None:
            length -= sync_messages.OVERHEAD
        return list(ipvs_sync.assemble(self.task.sync_id, entries, length))

    def _send(self, message: bytes) -> None:
        if self._peers is None:
            self._put(message)
        else:
            self._perform(self._peers.receive(sync_states.SendEntries(message), time.monotonic()))

    def _put(self, datagram: bytes) -> None:
        if self._sender is None:
            return
        try:
            self._sender.send(datagram)
            self._sent_at, self._send_problem = time.time(), ""
        except OSError as error:  # the interface may be down: the entries are lost, as with IPVS
            self._send_problem = f"{self.task.interface}: {error.strerror or error}"

    async def complete(self) -> int:
        """Send every connection, half-open ones too, before a hand-over; return how many entries were sent.

        Directors with a key acknowledge entries. When all of them have acknowledged everything, only the connections that they
        lack are sent. This waits at most ``ACK_TIMEOUT_S`` for the acknowledgements of these.
        """
        peers = self._peers
        if peers is None:
            return await self._sync_table(SyncExport.HALF_OPEN)
        before = self._entries_sent
        self._perform(peers.receive(sync_states.PrepareHandover(), time.monotonic()))
        while self._sync_task is not None and peers is self._peers:
            await asyncio.wait({self._sync_task})
        until = time.monotonic() + ACK_TIMEOUT_S
        while not peers.all_acked and peers is self._peers and time.monotonic() < until:
            await asyncio.sleep(ACK_POLL_S)
        return self._entries_sent - before

    async def _sync_table(self, which: SyncExport) -> int:
        async with self._sync_lock:
            if not self._exporting:
                return 0
            self._unwatch_ring()
            before = self._entries_sent
            try:
                await self._send_in_bursts()
                at: int | None = 0
                while at is not None and self._exporting:
                    at = await asyncio.to_thread(self._instance.export_connections, at, self._ring.room // 2, which)
                    await self._send_in_bursts()
            finally:
                if self._exporting:
                    self._watch_ring()
            return self._entries_sent - before

    async def _send_in_bursts(self) -> None:
        while entries := self._ring.read(READ_LIMIT):
            for number, message in enumerate(self._messages(entries), 1):
                self._send(message)
                if number % BURST_MESSAGES == 0:
                    await asyncio.sleep(BURST_PAUSE_S)

    # -- receiving ---------------------------------------------------------------------------------------------

    def _receive(self, receiver: SyncReceiver) -> None:
        entries: list[ipvs_sync.Entry] = []
        with contextlib.suppress(OSError):  # the interface is gone: ``match`` reopens the socket on the next one
            for datagram, source in receiver.receive(RECEIVE_LIMIT):
                self._window_messages += 1
                for message in [datagram] if self._peers is None else self._verified(self._peers, datagram, source):
                    found = ipvs_sync.decode(message, self.task.sync_id)
                    self._import.refused.update(reason.value for reason in found.refused)
                    entries += found.entries
        if entries and SyncRole.BACKUP in self.task.roles:
            self._received_at = time.time()
            self._entries_received += len(entries)
            self._import.receive(entries, time.monotonic())
        if self._peers is None:
            self._pause_if_flooded(receiver)

    def _pause_if_flooded(self, receiver: SyncReceiver) -> None:
        """Read no more of messages that anybody can forge than directors send; meanwhile the kernel keeps them, or drops them."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now - self._window_at >= WINDOW_S:
            self._window_at, self._window_messages = now, 0
        elif self._window_messages >= WINDOW_MESSAGES:
            loop.remove_reader(receiver.fileno())
            loop.call_at(self._window_at + WINDOW_S, self._resume, receiver)

    def _resume(self, receiver: SyncReceiver) -> None:
        if receiver in self._receivers:
            asyncio.get_running_loop().add_reader(receiver.fileno(), self._receive, receiver)

    def _verified(self, peers: SyncPeers, datagram: bytes, source: str) -> list[bytes]:
        """Verify a datagram; return the IPVS sync messages to import."""
        message = sync_messages.verify(datagram, self._key)
        verified = isinstance(message, Message)
        if self._guard.take(source, useful=verified, trusted=lambda: self.task.peers, now=time.monotonic()):
            self._limit_senders()
        if not isinstance(message, Message):
            self._import.refused[message.value] += 1
            return []
        return self._perform(peers.receive(sync_states.MessageReceived(message, source), time.monotonic()))

    def _limit_senders(self) -> None:
        """Have the kernel drop what others send while somebody sends forged messages without end: each costs a digest."""
        for receiver in self._receivers:
            with contextlib.suppress(OSError):
                receiver.limit(self._guard.limited_to, SAMPLE)

    def table_changed(self) -> None:
        """Import the entries that waited for a service or server which has been added."""
        self._import.table_changed(time.monotonic())

    # -- directors that share a key ----------------------------------------------------------------------------

    def _match_peers(self) -> None:
        key = key_of(self.task.key_file) if self.task.key_file else b""
        if key == self._key and (self._peers is None or self._peers.sync_id == self.task.sync_id):
            return
        self._leave_peers()
        self._guard = new_guard()
        self._limit_senders()
        self._key = key
        self._peers = (
            SyncPeers(secrets.token_bytes(sync_messages.SESSION_BYTES), self.task.sync_id, time.monotonic()) if key else None
        )
        self._wait_for_peers()

    def _leave_peers(self) -> None:
        """Forget all directors, and stop their sync."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sync_task is not None:
            self._sync_task.cancel()
            self._sync_task = None
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

    def _perform(self, effects: Sequence[sync_states.Effect]) -> list[bytes]:
        """Carry effects out; return the IPVS sync messages to import."""
        messages = []
        for effect in effects:
            match effect:
                case sync_states.Send(message=message):
                    self._put(sync_messages.authenticate(message, self._key))
                case sync_states.Import(ipvs_message=ipvs_message):
                    messages.append(ipvs_message)
                case sync_states.StartSync(full=full, half_open=half_open):
                    which = SyncExport.HALF_OPEN * half_open | SyncExport.UNSYNCED * (not full)
                    self._sync_task = asyncio.create_task(self._run_sync(SyncExport(which)), name="synchronisation: resync")
                case sync_states.InSync(in_sync=in_sync):
                    self._in_sync(in_sync)
                case sync_states.Refused(reason=reason):
                    self._import.refused[reason.value] += 1
        return messages

    async def _run_sync(self, which: SyncExport) -> None:
        """Send the table and report ``SyncComplete``. A director that lacks messages afterwards requests a resync itself."""
        peers, done = self._peers, False
        try:
            await self._sync_table(which)
            done, self._sync_problem = self._exporting, ""
        except OSError as error:
            self._sync_problem = f"cannot send all connections: {error.strerror or error}"
        if peers is not None and peers is self._peers:
            self._sync_task = None
            self._perform(peers.receive(sync_states.SyncComplete(done), time.monotonic()))

    # -- state -------------------------------------------------------------------------------------------------

    def state(self, local: int | None, received: int | None) -> SyncState:
        """Return the state. ``local`` and ``received`` are numbers of connections, which the caller counts in the table."""
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
            waiting=self._import.waiting(time.monotonic()),
            entries_sent=self._entries_sent,
            entries_received=self._entries_received,
            last_sent_at=self._sent_at,
            last_received_at=self._received_at,
            refused=dict(self._import.refused),
            in_sync=None if peers is None else peers.in_sync,
            directors=() if peers is None else tuple(
                SyncPeer(
                    address=peer.source,
                    state=peer.state.value,
                    heard_at=peer.heard_at + offset,
                    missing_here=peer.lag if peer.sent else 0,
                    missing_there=max(0, peers.sent - peer.acked),
                )
                for peer in peers.peers.values()
            ),
            problem=self.problem,
        )  # fmt: skip


def _socket_settings(task: SyncTask) -> tuple[object, ...]:
    """Return the settings that need new sockets when they change."""
    return (task.interface, task.group, task.port, task.ports, task.ttl, task.peers)
