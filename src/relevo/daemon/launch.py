"""Starting the daemon: a child reads the command line and the file, and the process that becomes the daemon reads neither.

So the daemon keeps its process id, and has neither the command line's library nor the compiler in memory; and while the child
reads, it imports what it will need.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from relevo.daemon.options import Options
from relevo.errors import RelevoError
from relevo.model import Configuration

EXIT_FAILED: Final = 1
"""Exit status of a daemon that cannot start: keepalived's, and that of every command of ``relevo``."""


class Start(msgspec.Struct, frozen=True):
    """What the child found: what to run, and how the process has to be for it."""

    options: Options
    configuration: Configuration
    background: bool = False
    umask: int | None = None
    core_dumps: bool = False


def _encode_path(value: Any) -> str:
    if isinstance(value, Path):
        return os.fspath(value)
    raise NotImplementedError(type(value))


def _decode_path(kind: type, value: Any) -> Any:
    return kind(value)


_daemon: socket.socket | None = None


def split(program: str) -> None:
    """Return in a child that reads the command line; this process becomes the daemon or ends as the child does.

    ``program`` precedes messages.
    """
    global _daemon  # noqa: PLW0603 - the one place where the two processes part
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        _become_daemon(program, pid, ours)
    ours.close()
    _daemon = theirs


def hand_over(start: Start) -> NoReturn:
    """Have the process from which ``split`` parted run the daemon."""
    assert _daemon is not None, "split() comes first"
    with contextlib.suppress(BrokenPipeError):  # it was ended meanwhile
        _daemon.sendall(msgspec.msgpack.encode(start, enc_hook=_encode_path))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(os.EX_OK)


def _become_daemon(program: str, child: int, sock: socket.socket) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the daemon has its own handler, once it is there
    from relevo.daemon.reading import to_end
    from relevo.daemon.supervisor import run

    data = to_end(sock)
    sock.close()
    _, status = os.waitpid(child, 0)
    if not data:
        _end_like(os.waitstatus_to_exitcode(status))
    start = msgspec.msgpack.decode(data, type=Start, dec_hook=_decode_path)
    if start.umask is not None:
        os.umask(start.umask)
    if start.core_dumps:
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    if start.background:
        _go_into_background()
    try:
        sys.exit(run(start.options, start.configuration))
    except RelevoError as error:
        sys.stderr.write(f"{program}: {error}\n")
        if error.hint:
            sys.stderr.write(f"  hint: {error.hint}\n")
        sys.exit(EXIT_FAILED)


def _end_like(status: int) -> NoReturn:
    """End with the exit status of the child, or by its signal."""
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


def _go_into_background() -> None:
    """Go into the background in a session of its own, as keepalived does without ``-n``."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.close(nothing)
