"""Pipes for splicing, kept for reuse."""

from __future__ import annotations

import fcntl
import os
from typing import Final

MAX_PIPES: Final = 256
"""Idle pipes kept for reuse; each holds two descriptors."""
PIPE_SIZE: Final = 1 << 20
_F_SETPIPE_SZ: Final = 1031

Pipe = tuple[int, int]
"""The descriptors of a pipe: to read from, and to write to."""


class PipePool:
    """Idle pipes."""

    def __init__(self) -> None:
        self._idle: list[Pipe] = []

    def take(self) -> Pipe | None:
        """Return an empty pipe; ``None`` when no descriptor is left, and the flow goes on copying."""
        if self._idle:
            return self._idle.pop()
        try:
            pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.fcntl(pipe[0], _F_SETPIPE_SZ, PIPE_SIZE)
        except OSError:
            pass  # the per-user limit of pipe pages is reached: a smaller pipe works too
        return pipe

    def put(self, pipe: Pipe, *, clean: bool) -> None:
        """Take a pipe back; one with bytes in it (not ``clean``) is closed."""
        if clean and len(self._idle) < MAX_PIPES:
            self._idle.append(pipe)
        else:
            _close(pipe)

    def close(self) -> None:
        """Close the idle pipes."""
        for pipe in self._idle:
            _close(pipe)
        self._idle.clear()


def _close(pipe: Pipe) -> None:
    os.close(pipe[0])
    os.close(pipe[1])
