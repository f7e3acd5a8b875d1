"""Source positions of words, with the includes and expansions that produced their lines."""

from __future__ import annotations

import enum
from typing import Protocol

import msgspec


class How(enum.StrEnum):
    """Kinds of steps that produce a line."""

    INCLUDED = "included from"
    EXPANDED = "with the definition at"
    BECOMES = "read as"


class Step(msgspec.Struct, frozen=True):
    """One include or expansion between the written text and a line; ``text`` is the line that it became."""

    how: How
    file: str
    line: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.how.value}: {self.text}" if self.how is How.BECOMES else f"{self.how.value} {self.file}:{self.line}"


class Place(msgspec.Struct, frozen=True):
    """Source position of a word: line and column count from 1, ``length`` is in characters.

    ``chain`` lists the includes and expansions that produced the line, the nearest first.
    """

    file: str
    line: int
    column: int = 1
    length: int = 1
    chain: tuple[Step, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Placed(Protocol):
    """An object with source positions of its words."""

    def place(self, word: int) -> Place:
        """Place of word ``word``."""


class Places:
    """Source positions of declarations, for findings about the model, which has no positions.

    A path begins with the outermost block: ``("vrrp_instance", "VI_1", "interface")``; empty parts are ignored.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self.wanted = wanted
        self._found: dict[tuple[str, ...], tuple[Placed, int]] = {}

    def record(self, at: Placed, word: int, *path: str) -> None:
        """Record the position of ``path``: word ``word`` of a statement. The first declaration counts."""
        self._found.setdefault(tuple(filter(None, path)), (at, word))

    def of(self, *path: str) -> Place | None:
        """Return the position of ``path``, or of the innermost enclosing path that has one."""
        path = tuple(filter(None, path))
        while path:
            if path in self._found:
                statement, word = self._found[path]
                return statement.place(word)
            path = path[:-1]
        return None
