"""A configuration as it may be shown: without its secrets."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from relevo.model import Configuration

SECRETS: Final = frozenset({"password"})
"""Fields that are not shown."""
MASK: Final = "***"


def without_secrets(configuration: Configuration) -> Any:
    """Return the model as plain values, with secrets masked."""
    return masked(msgspec.to_builtins(configuration))


def masked(value: Any) -> Any:
    """Return plain values with their secrets masked."""
    if isinstance(value, dict):
        return {key: MASK if key in SECRETS and part else masked(part) for key, part in value.items()}
    return [masked(part) for part in value] if isinstance(value, list | tuple) else value
