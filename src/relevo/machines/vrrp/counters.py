"""Counters of a virtual router."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Counts since the router was created; ``refused`` counts discarded adverts by reason."""

    adverts_sent: int = 0
    adverts_received: int = 0
    became_master: int = 0
    released_master: int = 0
    priority_zero_sent: int = 0
    priority_zero_received: int = 0
    address_list_mismatches: int = 0
    unanswered: int = 0
    """Adverts of lower priority, or of priority 0, that came to a master within an interval of an answer."""
    refused: dict[str, int] = field(default_factory=dict)
