"""What each process of the daemon keeps of root's power: user, capabilities, system calls, sockets and files.

Nothing else in the program decides that. ``confine`` is the last step of a process's start: what needs more has been opened by
then, and what is imported later may not be readable. ``docs/reference/privileges.md`` is this table.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pwd
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relevo.host import landlock, libc, privileges, seccomp
from relevo.host.landlock import OWN, READ, WRITE, Access

# -- system calls, in groups -------------------------------------------------------------------------------------------


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


RUN: Final = _words("""
    brk mmap mmap2 mprotect mremap munmap madvise membarrier arch_prctl rseq futex futex_time64 futex_waitv set_robust_list
    get_robust_list sched_yield sched_getaffinity gettid set_tid_address restart_syscall exit exit_group getrandom
    rt_sigaction rt_sigprocmask rt_sigreturn sigreturn sigaltstack rt_sigpending rt_sigtimedwait rt_sigtimedwait_time64
    clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep clock_nanosleep_time64 nanosleep gettimeofday
    time times getrusage uname sysinfo getpid getppid getpgrp getuid geteuid getgid getegid getresuid getresgid getgroups
    getrlimit ugetrlimit prlimit64
""")
"""Memory, time, signals to itself, and what is known of itself."""
DESCRIPTORS: Final = _words("""
    read write readv writev pread64 pwrite64 preadv pwritev close close_range lseek _llseek dup dup2 dup3 fcntl fcntl64 fstat
    fstat64 poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1 epoll_ctl epoll_wait
    epoll_pwait epoll_pwait2 eventfd eventfd2 pipe pipe2 timerfd_create timerfd_settime timerfd_gettime
    recv recvfrom recvmsg recvmmsg recvmmsg_time64 send sendto sendmsg sendmmsg shutdown getsockname getpeername getsockopt
    setsockopt
""")
"""What is open: files, pipes and sockets."""
CONNECT: Final = _words("bind connect")
SERVE: Final = _words("listen accept accept4 splice tee")
LOOK: Final = _words("""
    open openat openat2 access faccessat faccessat2 stat stat64 lstat lstat64 newfstatat fstatat64 statx readlink readlinkat
    getdents getdents64 statfs statfs64 fstatfs fstatfs64 getcwd fadvise64
