"""How many clients of a hashing scheduler get another server when its servers change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Final

from relevo.model.table import ServerEntry
from relevo.schedulers import maglev, source_hash
from relevo.schedulers.base import fold


def moved_share(scheduler: str, before: Sequence[ServerEntry], after: Sequence[ServerEntry]) -> float | None:
    """Return the share of clients (0 to 1) that get another server; ``None`` for a scheduler that keeps no client.

    The servers are in the plane's order, newest first.
    """
    table = _TABLES.get(scheduler)
    if table is None:
        return None
    former, present = table(before), table(after)
    if not former or not present:
        return float(bool(former) or bool(present))
    return sum(one != other for one, other in zip(former, present, strict=True)) / len(present)


def _source_hash(servers: Sequence[ServerEntry]) -> list[object]:
    return [servers[index].endpoint for index in source_hash.fill([server.weight for server in servers])]


def _maglev(servers: Sequence[ServerEntry]) -> list[object]:
    places = [(fold(int(ip_address(server.endpoint.address))), server.endpoint.port) for server in servers]
    slots = maglev.fill(places, [server.weight for server in servers], maglev.KERNEL_SIZE)  # large enough for a share
    return [servers[index].endpoint for index in slots] if slots[0] >= 0 else []


_TABLES: Final[dict[str, Callable[[Sequence[ServerEntry]], list[object]]]] = {"sh": _source_hash, "mh": _maglev}
