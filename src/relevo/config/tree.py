"""Statements and blocks, before keywords are interpreted.

A statement is a keyword with the other words of its line, and the block that follows, if any. The brace may close the
line or open the next one; ``{ a b }`` on one line is a block of one statement; several closing braces may share a line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from relevo.config.diagnostics import Findings, Severity
from relevo.config.macros import NOWHERE, Surroundings
from relevo.config.place import Place
from relevo.config.preprocess import Preprocessor, Read, Reader
from relevo.config.source import OPEN, Brace, Line

MAX_BLOCK_DEPTH: Final = 32
"""Nesting of blocks; the language itself needs five."""
MAX_STATEMENTS: Final = 4_000_000
"""Statements in all files: enough for 400 000 real servers, in less than 2 GB of memory."""


class Statement(msgspec.Struct, eq=False, gc=False):
    """A keyword, its arguments, and its block (``None`` without one).

    ``first`` is the number of the keyword among the words of its line ``source``.
    """

    keyword: str
    args: list[str]
    source: Line
    first: int
    block: list[Statement] | None = None

    @property
    def line(self) -> int:
        """Return the line number of the keyword."""
        return self.source.number

    def place(self, word: int = 0) -> Place:
        """Place of the keyword (0) or of argument ``word`` (from 1); past the last word, the end of the statement."""
        return self.source.place(max(0, self.first + word))


class Tree(msgspec.Struct):
    """Top-level statements of a configuration, and the lines of every file read."""

    statements: list[Statement]
    sources: dict[str, list[str]]


def parse(text: str, file: str, reader: Reader, findings: Findings, surroundings: Surroundings = NOWHERE) -> Tree:
    """Parse ``text`` and its includes; malformed parts are reported and left out."""
    parser = _Parser(findings)
    parser.read(Preprocessor(reader, findings, surroundings).read(text, file))
    parser.finish()
    return Tree(parser.top, findings.sources)


class _Parser:
    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.top: list[Statement] = []
        self.open: list[tuple[list[Statement], Statement]] = []  # (enclosing list, statement whose block is open)
        self.current = self.top
        self.count = 0
        self.closed: list[tuple[Statement, Line]] = []  # blocks and the lines that close them, if both begin a line

    def read(self, lines: Iterable[Read]) -> None:
        for line, words in lines:
            if words.single:
                self.count += 1
                self.current.append(Statement(words.keyword, words.args, line, 0))
                if words.opens:
                    self._open_block(line, len(words.all) - 1)
            elif words.closes:
                self._close_block(line, 0)
            else:
                self._braces(line, words.all)
            if self.count > MAX_STATEMENTS:
                self.findings.add(Severity.FATAL, line.place(), f"more than {MAX_STATEMENTS} statements")
                break

    def _braces(self, line: Line, found: list[str]) -> None:
        """Take a line whose braces stand elsewhere than usual."""
        start = 0
        for index, word in enumerate(found):
            if type(word) is not Brace:
                continue
            if start < index:
                self._statement(line, found, start, index)
            if word is OPEN:
                self._open_block(line, index)
            else:
                self._close_block(line, index)
            start = index + 1
        if start < len(found):
            self._statement(line, found, start, len(found))

    def _statement(self, line: Line, found: list[str], start: int, end: int) -> None:
        self.count += 1
        self.current.append(Statement(found[start], found[start + 1 : end], line, start))

    def _open_block(self, line: Line, index: int) -> None:
        if not self.current or self.current[-1].block is not None:
            self._report(line, index, "'{' without a keyword before it", "remove the brace")
            self.current.append(Statement("", [], line, index))
        if len(self.open) >= MAX_BLOCK_DEPTH:
            self._report(line, None, f"blocks nested deeper than {MAX_BLOCK_DEPTH}", "a '}' is probably missing above")
        opener = self.current[-1]
        opener.block = []
        self.open.append((self.current, opener))
        self.current = opener.block

    def _close_block(self, line: Line, index: int) -> None:
        if not self.open:
            self._report(line, index, "'}' closes nothing", "remove it, or look above for a block closed too early")
            return
        self.current, opener = self.open.pop()
        if index == 0 and opener.first == 0:
            self.closed.append((opener, line))

    def finish(self) -> None:
        """Report the blocks that are open at the end, first the one that lacks its brace according to the indentation.

        That is the first block that a brace further left than its own keyword closes.
        """
        unclosed = [opener for _, opener in self.open]
        suspect = next((opener for opener, line in self.closed if _stands_left(line, opener.source)), None) if unclosed else None
        if suspect is not None:
            unclosed[-1] = suspect
        for opener in unclosed:
            message = f"block '{opener.keyword}' is never closed"
            self.findings.add(Severity.ERROR, opener.place(), message, "add a '}' after its last line", opener.keyword)

    def _report(self, line: Line, word: int | None, message: str, hint: str) -> None:
        self.findings.add(Severity.ERROR, line.place(word), message, hint)


def _stands_left(closing: Line, opening: Line) -> bool:
    """Whether the brace that begins ``closing`` stands further left than the first word of ``opening``."""
    margin = closing.text[: closing.text.find("}")]
    if opening.text.startswith(margin) and not opening.text[len(margin)].isspace():
        return False  # the common case
    return _indent(closing) < _indent(opening)


def _indent(line: Line) -> int:
    text = line.text.expandtabs()
    return len(text) - len(text.lstrip())
