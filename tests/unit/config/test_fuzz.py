"""Hostile texts for the preprocessor, the lexer and the compiler: they report, and never raise, hang or fill memory.

``RELEVO_FUZZ`` sets the number of texts, a few thousand by default; ``RELEVO_SEED`` where their numbers begin.
"""

from __future__ import annotations

import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path

from relevo.config import Included, Surroundings, compile_text
from relevo.config.blocks.registry import Block
from relevo.config.blocks.root import ROOT

COUNT = int(os.environ.get("RELEVO_FUZZ", "4000"))
SEED = int(os.environ.get("RELEVO_SEED", "0"))
CORPUS = Path(__file__).parents[2] / "corpus"
MAX_GROWTH = 64 << 20
"""Bytes by which the process may grow: rows remember values, and the heap is fragmented."""
LINES = [
    line
    for file in sorted(CORPUS.glob("*.conf"))
    for line in file.read_bytes().decode("utf-8", "replace").split("\n")
    if len(line) < 400
]
VALUES = (
    "0", "1", "-1", "255", "256", "65535", "65536", "4294967295", "4294967296", "1e9", "0x10", "1.5", "nan", "inf", "on", "off",
    "10.0.0.1", "10.0.0.300", "10.0.0.1/33", "2001:db8::1", "::", "eth0", "a" * 16, "MASTER", "TCP", "NAT", "rr", "mh", "'", '"',
    '"a b"', "{", "}", "#", "!", "\\", "$A", "${A}", "${_RANDOM 1 9}", "${_HASH}", "$A=", "~SEQ(i, 1, 3)", "~LST(x, 1, 2)", "@a",
    "@^a", "file:/x", "/bin/true", "nobody", "\0", "\ufeff", "\u00a0", "\u2028", "\r", "\t", "é", "10.0.0.0-9", "fwmark", "group",
)  # fmt: skip
CHARACTERS = "{}\"'#!\\$@~()=,;:./- \t\r\n\0aA1_\u00a0\ufeff"


def keywords(block: Block) -> set[str]:
    found = {row.name for row in block.keywords}
    for row in block.keywords:
        if isinstance(row.argument.block, Block) and row.argument.block is not block:
            found |= keywords(row.argument.block)
    return found


KEYWORDS = [*sorted(keywords(ROOT)), "include", "includea", "$A=1", "$B=$A \\", "~SEQ(k, 1, 9)", "@a"]


def noise(draw: random.Random) -> str:
    return "".join(draw.choice(CHARACTERS) for _ in range(draw.randrange(40)))


def statement(draw: random.Random) -> str:
    words = [draw.choice(KEYWORDS), *(draw.choice(VALUES) for _ in range(draw.randrange(4)))]
    return " ".join(words) + draw.choice(("", "", "", " {", " { " + draw.choice(KEYWORDS) + " 1 }", "\n}"))


def structured(draw: random.Random) -> str:
    return "\n".join(statement(draw) for _ in range(draw.randrange(1, 8)))


def excerpt(draw: random.Random) -> str:
    at = draw.randrange(len(LINES))
    lines = LINES[at : at + draw.randrange(1, 10)]
    for _ in range(draw.randrange(4)):
        where = draw.randrange(len(lines))
        change = draw.randrange(5)
        if change == 0:
            lines[where] = statement(draw)
        elif change == 1:
            lines.insert(where, lines[draw.randrange(len(lines))])
        elif change == 2 and len(lines) > 1:
            del lines[where]
        else:
            text = lines[where]
            cut = draw.randrange(len(text) + 1)
            lines[where] = text[:cut] + draw.choice(CHARACTERS) + text[cut + draw.randrange(2) :]
    return "\n".join(lines)


KINDS: tuple[Callable[[random.Random], str], ...] = (noise, structured, excerpt, excerpt)


def test_no_text_raises_or_fills_memory() -> None:
    around = Surroundings(config_id="a", folder="/etc", environment={"A": "$A"})
    slowest, worst = 0.0, ""
    text = ""
    for number in range(SEED, SEED + COUNT):
        draw = random.Random(number)
        text = draw.choice(KINDS)(draw)
        other = draw.choice(KINDS)(draw) if "include" in text else ""
        begun = time.perf_counter()
        compile_text(text, "f", lambda pattern, by, other=other: [Included("g", other)], surroundings=around)  # type: ignore[misc]
        if (taken := time.perf_counter() - begun) > slowest:
            slowest, worst = taken, text
        if number == SEED + COUNT // 4:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(f"{COUNT} texts; slowest {slowest * 1000:.1f} ms: {worst!r}; growth {growth >> 20} MB")  # noqa: T201
    assert growth < MAX_GROWTH
