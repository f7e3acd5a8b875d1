"""Argument types of keywords: how an argument is read from a line, and how the reference page describes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from typing import Any, Final, Generic, TypeVar

import msgspec

from relevo.config.cursor import FALSE, TRUE, Cursor
from relevo.config.diagnostics import Severity
from relevo.config.place import Place
from relevo.config.source import Brace
from relevo.config.tree import Statement
from relevo.model import Script

T = TypeVar("T")

MAX_INTERFACE_NAME: Final = 15
"""Characters of an interface's name or an address's label: IFNAMSIZ less the zero."""
MAX_UINT: Final = 2**32 - 1
"""Largest value of most counts in keepalived."""
FOREVER_S: Final = 4294.967295
"""Longest connect_timeout and gratuitous ARP delay of keepalived: 32 bits of microseconds."""


class Argument(msgspec.Struct, Generic[T], frozen=True):
    """The argument of a keyword. ``read`` reads it from a cursor, or raises ``Rejected`` after a finding.

    ``syntax`` describes it (empty: no argument), ``unit`` is that of a number, ``limits`` its range. ``block`` is the block of
    keywords that follows, if there is one.
    """

    read: Callable[[Cursor], T]
    syntax: str = ""
    unit: str = ""
    limits: str = ""
    takes_block: bool = False
    block: Any = None  # a Block, which has arguments itself


def text(what: str) -> Argument[str]:
    """One word, not an empty one."""

    def read(cursor: Cursor) -> str:
        word = cursor.word(what)
        if not word:
            raise cursor.reject(f"{what} cannot be empty")
        return word

    return Argument(read, _placeholder(what))


def interface() -> Argument[str]:
    """Name of an interface, at most 15 characters: keepalived ignores a longer one."""

    def read(cursor: Cursor) -> str:
        word = cursor.word("an interface")
        if not 0 < len(word) <= MAX_INTERFACE_NAME:
            raise cursor.reject(f"'{word}' is no interface's name", f"names have 1 to {MAX_INTERFACE_NAME} characters")
        return word

    return Argument(read, "INTERFACE")


def integer(
    low: int, high: int, what: str, unit: str = "", *, lenient: bool = True, least: int | None = None, most: int | None = None
) -> Argument[int]:
    """A decimal integer in a range. A value below ``least`` or above ``most`` is replaced by it, with a warning."""
    bottom, top = low if least is None else least, high if most is None else most

    def read(cursor: Cursor) -> int:
        value = cursor.integer(low, high, what, lenient=lenient, words=True)
        used = min(top, max(bottom, value))
        if used != value:
            side = "at least" if used > value else "at most"
            cursor.warn(f"{what} is {side} {used}: {used} is used", f"write {cursor.statement.keyword} {used}")
        return used

    return Argument(read, "N", unit, _range(bottom, top))


def whole_seconds(low: int, high: int, what: str, *, least: int | None = None) -> Argument[float]:
    """A time in whole seconds: of a fraction keepalived uses the integer before the point, with a message."""
    numbers = integer(low, high, what, "s", least=least)
    return Argument(lambda cursor: float(numbers.read(cursor)), numbers.syntax, numbers.unit, numbers.limits)


def seconds(low: float, high: float, what: str) -> Argument[float]:
    """A time in decimal seconds in a range."""
    return Argument(lambda cursor: cursor.seconds(low, high, what), "N", "s", _range(low, high))


def seconds_or(otherwise: float, low: float, high: float) -> Argument[float]:
    """A time in seconds in a range; nothing means ``otherwise``."""

    def read(cursor: Cursor) -> float:
        return cursor.seconds(low, high, "a time") if cursor.more() else otherwise

    return Argument(read, "[N]", "s", _range(low, high))


def choice(allowed: Iterable[str], what: str, *, any_case: bool = False) -> Argument[str]:
    """One word of a closed list; its case counts unless ``any_case``."""
    listed = tuple(allowed)
    return Argument(lambda cursor: cursor.choice(listed, what, any_case=any_case), "WORD", "", " ".join(listed))


def boolean() -> Argument[bool]:
    """``on``, ``off`` and their synonyms; nothing means on."""
    return Argument(lambda cursor: cursor.boolean(), "[on|off]")


def flag(*, value: bool = True) -> Argument[bool]:
    """The keyword alone means on: keepalived reads no argument, so that ``off`` changes nothing."""

    def read(cursor: Cursor) -> bool:
        if cursor.peek() in (*TRUE, *FALSE, "0", "1"):
            keyword, word = cursor.statement.keyword, cursor.word()
            message = f"'{keyword}' takes no argument: '{word}' is ignored, in keepalived too"
            severity, hint = Severity.NOTE, f"write {keyword} alone"
            if word in (*FALSE, "0"):
                severity, hint = Severity.WARNING, f"remove the line if '{keyword}' is not wanted"
            cursor.report(severity, message, hint)
        return value

    return Argument(read)


def address(what: str) -> Argument[str]:
    """An IP address literal."""
    return Argument(lambda cursor: cursor.address(what), "ADDRESS")


def multicast(version: int | None = None) -> Argument[str]:
    """A multicast address, of one IP version if one is named."""

    def read(cursor: Cursor) -> str:
        found = cursor.address("a multicast address")
        if not ip_address(found).is_multicast or version not in (None, ip_address(found).version):
            raise cursor.reject(
                f"'{found}' is not a multicast address", "such as 224.0.0.18" if version == 4 else "such as ff02::12"
            )
        return found

    return Argument(read, "ADDRESS")


def script(*, identity: bool = True) -> Argument[Script]:
    """A command; without ``identity`` no user may follow it."""
    syntax = "COMMAND [USER [GROUP]]" if identity else "COMMAND"
    return Argument(lambda cursor: cursor.script(identity=identity), syntax)


def secret_file(what: str) -> Argument[str]:
    """``file:PATH``: a secret in a file of its own, because the configuration may be readable by all users."""

    def read(cursor: Cursor) -> str:
        path = cursor.word("file:PATH")
        if not path.startswith("file:/"):
            cursor.rest()
            raise cursor.reject(f"the {what} is read from a file, not from the configuration", "write file:/full/path", word=1)
        return path.removeprefix("file:")

    return Argument(read, "file:PATH")


def word_list(what: str) -> Argument[tuple[str, ...]]:
    """Every word of the block behind the keyword."""

    def read(cursor: Cursor) -> tuple[str, ...]:
        found: list[str] = []
        for line in entries(cursor):
            found += map(str, line.rest())
        return tuple(found)

    return Argument(read, f"{{ {what} … }}", takes_block=True)


def listing(read: Callable[[Cursor], T], syntax: str) -> Argument[T]:
    """A block that ``read`` reads line by line, with ``entries``."""
    return Argument(read, syntax, takes_block=True)


def entries(cursor: Cursor) -> Iterator[Cursor]:
    """Yield a cursor for each line of the block after ``cursor``, starting at the line's first word."""
    if cursor.statement.block is None:
        raise cursor.reject(f"'{cursor.statement.keyword}' needs a block", "open it with '{'", word=0)
    for line in cursor.statement.block:
        if line.block is not None:
            cursor.findings.add(Severity.ERROR, line.place(), "no block is expected here: ignored")
        if type(line.keyword) is Brace or not line.keyword:
            continue
        yield Cursor(Entry(cursor.statement.keyword, [line.keyword, *line.args], line.source, line.first - 1), cursor.findings)


class Located(msgspec.Struct, Generic[T], frozen=True):
    """A value of a list, and its line."""

    value: T
    at: Statement


class Entry(Statement):
    """A line of a block as if its keyword were that of the block; its place is that of its first word."""

    def place(self, word: int = 0) -> Place:
        """Place of word ``word``, from 1."""
        return super().place(max(1, word))


def _placeholder(what: str) -> str:
    return what.removeprefix("a ").removeprefix("an ").removeprefix("the ").upper().replace(" ", "_")


def _range(low: float, high: float) -> str:
    return f"{_number(low)}..{_number(high)}"


def _number(value: float) -> str:
    named = {2**31 - 1: "2³¹-1", MAX_UINT: "2³²-1"}
    if isinstance(value, int):
        return named.get(value, str(value))
    return f"{value:.6f}".rstrip("0").rstrip(".")
