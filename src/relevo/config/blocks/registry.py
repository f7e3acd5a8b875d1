"""The keyword registry: definitions of keywords and blocks, and the evaluation of blocks.

One row declares a keyword: its argument, its field in the model, its inheritance, and its text on the reference page. The
compiler, "did you mean", the reference page and completion use the rows. To add a keyword, add a row to its block;
``tests/unit/config`` then requires a corpus entry.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar, overload

import msgspec

from relevo.config.blocks.arguments import Argument
from relevo.config.cursor import Cursor, Rejected
from relevo.config.diagnostics import Findings, Severity
from relevo.config.secrets import is_secret
from relevo.config.tree import Statement

T = TypeVar("T")
D = TypeVar("D")
S = TypeVar("S", bound=msgspec.Struct)

MAX_GUESSES: Final = 500
"""Findings after which "did you mean" stops: a guess costs a millisecond, and such a file is no configuration."""

MAX_KNOWN: Final = 1024
"""Values that a row remembers."""

OURS: Final = "Relevo"
"""``since`` of a keyword that keepalived does not have."""

_BLOCKS: list[Block] = []
"""All blocks: for findings about a keyword in the wrong one."""


class Again(enum.Enum):
    """Meaning of a repeated keyword, as in keepalived."""

    LAST = enum.auto()
    """The last one counts."""
    FIRST = enum.auto()
    """The first one counts; the others are reported."""
    JOIN = enum.auto()
    """Lists are put together, and blocks are one block."""
    EACH = enum.auto()
    """Each one is separate."""


class Standing(enum.Enum):
    """What a keyword of keepalived's does here."""

    WORKS = "works"
    NO_EFFECT = "accepted, no effect here"
    """It is read and checked; nothing needs it, for the reason that its row gives."""
    LATER = "comes with a later version"
    """It is read and checked, and its effect is missing."""


class Inherited:
    """The ``values`` that a model inherits, by field, and the struct that was made of them alone."""

    __slots__ = ("made", "values")

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.made: Any = None


class Outer(msgspec.Struct, eq=False):
    """The blocks whose values a block inherits: the ``nearest`` one, and the ``rest``.

    It remembers what a model gets of them: the servers of a service inherit the same, and a configuration has thousands.
    """

    nearest: Fields | None = None
    rest: Outer | None = None
    known: dict[Plan, Inherited] = {}

    def with_block(self, fields: Fields) -> Outer:
        """Return these blocks and ``fields``, which is nearer than all of them."""
        return Outer(fields, self)

    def value(self, sources: Iterable[tuple[str, str]], default: Any) -> Any:
        """Return the first value that the blocks have of ``sources``, which are blocks and keywords; else ``default``."""
        for block, key in sources:
            outer: Outer | None = self
            while outer is not None and outer.nearest is not None and outer.nearest.block.name != block:
                outer = outer.rest
            if outer is not None and outer.nearest is not None and key in outer.nearest:
                return outer.nearest[key]
        return default

    def inherited(self, plan: Plan) -> Inherited:
        """Return the values that a model inherits, and the defaults of rows without one."""
        found = self.known.get(plan)
        if found is None:
            nearest, rest = self.nearest, self.rest
            if nearest is not None and rest is not None and plan.sources.get(nearest.block.name, _NOTHING).isdisjoint(nearest):
                found = rest.inherited(plan)
            else:
                found = Inherited(self._collect(plan))
            self.known[plan] = found
        return found

    def _collect(self, plan: Plan) -> dict[str, Any]:
        values = ((target, self.value(sources, default)) for target, sources, default in plan.rows)
        return {target: value for target, value in values if value is not None}


