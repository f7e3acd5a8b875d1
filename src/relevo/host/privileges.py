"""Capabilities and scheduling priority of each worker."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final

from relevo.host import libc
from relevo.model.process import ProcessSettings

CAP_NET_BIND_SERVICE: Final = 10
CAP_NET_ADMIN: Final = 12
CAP_NET_RAW: Final = 13
CAP_SYS_ADMIN: Final = 21
CAP_PERFMON: Final = 38
CAP_BPF: Final = 39

DIRECTOR: Final = frozenset((CAP_NET_ADMIN, CAP_NET_RAW))
"""For addresses, raw VRRP sockets and gratuitous ARP."""
BALANCER: Final = frozenset((CAP_NET_BIND_SERVICE,))
"""For checks from a ``bind_port`` below 1024."""
PACKET_BALANCER: Final = BALANCER | {CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF}
"""With the eBPF plane: to load and attach programs, without the verifier's protection against side channels."""
IPVS_BALANCER: Final = BALANCER | {CAP_NET_ADMIN}
"""With the IPVS plane."""
BALANCERS: Final = {"memory": BALANCER, "proxy": BALANCER, "ebpf": PACKET_BALANCER, "ipvs": IPVS_BALANCER}
"""Capabilities of the balancer by data plane."""
RELAY: Final = frozenset((CAP_NET_BIND_SERVICE,))
"""For ports below 1024."""

NOBODY: Final = 65534
"""The user and group that own nothing, everywhere (the kernel's overflow id)."""

DEFAULT_REALTIME_PRIORITY: Final = 1
"""The lowest real-time priority: above ordinary processes, and not above other real-time processes."""
MAX_DESCRIPTORS: Final = 1 << 20


def drop_capabilities(kept: frozenset[int]) -> None:
    """Drop all capabilities but ``kept``, and set no_new_privs. Errors are ignored: the worker then keeps its privileges."""
    try:
        libc.no_new_privileges()
        libc.keep_capabilities(kept)
    except OSError:
        pass


def become_nobody() -> None:
    """Give up user, groups and all capabilities, for good. Without root the user stays, and there is little to give up."""
    with contextlib.suppress(OSError):
        libc.limit_capabilities(frozenset())
    with contextlib.suppress(OSError):
        os.setgroups([])
    with contextlib.suppress(OSError):
        os.setresgid(NOBODY, NOBODY, NOBODY)
    with contextlib.suppress(OSError):
        os.setresuid(NOBODY, NOBODY, NOBODY)
    drop_capabilities(frozenset())
    libc.die_with_parent()  # a change of the user clears it


def give_to_nobody(folder: Path) -> None:
    """Make a folder, with what is in it, that of the user of ``become_nobody``. Without root it stays this user's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.geteuid() != 0:
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in os.listdir(descriptor):
            os.chown(name, NOBODY, NOBODY, dir_fd=descriptor, follow_symlinks=False)
        os.fchown(descriptor, NOBODY, NOBODY)
    finally:
        os.close(descriptor)


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
            refused.append(f"{what}: {getattr(error, 'strerror', None) or error}")
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
