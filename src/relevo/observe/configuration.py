"""A configuration as it may be shown: without its secrets."""

from __future__ import annotations

from typing import Any

import msgspec

from relevo.model import Configuration


def without_secrets(configuration: Configuration) -> Any:
    """Return the model as plain values, with secrets masked."""
    plain = msgspec.to_builtins(configuration)
    for instance in plain["vrrp_instances"]:
        if instance["authentication"]:
            instance["authentication"]["password"] = "***"  # noqa: S105 - the mask
    return plain
