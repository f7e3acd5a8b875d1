"""Findings: defects and oddities of a configuration, with position and hint.

A finding never stops the compiler, so that one pass reports everything. The exit statuses are keepalived's for ``-t``
(the values of its code, which differ from its manual: 0 clean, 2 an argument is missing, 4 cannot run, 5 anything else,
6 a security finding).
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from relevo.config.place import Place
from relevo.config.secrets import MASK, SHORTEST, masked_line, masked_message


class Severity(enum.StrEnum):
    """Severity of a finding, mildest first."""

    NOTE = "note"
    """Worth knowing; changes neither meaning nor exit status."""
    WARNING = "warning"
    """Understood, but deprecated or probably unintended."""
    ERROR = "error"
    """Not understood: the keyword, entry or block is left out, and the rest is used."""
    SECURITY = "security"
    """The configuration opens a hole."""
    FATAL = "fatal"
    """Nothing can run from this file."""
    MISSING = "missing"
    """A keyword lacks its argument; keepalived refuses to start."""


_STATUS = {
    Severity.NOTE: 0,
    Severity.WARNING: 5,
    Severity.ERROR: 5,
    Severity.SECURITY: 6,
    Severity.MISSING: 2,
    Severity.FATAL: 4,
}
_RANK = list(Severity)


class Finding(msgspec.Struct, frozen=True):
    """One message for the administrator, with position and hint."""

    severity: Severity
    place: Place
    message: str
    hint: str = ""
    keyword: str = ""


MAX_FINDINGS: Final = 1000
"""Findings of one severity that are kept; the rest is counted. A file that is no configuration has one on every line."""


class Findings:
    """The findings of one compilation, in the order of the text; ``sources`` are the lines of every file that was read.

    ``secrets`` came out of definitions: their own lines do not tell that they are.
    """

    def __init__(self, sources: dict[str, list[str]] | None = None) -> None:
        self.items: list[Finding] = []
        self.sources = {} if sources is None else sources
        self.secrets: set[str] = set()
        self.added = 0
        """Findings so far, those that were only counted among them."""
        self._counts: Counter[Severity] = Counter()
        self._left_out: dict[Severity, Place] = {}

    def hide_secrets(self) -> None:
        """Mask the secrets of definitions in every finding and in the lines for the excerpts."""
        hidden = sorted((secret for secret in self.secrets if len(secret) >= SHORTEST), key=len, reverse=True)
        for secret in hidden:
            self.items = [_without(secret, finding) for finding in self.items]
            for lines in self.sources.values():
                lines[:] = [line.replace(secret, "*" * len(secret)) if secret in line else line for line in lines]

    def add(self, severity: Severity, place: Place, message: str, hint: str = "", keyword: str = "") -> None:
        """Record one finding, without the secrets of its line; beyond ``MAX_FINDINGS`` it is counted."""
        self.added += 1
        self._counts[severity] += 1
        if self._counts[severity] > MAX_FINDINGS:
            self._left_out.setdefault(severity, place)
            return
        line = line_of(self.sources, place)
        message, hint, keyword = (masked_message(text, line) for text in (message, hint, keyword))
        self.items.append(Finding(severity, place, message, hint, keyword))

    def count_the_rest(self) -> None:
        """Add a finding for each severity of which some were left out."""
        for severity, place in self._left_out.items():
            message = f"from here on, {self._counts[severity] - MAX_FINDINGS} more of this severity"
            self.items.append(Finding(severity, place, message, f"mend the {MAX_FINDINGS} above first"))
        self._left_out.clear()

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def in_order(self) -> list[Finding]:
        """Sort by position; files in the order of reading."""
        files = {finding.place.file: None for finding in self.items}
        rank = {name: number for number, name in enumerate(files)}
        return sorted(self.items, key=lambda f: (rank[f.place.file], f.place.line, f.place.column))


def _without(secret: str, finding: Finding) -> Finding:
    message, hint, keyword = (text.replace(secret, MASK) for text in (finding.message, finding.hint, finding.keyword))
    chain = tuple(replace(step, text=step.text.replace(secret, MASK)) if step.text else step for step in finding.place.chain)
    return Finding(finding.severity, replace(finding.place, chain=chain), message, hint, keyword)


STATUS_UNREADABLE: Final = 4
"""keepalived's exit status for a file that cannot be read under ``-t``."""


def exit_status(findings: Iterable[Finding]) -> int:
    """Return the exit status of a check: that of the most severe class (keepalived's rule)."""
    worst = max((finding.severity for finding in findings), key=_RANK.index, default=Severity.NOTE)
    return _STATUS[worst]


def render(finding: Finding, sources: Mapping[str, list[str]]) -> str:
    """Format a finding with its line, a caret under the word and the hint.

    ``sources`` maps file names to their lines; a place whose text is not there is formatted without the excerpt.
    """
    place = finding.place
    out = [f"{place}: {finding.severity.value}: {_printable(finding.message)}"]
    if 0 < place.line <= len(sources.get(place.file, [])):
        text = masked_line(line_of(sources, place))
        shown, column = _window(text, place.column)
        margin = f"{place.line:5d} | "
        caret = "^" * max(1, min(place.length, len(shown) - column + 1))
        lead = "".join("\t" if c == "\t" else " " for c in shown[: column - 1])
        out += [margin + shown, " " * (len(margin) - 2) + "| " + lead + caret]
    out += [f"      = {step}" for step in place.chain]
    if finding.hint:
        out.append(f"      = hint: {finding.hint}")
    return "\n".join(out)


_WINDOW = 160
"""Characters of a source line in an excerpt; a longer line is cut around the position."""


def line_of(sources: Mapping[str, list[str]], place: Place) -> str:
    """Return the source line of ``place``, empty where it is not known."""
    lines = sources.get(place.file, [])
    return lines[place.line - 1].rstrip("\r\n") if 0 < place.line <= len(lines) else ""


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _window(text: str, column: int) -> tuple[str, int]:
    printable = _printable(text)
    if len(printable) <= _WINDOW:
        return printable, column
    start = max(0, column - 1 - _WINDOW // 2)
    return printable[start : start + _WINDOW], column - start
