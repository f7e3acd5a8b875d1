"""Reading a configuration file. Every command does it, so that this module imports little."""

from __future__ import annotations

import os
import stat
from typing import Final

from relevo.errors import ConfigurationError

DEFAULT_CONFIGURATION: Final = "/etc/keepalived/keepalived.conf"
MAX_CONFIGURATION: Final = 256 << 20
"""Largest configuration file in bytes: ten times one of 100 000 real servers."""
KERNELS: Final = ("/proc/", "/sys/", "/dev/")
"""Where regular files are not files on a disk: to read one may wait, never end, or do something."""


def read_configuration(path: str, *, undecodable: str = "replace") -> str:
    """Return the text of a configuration file; ``ConfigurationError`` if it cannot be read, or is no regular file.

    Opening never waits: a pipe without a writer would hang a reload. ``undecodable`` is what becomes of bytes that are no UTF-8,
    as ``bytes.decode`` names it.
    """
    if os.path.realpath(path).startswith(KERNELS):
        raise ConfigurationError(f"{path} is the kernel's, and no configuration")
    try:
        with open(path, "rb", opener=without_waiting) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigurationError(f"{path} is {'a directory' if stat.S_ISDIR(mode) else 'not a file'}")
            data = file.read(MAX_CONFIGURATION + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"cannot read {path}: {reason}", hint="name the file with -f") from error
    if len(data) > MAX_CONFIGURATION:
        raise ConfigurationError(f"{path} is larger than {MAX_CONFIGURATION} bytes")
    return data.decode("utf-8", undecodable)


def without_waiting(path: str, flags: int) -> int:
    """Open a file for ``open``: a pipe without a writer must not block."""
    return os.open(path, flags | os.O_NONBLOCK)