class Fields(dict[str, Any]):
    """Values of a block by keyword, the statements they came from, and the blocks whose values they inherit."""

    __slots__ = ("above", "block", "cursor", "origin")

    def __init__(self, cursor: Cursor, block: Block) -> None:
        super().__init__()
        self.cursor = cursor
        self.block = block
        self.origin: dict[str, Statement] = {}
        self.above = NO_BLOCKS

    @property
    def findings(self) -> Findings:
        """Return the findings of this block."""
        return self.cursor.findings

    def report(self, severity: Severity, keyword: str, message: str, hint: str = "") -> None:
        """Record a finding at the statement that set ``keyword``, or at the block's head."""
        statement = self.origin.get(keyword, self.cursor.statement)
        at, word = self.located(keyword)
        self.findings.add(severity, at.place(word), message, hint, statement.keyword)

    def located(self, keyword: str) -> tuple[Statement, int]:
        """Return the statement and word of the value of ``keyword``; the block's head where it is not given."""
        statement = self.origin.get(keyword)
        if statement is None:
            return self.cursor.statement, 0
        return statement, 1 if statement.args else 0

    @overload
    def given(self, row: Keyword[T]) -> T | None: ...

    @overload
    def given(self, row: Keyword[T], otherwise: D) -> T | D: ...

    def given(self, row: Keyword[T], otherwise: Any = None) -> Any:
        """Return the value that the block gives for ``row``, else ``otherwise``."""
        return self.get(row.key, otherwise)

    @overload
    def effective(self, row: Keyword[T]) -> T | None: ...

    @overload
    def effective(self, row: Keyword[T], otherwise: T) -> T: ...

    def effective(self, row: Keyword[T], otherwise: Any = None) -> Any:
        """Return the value of ``row`` here, or the nearest one it inherits, else its default, else ``otherwise``."""
        if row.key in self:
            return self[row.key]
        return self.above.value(row.sources, otherwise if row.default is None else row.default)

    def into(self, model: type[S], **computed: Any) -> S:
        """Make a ``model`` of the values whose rows go there, given or inherited; ``computed`` ones come first.

        What is neither given nor inherited keeps the row's default, else the model's.
        """
        values = self.values_for(model)
        values.update(computed)
        return model(**values)

    def values_for(self, model: type[msgspec.Struct]) -> dict[str, Any]:
        """Return those values, by field of ``model``."""
        plan = self.block.plan(model)
        found = self.above.inherited(plan).values.copy()
        targets = plan.targets
        for key, value in self.items():
            if key in targets:
                found[targets[key]] = value
        return found

    def shared(self, model: type[msgspec.Struct], make: Callable[[dict[str, Any]], T]) -> T:
        """Return what ``make`` makes of those values. Blocks that give none of them, below the same blocks, share one."""
        plan = self.block.plan(model)
        if not plan.targets.keys().isdisjoint(self):
            return make(self.values_for(model))
        inherited = self.above.inherited(plan)
        if inherited.made is None:
            inherited.made = make(inherited.values.copy())
        made: T = inherited.made
        return made


class Keyword(msgspec.Struct, Generic[T], frozen=True):
    """One keyword of one block.

    ``target`` is the model's field of its value (by default the field of the same name, if there is one); ``assemble`` reads a
    keyword without a target. ``inherits`` names keywords as ``block.keyword``, the nearest first. ``default`` applies
    if the model has none; ``default_text`` describes one that is not a value. ``otherwise`` is the value after a refused
    argument. ``sets`` names another keyword of the block whose value this one gives; ``alias_of`` and ``note`` make a
    deprecated or misspelt word work, with a warning. ``below`` is a keyword (and its value) that must precede this one.
    ``why`` says what a keyword that does not work means for the user.

    Three fields are not given: ``key`` names the value in the block, ``sources`` are the parts of ``inherits``, and ``known`` are
    arguments that were read without a finding, with their values: ten thousand servers have the same weight.
    """

    name: str
    argument: Argument[T]
    help: str
    target: str = ""
    default: T | None = None
    default_text: str = ""
    inherits: tuple[str, ...] = ()
    again: Again = Again.LAST
    otherwise: T | None = None
    sets: str = ""
    alias_of: str = ""
    note: str = ""
    since: str = ""
    below: tuple[str, str] | None = None
    merge: Callable[[T, T, Cursor], T] | None = None
    standing: Standing = Standing.WORKS
    why: str = ""
    key: str = ""
    sources: tuple[tuple[str, str], ...] = ()
    known: dict[str, T] = {}

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "key", self.sets or self.alias_of or self.name)
        if self.inherits:
            parts = (source.partition(".") for source in self.inherits)
            msgspec.structs.force_setattr(self, "sources", tuple((block, keyword) for block, _, keyword in parts))

    @property
    def secret(self) -> bool:
        """Whether the value is a secret."""
        return is_secret(self.name)

    @property
    def instead(self) -> str:
        """The value after a refused argument, as a message shows it."""
        return "" if self.otherwise is None else f"{self.otherwise:g}"

    @property
    def plain(self) -> bool:
        """Whether an argument has the same value wherever it stands, and may be remembered."""
        alone = self.again is Again.LAST and self.merge is None and self.below is None and not self.note
        return alone and self.standing is Standing.WORKS and not self.argument.takes_block and not self.secret


