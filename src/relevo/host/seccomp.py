"""System call filters by the distribution's ``libseccomp.so.2``: a process keeps the calls that it needs (seccomp(2)).

A call that is not kept fails with EPERM, so that what was forgotten is an error message and no crash.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Collection
from typing import Final

_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_EQUAL, _MASKED_EQUAL = 4, 7
_UNKNOWN_CALL: Final = -1
CLONE_THREAD: Final = 0x00010000


class _Compare(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("operator", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def available() -> bool:
    """Whether the library is there."""
    return _library() is not None


def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    library.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    return library


class Filter:
    """A filter that keeps nothing but the calls which are added."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._context = library.seccomp_init(_ERRNO | errno.EPERM)
        if not self._context:
            raise OSError(errno.ENOMEM, "seccomp_init")

    def add(self, name: str, *conditions: _Compare, action: int = _ALLOW) -> None:
        """Add a rule; calls that this architecture does not have are left out."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number <= _UNKNOWN_CALL:
            return
        array = (_Compare * len(conditions))(*conditions)
        result = self._library.seccomp_rule_add_array(self._context, action, number, len(conditions), ctypes.byref(array))
        if result not in (0, -errno.EEXIST):
            raise OSError(-result, f"seccomp_rule_add({name}): {os.strerror(-result)}")

    def load(self) -> None:
        """Use the filter for this thread and those that it makes. no_new_privs must have been set."""
        result = self._library.seccomp_load(self._context)
        self._library.seccomp_release(self._context)
        if result:
            raise OSError(-result, f"seccomp_load: {os.strerror(-result)}")


def prepare(
    calls: Collection[str], families: Collection[int], ioctls: Collection[int], *, threads: bool, processes: bool
) -> Filter | None:
    """Return a filter that keeps ``calls``, sockets of ``families``, the requests ``ioctls``, and perhaps threads and processes.

    ``None`` without the library: it is loaded now, while files can be read. A thread can be made by clone(2) alone: the flags of
    clone3(2) are in memory, where no filter sees them, and glibc falls back when it is missing. Signals go to this process alone,
    unless it has ``processes``.
    """
    library = _library()
    if library is None:
        return None
    filter_ = Filter(library)
    for name in calls:
        filter_.add(name)
    for family in families:
        filter_.add("socket", _Compare(0, _EQUAL, family, 0))
        filter_.add("socketpair", _Compare(0, _EQUAL, family, 0))
    for request in ioctls:
        filter_.add("ioctl", _Compare(1, _MASKED_EQUAL, 0xFFFFFFFF, request))
    filter_.add("tgkill", _Compare(0, _EQUAL, os.getpid(), 0))
    filter_.add("clone3", action=_ERRNO | errno.ENOSYS)
    if processes:
        for name in ("clone", "fork", "vfork", "kill", "wait4", "waitid"):
            filter_.add(name)
    elif threads:
        filter_.add("clone", _Compare(0, _MASKED_EQUAL, CLONE_THREAD, CLONE_THREAD))
    return filter_