""")
"""Files, as far as the rules of the role allow them."""
CHANGE: Final = _words("unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir fsync fdatasync ftruncate fchmod umask")
"""Files that may be written: making and removing them."""
IOCTLS: Final = {
    "TCGETS": 0x5401,
    "TIOCGWINSZ": 0x5413,
    "FIONREAD": 0x541B,
    "FIONBIO": 0x5421,
    "FIONCLEX": 0x5450,
    "FIOCLEX": 0x5451,
    "SIOCGIFNAME": 0x8910,
    "SIOCGIFFLAGS": 0x8913,
    "SIOCGIFADDR": 0x8915,
    "SIOCGIFMTU": 0x8921,
    "SIOCGIFHWADDR": 0x8927,
    "SIOCGIFINDEX": 0x8933,
    "SIOCETHTOOL": 0x8946,
}
"""Requests of ioctl(2) that every process has: questions, and whether a descriptor waits."""


# -- roles -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Role:
    """A process: its ``user`` and the ``number`` that stands in for it, what it keeps, and why."""

    name: str
    user: str
    number: int
    why: str
    capabilities: frozenset[int] = frozenset()
    calls: frozenset[str] = RUN | DESCRIPTORS
    families: tuple[socket.AddressFamily, ...] = ()
    files: tuple[tuple[Path, Access], ...] = ()
    threads: bool = False
    processes: bool = False
    ends_with_parent: bool = False
    modules: tuple[str, ...] = ()
    """Modules that something imports only when it needs them, which may be where only root can read."""


_THREADS: Final = ("concurrent.futures.thread",)
_INET: Final = (socket.AF_INET, socket.AF_INET6)
_BALANCER: Final = Role(
    "balancer",
    "relevo-check",
    64842,
    "checks servers, from ports below 1024 too, and fills the table of the plane",
    frozenset((privileges.CAP_NET_BIND_SERVICE,)),
    RUN | DESCRIPTORS | CONNECT | LOOK,
    (*_INET, socket.AF_UNIX, socket.AF_NETLINK),
    threads=True,
    modules=_THREADS,
)
_NETWORK: Final = ((Path("/proc/sys/net"), WRITE), (Path("/proc/self"), READ))
"""Switches and tables of the network; those of the table are below ``net`` of each process."""


def _balancer(
    why: str, *capabilities: int, calls: frozenset[str] = frozenset(), files: tuple[tuple[Path, Access], ...] = ()
) -> Role:
    return Role(
        _BALANCER.name,
        _BALANCER.user,
        _BALANCER.number,
        f"{_BALANCER.why}: {why}",
        _BALANCER.capabilities.union(capabilities),
        _BALANCER.calls | calls,
        _BALANCER.families,
        _NETWORK + files,
        threads=True,
        modules=_THREADS,
    )


DIRECTOR: Final = Role(
    "director",
    "relevo-vrrp",
    64841,
    "sends and receives adverts and gratuitous ARP by raw sockets, and sets addresses",
    frozenset((privileges.CAP_NET_ADMIN, privileges.CAP_NET_RAW)),
    RUN | DESCRIPTORS | CONNECT,
    (*_INET, socket.AF_PACKET, socket.AF_NETLINK),
)
BALANCERS: Final = {
    "memory": _BALANCER,
    "proxy": _BALANCER,
    "ipvs": _balancer("IPVS by netlink", privileges.CAP_NET_ADMIN),
    "ebpf": _balancer(
        "maps and hooks by bpf(2)",
        privileges.CAP_NET_ADMIN,
        privileges.CAP_PERFMON,
        privileges.CAP_BPF,
        calls=CHANGE | {"bpf"},
        files=((Path("/sys/fs/bpf/relevo"), OWN), (Path("/sys/devices/system/cpu"), READ)),
    ),
}
PROXY: Final = Role(
    "proxy",
    "relevo-proxy",
    64843,
    "listens at the virtual addresses, below port 1024 too, and relays; many idle connections go to processes of their own",
    frozenset((privileges.CAP_NET_BIND_SERVICE,)),
    RUN | DESCRIPTORS | CONNECT | SERVE | LOOK | {"prctl"},
    (*_INET, socket.AF_UNIX),
    ((Path("/proc"), Access.READ_DIR),),
    processes=True,
)
MAIL: Final = Role(
    "mail",
    "relevo-mail",
    64844,
    "keeps the queue of mails, finds the mail server by name and sends to it, perhaps by TLS",
    frozenset(),
    RUN | DESCRIPTORS | CONNECT | LOOK | CHANGE,
    (*_INET, socket.AF_UNIX, socket.AF_NETLINK),
    tuple(
        (Path(path), READ)
        for path in (
            "/etc",
            "/lib",
            "/lib64",
            "/usr/lib",
            "/usr/lib64",
            "/usr/share/ca-certificates",
            "/usr/share/zoneinfo",
            "/usr/local/share/ca-certificates",
            "/run/systemd/resolve",
            "/run/resolvconf",
            "/run/NetworkManager",
        )
    ),
    threads=True,
    modules=(*_THREADS, "encodings.idna", "aiosmtplib", "relevo.alerts.outbox"),
)
COMPILER: Final = Role(
    "compiler",
    "relevo-config",
    64845,
    "turns the text of a configuration into a model, and opens nothing",
    ends_with_parent=True,
    modules=("difflib", "random", "unicodedata", "relevo.config.blocks.keepalived_keywords"),
)
ROLES: Final = (DIRECTOR, *dict.fromkeys(BALANCERS.values()), PROXY, MAIL, COMPILER)


_FILES: Final = frozenset(
    (privileges.CAP_CHOWN, privileges.CAP_DAC_OVERRIDE, privileges.CAP_DAC_READ_SEARCH, privileges.CAP_FOWNER)
)
_USERS: Final = frozenset((privileges.CAP_SETUID, privileges.CAP_SETGID, privileges.CAP_SETPCAP, privileges.CAP_KILL))
_LIMITS: Final = frozenset((privileges.CAP_SYS_NICE, privileges.CAP_SYS_RESOURCE, privileges.CAP_IPC_LOCK))
SUPERVISOR: Final = _FILES.union(_USERS, _LIMITS, *(role.capabilities for role in ROLES))
"""Capabilities of the supervisor after its start: files of every user, its children's users and limits, and all that a child
that is started again must have."""


# -- users -------------------------------------------------------------------------------------------------------------


def identity(role: Role) -> tuple[int, int]:
    """Return user and group of a role: its account's, else a number that no account has.

    Without root, or in a user namespace that has no others, those of this process.
    """
    if os.geteuid() != 0 or not _has_other_users():
        return os.geteuid(), os.getegid()
    try:
        account = pwd.getpwnam(role.user)
    except KeyError:
        return role.number, role.number
    return account.pw_uid, account.pw_gid


def _has_other_users() -> bool:
    """Whether this user namespace has the numbers of all roles (user_namespaces(7), "uid_map")."""
    try:
        ranges = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()]
    except (OSError, ValueError):
        return False
    return all(any(first <= role.number < first + count for first, _, count in ranges) for role in ROLES)


def give(role: Role, *paths: Path) -> None:
    """Make files and folders those of a role, where they are; never what a link refers to. Nothing without root."""
    owner = identity(role)
    if owner != (os.geteuid(), os.getegid()):
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.chown(path, *owner, follow_symlinks=False)


def shortcomings() -> list[str]:
    """Return what this system lacks for the table, as text; empty when all of it can be had."""
    found = []
    if os.geteuid() != 0:
        found.append("workers keep this user, which is not root")
    elif not _has_other_users():
        found.append("workers keep this user: the user namespace has no others")
    else:
        missing = [user for user in sorted({role.user for role in ROLES}) if not _has_account(user)]
        if missing:
            numbers = f"{min(r.number for r in ROLES)} to {max(r.number for r in ROLES)}"
            found.append(f"no account {', '.join(missing)}: workers use the numbers {numbers}")
    if not landlock.version():
        found.append("the kernel has no Landlock: files are guarded by their owners alone")
    if not seccomp.available():
        found.append("libseccomp.so.2 is not installed: system calls are not filtered")
    return found


def _has_account(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


# -- giving up ---------------------------------------------------------------------------------------------------------


def settle() -> None:
    """Give up what only the start of the supervisor needs: mounting, namespaces, modules. ``OSError`` if the system refuses.

    Scripts that it executes as root have root's power all the same: the kernel gives it to every program of root's. One that is
    not root has what its service manager gave it, and its scripts inherit that.
    """
    if os.geteuid() == 0:
        libc.keep_capabilities(SUPERVISOR)


def drop_capabilities(role: Role) -> list[str]:
    """Keep the capabilities of ``role`` alone, for a process that cannot give up the rest; return what was refused, as text."""
    try:
        libc.no_new_privileges()
        libc.keep_capabilities(role.capabilities)
    except OSError as error:
        return [f"{role.name}: it keeps its capabilities: {error.strerror}"]
    return []


def confine(role: Role, files: Iterable[tuple[Path, Access]] = ()) -> list[str]:
    """Keep what ``role`` has in the table, and ``files``; return what the system refused to take away, as text.

    Without root the user stays, and the rest is as in the table. Nothing that was given up comes back.
    """
    for module in role.modules:
        importlib.import_module(module)
    refused = []
    try:
        ruleset = landlock.prepare((*role.files, *files))
        calls = seccomp.prepare(role.calls, role.families, IOCTLS.values(), threads=role.threads, processes=role.processes)
    except OSError as error:
        ruleset = calls = None
        refused.append(f"{role.name}: it keeps its files and system calls: {error.strerror}")
    wanted = identity(role)
    if wanted != (os.geteuid(), os.getegid()):
        try:
            privileges.change_user(*wanted, role.capabilities)
        except OSError as error:
            refused.append(f"{role.name}: it keeps root: {error.strerror}")
    try:
        if role.ends_with_parent:
            libc.die_with_parent()  # after the change of the user, which would clear it
        libc.no_new_privileges()
        libc.keep_capabilities(role.capabilities)
        if ruleset is not None:
            landlock.restrict(ruleset)
        if calls is not None:
            calls.load()
    except OSError as error:
        refused.append(f"{role.name}: it is not confined: {error.strerror}")
    return refused
