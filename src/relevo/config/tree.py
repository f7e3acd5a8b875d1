"""Statements and blocks: the shape of the text before any keyword has a meaning.

A statement is a keyword with the words after it on its line, and the block that follows, if any. The brace may close the
line or open the next one; ``{ a b }`` on one line is a block of one statement; several closers may share a line.
``include`` is answered here, through the reader, because it changes the text itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relevo.config.diagnostics import Findings, Place, Severity
from relevo.config.lexer import MAX_LINE_LENGTH, OPEN, Brace, columns, has_open_quote, words

MAX_INCLUDE_DEPTH: Final = 32
"""Files that include files: deeper is a loop (keepalived limits itself to the same order)."""
MAX_BLOCK_DEPTH: Final = 32
"""Nesting of blocks; the language itself needs five."""
MAX_STATEMENTS: Final = 4_000_000
"""Statements in all, included files counted: over 400 000 real servers, under 2 GB of memory."""

MAX_INCLUDED: Final = 10_000
"""Files read in all: files that include others twice double at every level, without any loop."""

INCLUDES: Final = ("include", "includer", "includem", "includew", "includeb", "includea")


@dataclass(frozen=True, slots=True)
class Included:
    """A file an ``include`` names: its ``text``, or ``error`` saying why it could not be read."""

    path: str
    text: str = ""
    error: str = ""


Reader = Callable[[str, str], list[Included]]
"""``reader(pattern, including_file)``: the files that match, relative to the folder of the including file."""


class Statement:
    """A keyword, its arguments, and its block (``None`` without one)."""

    __slots__ = ("args", "block", "file", "first", "keyword", "line", "lines")

    def __init__(self, keyword: str, args: list[str], file: str, lines: list[str], line: int, first: int) -> None:
        self.keyword = keyword
        self.args = args
        self.block: list[Statement] | None = None
        self.file = file
        self.lines = lines
        self.line = line
        self.first = first  # number of the keyword among the words of its line

    def place(self, word: int = 0) -> Place:
        """Place of the keyword (0) or of argument ``word`` (from 1); past the last word, the end of the statement."""
        spots = columns(self.lines[self.line - 1])
        number = max(0, self.first + word)
        if number < len(spots):
            return Place(self.file, self.line, *spots[number])
        if spots:
            column, length = spots[-1]
            return Place(self.file, self.line, column + length, 1)
        return Place(self.file, self.line)


@dataclass(slots=True)
class Tree:
    """Top-level statements of a configuration, and the lines of every file read."""

    statements: list[Statement]
    sources: dict[str, list[str]]


def parse(text: str, file: str, reader: Reader, findings: Findings) -> Tree:
    """Parse ``text`` and what it includes; whatever is malformed is reported and left out."""
    parser = _Parser(reader, findings)
    parser.file(text, file, ())
    parser.finish()
    return Tree(parser.top, parser.sources)


class _Parser:
    def __init__(self, reader: Reader, findings: Findings) -> None:
        self.reader = reader
        self.findings = findings
        self.sources: dict[str, list[str]] = {}
        self.top: list[Statement] = []
        self.open: list[tuple[list[Statement], Statement]] = []  # (enclosing list, statement whose block is open)
        self.current = self.top
        self.count = 0
        self.included = 0

    def file(self, text: str, file: str, chain: tuple[str, ...]) -> None:
        lines = text.split("\n")
        self.sources[file] = lines
        for number, line in enumerate(lines, 1):
            if len(line) > MAX_LINE_LENGTH or "\0" in line:
                self._refuse_line(file, number, line)
                continue
            found = words(line)
            if not found:
                continue
            if '"' in line and has_open_quote(line):
                self._complain(file, number, Severity.WARNING, "quote is never closed", 'add the closing "')
            if found[0] in INCLUDES:
                found = [found[0], *line.split(maxsplit=2)[1:2]] if Brace in map(type, found) else found
                self._include(found, file, lines, number, chain)
            else:
                self._line(found, file, lines, number)
            if self.count > MAX_STATEMENTS:
                self._complain(file, number, Severity.FATAL, f"more than {MAX_STATEMENTS} statements", "")
                return

    def _line(self, found: list[str], file: str, lines: list[str], number: int) -> None:
        start = 0
        for index, word in enumerate(found):
            if type(word) is not Brace:
                continue
            if start < index:
                self._statement(found, start, index, file, lines, number)
            if word is OPEN:
                self._open_block(file, number, index)
            else:
                self._close_block(file, number, index)
            start = index + 1
        if start < len(found):
            self._statement(found, start, len(found), file, lines, number)

    def _statement(self, found: list[str], start: int, end: int, file: str, lines: list[str], number: int) -> None:
        self.count += 1
        self.current.append(Statement(found[start], found[start + 1 : end], file, lines, number, start))

    def _open_block(self, file: str, number: int, index: int) -> None:
        if not self.current or self.current[-1].block is not None:
            self._complain(file, number, Severity.ERROR, "'{' without a keyword before it", "remove the brace", index)
            anonymous = Statement("", [], file, self.sources[file], number, index)
            self.current.append(anonymous)
        if len(self.open) >= MAX_BLOCK_DEPTH:
            message = f"blocks nested deeper than {MAX_BLOCK_DEPTH}"
            self._complain(file, number, Severity.ERROR, message, "a '}' is probably missing above")
        opener = self.current[-1]
        opener.block = []
        self.open.append((self.current, opener))
        self.current = opener.block

    def _close_block(self, file: str, number: int, index: int) -> None:
        if not self.open:
            hint = "remove it, or look above for a block closed too early"
            self._complain(file, number, Severity.ERROR, "'}' closes nothing", hint, index)
            return
        self.current, _ = self.open.pop()

    def finish(self) -> None:
        for _, opener in self.open:
            message = f"block '{opener.keyword}' is never closed"
            self.findings.add(Severity.ERROR, opener.place(), message, "add a '}' after its last line", opener.keyword)

    def _include(self, found: list[str], file: str, lines: list[str], number: int, chain: tuple[str, ...]) -> None:
        statement = Statement(found[0], found[1:], file, lines, number, 0)
        if not statement.args:
            message, hint = f"'{found[0]}' without a file name", "name the file or pattern to include"
            self.findings.add(Severity.MISSING, statement.place(), message, hint, found[0])
            return
        if len(chain) >= MAX_INCLUDE_DEPTH:
            message = f"files include files more than {MAX_INCLUDE_DEPTH} deep"
            self.findings.add(Severity.ERROR, statement.place(1), message, "look for a file that includes itself")
            return
        if self.included >= MAX_INCLUDED:
            message = f"more than {MAX_INCLUDED} files are included"
            self.findings.add(Severity.ERROR, statement.place(1), message, "look for files that include one another")
            return
        included = self.reader(statement.args[0], file)
        if not included:
            message = f"no file matches '{statement.args[0]}'"
            self.findings.add(Severity.WARNING, statement.place(1), message, "check the path", found[0])
        for part in included:
            if part.path == file or part.path in chain:
                message = f"'{part.path}' includes itself"
                self.findings.add(Severity.ERROR, statement.place(1), message, "narrow the pattern", found[0])
            elif part.error:
                message = f"cannot include '{part.path}': {part.error}"
                self.findings.add(Severity.WARNING, statement.place(1), message, "", found[0])
            else:
                self.included += 1
                self.file(part.text, part.path, (*chain, file))

    def _refuse_line(self, file: str, number: int, line: str) -> None:
        if "\0" in line:
            self._complain(file, number, Severity.ERROR, "line holds a NUL character: ignored", "is this a text file?")
        else:
            message = f"line of {len(line)} characters: ignored"
            self._complain(file, number, Severity.ERROR, message, f"at most {MAX_LINE_LENGTH} are read")

    def _complain(self, file: str, number: int, severity: Severity, message: str, hint: str, word: int | None = None) -> None:
        spot = () if word is None else columns(self.sources[file][number - 1])[word]
        self.findings.add(severity, Place(file, number, *spot), message, hint)
