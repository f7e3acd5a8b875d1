"""The keyword registry: what a keyword is, what a block is, and how a block is evaluated.

One table feeds the compiler, "did you mean", the reference pages and completion: a keyword cannot exist without its help
text. To teach the language a word, add a line to the block it belongs to; ``tests/unit/config`` then asks for a corpus entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

from relevo.config.cursor import Cursor, Rejected
from relevo.config.diagnostics import Findings, Place, Severity
from relevo.config.keywords.census import CENSUS, REMOVED
from relevo.config.tree import Statement

Read = Callable[[Cursor], Any]
"""Turns the arguments (and block) of a statement into a value, or raises ``Rejected`` after a finding."""


SECRETS: Final = ("auth_pass", "smtp_password")
"""Keywords whose words are never repeated in a message."""

MAX_GUESSES: Final = 500
"""Findings after which nothing is guessed any more: a guess costs a millisecond, and such a file is no configuration."""

_HOMES: dict[str, set[str]] = {}
"""Keyword → the blocks that have it: a word in the wrong block is told where it belongs."""


class Fields(dict[str, Any]):
    """Values of a block by field name, and the statements they came from."""

    __slots__ = ("cursor", "origin")

    def __init__(self, cursor: Cursor) -> None:
        super().__init__()
        self.cursor = cursor
        self.origin: dict[str, Statement] = {}

    @property
    def findings(self) -> Findings:
        """Where complaints about this block go."""
        return self.cursor.findings

    def complain(self, severity: Severity, name: str, message: str, hint: str = "") -> None:
        """Record a finding at the statement that set ``name``, or at the block's head."""
        statement = self.origin.get(name, self.cursor.statement)
        word = 1 if statement.args and name in self.origin else 0
        self.findings.add(severity, statement.place(word), message, hint, statement.keyword)

    def picked(self, *names: str) -> dict[str, Any]:
        """Those of ``names`` that were given; what is absent keeps the model's default."""
        return {name: self[name] for name in names if name in self}


@dataclass(frozen=True, slots=True)
class Keyword:
    """One word of the language in one block.

    ``field`` names the model value it fills (its own name by default). ``alias_of`` and ``note`` make a deprecated or
    misspelt word work with a warning. A keyword that ``repeats`` collects a list.
    """

    name: str
    read: Read
    help: str
    field: str = ""
    repeats: bool = False
    alias_of: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of keywords. ``header`` reads the words before the brace, ``build`` makes the value."""

    name: str
    keywords: tuple[Keyword, ...]
    build: Callable[[Fields], Any]
    header: Callable[[Cursor, Fields], None] | None = None
    table: dict[str, Keyword] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", {keyword.name: keyword for keyword in self.keywords})
        for keyword in self.keywords:
            _HOMES.setdefault(keyword.name, set()).add(f"in '{self.name}'" if self.name else "outside any block")

    def __call__(self, cursor: Cursor) -> Any:
        """Evaluate the block that stands behind the cursor's statement."""
        fields = Fields(cursor)
        if self.header is not None:
            self.header(cursor, fields)
        statements = cursor.statement.block
        if statements is None:
            raise cursor.reject(f"'{self.name}' needs a block", "open it with '{' and close it with '}'", word=0)
        self.evaluate(statements, fields)
        return self.build(fields)

    def evaluate(self, statements: list[Statement], fields: Fields) -> None:
        """Read every statement into ``fields``; one that is refused is left out, with its finding."""
        findings = fields.findings
        for statement in statements:
            keyword = self.table.get(statement.keyword)
            if keyword is None:
                if statement.keyword or statement.block is None:  # a brace without a keyword is reported already
                    self._unknown(statement, findings)
                continue
            if keyword.note:
                findings.add(Severity.WARNING, statement.place(), keyword.note, _instead(keyword), keyword.name)
            cursor = Cursor(statement, findings)
            try:
                value = keyword.read(cursor)
            except Rejected:
                continue
            if cursor.position < len(statement.args):
                word = cursor.position + 1
                ignored = (
                    "what follows the secret"
                    if keyword.name in SECRETS
                    else f"'{statement.args[cursor.position]}' and what follows"
                )
                message = f"{ignored} on this line is ignored"
                findings.add(Severity.NOTE, statement.place(word), message, "", keyword.name)
            if statement.block is not None and not takes_block(keyword):
                findings.add(Severity.ERROR, statement.place(), f"'{keyword.name}' takes no block: ignored")
            self._store(fields, keyword, value, statement)

    @staticmethod
    def _store(fields: Fields, keyword: Keyword, value: Any, statement: Statement) -> None:
        name = keyword.field or keyword.name
        if keyword.repeats:
            fields.setdefault(name, []).append(value)
        else:
            fields[name] = value
        fields.origin[name] = statement

    def _nearest(self, word: str) -> list[str]:
        """Return what the word may have been meant to be, at most one; words of this block come first."""
        return get_close_matches(word, self.table, n=1, cutoff=0.75) or get_close_matches(word, CENSUS, n=1, cutoff=0.75)

    def _unknown(self, statement: Statement, findings: Findings) -> None:
        word = statement.keyword
        where = f"in '{self.name}'" if self.name else "outside any block"
        behind = " with its block" if statement.block is not None else ""
        if word in REMOVED:
            message = f"keyword '{word}' is ignored: {REMOVED[word]}"
            findings.add(Severity.WARNING, statement.place(), message, "remove the line", word)
            return
        if word in _HOMES:
            message = f"keyword '{word}' does not belong {where}: ignored{behind}"
            hint = f"it belongs {' or '.join(sorted(_HOMES[word]))}"
        elif word in CENSUS:
            message = f"keyword '{word}' {where} is not supported by this version: ignored{behind}"
            hint = f"keepalived knows it since {CENSUS[word]}; see docs/reference/differences.md"
        else:
            message = f"unknown keyword '{word}' {where}: ignored{behind}"
            near = self._nearest(word) if len(findings) < MAX_GUESSES else []
            hint = f"did you mean '{near[0]}'?" if near else "see docs/reference/keywords.md"
        findings.add(Severity.WARNING, statement.place(), message, hint, word)


def _instead(keyword: Keyword) -> str:
    return f"write '{keyword.alias_of}' instead" if keyword.alias_of else ""


def takes_block(keyword: Keyword) -> bool:
    """Whether the keyword reads a block behind it."""
    return isinstance(keyword.read, Block) or getattr(keyword.read, "reads_block", False)


def reads_block(read: Read) -> Read:
    """Mark a reader as one that looks at the statement's block itself."""
    read.reads_block = True  # type: ignore[attr-defined]
    return read


def entries(cursor: Cursor) -> Iterator[Cursor]:
    """Yield a cursor for each line of the block behind ``cursor``, starting at the line's first word."""
    if cursor.statement.block is None:
        raise cursor.reject(f"'{cursor.statement.keyword}' needs a block", "open it with '{'", word=0)
    for line in cursor.statement.block:
        if line.block is not None:
            cursor.findings.add(Severity.ERROR, line.place(), "no block is expected here: ignored")
        whole = Entry(cursor.statement.keyword, [line.keyword, *line.args], line.file, line.lines, line.line, line.first - 1)
        yield Cursor(whole, cursor.findings)


class Entry(Statement):
    """A line of a block as if its keyword were that of the block; its place is that of its first word."""

    __slots__ = ()

    def place(self, word: int = 0) -> Place:
        """Place of word ``word``, from 1."""
        return super().place(max(1, word))
