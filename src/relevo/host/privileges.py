"""Users, capabilities, limits and scheduling priorities of processes. ``daemon.confinement`` says which process has which."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import Final

from relevo.host import libc
from relevo.model.process import ProcessSettings

CAP_CHOWN: Final = 0
CAP_DAC_OVERRIDE: Final = 1
CAP_DAC_READ_SEARCH: Final = 2
CAP_FOWNER: Final = 3
CAP_KILL: Final = 5
CAP_SETGID: Final = 6
CAP_SETUID: Final = 7
CAP_SETPCAP: Final = 8
CAP_NET_BIND_SERVICE: Final = 10
CAP_NET_ADMIN: Final = 12
CAP_NET_RAW: Final = 13
CAP_IPC_LOCK: Final = 14
CAP_SYS_ADMIN: Final = 21
CAP_SYS_NICE: Final = 23
CAP_SYS_RESOURCE: Final = 24
CAP_PERFMON: Final = 38
CAP_BPF: Final = 39

DEFAULT_REALTIME_PRIORITY: Final = 1
"""The lowest real-time priority: above ordinary processes, and not above other real-time processes."""
MAX_DESCRIPTORS: Final = 1 << 20


def change_user(uid: int, gid: int, kept: frozenset[int]) -> None:
    """Become another user for good, without other groups, and keep capabilities; no program that is executed can have others.

    Needs root; ``OSError`` if the system refuses, as for numbers that a user namespace does not have.
    """
    libc.limit_capabilities(kept)
    libc.keep_capabilities_over_setuid()
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    libc.keep_capabilities(kept)


def may_load_programs() -> bool:
    """Whether this process may load and attach BPF programs. CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON."""
    held = libc.effective_capabilities()
    enough = all(held >> number & 1 for number in (CAP_BPF, CAP_PERFMON)) or held >> CAP_SYS_ADMIN & 1
    return bool(enough and held >> CAP_NET_ADMIN & 1)


def enable_realtime(priority: int = DEFAULT_REALTIME_PRIORITY) -> str:
    """Switch to real-time scheduling; return an empty string or the system's reason.

    Late adverts cause a second master, so the director runs before processes that only move data. Children do not inherit the
    policy (SCHED_RESET_ON_FORK).
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def apply_settings(settings: ProcessSettings) -> list[str]:
    """Use the settings of a worker, real-time priority apart; return what the system refused, as text."""
    refused = []
    steps: list[tuple[str, Callable[[], None]]] = []
    if settings.nice is not None:
        nice = settings.nice
        steps.append((f"nice value {nice}", lambda: os.setpriority(os.PRIO_PROCESS, 0, nice)))
    if settings.cpus:
        steps.append((f"processors {' '.join(map(str, settings.cpus))}", lambda: os.sched_setaffinity(0, settings.cpus)))
    if settings.realtime_limit_us is not None:
        limit = (settings.realtime_limit_us, settings.realtime_limit_us)
        steps.append(("limit of CPU time", lambda: resource.setrlimit(resource.RLIMIT_RTTIME, limit)))
    if settings.no_swap:
        steps.append(("locking of memory", libc.lock_memory))
    for what, step in steps:
        try:
            step()
        except (OSError, ValueError) as error:
            refused.append(f"the system refuses {what}: {getattr(error, 'strerror', None) or error}")
    return refused


def raise_descriptor_limit() -> int:
    """Raise the limit of open files as far as the system allows; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (MAX_DESCRIPTORS, hard):
        if wanted <= soft:
            return soft
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        except (OSError, ValueError):
            continue
        return wanted
    return soft
