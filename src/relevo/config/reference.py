"""What every keyword takes and means, from its row: for the reference page and for ``relevo explain``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

import msgspec

from relevo.config.blocks.keepalived_keywords import known
from relevo.config.blocks.registry import OURS, Again, Block, Keyword, Standing
from relevo.config.blocks.root import ROOT

REPEATED: Final = {
    (Again.FIRST, False): "; the first one counts",
    (Again.FIRST, True): "; the first one counts",
    (Again.JOIN, False): "; several add up",
    (Again.JOIN, True): "; several are one",
}
"""Added to the meaning of a keyword, by what happens when it is repeated and whether it takes a block."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A keyword of a block. ``since`` is the release of keepalived that first has it there, if any; ``ours`` marks our own."""

    block: str
    keyword: str
    syntax: str
    unit: str
    limits: str
    default: str
    since: str
    ours: bool
    meaning: str
    instead: str
    standing: Standing
    why: str


def blocks() -> Iterator[Block]:
    """Yield every block once, an outer one before the inner ones."""
    seen: set[str] = set()

    def visit(block: Block) -> Iterator[Block]:
        if block.name in seen:
            return
        seen.add(block.name)
        yield block
        for keyword in block.keywords:
            if keyword.argument.block is not None:
                yield from visit(keyword.argument.block)

    yield from visit(ROOT)


def entry(block: Block, keyword: Keyword[Any]) -> Entry:
    """Describe one keyword."""
    argument = keyword.argument
    return Entry(
        block=block.name,
        keyword=keyword.name,
        syntax=argument.syntax,
        unit=argument.unit,
        limits=argument.limits,
        default=_default(block, keyword),
        since=known(block.name, keyword.name),
        ours=keyword.since == OURS,
        meaning=keyword.help + REPEATED.get((keyword.again, argument.takes_block), ""),
        instead=keyword.alias_of,
        standing=keyword.standing,
        why=keyword.why,
    )


def explain(word: str) -> list[Entry]:
    """Return the entries of a keyword, one for each block that has it."""
    return [entry(block, block.table[word]) for block in blocks() if word in block.table]


def similar(word: str) -> list[str]:
    """Return keywords that look like ``word``, the nearest first."""
    return get_close_matches(word, {name for block in blocks() for name in block.table}, n=3, cutoff=0.6)


def _default(block: Block, keyword: Keyword[Any]) -> str:
    """Return the default of a keyword: where it is inherited from, then its value."""
    texts = [f"that of `{source}`" for source in keyword.inherits]
    if keyword.default_text:
        texts.append(keyword.default_text)
    elif (value := _declared_default(block, keyword)) is not None:
        texts.append(value)
    return ", else ".join(texts)


def _declared_default(block: Block, keyword: Keyword[Any]) -> str | None:
    """Return the default that the row, or else the model, declares; ``None`` for a default that stands for an absent value."""
    model = block.model_of(keyword)
    value = keyword.default
    if value is None and model is not None and not (keyword.sets or keyword.alias_of):
        value = {field.name: field.default for field in msgspec.structs.fields(model)}[keyword.target or keyword.name]
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float):
        return f"{value:g}" if value < 1e6 else str(value)
    return value if isinstance(value, str) and value else None
