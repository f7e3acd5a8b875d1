"""``PING_CHECK``: a server is up when it answers an ICMP echo request."""

from __future__ import annotations

from typing import Final

from relevo.config.blocks.checks import CONNECTION, Common, Kind, register, timing
from relevo.config.blocks.registry import Block, Fields
from relevo.model.checks import CheckTiming, PingCheck

PING_CHECK: Final = Block("PING_CHECK", (*CONNECTION, *timing()), (PingCheck, CheckTiming))


def _build(fields: Fields, common: Common) -> PingCheck:
    return fields.into(PingCheck, timing=common.timing, connect=common.connect, bind=common.bind)


register(Kind("PING_CHECK", "up when the server answers ICMP", PING_CHECK, _build))
