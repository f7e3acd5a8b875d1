"""``FILE_CHECK``: the number in a file changes the weight of a server, or takes it out of service."""

from __future__ import annotations

from typing import Final

from relevo.config.blocks.arguments import Argument, text
from relevo.config.blocks.checks import Common, Kind, register
from relevo.config.blocks.registry import Block, Fields, Keyword
from relevo.config.cursor import Cursor
from relevo.config.diagnostics import Severity
from relevo.model.checks import FileCheck

LIMIT: Final = 2**31 - 1


def _weight(cursor: Cursor) -> tuple[int, bool]:
    value = cursor.integer(-LIMIT, LIMIT, "a weight")
    return value, cursor.choice(("reverse", "noreverse"), "an option") == "reverse" if cursor.more() else False


FILE_WEIGHTS: Final = "weights of files"
"""Key of ``global_defs`` for the weights of the declared files, by name: they may be declared below."""
FILE: Final = Keyword("track_file", text("a track_file"), "the file", default_text="none: it is required")
WEIGHT: Final = Keyword(
    "weight",
    Argument(_weight, "N [reverse|noreverse]", "", "-2³¹+1..2³¹-1"),
    "what the number is multiplied by",
    default_text="that of the file",
)
FILE_CHECK: Final = Block("FILE_CHECK", (FILE, WEIGHT), (FileCheck,))


def _build(fields: Fields, _common: Common) -> FileCheck | None:
    name = fields.given(FILE)
    if name is None:
        fields.report(Severity.ERROR, "", "'FILE_CHECK' without a track_file: left out", "write track_file NAME")
        return None
    own = fields.above.value((("global_defs", FILE_WEIGHTS),), {}).get(name)
    if own is None:
        message = f"there is no track_file '{name}': the check is left out, as in keepalived"
        fields.report(Severity.ERROR, FILE.key, message, f"declare track_file {name} {{ file PATH }}")
        return None
    weight, reverse = fields.given(WEIGHT, (own.value, own.reverse))
    return FileCheck(track_file=name, weight=weight, reverse=reverse)


register(Kind("FILE_CHECK", "weight from a file", FILE_CHECK, _build, over_network=False))
