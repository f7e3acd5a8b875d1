"""Keys in files, for a process that cannot read them: one that can gives it their content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from relevo.errors import HostError
from relevo.host.files import read_key


class Key(msgspec.Struct, frozen=True):
    """The key in a file, or why there is none."""

    key: bytes = b""
    error: str = ""
    hint: str = ""


_given: dict[str, Key] = {}


def keys_in(files: Iterable[str]) -> dict[str, Key]:
    """Read key files, whatever is in them."""
    found = {}
    for file in files:
        try:
            found[file] = Key(read_key(file))
        except HostError as error:
            found[file] = Key(error=str(error), hint=error.hint)
    return found


def use_keys(keys: Mapping[str, Key]) -> None:
    """Have ``key_of`` return these, whatever the files say."""
    _given.clear()
    _given.update(keys)


def key_of(file: str) -> bytes:
    """Return the key in a file; ``HostError`` if it is no key, or if others may read the file."""
    given = _given.get(file)
    if given is None:
        return read_key(file)
    if given.error:
        raise HostError(given.error, hint=given.hint)
    return given.key
