"""Checker blocks → checks, after the cascade virtual server → real server → checker."""

from __future__ import annotations

from typing import Any

from relevo.config.blocks.checks import KINDS, WARMUP, Common, bind_to, connect_to
from relevo.config.blocks.registry import NO_BLOCKS, Fields
from relevo.model import Check, Endpoint
from relevo.model.checks import NEVER, CheckTiming


def checks(server: Fields, declared: Endpoint, inherited_port: int) -> tuple[Check, ...]:
    """Return the checks of a real server.

    They go to the port that the server declares, also where forwarding keeps the service's (DR, TUN); a server without one is
    checked at ``inherited_port``.
    """
    found = server.get("checks")
    if not found:
        return ()
    above = server.above.with_block(server)
    built = []
    for fields in found:
        fields.above = above
        made = _make(fields, declared, inherited_port)
        fields.above = NO_BLOCKS  # a cycle would keep the whole tree in memory
        if isinstance(made, list):
            built += made
        elif made is not None:
            built.append(made)
    return tuple(built)


def _make(fields: Fields, declared: Endpoint, inherited_port: int) -> Check | list[Check] | None:
    kind = KINDS[fields.block.name]
    timing = fields.shared(CheckTiming, _timing) if CheckTiming in fields.block.models else NEVER
    connect, bind = declared, None
    if kind.over_network:
        connect = connect_to(fields, kind.name, declared, inherited_port)
        bind = bind_to(fields, connect)
    return kind.build(fields, Common(timing, connect, bind, declared, inherited_port))


def _timing(values: dict[str, Any]) -> CheckTiming:
    values.setdefault(WARMUP.target, values["delay_loop_s"])
    values.setdefault("delay_before_retry_s", values["delay_loop_s"])
    return CheckTiming(**values)
