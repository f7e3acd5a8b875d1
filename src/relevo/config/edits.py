"""Edits of a configuration's text, word by word: everything else stays as the administrator wrote it."""

from __future__ import annotations

from dataclasses import dataclass, field

from relevo.config.source import OPEN, located_words
from relevo.config.tree import Statement


@dataclass(slots=True)
class Edits:
    """Replacements in the lines of one file. Of two of the same word the later one counts."""

    lines: list[str]
    _words: dict[tuple[int, int], tuple[int, str]] = field(default_factory=dict)
    _insertions: list[tuple[int, int, str]] = field(default_factory=list)

    def word(self, statement: Statement, number: int, text: str) -> None:
        """Replace the keyword (0) or an argument (from 1), with its quotes if it has any."""
        place = statement.place(number)
        self._words[place.line, place.column] = (place.length, text)

    def append(self, statement: Statement, text: str) -> None:
        """Add a word to the end of a statement."""
        spot = statement.place(len(statement.args) + 1)
        self._insertions.append((spot.line, spot.column, f" {text}"))

    def insert(self, statement: Statement, lines: tuple[str, ...]) -> None:
        """Insert ``lines`` after the brace that opens the statement's block."""
        for number in range(statement.line, len(self.lines) + 1):
            for word, column, length in located_words(self.lines[number - 1]):
                if word is OPEN:
                    self._insertions.append((number, column + length, "\n    " + "\n    ".join(lines) + "\n"))
                    return

    def apply(self) -> str:
        """Return the text with all edits."""
        lines = list(self.lines)
        found = [(line, column, length, text) for (line, column), (length, text) in self._words.items()]
        found += [(line, column, 0, text) for line, column, text in self._insertions]
        for line, column, length, text in sorted(found, reverse=True):
            old = lines[line - 1]
            lines[line - 1] = old[: column - 1] + text + old[column - 1 + length :]
        return "\n".join(lines)
