"""Findings: what is wrong or odd in a configuration, where, and the way out.

A finding never stops the compiler, so that one pass reports everything. The exit statuses are keepalived's for ``-t``
(the values of its code, which differ from its manual: 0 clean, 2 an argument is missing, 4 cannot run, 5 anything else,
6 a security finding).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field


class Severity(enum.StrEnum):
    """How much a finding matters, mildest first."""

    NOTE = "note"
    """Worth knowing; changes neither meaning nor exit status."""
    WARNING = "warning"
    """Understood, but probably not what was meant, or deprecated."""
    ERROR = "error"
    """Not understood: the keyword, entry or block was left out, the rest stands."""
    SECURITY = "security"
    """The configuration opens a hole."""
    FATAL = "fatal"
    """Nothing can run from this file."""
    MISSING = "missing"
    """A keyword stands without the argument it needs; keepalived refuses to start."""


_STATUS = {
    Severity.NOTE: 0,
    Severity.WARNING: 5,
    Severity.ERROR: 5,
    Severity.SECURITY: 6,
    Severity.MISSING: 2,
    Severity.FATAL: 4,
}
_RANK = list(Severity)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a word stands: line and column count from 1, ``length`` in characters."""

    file: str
    line: int
    column: int = 1
    length: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to tell the administrator."""

    severity: Severity
    place: Place
    message: str
    hint: str = ""
    keyword: str = ""


@dataclass(slots=True)
class Findings:
    """The findings of one compilation, in the order of the text."""

    items: list[Finding] = field(default_factory=list)

    def add(self, severity: Severity, place: Place, message: str, hint: str = "", keyword: str = "") -> None:
        """Record one finding."""
        self.items.append(Finding(severity, place, message, hint, keyword))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def in_order(self) -> list[Finding]:
        """Sort by place; the first file met comes first."""
        files = {finding.place.file: None for finding in self.items}
        rank = {name: number for number, name in enumerate(files)}
        return sorted(self.items, key=lambda f: (rank[f.place.file], f.place.line, f.place.column))


def exit_status(findings: Iterable[Finding]) -> int:
    """Exit status of a check: that of the gravest class met (keepalived's rule)."""
    worst = max((finding.severity for finding in findings), key=_RANK.index, default=Severity.NOTE)
    return _STATUS[worst]


def render(finding: Finding, sources: Mapping[str, list[str]]) -> str:
    """Spell a finding with its line, a caret under the word and the hint.

    ``sources`` maps file names to their lines; a place whose text is not there is spelled without the excerpt.
    """
    place = finding.place
    out = [f"{place}: {finding.severity.value}: {_printable(finding.message)}"]
    lines = sources.get(place.file, [])
    if 0 < place.line <= len(lines):
        text = _SECRET.sub(lambda m: m[1] + "*" * len(m[2]), lines[place.line - 1].rstrip("\r\n"))
        shown, column = _window(text, place.column)
        margin = f"{place.line:5d} | "
        caret = "^" * max(1, min(place.length, len(shown) - column + 1))
        lead = "".join("\t" if c == "\t" else " " for c in shown[: column - 1])
        out += [margin + shown, " " * (len(margin) - 2) + "| " + lead + caret]
    if finding.hint:
        out.append(f"      = hint: {finding.hint}")
    return "\n".join(out)


_WINDOW = 160
"""Characters of a source line that are shown; a longer line is cut around the place."""


_SECRET = re.compile(r"(\b(?:auth_pass|smtp_password|password)\s+)(.+)")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _window(text: str, column: int) -> tuple[str, int]:
    printable = _printable(text)
    if len(printable) <= _WINDOW:
        return printable, column
    start = max(0, column - 1 - _WINDOW // 2)
    return printable[start : start + _WINDOW], column - start
