"""Readers that many keywords share: each turns the words of a statement into one value."""

from __future__ import annotations

from collections.abc import Iterable

from relevo.config.cursor import Cursor
from relevo.config.keywords.registry import Read, entries, reads_block
from relevo.model import Script


def text(what: str) -> Read:
    """One word, not an empty one."""

    def read(cursor: Cursor) -> str:
        word = cursor.word(what)
        if not word:
            raise cursor.reject(f"{what} cannot be empty")
        return word

    return read


def integer(low: int, high: int, what: str) -> Read:
    """A decimal integer in a range."""
    return lambda cursor: cursor.integer(low, high, what)


def seconds(low: float, high: float, what: str) -> Read:
    """A time in seconds in a range."""
    return lambda cursor: cursor.seconds(low, high, what)


def seconds_or(default: float, low: float, high: float) -> Read:
    """A time in seconds in a range; nothing means ``default``."""
    return lambda cursor: cursor.seconds(low, high, "a time") if cursor.more() else default


def choice(allowed: Iterable[str], what: str) -> Read:
    """One word of a closed list."""
    listed = tuple(allowed)
    return lambda cursor: cursor.choice(listed, what)


def boolean(cursor: Cursor) -> bool:
    """``on``, ``off`` and their synonyms; nothing means on."""
    return cursor.boolean()


def flag(cursor: Cursor) -> bool:
    """Presence is the meaning."""
    return True


def absence(cursor: Cursor) -> bool:
    """Presence switches something off."""
    return False


def script(cursor: Cursor) -> Script:
    """A command."""
    return cursor.script()


def address(what: str) -> Read:
    """An IP address literal."""
    return lambda cursor: cursor.address(what)


@reads_block
def word_list(cursor: Cursor) -> tuple[str, ...]:
    """Every word of the block behind the keyword."""
    found: list[str] = []
    for line in entries(cursor):
        found += map(str, line.rest())
    return tuple(found)
