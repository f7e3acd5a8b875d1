"""Lines and words with their origin: a ``Line`` has its file and its includes, and positions of its words.

Blanks separate words, double quotes group them, ``#`` and ``!`` begin comments, and braces are words of their own.

The rules are keepalived's (keepalived.conf(5) and its parser): a quote also ends the word before it, single quotes have
no meaning, ``\\#`` and ``\\!`` are the characters themselves. ``tree`` and the keywords interpret the words.

A configuration of 10 000 servers has 80 000 lines. Most of them have no quotes, no comments, and at most a brace at the end;
``str.split`` splits those. ``Line.place`` computes the position of a word only for lines with a finding.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import msgspec

from relevo.config.place import Place, Step

MAX_LINE_LENGTH: Final = 16_384
"""Characters in a line. keepalived refuses longer ones too; it keeps a hostile file from filling memory by findings."""


class Brace(str):
    """An unquoted brace. ``"{"`` in quotes is an ordinary word, so identity tells them apart."""

    __slots__ = ()


class Quoted(str):
    """A word in double quotes, without the quotes."""

    __slots__ = ()


OPEN: Final = Brace("{")
CLOSE: Final = Brace("}")

_PLAIN = re.compile(r'[^"#!\\{}]*\Z')
_PART: Final = r"""(?xs)
      (?P<blank>\s+)
    | (?P<comment>[#!].*)
    | (?P<brace>[{}])
    | "(?P<quoted>[^"]*)(?P<closed>"?)
    | (?P<word>(?:\\[#!]|[^\s"#!{}])+)
    """  # compiled on first use, as are those below
_ESCAPED: Final = r"\\([#!])"


class Line(msgspec.Struct, eq=False, gc=False):
    """One line of text as the tree reads it: after includes, and after expansions where there are any.

    ``text`` has its words; ``chain`` lists the includes and expansions that produced it, the nearest first.
    """

    file: str
    number: int
    text: str
    chain: tuple[Step, ...] = ()

    def place(self, word: int | None = None) -> Place:
        """Place of word ``word`` (from 0); past the last one, where the line ends; without a number, the line as a whole."""
        if word is None:
            return Place(self.file, self.number, chain=self.chain)
        spots = columns(self.text)
        if word < len(spots):
            return Place(self.file, self.number, *spots[word], self.chain)
        if spots:
            column, length = spots[-1]
            return Place(self.file, self.number, column + length, 1, self.chain)
        return Place(self.file, self.number, chain=self.chain)


class Words(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The words of a line. Equal lines share them.

    A ``single`` line is one statement: ``keyword``, ``args``, and perhaps the brace at the end that ``opens`` its block. One that
    ``closes`` a block does nothing else.
    """

    all: list[str]
    single: bool = False
    keyword: str = ""
    args: list[str] = []
    opens: bool = False
    closes: bool = False

    @classmethod
    def of(cls, line: str) -> Words:
        """Split ``line`` into words."""
        found = words(line)
        opens = len(found) > 1 and found[-1] is OPEN
        statement = found[:-1] if opens else found
        if not statement or Brace in map(type, statement):
            return cls(found, closes=len(found) == 1 and found[0] is CLOSE)
        return cls(found, True, statement[0], statement[1:], opens)


def words(line: str) -> list[str]:
    """Split ``line`` into words; braces come as ``OPEN`` and ``CLOSE``."""
    if _PLAIN.match(line):
        return line.split()
    bare = line.strip()
    if bare == "}":
        return [CLOSE]
    if bare.endswith("{") and _PLAIN.match(bare, 0, len(bare) - 1):
        return [*bare[:-1].split(), OPEN]
    return [word for word, _, _ in located_words(line)]


def located_words(line: str) -> list[tuple[str, int, int]]:
    """Words of ``line`` with column (from 1) and length as written."""
    found: list[tuple[str, int, int]] = []
    for match in re.finditer(_PART, line):
        kind = match.lastgroup
        if kind in ("blank", "comment"):
            continue
        column, length = match.start() + 1, match.end() - match.start()
        if kind == "brace":
            found.append((OPEN if match.group() == "{" else CLOSE, column, length))
        elif kind == "word":
            word = match.group()
            found.append((re.sub(_ESCAPED, r"\1", word) if "\\" in word else word, column, length))
        else:
            found.append((Quoted(match.group("quoted")), column, length))
    return found


def without_comment(line: str) -> str:
    """Return ``line`` without its comment and outer blanks. Escapes stay; no blank remains before a backslash at the end."""
    text = line.strip()
    if "#" in text or "!" in text:
        for match in re.finditer(_PART, text):
            if match.lastgroup == "comment":
                text = text[: match.start()].rstrip()
                break
    return text[:-1].rstrip() + "\\" if text.endswith("\\") else text


def open_quote(line: str) -> int:
    """Return the column of a double quote that is never closed, 0 if there is none."""
    return next((m.start() + 1 for m in re.finditer(_PART, line) if m.group("quoted") is not None and not m.group("closed")), 0)


@lru_cache(maxsize=64)
def columns(line: str) -> list[tuple[int, int]]:
    """Column and length of every word that ``words`` yields."""
    return [(column, length) for _, column, length in located_words(line)]


def odd_blanks(line: str) -> list[tuple[int, str]]:
    """Return column and character of each blank outside quotes and comments that keepalived reads as part of a word.

    keepalived's blanks are space, tab, form feed, carriage return and vertical tab; a no-break space is none.
    """
    if line.isascii():
        return []
    found = []
    for match in re.finditer(_PART, line):
        if match.lastgroup == "blank":
            found += [(match.start() + i + 1, c) for i, c in enumerate(match.group()) if c not in " \t\n\f\r\v"]
    return found


_SCRIPT_WORD: Final = r"""(?s)\s*((?:"(?:\\.|[^"\\])*"?|'[^']*'?|\\.|[^\s"'\\])+)"""
_SCRIPT_PART: Final = r'(?s)"((?:\\.|[^"\\])*)"?|\'([^\']*)\'?|(\\(?:[0-7]{1,3}|x[0-9A-Fa-f]{1,2}|c.|.))|([^"\'\\]+)'
_ESCAPES = {"a": "\a", "b": "\b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPE: Final = r"(?s)\\([0-7]{1,3}|x[0-9A-Fa-f]{1,2}|c.|.)"


def script_words(text: str) -> tuple[str, ...]:
    """Split a command as keepalived's "script" keywords do: both quotes group, and C escapes work."""
    return tuple(_unquote(match.group(1)) for match in re.finditer(_SCRIPT_WORD, text))


def _unquote(word: str) -> str:
    parts: list[str] = []
    for double, single, escaped, bare in re.findall(_SCRIPT_PART, word):
        parts.append(re.sub(_ESCAPE, _escape, double) or single or re.sub(_ESCAPE, _escape, escaped) or bare)
    return "".join(parts)


def _escape(match: re.Match[str]) -> str:
    body = match.group(1)
    if body[0] in "01234567":
        return chr(int(body, 8) & 0xFF)
    if body[0] == "x" and len(body) > 1:
        return chr(int(body[1:], 16))
    if body[0] == "c" and len(body) > 1:
        return chr(ord(body[1]) & 0x1F)
    return _ESCAPES.get(body, body)
