"""dh: connections to one destination address always reach the same server (transparent caches).

A service of one address would use one server only, so dh serves firewall marks, which only packet planes have: they read this
table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from relevo.schedulers.source_hash import BUCKETS

T = TypeVar("T")


def fill(servers: Sequence[T]) -> list[T]:
    """Return the kernel's table: servers repeated in list order, whatever their weight; empty without servers."""
    return [servers[i % len(servers)] for i in range(BUCKETS)] if servers else []
