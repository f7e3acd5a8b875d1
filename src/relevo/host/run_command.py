"""Runs one command: as a given user, in a session of its own, within a time limit, and never through a shell.

``prepare`` finds the program and the user that a declared script runs as. The callers decide which commands run, in which order,
how many at once, and what a failure means to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import grp
import itertools
import os
import pwd
import re
import shutil
import signal
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from relevo.errors import HostError
from relevo.model import GlobalDefs, Script

KILL_AFTER_S: Final = 2.0
"""Seconds between TERM and KILL, as keepalived gives its scripts."""
DEFAULT_USER: Final = "keepalived_script"
"""User of scripts that name none, where it exists (keepalived.conf(5), "script_user")."""


DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs without a path are looked for if the environment has no PATH."""
INTERPRETERS: Final = r"env|(ba|da|k|z)?sh|busybox|(python|perl|ruby|php|lua|node|tclsh)[0-9.]*"
"""Programs whose first argument, if it is a file, is what runs."""
TO_OPEN: Final = "<"
"""First character of a script that is a file: it succeeds if the file can be opened (keepalived.conf(5), "script")."""


class Outcome(enum.StrEnum):
    """How a command ended."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMED_OUT = "timed_out"
    NOT_STARTED = "not_started"


@dataclass(frozen=True, slots=True)
class CommandResult:
    """``number`` is the exit status of EXITED and the signal of SIGNALLED, else 0; ``reason`` is empty after status 0."""

    outcome: Outcome
    number: int = 0
    reason: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether the command exited with status 0."""
        return self.outcome is Outcome.EXITED and self.number == 0


