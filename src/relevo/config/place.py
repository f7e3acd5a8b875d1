"""Where a word stands, and how its line came there. What is said about it belongs to the findings."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol


class How(enum.StrEnum):
    """What brought a line to where it was read."""

    INCLUDED = "included from"
    EXPANDED = "expanded from"


@dataclass(frozen=True, slots=True)
class Step:
    """One include or expansion on the way from the text that was written to a line that was read."""

    how: How
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.how.value} {self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a word stands: line and column count from 1, ``length`` in characters.

    ``chain`` says how the line came there, the nearest include or expansion first.
    """

    file: str
    line: int
    column: int = 1
    length: int = 1
    chain: tuple[Step, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Placed(Protocol):
    """What knows the places of its words."""

    def place(self, word: int) -> Place:
        """Place of word ``word``."""


class Places:
    """Where declared things stand: for findings that are made about the model, which keeps no places.

    A path goes from the outside in: ``("vrrp_instance", "VI_1", "interface")``; empty parts do not count.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self.wanted = wanted
        self._found: dict[tuple[str, ...], tuple[Placed, int]] = {}

    def record(self, at: Placed, word: int, *path: str) -> None:
        """Note that ``path`` is word ``word`` of a statement; what is declared again keeps its first place."""
        self._found.setdefault(tuple(part for part in path if part), (at, word))

    def of(self, *path: str) -> Place | None:
        """Return the place of ``path``, or of the innermost thing around it that has one."""
        path = tuple(part for part in path if part)
        while path:
            if path in self._found:
                statement, word = self._found[path]
                return statement.place(word)
            path = path[:-1]
        return None