class Plan(msgspec.Struct, frozen=True, eq=False):
    """Which values of a block go to a model.

    ``targets`` are the model's fields by keyword; ``rows`` have a field, the keywords that it inherits from, and its default;
    ``sources`` are those keywords by block.
    """

    targets: dict[str, str]
    rows: tuple[tuple[str, tuple[tuple[str, str], ...], Any], ...]
    sources: dict[str, frozenset[str]]

    @classmethod
    def of(cls, keywords: Iterable[Keyword[Any]]) -> Plan:
        """Return the plan for rows whose values all go to one model."""
        rows = tuple((row.target or row.name, row.sources, row.default) for row in keywords)
        pairs = {pair for _, sources, _ in rows for pair in sources}
        sources = {block: frozenset(key for name, key in pairs if name == block) for block, _ in pairs}
        return cls({row.key: row.target or row.name for row in keywords}, rows, sources)


_NOTHING: Final[frozenset[str]] = frozenset()
NO_BLOCKS: Final = Outer()
"""What a block inherits from that stands in no other: the defaults of its rows."""


class Block(msgspec.Struct, frozen=True, eq=False):
    """A block of keywords. ``header`` reads the words before the brace; ``models`` are what the values go to.

    Two fields are not given: ``table`` has the keywords by name, ``plans`` are made on first use.
    """

    name: str
    keywords: tuple[Keyword[Any], ...]
    models: tuple[type[msgspec.Struct], ...] = ()
    header: Callable[[Cursor, Fields], None] | None = None
    syntax: str = ""
    table: dict[str, Keyword[Any]] = {}
    plans: dict[type[msgspec.Struct], Plan] = {}

    def __post_init__(self) -> None:
        _BLOCKS.append(self)
        for keyword in self.keywords:
            self.table[keyword.name] = keyword
            if keyword.target and self.model_of(keyword) is None:
                raise AssertionError(f"{self.name}.{keyword.name}: no model of the block has a field '{keyword.target}'")

    def plan(self, model: type[msgspec.Struct]) -> Plan:
        """Return which values go to ``model``, one of ``models``."""
        found = self.plans.get(model)
        if found is None:
            assert model in self.models
            rows = [row for row in self.keywords if row.key == row.name and self.model_of(row) is model]
            found = self.plans[model] = Plan.of(rows)
        return found

    def model_of(self, keyword: Keyword[Any]) -> type[msgspec.Struct] | None:
        """Return the model that a keyword's value goes to, ``None`` for one that the assembler reads."""
        name = keyword.target or keyword.name
        return next((model for model in self.models if name in model.__struct_fields__), None)

    @property
    def argument(self) -> Argument[Fields]:
        """The block as the argument of a keyword."""
        return Argument(self.read, f"{self.syntax} {{ … }}".strip(), takes_block=True, block=self)

    def read(self, cursor: Cursor) -> Fields:
        """Evaluate the block of the cursor's statement."""
        fields = Fields(cursor, self)
        if self.header is not None:
            self.header(cursor, fields)
        statements = cursor.statement.block
        if statements is None:
            raise cursor.reject(f"'{self.name}' needs a block", "open it with '{' and close it with '}'", word=0)
        self.evaluate(statements, fields)
        return fields

    def evaluate(self, statements: list[Statement], fields: Fields) -> None:
        """Read every statement into ``fields``; one that is refused is left out, with its finding."""
        table, origin = self.table, fields.origin
        for statement in statements:
            keyword = table.get(statement.keyword)
            if keyword is None:
                if statement.keyword or statement.block is None:  # a brace without a keyword is reported already
                    self._unknown(statement, fields.findings)
                continue
            known, args = keyword.known, statement.args
            if len(args) == 1 and args[0] in known and statement.block is None:
                fields[keyword.key] = known[args[0]]
                origin[keyword.key] = statement
            else:
                _take(keyword, statement, fields)

    def _nearest(self, word: str) -> list[str]:
        """Return at most one similar keyword; those that work come first."""
        from difflib import get_close_matches

        works = [row.name for row in self.keywords if row.standing is Standing.WORKS]
        near = get_close_matches(word, works, n=1, cutoff=0.75)
        return near or get_close_matches(word, self.table, n=1, cutoff=0.75)

    def _unknown(self, statement: Statement, findings: Findings) -> None:
        from relevo.config.blocks.keepalived_keywords import REMOVED

        word = statement.keyword
        where = f"in '{self.name}'" if self.name else "outside any block"
        behind = " with its block" if statement.block is not None else ""
        elsewhere = _homes(word)
        alias = next((row.alias_of for row in elsewhere.values() if row.alias_of in self.table), "")
        message = f"unknown keyword '{word}' {where}: ignored{behind}"
        if word in REMOVED:
            message, hint = f"keyword '{word}' is ignored: {REMOVED[word]}", "remove the line"
        elif alias:
            hint = f"write '{alias}'"
        elif elsewhere:
            message = f"keyword '{word}' does not belong {where}: ignored{behind}"
            hint = f"it belongs {_named(elsewhere)}"
        else:
            near = self._nearest(word) if len(findings) < MAX_GUESSES else []
            hint = f"did you mean '{near[0]}'?" if near else "see docs/reference/keywords.md"
        findings.add(Severity.WARNING, statement.place(), message, hint, word)