@dataclass(frozen=True, slots=True)
class Identity:
    """User and group id of a command, and its supplementary ``groups``."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """A script that can run: its arguments, with the full path of the program first, and its user."""

    argv: tuple[str, ...]
    identity: Identity | None


def prepare(script: Script, defaults: GlobalDefs) -> Command:
    """Find the program and the user of a script; ``HostError`` says why it cannot run, or must not.

    A user of its own comes before ``script_user``, ``script_group`` belongs to ``script_user``.
    """
    user = script.user or defaults.script_user
    group = script.group or (defaults.script_group if not script.user else "")
    try:
        identity = find_identity(user, group, supplementary=defaults.processes.supplementary_groups)
    except KeyError as error:
        raise HostError(f"no such user or group: {error}") from None
    program = script.argv[0]
    if program.startswith(TO_OPEN):
        return Command(script.argv, identity)
    if "/" not in program:
        found = shutil.which(program, path=os.environ.get("PATH", DEFAULT_PATH))
        if found is None:
            raise HostError(f"{program} is not in PATH")
        program = found
    if defaults.enable_script_security:
        for path in (program, *interpreted(script.argv)):
            if danger := insecure(path, identity):
                raise HostError(danger)
    return Command((program, *script.argv[1:]), identity)


def problem_of(command: Command) -> str:
    """Return why a prepared command could not be started now, empty if it could."""
    program = command.argv[0]
    if program.startswith(TO_OPEN):
        return ""
    try:
        found = os.stat(program)
    except OSError as error:
        return f"{program}: {error.strerror}"
    if not stat.S_ISREG(found.st_mode):
        return f"{program} is not a file"
    uid, gid = (command.identity.uid, command.identity.gid) if command.identity else (os.geteuid(), os.getegid())
    mask = stat.S_IXOTH
    if uid == 0:
        mask = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
    elif uid == found.st_uid:
        mask = stat.S_IXUSR
    elif gid == found.st_gid:
        mask = stat.S_IXGRP
    return "" if found.st_mode & mask else f"{program} cannot be executed by the user of the script"


def find_identity(user: str, group: str = "", *, supplementary: bool = False) -> Identity | None:
    """Look up the identity of a command: ``user`` with ``group`` or else with the user's own group.

    With ``supplementary`` it has the other groups of its user too. Without ``user`` it is DEFAULT_USER, where there is one.
    ``None`` leaves the identity of this process, which only root can change. ``KeyError`` names a user or group that is missing.
    """
    if os.geteuid() != 0:
        return None
    if not user:
        try:
            pwd.getpwnam(DEFAULT_USER)
        except KeyError:
            return None
        user = DEFAULT_USER
    entry = pwd.getpwnam(user)
    gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
    return Identity(entry.pw_uid, gid, tuple(os.getgrouplist(user, gid)) if supplementary else ())


async def run_command(
    argv: Sequence[str], *, limit_s: float, identity: Identity | None = None, starting: asyncio.Semaphore | None = None
) -> CommandResult:
    """Run ``argv`` to its end; ``argv[0]`` is a path. Arguments reach the program as they are.

    Input and output are /dev/null. After ``limit_s`` seconds, or when the caller is cancelled, the session gets TERM and then
    KILL. Processes that the command leaves behind when it ends in time go on. ``starting`` limits how many start at once.
    """
    if argv[0].startswith(TO_OPEN):
        return _open_once(argv[0].removeprefix(TO_OPEN).strip())
    try:
        async with starting or contextlib.nullcontext():
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                **credentials(identity),
            )
    except (OSError, ValueError) as error:  # ValueError: an argument has a NUL byte
        return not_started(getattr(error, "strerror", None) or str(error))
    return await _wait(process, limit_s)


def _open_once(path: str) -> CommandResult:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except (OSError, ValueError) as error:
        return CommandResult(Outcome.EXITED, 1, f"{path}: {getattr(error, 'strerror', None) or error}")
    return CommandResult(Outcome.EXITED)


def wait_by_descriptors() -> None:
    """Have the running loop wait for commands by pidfds, not by a thread for each (Python 3.12 does so by itself)."""
    if sys.version_info < (3, 12):
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.set_child_watcher(watcher)


def credentials(identity: Identity | None) -> dict[str, Any]:
    """Return the arguments with which asyncio starts a process as ``identity``."""
    if identity is None:
        return {}
    return {"user": identity.uid, "group": identity.gid, "extra_groups": list(identity.groups)}


def not_started(reason: str) -> CommandResult:
    """Return the result of a command that was not run."""
    return CommandResult(Outcome.NOT_STARTED, reason=f"not run: {reason}")


async def _wait(process: asyncio.subprocess.Process, limit_s: float) -> CommandResult:
    try:
        async with asyncio.timeout(limit_s):
            status = await process.wait()
    except TimeoutError:
        await end_session(process)
        return CommandResult(Outcome.TIMED_OUT, reason=f"killed: it ran longer than {limit_s:g} s")
    except asyncio.CancelledError:
        await asyncio.shield(end_session(process))
        raise
    if status < 0:
        return CommandResult(Outcome.SIGNALLED, -status, f"ended by signal {-status}")
    return CommandResult(Outcome.EXITED, status, f"exited with status {status}" if status else "")


async def end_session(process: asyncio.subprocess.Process) -> None:
    """Send TERM to a command and its children, then KILL, also where only the command itself has ended."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            async with asyncio.timeout(KILL_AFTER_S):
                await process.wait()
        except TimeoutError:
            continue


def interpreted(argv: Sequence[str]) -> list[str]:
    """Return the file that an interpreter at the beginning of a command line runs: who can write to it, can say what runs."""
    words = list(argv)
    while words and re.fullmatch(INTERPRETERS, os.path.basename(words[0])):
        words = list(itertools.dropwhile(lambda word: word.startswith("-") or "=" in word, words[1:]))
        if words and os.path.isfile(words[0]) and "/" in words[0]:
            return words[:1]
    return []


def insecure(path: str, identity: Identity | None) -> str:
    """Return why others than root could change a command that runs as root; empty when they cannot, or it runs as another."""
    if os.geteuid() != 0 or (identity is not None and identity.uid != 0):
        return ""
    part = os.path.realpath(path)
    while True:
        try:
            found = os.stat(part)
        except OSError as error:
            return f"{part}: {error.strerror}"
        writable = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != 0)
        # Below a sticky directory of root's, such as /tmp, others cannot replace a file of root's.
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        if found.st_uid != 0 or (writable and not sticky):
            return f"{part} can be written by others than root"
        if part == "/":
            return ""
        part = os.path.dirname(part)
