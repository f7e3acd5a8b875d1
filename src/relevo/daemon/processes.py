"""Worker processes: fork, restart after a crash, and end.

Workers are forked without exec: they share the imported modules, and are ready within milliseconds. The owner supplies the
body of a worker, and handles its messages and its end.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from relevo.daemon.channel import AsyncChannel, decode_from_worker
from relevo.daemon.messages import FromWorker, Stop, TakeSnapshot, ToWorker
from relevo.host.fork import fork, how_it_ended, kill
from relevo.observe.snapshot import WorkerSnapshot
from relevo.severity import Severity
from relevo.wire.framing import Unreadable

QUICK_DEATH_S: Final = 0.2
"""A worker that ends sooner than this, in seconds, or before it is ready, has failed to start."""
MAX_QUICK_DEATHS: Final = 3
"""After so many failed starts in a row, the next one waits for ``SLOW_RESTART_S``."""
SLOW_RESTART_S: Final = 5.0
SNAPSHOT_S: Final = 4.0
"""Seconds that a snapshot of a worker may take: one for 10 000 servers on a busy machine. Less than a client's time limit."""
LAST_MESSAGES_S: Final = 1.0
"""Seconds for what a worker that has ended wrote before."""


@dataclass(slots=True)
class Worker:
    """A child process. One without a ``channel`` runs as long as ``alive`` is open."""

    role: str
    pid: int
    channel: AsyncChannel[FromWorker] | None
    alive: socket.socket | None
    started_at: float
    restarts: int = 0
    quick_deaths: int = 0
    ready: bool = False
    reader: asyncio.Task[None] | None = None
    report: asyncio.Future[Any] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, message: ToWorker) -> None:
        """Send a message; a worker without a channel gets none."""
        if self.channel is not None:
            self.channel.send(message)

    def kill(self) -> None:
        """Kill the process."""
        kill(self.pid)


class Owner(Protocol):
    """Decides which workers run, and handles their events."""

    def roles(self) -> list[str]:
        """Return the roles of the workers that are needed, in the order of their start."""
        ...

    def body(self, role: str, sock: socket.socket) -> Callable[[], None]:
        """Return the function that the worker of a role runs, with its end of the channel and the present state."""
        ...

    def talks(self, role: str) -> bool:
        """Whether the worker of a role has a channel."""
        ...

    def title(self, role: str) -> str:
        """Return the name of a worker's process."""
        ...

    def spawned(self, role: str, pid: int) -> None:
        """Record the process of a worker."""
        ...

    def respawns(self) -> bool:
        """Whether a worker that dies is started again."""
        ...

    def stop(self) -> None:
        """Stop the daemon."""
        ...

    def stop_limit_s(self) -> float:
        """Return the seconds that a worker may take to stop."""
        ...

    def inherits(self, role: str) -> list[int]:
        """Return descriptors that the worker of a role needs besides its channel."""
        ...

    def handle(self, worker: Worker, message: FromWorker) -> None:
        """Process a message of a worker."""
        ...

    def restarted(self, role: str) -> None:
        """Called after a worker died and was replaced."""
        ...

    def lost(self, role: str) -> None:
        """Called after a worker died."""
        ...

    def given_up(self, role: str) -> None:
        """Called if a worker will not be restarted for a while, or had to be killed."""
        ...

    def log(self, text: str, severity: int) -> None:
        """Write a log line."""
        ...


