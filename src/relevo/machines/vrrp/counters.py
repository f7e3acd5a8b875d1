"""What a virtual router counts."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """What the router sent, received and refused since it was made."""

    adverts_sent: int = 0
    adverts_received: int = 0
    became_master: int = 0
    released_master: int = 0
    priority_zero_sent: int = 0
    priority_zero_received: int = 0
    address_list_mismatches: int = 0
    refused: dict[str, int] = field(default_factory=dict)
