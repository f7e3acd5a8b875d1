"""How many clients of a hashing scheduler get another server when its servers change."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from relevo.model.endpoint import Endpoint
from relevo.model.table import ServerEntry
from relevo.schedulers import maglev, source_hash
from relevo.schedulers.base import fold

HASHING: Final = frozenset(("sh", "mh"))
"""Schedulers that keep a client at a server by a table of these servers."""


def moved_share(scheduler: str, before: Sequence[ServerEntry], after: Sequence[ServerEntry]) -> float:
    """Return the share of clients (0 to 1) that get another server, for one of ``HASHING``.

    The servers are in the plane's order, newest first. With mh, a server whose weight becomes 0 keeps its slots: its clients are
    refused, and do not move.
    """
    if scheduler == "sh":
        former, present = _source_hash(before), _source_hash(after)
    else:
        weights = {server.endpoint: server.weight for server in before}
        former = _maglev(before, weights)
        present = _maglev(after, {server.endpoint: server.weight or weights.get(server.endpoint, 0) for server in after})
    if not former or not present:
        return float(bool(former) or bool(present))
    return sum(one != other for one, other in zip(former, present, strict=True)) / len(present)


def _source_hash(servers: Sequence[ServerEntry]) -> list[Endpoint]:
    return [servers[index].endpoint for index in source_hash.fill([server.weight for server in servers])]


def _maglev(servers: Sequence[ServerEntry], weights: dict[Endpoint, int]) -> list[Endpoint]:
    if not servers:
        return []
    places = [(fold(int(ip_address(server.endpoint.address))), server.endpoint.port) for server in servers]
    slots = maglev.fill(places, [weights[server.endpoint] for server in servers], maglev.KERNEL_SIZE)  # enough for a share
    return [servers[index].endpoint for index in slots] if slots[0] >= 0 else []
