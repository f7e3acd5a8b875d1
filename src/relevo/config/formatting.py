"""The layout of a configuration file: indentation and blanks. Words, comments and the order of lines stay.

The meaning is the same before and after, and a file that has the layout is left as it is.
"""

from __future__ import annotations

import re
from typing import Final

from relevo.config.preprocess import INCLUDES
from relevo.config.source import CLOSE, OPEN, Brace, located_words, open_quote, without_comment

INDENT: Final = "    "
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
            out.append(written if open_quote(written) else written.rstrip())
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
        elif line == "{" and _can_take_brace(out):
            out[-1] += " {"
            depth += 1
        else:
            words = [] if _includes(line) else [word for word, _, _ in located_words(_USE.sub("$", line))]
            leading = next((number for number, word in enumerate(words) if word is not CLOSE), len(words))
            out.append(INDENT * max(0, depth - leading) + line)
            for word in words:
                depth = depth + 1 if word is OPEN else max(0, depth - 1) if word is CLOSE else depth
    while out and not out[-1]:
        out.pop()
    while out and not out[0]:
        out.pop(0)
    return "\n".join(out) + "\n" if out else ""


def _spaced(written: str) -> str:
    """Return a line with one blank between what blanks separate. A line with definitions or an open quote keeps its own."""
    if open_quote(written):
        return written.lstrip()
    stripped = written.strip()
    if _includes(stripped) or _SPECIAL.search(without_comment(stripped)):
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


def _includes(line: str) -> bool:
    """Whether a line names a file, in which braces are alternatives."""
    first = line.split(maxsplit=1)[:1]
    return bool(first) and first[0] in INCLUDES


def _can_take_brace(out: list[str]) -> bool:
    """Whether the last line is a keyword whose block may open behind it."""
    former = out[-1] if out else ""
    if not former or _includes(former) or open_quote(former) or _SPECIAL.search(former):
        return False
    return without_comment(former) == former.strip() and not isinstance(located_words(former)[-1][0], Brace)
