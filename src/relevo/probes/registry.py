"""Which probe runs which kind of check: each probe registers itself for the type of its check."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from relevo.machines.check import Result
from relevo.model import Check

C = TypeVar("C")
Probe = Callable[[C], Awaitable[Result]]

_PROBES: dict[type, Callable[[Any], Awaitable[Result]]] = {}


def probe_for(kind: type[C]) -> Callable[[Probe[C]], Probe[C]]:
    """Return a decorator that registers a probe for checks of ``kind``."""

    def register(probe: Probe[C]) -> Probe[C]:
        _PROBES[kind] = probe
        return probe

    return register


async def run_probe(check: Check) -> Result:
    """Run ``check`` once."""
    return await _PROBES[type(check)](check)


def kinds() -> frozenset[type]:
    """Return the types of the checks that have a probe."""
    return frozenset(_PROBES)
