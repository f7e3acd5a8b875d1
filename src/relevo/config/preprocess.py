"""Text → lines: includes are replaced by the included lines, unreadable lines are reported and left out.

``tree`` parses statements and blocks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from relevo.config.diagnostics import Findings, Severity
from relevo.config.place import How, Place, Step
from relevo.config.source import CLOSE, MAX_LINE_LENGTH, OPEN, Brace, Line, has_open_quote, odd_blanks, words

MAX_INCLUDE_DEPTH: Final = 32
"""Nesting of includes: deeper is a loop (keepalived has a similar limit)."""
MAX_INCLUDED: Final = 10_000
"""Included files in all: files that include others twice double at every level, without any loop."""

INCLUDES: Final = ("include", "includer", "includem", "includew", "includeb", "includea")

_REPETITION = re.compile(r"~(?:SEQx?|LST)\b")


@dataclass(frozen=True, slots=True)
class Included:
    """A file an ``include`` names: its ``text``, or ``error`` saying why it could not be read."""

    path: str
    text: str = ""
    error: str = ""


Reader = Callable[[str, str], list[Included]]
"""``reader(pattern, including_file)``: the files that match, relative to the folder of the including file."""

Read = tuple[Line, list[str]]
"""A line and its words; there is at least one."""


class Preprocessor:
    """Reads a file and its includes; ``findings`` gets the lines of every file, and malformed lines are reported there."""

    def __init__(self, reader: Reader, findings: Findings) -> None:
        self._reader = reader
        self._findings = findings
        self._included = 0

    def read(self, text: str, file: str, chain: tuple[Step, ...] = (), outer: tuple[str, ...] = ()) -> Iterator[Read]:
        """Yield the lines of ``text`` that have words. ``outer`` are the files that include it, the outermost first."""
        lines = text.split("\n")
        self._findings.sources[file] = lines
        for number, written in enumerate(lines, 1):
            if len(written) > MAX_LINE_LENGTH or "\0" in written:
                self._refuse(Line(file, number, written, chain))
                continue
            found = words(written)
            if not found:
                continue
            line = Line(file, number, written, chain)
            if not written.isascii():
                self._look_at_blanks(line)
            if '"' in written and has_open_quote(written):
                self._findings.add(Severity.WARNING, line.place(), "quote is never closed", 'add the closing "')
            if found[0] in INCLUDES:
                yield from self._include(line, found, outer)
            elif found[0][0:1] == "~" and _REPETITION.match(found[0]):
                yield from self._refuse_repetition(line, found)
            else:
                yield line, found

    def _look_at_blanks(self, line: Line) -> None:
        odd = odd_blanks(line.text)
        if odd:
            column, character = odd[0]
            name = unicodedata.name(character, "an odd blank").lower()
            message = f"U+{ord(character):04X} ({name}) is taken for a blank; keepalived takes it for part of a word"
            place = Place(line.file, line.number, column, 1, line.chain)
            self._findings.add(Severity.WARNING, place, message, "write an ordinary blank")

    def _refuse_repetition(self, line: Line, found: list[str]) -> Iterator[Read]:
        """Report a repeated line once; if it opens a block, yield a block without a keyword, which is skipped."""
        name = found[0].partition("(")[0]
        opens = sum(word is OPEN for word in found) > sum(word is CLOSE for word in found)
        what = "the line and its block are" if opens else "the line is"
        self._findings.add(
            Severity.ERROR,
            line.place(0),
            f"{name}(…) is not supported by this version: {what} ignored",
            "write the lines out",
            name,
        )
        if opens:
            yield line, ["", OPEN]

    def _include(self, line: Line, found: list[str], outer: tuple[str, ...]) -> Iterator[Read]:
        keyword = found[0]
        if Brace in map(type, found):  # braces of a pattern are not blocks
            found = [keyword, *line.text.split(maxsplit=2)[1:2]]
        if len(found) < 2:
            message, hint = f"'{keyword}' without a file name", "name the file or pattern to include"
            self._findings.add(Severity.MISSING, line.place(0), message, hint, keyword)
            return
        pattern, place = found[1], line.place(1)
        if len(outer) >= MAX_INCLUDE_DEPTH:
            message = f"files include files more than {MAX_INCLUDE_DEPTH} deep"
            self._findings.add(Severity.ERROR, place, message, "look for a file that includes itself")
            return
        if self._included >= MAX_INCLUDED:
            message = f"more than {MAX_INCLUDED} files are included"
            self._findings.add(Severity.ERROR, place, message, "look for files that include one another")
            return
        included = self._reader(pattern, line.file)
        if not included:
            self._findings.add(Severity.WARNING, place, f"no file matches '{pattern}'", "check the path", keyword)
        for part in included:
            if part.path == line.file or part.path in outer:
                message = f"'{part.path}' includes itself"
                self._findings.add(Severity.ERROR, place, message, "narrow the pattern", keyword)
            elif part.error:
                message = f"cannot include '{part.path}': {part.error}"
                self._findings.add(Severity.WARNING, place, message, "", keyword)
            else:
                self._included += 1
                chain = (Step(How.INCLUDED, line.file, line.number), *line.chain)
                yield from self.read(part.text, part.path, chain, (*outer, line.file))

    def _refuse(self, line: Line) -> None:
        if "\0" in line.text:
            message, hint = "line contains a NUL character: ignored", "is this a text file?"
        else:
            message, hint = f"line of {len(line.text)} characters: ignored", f"at most {MAX_LINE_LENGTH} are read"
        self._findings.add(Severity.ERROR, line.place(), message, hint)
