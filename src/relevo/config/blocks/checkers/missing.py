"""Checkers of keepalived's that are read and checked, and that do not run yet."""

from __future__ import annotations

from typing import Final

from relevo.config.blocks.arguments import boolean, text
from relevo.config.blocks.registry import Block, Keyword
from relevo.config.blocks.standing import later

_BFD_CHECK: Final = Block(
    "BFD_CHECK", (Keyword("name", text("a bfd_instance"), "the session"), Keyword("alpha", boolean(), "down until it is up"))
)
MISSING: Final = (
    later("BFD_CHECK", _BFD_CHECK.argument, "up while a BFD session is", "without another check the server counts as up"),
)
"""One row of ``real_server`` for each."""
