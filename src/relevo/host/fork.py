"""Child processes that are forked without exec."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from relevo.host import libc

IGNORED: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGRTMIN + 2,
    signal.SIGRTMAX - 1,
)
"""Signals that workers ignore: terminals and service managers send them to the whole group, and the supervisor handles them."""

_inherited: Final[list[Any]] = []
"""Event loops of parents: they stay referenced, because what ends them would act on the parent's epoll object."""


def fork(body: Callable[[], None], name: str, keep: list[int]) -> int:
    """Fork a process that runs ``body`` with the descriptors ``keep``; return its id.

    The child never returns from this function and never finalises objects of the parent. Their finalisers would act on
    descriptor numbers that belong to the child now, and on the parent's epoll object.
    """
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        _live(body, name, keep, parent)
    return pid


def kill(pid: int) -> None:
    """Kill a child, if it still runs."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def how_it_ended(status: int) -> str:
    """Return the exit status of a child in words; negative is a signal (``os.waitstatus_to_exitcode``)."""
    return f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"


def _live(body: Callable[[], None], name: str, keep: list[int], parent: int) -> NoReturn:
    status = 1
    try:
        _leave_event_loop()
        _forget_parent(keep, parent)
        libc.set_process_name(name)
        body()
        status = 0
    except KeyboardInterrupt:
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)


def _leave_event_loop() -> None:
    """Have asyncio, where it is in use, know nothing of the parent's loop."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return
    _inherited.append(asyncio.get_event_loop_policy())
    asyncio.events._set_running_loop(None)
    asyncio.set_event_loop_policy(type(_inherited[-1])())


def _forget_parent(keep: list[int], parent: int) -> None:
    """Reset signal handlers and close descriptors that a child inherited."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    kept = {0, 1, 2, *keep}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))
    if os.getppid() != parent:
        os._exit(1)  # the parent died between fork and here
