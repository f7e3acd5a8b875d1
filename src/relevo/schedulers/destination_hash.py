"""dh: connections to one destination address always reach the same server (transparent caches).

A service of one address has one server by it, so that it is of use with firewall marks alone, which only planes that see
packets have: they read this table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from relevo.schedulers.source_hash import BUCKETS

T = TypeVar("T")


def fill(servers: Sequence[T]) -> list[T]:
    """Return the kernel's table: servers in list order, round and round, whatever their weight; empty without servers."""
    return [servers[i % len(servers)] for i in range(BUCKETS)] if servers else []
