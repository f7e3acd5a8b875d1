"""Numbers as strtol(3) with base 0 reads them: decimal, octal with a leading 0, hexadecimal with a leading 0x."""

from __future__ import annotations

import re
from typing import Final

_NUMBER: Final = r"[ \t\n\v\f\r]*([+-]?)(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)"


def strtol(text: str) -> tuple[int, str] | None:
    """Return the number at the beginning of ``text`` and what follows it; ``None`` if there is none."""
    match = re.match(_NUMBER, text)
    if match is None:
        return None
    digits = match[2]
    base = 16 if digits[:2].lower() == "0x" else 8 if digits[0] == "0" else 10
    value = int(digits, base)
    return (-value if match[1] == "-" else value), text[match.end() :]