class Workers:
    """All workers of a daemon, by role."""

    def __init__(self, owner: Owner) -> None:
        self.present: dict[str, Worker] = {}
        self.stopping = False
        self._owner = owner
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, role: str) -> Worker | None:
        """Return the worker of a role, ``None`` if there is none."""
        return self.present.get(role)

    def send(self, role: str, message: ToWorker) -> None:
        """Send a message to the worker of a role, if there is one."""
        worker = self.present.get(role)
        if worker is not None:
            worker.send(message)

    def start_missing(self) -> None:
        """Start the workers that are needed and do not run."""
        for role in self._owner.roles():
            if role not in self.present and not self.stopping:
                self._spawn(role)

    def _spawn(self, role: str, former: Worker | None = None) -> None:
        if self.stopping:
            return
        ours, theirs = socket.socketpair()
        body = self._owner.body(role, theirs)
        pid = fork(body, self._owner.title(role), [theirs.fileno(), *self._owner.inherits(role)])
        theirs.close()
        self._owner.spawned(role, pid)
        worker = Worker(role, pid, None, None, time.time())
        if former is not None:
            worker.restarts, worker.quick_deaths = former.restarts + 1, former.quick_deaths
        self.present[role] = worker
        self._watch(worker)
        if self._owner.talks(role):
            worker.channel = AsyncChannel(ours, decode_from_worker)
            worker.reader = asyncio.create_task(self.listen(worker), name=f"{role} messages")
            self._tasks.add(worker.reader)
            worker.reader.add_done_callback(self._tasks.discard)
        else:
            worker.alive = ours

    async def listen(self, worker: Worker) -> None:
        """Process the messages of a worker until it ends."""
        assert worker.channel is not None
        await worker.channel.open()
        try:
            async for message in worker.channel.messages():
                self._owner.handle(worker, message)
        except Unreadable as error:
            self._owner.log(f"{worker.role} worker: a message that is none ({error}): killed", Severity.ERROR)
            worker.kill()
        worker.channel.close()
        if worker.report is not None and not worker.report.done():
            worker.report.set_result(None)  # there will be no answer

    async def snapshots(self) -> tuple[dict[str, Any], tuple[WorkerSnapshot, ...]]:
        """Return the snapshot of each worker by role, ``None`` from one that does not answer, and those of the processes."""
        present = dict(self.present)  # workers may be added meanwhile
        reports = dict(zip(present, await asyncio.gather(*map(self._report, present.values())), strict=True))
        described = tuple(
            WorkerSnapshot(
                role=role,
                pid=worker.pid,
                restarts=worker.restarts,
                since_at=worker.started_at,
                answered=worker.channel is None or reports.get(role) is not None,
            )
            for role, worker in present.items()
        )
        return reports, described

    @staticmethod
    async def _report(worker: Worker) -> Any:
        if worker.channel is None or worker.reader is None or worker.reader.done():
            return None  # a worker whose end is known would never answer
        if worker.report is None or worker.report.done():
            worker.report = asyncio.get_running_loop().create_future()
            worker.channel.send(TakeSnapshot())
        try:
            async with asyncio.timeout(SNAPSHOT_S):
                return await asyncio.shield(worker.report)
        except TimeoutError:
            return None

    def _watch(self, worker: Worker) -> None:
        """Wait for the end of a worker by a descriptor.

        SIGCHLD would come for every script too. Python passes signals through a socket: a burst fills it, and loses SIGTERM.
        """
        descriptor = os.pidfd_open(worker.pid)
        loop = asyncio.get_running_loop()

        def reap() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            _, status = os.waitpid(worker.pid, 0)
            worker.ended.set()
            task = asyncio.create_task(self._end_after_messages(worker, os.waitstatus_to_exitcode(status)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        loop.add_reader(descriptor, reap)

    async def _end_after_messages(self, worker: Worker, status: int) -> None:
        """Process the last messages of a worker, then its end."""
        if worker.reader is not None:
            await asyncio.wait({worker.reader}, timeout=LAST_MESSAGES_S)
        self._ended(worker, status)

    def _ended(self, worker: Worker, status: int) -> None:
        role = worker.role
        if worker.alive is not None:
            worker.alive.close()
        if self.stopping or self.present.get(role) is not worker:
            return
        self._owner.lost(role)
        if role not in self._owner.roles():
            del self.present[role]
            return
        how = how_it_ended(status)
        if not self._owner.respawns():
            self._owner.log(f"{role} worker {how}: stopping, because dead workers are not started again", Severity.ERROR)
            del self.present[role]
            self._owner.stop()
            return
        quick = time.time() - worker.started_at < QUICK_DEATH_S or not (worker.ready or worker.channel is None)
        worker.quick_deaths = worker.quick_deaths + 1 if quick else 0
        if worker.quick_deaths >= MAX_QUICK_DEATHS:
            text = f"{role} worker {how}, {worker.quick_deaths} times in a row: next try in {SLOW_RESTART_S:g} s"
            self._owner.log(text, Severity.ERROR)
            self._owner.given_up(role)
            asyncio.get_running_loop().call_later(SLOW_RESTART_S, self._spawn, role, worker)
            return
        self._owner.log(f"{role} worker {how}: restarting it", Severity.ERROR)
        self._spawn(role, worker)
        self._owner.restarted(role)

    async def end(self, role: str, message: Stop) -> None:
        """Stop a worker gracefully; kill it after ``child_wait_time``."""
        worker = self.present.get(role)
        if worker is None:
            return
        if worker.channel is not None:
            worker.channel.send(message)
        elif worker.alive is not None:
            worker.alive.close()
        try:
            async with asyncio.timeout(self._owner.stop_limit_s()):
                await worker.ended.wait()
        except TimeoutError:
            self._owner.log(f"{role} worker does not end: killed", Severity.WARNING)
            worker.kill()
            self._owner.given_up(role)
        if worker.reader is not None:
            await asyncio.wait({worker.reader}, timeout=LAST_MESSAGES_S)