def _homes(word: str) -> dict[str, Keyword[Any]]:
    """Return the blocks that have a keyword, with its row there."""
    found: dict[str, Keyword[Any]] = {}
    for block in _BLOCKS:
        if word in block.table:
            found.setdefault(block.name, block.table[word])
    return found


def _named(blocks: Mapping[str, Any] | list[str]) -> str:
    return " or ".join(sorted(f"in '{block}'" if block else "outside any block" for block in blocks))


def _instead(keyword: Keyword[Any]) -> str:
    return f"write '{keyword.alias_of}' instead" if keyword.alias_of else ""


def _take(keyword: Keyword[Any], statement: Statement, fields: Fields) -> None:
    """Read a statement into ``fields``."""
    findings = fields.cursor.findings
    if keyword.note:
        findings.add(Severity.WARNING, statement.place(), keyword.note, _instead(keyword), keyword.name)
    if keyword.below is not None and not _stands_below(keyword, fields, statement):
        return
    if keyword.again is Again.JOIN and keyword.argument.block is not None and keyword.key in fields:
        keyword.argument.block.evaluate(statement.block or [], fields[keyword.key])
        return
    cursor, before = Cursor(statement, findings, keyword.instead), findings.added
    try:
        value = keyword.argument.read(cursor)
    except Rejected:
        if keyword.otherwise is None:
            return
        value = keyword.otherwise
    else:
        if cursor.position < len(statement.args) or (statement.block is not None and not keyword.argument.takes_block):
            _look_behind(keyword, cursor)
    if keyword.standing is not Standing.WORKS:
        _say_standing(keyword, cursor)
        return
    _store(fields, keyword, value, cursor)
    if len(statement.args) == 1 and findings.added == before:
        _remember(keyword, statement.args[0], value)


def _remember(keyword: Keyword[Any], word: str, value: Any) -> None:
    if type(word) is str and len(keyword.known) < MAX_KNOWN and keyword.plain:
        keyword.known[word] = value


def _say_standing(keyword: Keyword[Any], cursor: Cursor) -> None:
    """Say that a keyword has no effect, and why."""
    if keyword.standing is Standing.NO_EFFECT:
        cursor.report(Severity.NOTE, f"'{keyword.name}' has no effect here: {keyword.why}", word=0)
    else:
        message = f"'{keyword.name}' comes with a later version: {keyword.why or 'it is ignored'}"
        cursor.report(Severity.WARNING, message, "docs/reference/keywords.md has the standing of every keyword", word=0)


def _stands_below(keyword: Keyword[Any], fields: Fields, statement: Statement) -> bool:
    """Whether the keyword that ``keyword`` needs precedes it; keepalived reads a block from top to bottom."""
    assert keyword.below is not None
    other, value = keyword.below
    if other in fields and value in ("", fields[other]):
        return True
    message = f"'{keyword.name}' counts only below '{f'{other} {value}'.strip()}': ignored, in keepalived too"
    fields.findings.add(Severity.WARNING, statement.place(), message, "move or remove the line", keyword.name)
    return False


def _look_behind(keyword: Keyword[Any], cursor: Cursor) -> None:
    """Report words and blocks that the keyword did not read."""
    statement, findings = cursor.statement, cursor.findings
    if cursor.position < len(statement.args):
        word = statement.args[cursor.position]
        ignored = "what follows the secret" if keyword.secret else f"'{word}' and what follows"
        place = statement.place(cursor.position + 1)
        findings.add(Severity.NOTE, place, f"{ignored} on this line is ignored", "", keyword.name)
    if statement.block is not None and not keyword.argument.takes_block:
        findings.add(Severity.ERROR, statement.place(), f"'{keyword.name}' takes no block: ignored")


def _store(fields: Fields, keyword: Keyword[Any], value: Any, cursor: Cursor) -> None:
    key, again = keyword.key, keyword.again
    if again is Again.EACH:
        fields.setdefault(key, []).append(value)
    elif key not in fields:
        fields[key] = value
    elif keyword.merge is not None:
        fields[key] = keyword.merge(fields[key], value, cursor)
    elif again is Again.JOIN:
        fields[key] = (*fields[key], *value)
    elif again is Again.FIRST:
        message = f"'{keyword.name}' is given already: the first one counts, in keepalived too"
        cursor.report(Severity.WARNING, message, "remove one of the two", word=0)
        return
    else:
        fields[key] = value
    fields.origin[key] = cursor.statement
