"""Reloads: what a new configuration would do, whether it can be used, and what using it did.

A file is compiled once and refused as a whole, or used as a whole. The workers describe their part (``node.plan``), before and
after; the steps of the supervisor itself are those of its processes and trackers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from relevo.api.schema import ReloadPlan
from relevo.daemon.around import fixed_setting
from relevo.daemon.messages import Rehearse, StepsTaken, ToWorker
from relevo.daemon.options import Options, part_of
from relevo.daemon.processes import Workers
from relevo.daemon.reading import READ_S, TOO_SLOW, Reading, begin, end, result_of
from relevo.errors import PlaneError
from relevo.model import Configuration
from relevo.model.plan import Do, Step
from relevo.node.plan import tracker_steps
from relevo.observe.difference import differences
from relevo.observe.plan import line_of
from relevo.planes import catalogue
from relevo.severity import Severity
from relevo.wire.framing import MAX_BODY

Log = Callable[[str, int], None]

_LOGGED: Final = frozenset(
    (
        Do.ADD_SERVICE,
        Do.DELETE_SERVICE,
        Do.ADD_SERVER,
        Do.EDIT_SERVER,
        Do.DELETE_SERVER,
        Do.CHANGE_STATE,
        Do.CHANGE_GROUP,
        Do.CHANGE_PRIORITY,
        Do.CHANGE_QUORUM,
    )
)

STEPS_S: Final = 20.0
"""Seconds that a worker may take to say what a reload does: ten thousand servers take less than one."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that was read. ``refusal`` says why it cannot be used while the daemon runs; empty: it can."""

    configuration: Configuration
    findings: Sequence[str] = ()
    refusal: str = ""


async def read_candidate(file: str, options: Options, present: Configuration, plane: str) -> Candidate:
    """Read ``file`` as a reload does. ``present`` and ``plane`` are in use and decide what can change while running."""
    reading = await read_while_serving(file, options)
    refusal = reading.error or reading.blocking
    if refusal:
        return Candidate(present, refusal=refusal)
    configuration = part_of(reading.configuration, options)
    try:
        chosen = catalogue.choose(configuration).name
    except PlaneError as error:
        return Candidate(present, refusal=str(error))
    if chosen != plane:
        refusal = f"the data plane cannot change from {plane} to {chosen} while running; restart instead"
    return Candidate(configuration, reading.findings, refusal or fixed_setting(present, configuration))


async def read_while_serving(file: str, options: Options) -> Reading:
    """Have ``file`` read and compiled, while the event loop goes on."""
    pid, sock = begin(file, options.config_id, strict=options.strict)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    data = bytearray()
    try:
        async with asyncio.timeout(READ_S):
            while len(data) <= MAX_BODY and (chunk := await loop.sock_recv(sock, 1 << 20)):
                data += chunk
        return result_of(data)
    except TimeoutError:
        return TOO_SLOW
    except OSError as error:
        return Reading(error=f"the process that reads the file cannot be heard: {error.strerror}")
    finally:
        end(pid, sock)


@contextmanager
def being_read(marker: str, log: Log) -> Iterator[None]:
    """Have the file ``marker`` exist, empty, while the configuration is read; an empty name is none."""
    if not marker:
        yield
        return
    try:
        os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644))
    except OSError as error:
        log(f"reload_file {marker} cannot be made: {error.strerror}", Severity.WARNING)
    try:
        yield
    finally:
        remove_marker(marker)


def remove_marker(marker: str) -> None:
    """Remove the file of ``being_read``."""
    if marker:
        with suppress(OSError):
            os.unlink(marker)


class Daemon(Protocol):
    """What a reload needs of the daemon: the supervisor is one."""

    options: Options
    configuration: Configuration
    workers: Workers
    plane: catalogue.Choice

    def roles(self) -> list[str]:
        """Return the roles of the workers that the present configuration needs."""
        ...

    def roles_of(self, configuration: Configuration) -> list[str]:
        """Return the roles of the workers that a configuration needs."""
        ...


class Reloads:
    """Plans reloads, and collects what the workers say about them."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._number = 0
        self._awaited: dict[tuple[int, str], asyncio.Future[StepsTaken]] = {}

    async def plan(self, file: str) -> ReloadPlan:
        """Return what a reload would do if the configuration file were ``file``; empty means the daemon's own."""
        daemon = self._daemon
        candidate = await read_candidate(file or daemon.options.file, daemon.options, daemon.configuration, daemon.plane.name)
        if candidate.refusal:
            return ReloadPlan(refused=candidate.refusal)
        new = candidate.configuration
        steps, problems = await self.ask(lambda number: Rehearse(new, number))
        steps += own_steps(daemon.configuration, new, daemon.roles(), daemon.roles_of(new))
        return ReloadPlan(changes=differences(daemon.configuration, new), steps=steps, problems=problems)

    def ask(self, message: Callable[[int], ToWorker]) -> Coroutine[Any, Any, tuple[list[Step], list[str]]]:
        """Send every worker a message with a number, at once; await the steps that they answer, and what went wrong."""
        self._number += 1
        number = self._number
        loop = asyncio.get_running_loop()
        asked: dict[str, asyncio.Future[StepsTaken]] = {}
        for role in ("director", "balancer"):
            worker = self._daemon.workers.get(role)
            if worker is not None:
                asked[role] = self._awaited[number, role] = loop.create_future()
                worker.send(message(number))
        return self._collect(number, asked)

    async def _collect(self, number: int, asked: dict[str, asyncio.Future[StepsTaken]]) -> tuple[list[Step], list[str]]:
        steps: list[Step] = []
        problems: list[str] = []
        if asked:
            await asyncio.wait(asked.values(), timeout=STEPS_S)
        for role, answer in asked.items():
            del self._awaited[number, role]
            if not answer.done():
                answer.cancel()
                problems.append(f"the {role} did not say within {STEPS_S:g} s what it does")
                continue
            steps += answer.result().steps
            if answer.result().error:
                problems.append(answer.result().error)
        return steps, problems

    def answered(self, role: str, message: StepsTaken) -> None:
        """Pass on the answer of a worker, if it is awaited still."""
        waiting = self._awaited.get((message.number, role))
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    def lost(self, role: str) -> None:
        """Stop waiting for a worker that died."""
        for number, waiting in [(key[0], future) for key, future in self._awaited.items() if key[1] == role]:
            if not waiting.done():
                waiting.set_result(StepsTaken(number, error=f"the {role} died"))


def unlogged(steps: Sequence[Step]) -> list[str]:
    """Return the lines of the steps for which the workers have none: servers, weights, states and priorities have theirs."""
    return [line_of(step) for step in steps if step.do not in _LOGGED]


def own_steps(former: Configuration, new: Configuration, roles: Sequence[str], wanted: Sequence[str]) -> list[Step]:
    """Return the steps of the supervisor: processes that start or end, and trackers."""
    steps = [Step(Do.START_PROCESS, role) for role in wanted if role not in roles]
    steps += [Step(Do.END_PROCESS, role) for role in roles if role not in wanted]
    return steps + tracker_steps(former.trackers, new.trackers)
