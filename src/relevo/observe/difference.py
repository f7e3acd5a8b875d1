"""What two configurations mean differently: the same declarations, matched by name, with the fields that differ."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from relevo.model import Configuration
from relevo.observe.configuration import MASK, SECRETS, masked

NAMES: Final = ("name", "endpoint", "address", "path")
"""Fields that identify an element of a list, the first that it has; elements without one are compared by position."""


class Difference(msgspec.Struct, frozen=True):
    """One difference. ``path`` leads from the outermost declaration to the field; the value of an absent one is ``None``."""

    path: tuple[str, ...]
    former: Any
    latter: Any

    def __str__(self) -> str:
        place = " ".join(self.path)
        if self.former is None:
            return f"+ {place}{_shown(self.latter)}"
        if self.latter is None:
            return f"- {place}{_shown(self.former)}"
        return f"~ {place}:{_shown(self.former)} →{_shown(self.latter)}"


def differences(former: Configuration, latter: Configuration) -> list[Difference]:
    """Return what differs, in the order of the model. Elements of lists match by name; another order of the same is said too."""
    found: list[Difference] = []
    _compare(msgspec.to_builtins(former), msgspec.to_builtins(latter), (), found)
    return found


def _compare(one: Any, other: Any, path: tuple[str, ...], found: list[Difference]) -> None:
    if one == other:
        return
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one | other:
            _compare(one.get(key), other.get(key), (*path, key), found)
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        before, after = _by_name(one), _by_name(other)
        for key in before | after:
            _compare(before.get(key), after.get(key), (*path, key), found)
        if before == after:  # the elements are the same: their order differs
            found.append(Difference(path, list(before), list(after)))
    elif path[-1] in SECRETS:
        found.append(Difference(path, one and MASK, other and f"another {MASK}"))
    else:
        found.append(Difference(path, masked(one), masked(other)))


def _by_name(elements: list[Any] | tuple[Any, ...]) -> dict[str, Any]:
    """Return the elements by what identifies them; a second one of a name, and one without, by its number."""
    named: dict[str, Any] = {}
    for number, element in enumerate(elements):
        key = str(element)
        if isinstance(element, dict):
            key = next((_name(element[field]) for field in NAMES if element.get(field)), f"#{number + 1}")
        named[key if key not in named else f"{key}#{number + 1}"] = element
    return named


def _name(value: Any) -> str:
    if isinstance(value, dict):
        return ":".join(str(part) for part in value.values() if part not in ("", None))
    return str(value)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ""  # its path says enough
    if isinstance(value, list):
        return "".join(_shown(part) for part in value)
    if isinstance(value, bool):
        return " on" if value else " off"
    return f" {value:g}" if isinstance(value, float) else f" {value}" if value != "" else ' ""'
