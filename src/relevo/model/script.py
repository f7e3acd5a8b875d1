"""A command to run on an event: never a shell line, always an argument vector."""

from __future__ import annotations

import msgspec


class Script(msgspec.Struct, frozen=True):
    """``argv[0]`` is a path; ``user`` and ``group`` are names, empty for the daemon's own identity."""

    argv: tuple[str, ...]
    user: str = ""
    group: str = ""
