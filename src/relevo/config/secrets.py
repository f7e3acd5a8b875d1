"""Detects secrets in a line, so that findings and excerpts do not print them.

The words of the line decide, not the keyword table: a misspelt ``auth_pas`` and a definition ``$AUTH_PASS=…`` have secrets too.
Hiding a harmless word is better than showing a secret.
"""

from __future__ import annotations

import re
from typing import Final

from relevo.config.source import words

_CANDIDATE: Final = r'(?<![^\s{"])(\$?[A-Za-z_][\w-]*)(=|[\s"]+)(?=[^\s{}])'
_LETTERS = re.compile(r"[^a-z]")
_TELLING: Final = ("pas", "psw", "pwd", "secret", "token")
_HARMLESS: Final = ("passive", "authtype", "authentication", "authhmac", "bypass")
MASK: Final = "***"
SHORTEST: Final = 3
"""Shortest secret that is replaced anywhere in a message; a shorter one is replaced only where it is quoted alone."""


def is_secret(word: str) -> bool:
    """Whether the keyword or definition ``word`` has a secret as its value, judged by its name alone."""
    name = _LETTERS.sub("", word.lower())
    if any(harmless in name for harmless in _HARMLESS):
        return False
    return any(part in name for part in _TELLING) or name.endswith("key") or name.startswith(("auth", "lvssynck"))


def secret_start(text: str) -> int:
    """Return the index in ``text`` at which the secret begins; its length if there is none."""
    return next((match.end() for match in re.finditer(_CANDIDATE, text) if is_secret(match[1])), len(text))


def masked_line(text: str) -> str:
    """Return a source line with an asterisk for every secret character, so that columns stay."""
    start = secret_start(text)
    return text[:start] + "*" * (len(text) - start)


def masked_message(message: str, line: str) -> str:
    """Return ``message`` without the secrets of the source line ``line``."""
    start = secret_start(line)
    if start == len(line):
        return message
    rest = line[start:]
    for word in sorted({*rest.split(), *map(str, words(rest))} - {"{", "}", ""}, key=len, reverse=True):
        shown = word if len(word) >= SHORTEST else f"'{word}'"
        message = message.replace(shown, MASK if shown == word else f"'{MASK}'")
    return message
