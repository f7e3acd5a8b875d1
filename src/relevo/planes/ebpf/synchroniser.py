"""The daemon of connection synchronisation that IPVS has in the kernel: ours goes from the ring to the others, theirs comes in.

It speaks version 1 of IPVS's protocol and reads version 0, so that either end may be a kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Final

from relevo.host.sync_port import SyncReceiver, SyncSender
from relevo.model.table import SyncRole, SyncState, SyncTask
from relevo.planes.ebpf.announcements import Ring
from relevo.planes.ebpf.arrivals import Arrivals
from relevo.planes.ebpf.instance import Instance
from relevo.planes.ebpf.layout import SettingFlag
from relevo.planes.ebpf.table import Table
from relevo.wire import ipvs_sync

GATHER_S: Final = 0.02
"""Announcements wait so long for company. What is lost when a director dies is younger than this."""
READ: Final = 2048
"""Announcements put into messages in one go: some milliseconds, in which nothing else has its turn."""
RECEIVE: Final = 32
"""Messages taken in one go."""
BURST: Final = 16
BURST_PAUSE_S: Final = 0.01
"""The whole table goes out in bursts of so many messages: a receiver's buffer may have room for hardly a hundred."""


class Synchroniser:
    """One task for one instance, from ``open`` to ``close``, on the running loop."""

    def __init__(self, instance: Instance, table: Table, task: SyncTask) -> None:
        self.task = task
        self.problem = ""
        self._instance = instance
        self._ring = Ring(instance.maps["announcements"])
        self._arrivals = Arrivals(instance, table)
        self._sender: SyncSender | None = None
        self._receiver: SyncReceiver | None = None
        self._gathering: asyncio.TimerHandle | None = None
        self._telling_all = asyncio.Lock()
        self._entries_sent = self._entries_received = 0
        self._sent_at: float | None = None
        self._received_at: float | None = None

    # -- life --------------------------------------------------------------------------------------------------

    def match(self, task: SyncTask) -> str:
        """Do ``task`` from now on; open again what does not work. Return what stands against it, or nothing."""
        if task != self.task or self.problem:
            moved = _elsewhere(task) != _elsewhere(self.task)
            self.task = task
            if moved or self.problem:
                self._close_sockets()
        self.problem = ""
        try:
            self._match_sender(SyncRole.MASTER in task.roles)
            self._match_receiver(SyncRole.BACKUP in task.roles)
        except OSError as error:
            self.problem = f"{task.interface}: {error.strerror or error}"
        return self.problem

    def _match_sender(self, wanted: bool) -> None:
        if wanted and self._sender is None:
            task = self.task
            self._sender = SyncSender(task.interface, task.group, task.port, task.ttl, task.peers)
            self._ring.skip()
            self._instance.settings.flags |= SettingFlag.ANNOUNCE
            asyncio.get_running_loop().add_reader(self._ring.descriptor, self._gather)
        elif not wanted and self._sender is not None:
            self._close_sender()

    def _match_receiver(self, wanted: bool) -> None:
        if wanted and self._receiver is None:
            task = self.task
            self._receiver = SyncReceiver(task.interface, task.group, task.port, task.peers)
            asyncio.get_running_loop().add_reader(self._receiver.fileno(), self._receive)
        elif not wanted and self._receiver is not None:
            self._close_receiver()

    def _close_sender(self) -> None:
        self._instance.settings.flags &= ~SettingFlag.ANNOUNCE
        if self._sender is not None:
            self._drain()
            self._rest()
            self._sender.close()
            self._sender = None

    def _rest(self) -> None:
        """Wait for nothing in the ring."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        asyncio.get_running_loop().remove_reader(self._ring.descriptor)

    def _close_receiver(self) -> None:
        if self._receiver is not None:
            asyncio.get_running_loop().remove_reader(self._receiver.fileno())
            self._receiver.close()
            self._receiver = None

    def _close_sockets(self) -> None:
        self._close_sender()
        self._close_receiver()

    def close(self) -> None:
        """Tell what is left to be told, and end."""
        self._close_sockets()
        self._ring.close()

    # -- sending -----------------------------------------------------------------------------------------------

    def _gather(self) -> None:
        """There is something in the ring: look when there is more."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._ring.descriptor)
        self._gathering = loop.call_later(GATHER_S, self._drained)

    def _drained(self) -> None:
        self._gathering = None
        self._drain()
        if self._sender is not None:
            asyncio.get_running_loop().add_reader(self._ring.descriptor, self._gather)

    def _drain(self) -> None:
        """Send what has gathered; the ring's descriptor is readable again at once when that was not all."""
        self._send(self._ring.read(READ))

    def _send(self, entries: Sequence[bytes]) -> None:
        for message in self._messages(entries):
            self._send_message(message)

    def _messages(self, entries: Sequence[bytes]) -> list[bytes]:
        self._entries_sent += len(entries)
        return list(ipvs_sync.assemble(self.task.sync_id, entries, self.task.max_length or ipvs_sync.MAX_LENGTH))

    def _send_message(self, message: bytes) -> None:
        if self._sender is None:
            return
        try:
            self._sender.send(message)
            self._sent_at = time.time()
        except OSError as error:  # the interface may be down: what is announced now is lost, as it is to IPVS
            self.problem = f"{self.task.interface}: {error.strerror or error}"

    async def tell_all(self, *, half_open: bool) -> int:
        """Tell of every connection, in bursts; return how many. Half-open ones are for whoever takes over at once."""
        async with self._telling_all:
            if self._sender is None:
                return 0
            self._rest()
            before, place = self._entries_sent, 0
            self._send(self._ring.read(self._ring.room))
            try:
                following: int | None = place
                while following is not None and self._sender is not None:
                    following = await asyncio.to_thread(
                        self._instance.announce, following, self._ring.room // 2, half_open=half_open
                    )
                    await self._send_in_bursts()
            finally:
                if self._sender is not None:
                    asyncio.get_running_loop().add_reader(self._ring.descriptor, self._gather)
            return self._entries_sent - before

    async def _send_in_bursts(self) -> None:
        while entries := self._ring.read(READ):
            for number, message in enumerate(self._messages(entries), 1):
                self._send_message(message)
                if number % BURST == 0:
                    await asyncio.sleep(BURST_PAUSE_S)

    # -- receiving ---------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        if self._receiver is None:
            return
        entries: list[ipvs_sync.Entry] = []
        with contextlib.suppress(OSError):  # the interface is going: ``match`` will say so
            for message in self._receiver.receive(RECEIVE):
                found = ipvs_sync.decode(message, self.task.sync_id)
                self._arrivals.refused.update(reason.value for reason in found.refused)
                entries += found.entries
        if entries:
            self._received_at = time.time()
            self._entries_received += len(entries)
            self._arrivals.take(entries)

    def table_changed(self) -> None:
        """Services or servers came or went."""
        self._arrivals.table_changed()

    # -- state -------------------------------------------------------------------------------------------------

    def state(self, local: int | None, received: int | None) -> SyncState:
        """How it goes; the numbers of connections are counted by who has the table."""
        task = self.task
        return SyncState(
            roles=tuple(role for role in SyncRole if role in task.roles),
            interface=task.interface,
            sync_id=task.sync_id,
            group="" if task.peers else task.group,
            peers=task.peers,
            port=task.port,
            local=local,
            received=received,
            waiting=self._arrivals.waiting,
            entries_sent=self._entries_sent,
            entries_received=self._entries_received,
            last_sent_at=self._sent_at,
            last_received_at=self._received_at,
            refused=dict(self._arrivals.refused),
            problem=self.problem,
        )


def _elsewhere(task: SyncTask) -> tuple[object, ...]:
    """What sockets are opened for."""
    return (task.interface, task.group, task.port, task.ttl, task.peers)
