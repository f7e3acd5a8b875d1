"""Named lists of addresses; of two with the same name the first counts."""

from __future__ import annotations

from typing import Any

from relevo.config.blocks.arguments import Located
from relevo.config.blocks.groups import Group
from relevo.config.blocks.registry import Fields, Keyword
from relevo.config.diagnostics import Severity


def named_groups(root: Fields, row: Keyword[Any]) -> dict[str, Group]:
    """Return the groups that ``row`` declares, by name."""
    found: dict[str, Group] = {}
    declared: list[Located[Group]] = root.given(row, [])
    for group in declared:
        name = group.value.name
        if name in found:
            message = f"{row.name} '{name}' is there already: the first one counts"
            root.findings.add(Severity.ERROR, group.at.place(1), message, "rename one of the two", row.name)
        found.setdefault(name, group.value)
    return found
