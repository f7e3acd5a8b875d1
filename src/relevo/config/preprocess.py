"""Text → lines: includes are replaced by the included lines, unreadable lines are reported and left out.

``macros`` expands lines with ``@``, ``$`` and ``~``; ``tree`` parses statements and blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from relevo.config.diagnostics import Findings, Severity
from relevo.config.macros import NOWHERE, SPECIAL, Expander, Surroundings
from relevo.config.place import How, Place, Step
from relevo.config.source import MAX_LINE_LENGTH, Brace, Line, Words, odd_blanks, open_quote

MAX_INCLUDE_DEPTH: Final = 32
"""Nesting of includes: deeper is a loop (keepalived has a similar limit)."""
MAX_INCLUDED: Final = 10_000
"""Included files in all: files that include others twice double at every level, without any loop."""

INCLUDES: Final = {"include": "", "includer": "r", "includem": "rm", "includew": "rmw", "includeb": "rb", "includea": "rmwb"}
"""Keyword → what must not fail: reading (r), a match for a name (m), for a wildcard (w), for every alternative in braces (b)."""
_WILDCARDS: Final = frozenset("*?[")


class Included(msgspec.Struct, frozen=True):
    """A file an ``include`` names: its ``text``, or ``error`` saying why it could not be read.

    ``missing`` is a name, a wildcard or an alternative in braces for which there is no file.
    """

    path: str
    text: str = ""
    error: str = ""
    missing: bool = False


Reader = Callable[[str, str], list[Included]]
"""``reader(pattern, including_file)``: the files that match, relative to the folder of the including file."""

Read = tuple[Line, Words]
"""A line and its words; there is at least one."""


class Preprocessor:
    """Reads a file and its includes; ``findings`` gets the lines of every file, and malformed lines are reported there."""

    def __init__(self, reader: Reader, findings: Findings, surroundings: Surroundings) -> None:
        self._reader = reader
        self._findings = findings
        self._folder = surroundings.folder
        self._expander = Expander(surroundings, findings)
        self._included = 0
        self._words: dict[str, Words] = {}  # lines that need no look: those such as "TCP_CHECK {" are there by the thousand

    def read(self, text: str, file: str, chain: tuple[Step, ...] = (), outer: tuple[str, ...] = ()) -> Iterator[Read]:
        """Yield the lines of ``text`` that have words. ``outer`` are the files that include it, the outermost first."""
        lines = text.split("\n")
        self._findings.sources[file] = lines
        self._expander.see(text)
        special = SPECIAL.search(text) is not None
        known = self._words
        for number, written in enumerate(lines, 1):
            line = Line(file, number, written, chain)
            expanded = special and (self._expander.collecting or SPECIAL.search(written))
            if not expanded and written in known:
                yield line, known[written]
            elif len(written) > MAX_LINE_LENGTH or "\0" in written:
                self._refuse(line)
            elif expanded:
                self._look_at(line)
                for made in self._expander.expand(line, self._folder_of(file, outer)):
                    yield from self._line(made, Words.of(made.text), outer)
            else:
                found = Words.of(written)
                if '"' in written or not written.isascii():
                    if found.all:
                        self._look_at(line)
                elif found.all and found.all[0] not in INCLUDES:
                    known[written] = found
                yield from self._line(line, found, outer)
        self._expander.finish()

    def _folder_of(self, file: str, outer: tuple[str, ...]) -> str:
        """Return the folder of a file: the given one of the outermost, else that of its name."""
        return file.rpartition("/")[0] or self._folder if outer or "/" in file else self._folder

    def _line(self, line: Line, found: Words, outer: tuple[str, ...]) -> Iterator[Read]:
        if found.all and found.all[0] in INCLUDES:
            yield from self._include(line, found.all, outer)
        elif found.all:
            yield line, found

    def _look_at(self, line: Line) -> None:
        """Report odd blanks and open quotes."""
        if not line.text.isascii():
            self._look_at_blanks(line)
        if '"' in line.text and (column := open_quote(line.text)):
            place = Place(line.file, line.number, column, 1, line.chain)
            self._findings.add(Severity.WARNING, place, "quote is never closed", 'add the closing "')

    def _look_at_blanks(self, line: Line) -> None:
        odd = odd_blanks(line.text)
        if odd:
            import unicodedata

            column, character = odd[0]
            name = unicodedata.name(character, "an odd blank").lower()
            message = f"U+{ord(character):04X} ({name}) is taken for a blank; keepalived takes it for part of a word"
            place = Place(line.file, line.number, column, 1, line.chain)
            self._findings.add(Severity.WARNING, place, message, "write an ordinary blank")

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
        included = self._reader(pattern, line.file) or [Included(pattern, error="no file matches", missing=True)]
        for part in included:
            if part.path == line.file or part.path in outer:
                message = f"'{part.path}' includes itself"
                self._findings.add(Severity.ERROR, place, message, "narrow the pattern", keyword)
            elif part.error:
                self._not_included(keyword, pattern, part, place)
            else:
                self._included += 1
                chain = (Step(How.INCLUDED, line.file, line.number), *line.chain)
                yield from self.read(part.text, part.path, chain, (*outer, line.file))

    def _not_included(self, keyword: str, pattern: str, part: Included, place: Place) -> None:
        """Report a file that is missing or cannot be read; only some of the keywords forbid it."""
        kind = "r"
        if part.missing:
            kind = "b" if "{" in pattern else "w" if _WILDCARDS.intersection(part.path) else "m"
        severity = Severity.FATAL if kind in INCLUDES[keyword] else Severity.WARNING
        message = f"no file matches '{part.path}'" if part.missing else f"cannot include '{part.path}': {part.error}"
        self._findings.add(severity, place, message, "check the path" if part.missing else "", keyword)

    def _refuse(self, line: Line) -> None:
        if "\0" in line.text:
            message, hint = "line contains a NUL character: ignored", "is this a text file?"
        else:
            message, hint = f"line of {len(line.text)} characters: ignored", f"at most {MAX_LINE_LENGTH} are read"
        self._findings.add(Severity.ERROR, line.place(), message, hint)


def flatten(text: str, file: str, reader: Reader, surroundings: Surroundings = NOWHERE) -> str:
    """Return ``text`` as it is read: includes and definitions replaced, lines of other nodes left out."""
    return "".join(f"{line.text}\n" for line, _ in Preprocessor(reader, Findings(), surroundings).read(text, file))
