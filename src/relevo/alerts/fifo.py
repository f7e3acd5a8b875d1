"""Pipes for events (keepalived.conf(5), "notify_fifo"): a line for each, in order, and the scripts that read them.

The pipe is opened for reading too, so that it exists from the start to the stop whether or not somebody reads. What a slow
reader leaves in it waits in a queue; when that is full, further lines are dropped, counted and logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections import deque
from collections.abc import Callable
from typing import Final

from relevo.errors import HostError
from relevo.host.run_command import credentials, end_session, find_identity, prepare
from relevo.model import GlobalDefs
from relevo.model.process import NotifyFifo, NotifyFifos
from relevo.severity import Severity

MAX_WAITING: Final = 10_000
"""Lines that wait for a reader: the states of some thousand instances and servers."""
MODE: Final = 0o600
RESTART_S: Final = 1.0
"""Pause before a reader that has ended is started again."""
END_S: Final = 1.0
"""How long a reader may take to read the last lines after the pipe is closed."""

Log = Callable[[str, int], None]


class Pipe:
    """One pipe and its reader. ``dropped`` counts the lines that found no room."""

    def __init__(self, declared: NotifyFifo, defaults: GlobalDefs, log: Log, former: Pipe | None) -> None:
        """Open the pipe; ``former`` is the one of the same path that this one replaces: its lines come first."""
        self.declared = declared
        self.dropped = 0
        self._defaults = defaults
        self._log = log
        self._waiting: deque[bytes] = deque()
        self._made = False
        if former is not None:
            self._waiting, former._waiting = former._waiting, deque()
            self._made, former._made = former._made, False
        self._reader: asyncio.Task[None] | None = None
        self._descriptor = self._open()
        if self._waiting and self._descriptor >= 0:
            self._flush()
        if declared.script is not None and self._descriptor >= 0:
            self._reader = asyncio.create_task(self._run_reader(), name=f"reader of {declared.path}")

    def _open(self) -> int:
        path = self.declared.path
        try:
            identity = find_identity(self.declared.user, self.declared.group) if self.declared.user else None
            try:
                os.mkfifo(path, MODE)
                self._made = True
            except FileExistsError:
                pass
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise HostError(f"{path} is not a pipe")
            if identity is not None and self._made:
                os.fchown(descriptor, identity.uid, identity.gid)
        except (OSError, KeyError, HostError) as error:
            self._log(f"cannot use the pipe {path}: {getattr(error, 'strerror', None) or error}", Severity.ERROR)
            return -1
        return descriptor

    def write(self, line: str) -> None:
        """Write a line, or queue it."""
        if self._descriptor < 0:
            return
        if len(self._waiting) >= MAX_WAITING:
            if not self.dropped:
                self._log(f"nobody reads {self.declared.path}: further lines are dropped", Severity.WARNING)
            self.dropped += 1
            return
        self._waiting.append(f"{line}\n".encode())
        if len(self._waiting) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._waiting:
            try:
                os.write(self._descriptor, self._waiting[0])
            except BlockingIOError:
                asyncio.get_running_loop().add_writer(self._descriptor, self._resume)
                return
            except OSError as error:
                self._log(f"cannot write to {self.declared.path}: {error.strerror}", Severity.ERROR)
                self._waiting.clear()
                return
            self._waiting.popleft()

    def _resume(self) -> None:
        asyncio.get_running_loop().remove_writer(self._descriptor)
        self._flush()

    async def _run_reader(self) -> None:
        """Run the script, again whenever it ends; it gets the pipe's path as its last argument."""
        script = self.declared.script
        assert script is not None
        while True:
            try:
                command = prepare(script, self._defaults)
                process = await asyncio.create_subprocess_exec(
                    *command.argv,
                    self.declared.path,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                    start_new_session=True,
                    **credentials(command.identity),
                )
            except (HostError, OSError, ValueError) as error:
                self._log(f"reader of {self.declared.path} not started: {error}", Severity.ERROR)
                return
            try:
                status = await process.wait()
            except asyncio.CancelledError:
                await asyncio.shield(_end(process))
                raise
            self._log(f"reader of {self.declared.path} ended with status {status}: starting it again", Severity.WARNING)
            await asyncio.sleep(RESTART_S)

    async def close(self, limit_s: float) -> None:
        """Write what waits, close the pipe, and let the reader finish. A pipe that was made here is removed."""
        if self._descriptor >= 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    while self._waiting:
                        await asyncio.sleep(0.01)
            asyncio.get_running_loop().remove_writer(self._descriptor)
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})
        if self._descriptor >= 0:
            os.close(self._descriptor)
            if self._made:
                with contextlib.suppress(OSError):
                    os.unlink(self.declared.path)
        self._descriptor = -1


async def _end(process: asyncio.subprocess.Process) -> None:
    """Give a reader time to read the last lines, then end its session."""
    try:
        async with asyncio.timeout(END_S):
            await process.wait()
    except TimeoutError:
        await end_session(process)


class Fifos:
    """The pipes of a configuration. One whose declaration stays is left open by a reload, so that no line is lost."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._declared = NotifyFifos()
        self._pipes: dict[NotifyFifo, Pipe] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def configure(self, global_defs: GlobalDefs) -> None:
        """Open the pipes that are new, close those that are gone."""
        self._declared = global_defs.fifos
        wanted = {each for each in self._each() if each.path}
        gone = {each.path: self._pipes.pop(each) for each in list(self._pipes) if each not in wanted}
        for declared in wanted - self._pipes.keys():
            self._pipes[declared] = Pipe(declared, global_defs, self._log, gone.get(declared.path))
        for path, pipe in gone.items():
            task = asyncio.create_task(pipe.close(END_S), name=f"close {path}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _each(self) -> tuple[NotifyFifo, NotifyFifo, NotifyFifo]:
        return self._declared.everything, self._declared.vrrp, self._declared.services

    @property
    def repeats_states(self) -> bool:
        """Whether a reload repeats the states of instances and groups."""
        return self._declared.states_on_reload

    def vrrp(self, kind: str, name: str, what: str, priority: int) -> None:
        """Write ``INSTANCE "name" STATE priority`` or the same of a group."""
        self._write(f'{kind} "{name}" {what} {priority}', self._declared.everything, self._declared.vrrp)

    def services(self, line: str) -> None:
        """Write a line about a virtual or real server."""
        self._write(line, self._declared.everything, self._declared.services)

    def _write(self, line: str, *pipes: NotifyFifo) -> None:
        for declared in pipes:
            pipe = self._pipes.get(declared)
            if pipe is not None:
                pipe.write(line)

    async def close(self, limit_s: float) -> None:
        """Close every pipe."""
        pipes, self._pipes = list(self._pipes.values()), {}
        await asyncio.gather(*(pipe.close(limit_s) for pipe in pipes), *self._tasks)
