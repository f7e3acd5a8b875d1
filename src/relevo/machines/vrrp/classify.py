"""From inputs to the columns of the transition table: the only place that compares priorities."""

from __future__ import annotations

from typing import Final

from relevo.machines.vrrp import events
from relevo.machines.vrrp.states import State, Symbol
from relevo.wire.vrrp import PRIORITY_STOP, address_rank

PLAIN: Final = {events.Stop: Symbol.STOP, events.HandOver: Symbol.HAND_OVER, events.Restore: Symbol.RESTORE}
"""Symbols of inputs without values."""


def classify_advert(received: events.AdvertReceived, state: State, priority: int, own_address: str) -> Symbol:
    """Return the symbol of an advert; of two masters with equal priority the higher address wins (RFC 9568 §6.4.3)."""
    theirs = received.advert.priority
    if theirs == PRIORITY_STOP:
        return Symbol.ADVERT_ZERO
    if theirs != priority:
        return Symbol.ADVERT_HIGHER if theirs > priority else Symbol.ADVERT_LOWER
    if state is State.BACKUP or address_rank(received.source) > address_rank(own_address):
        return Symbol.ADVERT_HIGHER
    return Symbol.ADVERT_LOWER
