"""A listening Unix socket that only its owner may use."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

from relevo.errors import HostError

MAX_PATH: Final = 107
"""Longest path of a Unix socket in bytes (unix(7))."""


def private_listener(path: Path) -> socket.socket:
    """Return a listening Unix socket at ``path`` with mode 0600; a stale socket file is replaced. ``HostError`` on failure."""
    if len(os.fsencode(path)) > MAX_PATH:
        raise HostError(f"{path} is too long for a Unix socket", hint=f"at most {MAX_PATH} bytes: give a shorter --run-dir")
    if path.exists():
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(path))
                listens = True
            except OSError as error:
                listens = isinstance(error, BlockingIOError)  # its queue is full
            if listens:
                raise HostError(f"another Relevo is listening on {path}", hint="stop it, or give this one its own --run-dir")
            path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(64)
    except OSError as error:
        sock.close()
        raise HostError(f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return sock
