"""The layout of a configuration file: indentation and blanks. Words, comments and the order of lines stay.

The meaning is the same before and after, and a file that has the layout is left as it is.
"""

from __future__ import annotations

import re
from typing import Final

from relevo.config.source import CLOSE, OPEN, Brace, has_open_quote, located_words, without_comment

INDENT: Final = "    "
INCLUDING: Final = frozenset({"include", "includer", "includem", "includew", "includeb", "includea"})
"""Keywords that take the rest of their line."""
_SPECIAL = re.compile(r"[$~@]|\\\s*\Z")
_DEFINES = re.compile(r"(?:@\^?\S*[ \t]+)*\$[A-Za-z_]\w*=", re.ASCII)
_USE = re.compile(r"\$\{[^}]*\}?")


def formatted(text: str) -> str:
    """Return ``text`` in the layout: four blanks for each open block, one blank between words, no two empty lines in a row.

    Braces stay on their lines, except that one on a line of its own moves up to the keyword that it belongs to.
    Definitions of several lines are kept as they are written.
    """
    out: list[str] = []
    depth = 0
    collecting = False
    for written in text.removeprefix("\ufeff").split("\n"):
        if collecting:
            out.append(written if has_open_quote(written) else written.rstrip())
            collecting = without_comment(written).endswith("\\")
            continue
        line = _spaced(written)
        if not line:
            if out and out[-1]:
                out.append("")
            continue
        bare = without_comment(written)
        if _DEFINES.match(bare):
            out.append(line)
            collecting = bare.endswith("\\")
            continue
        if line.split(maxsplit=1)[0] in INCLUDING:
            out.append(INDENT * depth + line)
            continue
        braces = _braces(line)
        if braces == [OPEN] and line == "{" and _can_take_brace(out):
            out[-1] += " {"
            depth += 1
            continue
        leading = _closing_at_start(braces, line)
        out.append(INDENT * max(0, depth - leading) + line)
        for brace in braces:
            depth = depth + 1 if brace is OPEN else max(0, depth - 1)
    while out and not out[-1]:
        out.pop()
    while out and not out[0]:
        out.pop(0)
    return "\n".join(out) + "\n" if out else ""


def _spaced(written: str) -> str:
    """Return a line with one blank between what blanks separate. A line with definitions or an open quote keeps its own."""
    if has_open_quote(written):
        return written.lstrip()
    stripped = written.strip()
    if stripped.startswith(tuple(INCLUDING)):
        return stripped
    if _SPECIAL.search(without_comment(stripped)):
        return stripped
    parts: list[str] = []
    end, former = 1, ""
    for word, column, length in located_words(stripped):
        raw = stripped[column - 1 : column - 1 + length]
        apart = parts and (column > end or isinstance(word, Brace) or isinstance(former, Brace))
        parts.append(f" {raw}" if apart else raw)
        end, former = column + length, word
    comment = stripped[end - 1 :].strip()
    if comment:
        parts.append(f" {comment}" if parts else comment)
    return "".join(parts)


def _braces(line: str) -> list[Brace]:
    """Return the braces of blocks in a line: not those in quotes, comments and uses of definitions."""
    return [word for word, _, _ in located_words(_USE.sub("$", line)) if isinstance(word, Brace)]


def _closing_at_start(braces: list[Brace], line: str) -> int:
    """Return how many blocks the line closes before it says anything else."""
    words = [word for word, _, _ in located_words(line)]
    count = 0
    while count < min(len(words), len(braces)) and words[count] is CLOSE:
        count += 1
    return count


def _can_take_brace(out: list[str]) -> bool:
    """Whether the last line is a keyword whose block may open behind it."""
    if (
        not out
        or not out[-1]
        or has_open_quote(out[-1])
        or _SPECIAL.search(out[-1])
        or without_comment(out[-1]) != out[-1].strip()
    ):
        return False
    last = located_words(out[-1])
    return bool(last) and not isinstance(last[-1][0], Brace) and last[0][0] not in INCLUDING
