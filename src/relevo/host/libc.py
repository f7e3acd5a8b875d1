"""System calls that Python 3.11 does not wrap."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_KEEPCAPS: Final = 8
_PR_SET_NAME: Final = 15
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
MAX_CAPABILITY: Final = 63
_CAPABILITY_VERSION_3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move this process into new namespaces (unshare(2))."""
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    """Enter the namespace that ``descriptor`` refers to."""
    _check(_libc.setns(descriptor, kind), "setns")


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the kernel send signal ``number`` when the parent ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl(PDEATHSIG)")


def set_process_name(name: str) -> None:
    """Name the process in ``ps`` and ``top`` (15 characters show)."""
    _libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0)


def no_new_privileges() -> None:
    """Forbid gaining privileges by execve(2) (PR_SET_NO_NEW_PRIVS)."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(NO_NEW_PRIVS)")


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def keep_capabilities(kept: frozenset[int]) -> None:
    """Drop every capability but ``kept`` (numbers of capabilities(7)); none are gained."""
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    _check(_libc.capget(ctypes.byref(header), ctypes.byref(data)), "capget")
    for word in range(2):
        mask = sum(1 << (number - 32 * word) for number in kept if number // 32 == word)
        data[word].permitted &= mask
        data[word].effective = data[word].permitted  # a change of the user cleared it
        data[word].inheritable = 0
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(data)), "capset")


def limit_capabilities(kept: frozenset[int]) -> None:
    """Cut the bounding set: no program that this process executes can have others (capabilities(7)). Needs CAP_SETPCAP."""
    for number in range(MAX_CAPABILITY + 1):
        if number not in kept and _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            _check(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), "prctl(CAPBSET_DROP)")


def keep_capabilities_over_setuid() -> None:
    """Have the next change of the user leave the permitted capabilities (PR_SET_KEEPCAPS)."""
    _check(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl(KEEPCAPS)")


def effective_capabilities() -> int:
    """Return this process's capabilities as a mask, bit n for number n of capabilities(7)."""
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    _check(_libc.capget(ctypes.byref(header), ctypes.byref(data)), "capget")
    return int(data[0].effective) | int(data[1].effective) << 32


def file_system_type(path: str) -> int:
    """Return the magic number of the file system that ``path`` is on (statfs(2))."""
    buffer = ctypes.create_string_buffer(256)
    _check(_libc.statfs(os.fsencode(path), buffer), "statfs")
    return int.from_bytes(buffer.raw[:4], "little")


def lock_memory() -> None:
    """Keep the memory of this process out of the swap area (mlockall(2)): all, or the present one where that is limited.

    Without CAP_IPC_LOCK, which is dropped later, the limit of locked memory would become one of all memory.
    """
    mcl_current, mcl_future = 1, 2
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        mcl_future = 0
    _check(_libc.mlockall(mcl_current | mcl_future), "mlockall")


def open_inotify() -> int:
    """Open an inotify descriptor that does not block (inotify(7))."""
    descriptor = int(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"inotify_init1: {os.strerror(number)}")
    return descriptor


def add_inotify_watch(descriptor: int, path: str, mask: int) -> int:
    """Watch a directory or file; return the number of the watch (inotify_add_watch(2))."""
    watch = int(_libc.inotify_add_watch(descriptor, os.fsencode(path), ctypes.c_uint32(mask)))
    if watch < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"inotify_add_watch: {os.strerror(number)}")
    return watch


def make_mounts_private() -> None:
    """Make later mounts visible in this mount namespace only."""
    ms_rec, ms_private = 0x4000, 1 << 18
    _check(_libc.mount(b"none", b"/", None, ms_rec | ms_private, None), "mount --make-rprivate /")


def mount(source: str, target: str, kind: str) -> None:
    """Mount a file system without options (mount(2))."""
    _check(_libc.mount(source.encode(), os.fsencode(target), kind.encode(), 0, None), f"mount {target}")


def bind_mount(source: str, target: str) -> None:
    """Make ``source`` appear at ``target`` too (mount(2), MS_BIND)."""
    ms_bind = 0x1000
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), None, ms_bind, None), f"mount --bind {target}")


def unmount(target: str) -> None:
    """Remove a mount, when nothing uses it any more (umount2(2), MNT_DETACH)."""
    mnt_detach = 2
    _check(_libc.umount2(os.fsencode(target), mnt_detach), f"umount {target}")
