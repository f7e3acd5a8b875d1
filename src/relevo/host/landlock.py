"""Landlock: a process gives up files, signals and TCP ports that it does not need, with or without root (landlock(7)).

What is opened already stays usable. The kernel's version decides what can be given up.
"""

from __future__ import annotations

import ctypes
import enum
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
"""Numbers of the system calls, the same on every architecture (include/uapi/asm-generic/unistd.h)."""
_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1


class Access(enum.IntFlag):
    """Rights on files and folders (LANDLOCK_ACCESS_FS_*)."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    """Since version 2."""
    TRUNCATE = 1 << 14
    """Since version 3."""
    IOCTL_DEV = 1 << 15
    """Since version 5."""


READ: Final = Access.READ_FILE | Access.READ_DIR
WRITE: Final = READ | Access.WRITE_FILE | Access.TRUNCATE
OWN: Final = WRITE | Access.MAKE_REG | Access.MAKE_DIR | Access.REMOVE_FILE | Access.REMOVE_DIR | Access.REFER
"""Everything in a folder of one's own."""
_OF_FILES: Final = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
_BY_VERSION: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Version → rights that it knows; later ones know those of 5."""

_SCOPE_ABSTRACT_SOCKETS: Final = 1 << 0
_SCOPE_SIGNALS: Final = 1 << 1
"""Since version 6: no signal to a process, and no connection to an abstract socket, outside."""
SCOPES_SINCE: Final = 6


class _Ruleset(ctypes.Structure):
    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("access", ctypes.c_uint64), ("parent", ctypes.c_int32)]


_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def version() -> int:
    """Return the version of the kernel's Landlock, 0 without one."""
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    except OSError:
        return 0


def prepare(rules: Iterable[tuple[Path, Access]]) -> int | None:
    """Return a descriptor of rules for ``restrict``; ``None`` without Landlock. Paths that cannot be opened are left out.

    The paths are opened now: a process that is about to lose the right to find them does this before.
    """
    found = version()
    if not found:
        return None
    known = Access(_BY_VERSION[min(found, max(_BY_VERSION))])
    scoped = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if found >= SCOPES_SINCE else 0
    attributes = _Ruleset(known, 0, scoped)
    size = ctypes.sizeof(_Ruleset) if found >= SCOPES_SINCE else _Ruleset.net.offset
    ruleset = _call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path, access in rules:
            _add(ruleset, path, access & known)
    except OSError:
        os.close(ruleset)
        raise
    return ruleset


def restrict(ruleset: int) -> None:
    """Keep what the rules allow and give up every other file, and signals to others. no_new_privs must have been set."""
    try:
        _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _add(ruleset: int, path: Path, access: Access) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # this process cannot open it either way
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _OF_FILES
        rule = _PathBeneath(access, descriptor)
        _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(descriptor)
