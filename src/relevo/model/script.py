"""A command that runs on an event: an argument vector, never a shell line."""

from __future__ import annotations

import msgspec


class Script(msgspec.Struct, frozen=True):
    """``argv[0]`` is a path; ``user`` and ``group`` are names, empty for the default script user."""

    argv: tuple[str, ...]
    user: str = ""
    group: str = ""
