"""What each worker may do, and its place in the scheduler."""

from __future__ import annotations

import os
import resource
from typing import Final

from relevo.host import libc

CAP_NET_BIND_SERVICE: Final = 10
CAP_NET_ADMIN: Final = 12
CAP_NET_RAW: Final = 13
CAP_SYS_ADMIN: Final = 21
CAP_PERFMON: Final = 38
CAP_BPF: Final = 39

DIRECTOR: Final = frozenset((CAP_NET_ADMIN, CAP_NET_RAW))
"""Addresses, raw VRRP and gratuitous ARP."""
BALANCER: Final = frozenset((CAP_NET_BIND_SERVICE,))
"""Checks from a ``bind_port`` below 1024; nothing else."""
PACKET_BALANCER: Final = BALANCER | {CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF}
"""The same where the data plane is eBPF: loading and attaching it, without the verifier's guard against side channels."""
IPVS_BALANCER: Final = BALANCER | {CAP_NET_ADMIN}
"""The same where the data plane is the kernel's IPVS."""
BALANCERS: Final = {"memory": BALANCER, "proxy": BALANCER, "ebpf": PACKET_BALANCER, "ipvs": IPVS_BALANCER}
"""By data plane."""
RELAY: Final = frozenset((CAP_NET_BIND_SERVICE,))
"""Ports below 1024."""

DEFAULT_REALTIME_PRIORITY: Final = 1
"""The lowest real-time priority: above all ordinary load, below whatever an administrator placed there on purpose."""
MAX_DESCRIPTORS: Final = 1 << 20


def drop_capabilities(kept: frozenset[int]) -> None:
    """Drop all capabilities but ``kept``, and the way to new ones. A system that refuses leaves the worker as it is."""
    try:
        libc.no_new_privileges()
        libc.keep_capabilities(kept)
    except OSError:
        pass


def may_load_programs() -> bool:
    """Whether BPF programs can be loaded and attached. CAP_SYS_ADMIN stands for what was split from it."""
    held = libc.effective_capabilities()
    enough = all(held >> number & 1 for number in (CAP_BPF, CAP_PERFMON)) or held >> CAP_SYS_ADMIN & 1
    return bool(enough and held >> CAP_NET_ADMIN & 1)


def enable_realtime(priority: int = DEFAULT_REALTIME_PRIORITY) -> str:
    """Ask for real-time scheduling; return an empty string or why it was refused.

    Late adverts make a second master, so the director goes before everything that merely moves data. The child of a
    real-time process is not one.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def raise_descriptor_limit() -> int:
    """Raise the limit of open files as far as the system lets us; return it."""
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
