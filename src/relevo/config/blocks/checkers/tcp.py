"""``TCP_CHECK``: a server is up when a TCP connection opens."""

from __future__ import annotations

from relevo.config.blocks.checks import CONNECTION, Common, Kind, register, timing
from relevo.config.blocks.registry import Block, Fields
from relevo.model import TcpCheck
from relevo.model.checks import CheckTiming

TCP_CHECK = Block("TCP_CHECK", (*CONNECTION, *timing()), (TcpCheck, CheckTiming))


def _build(fields: Fields, common: Common) -> TcpCheck:
    return fields.into(TcpCheck, timing=common.timing, connect=common.connect, bind=common.bind)


register(Kind("TCP_CHECK", "up when a TCP connection opens", TCP_CHECK, _build))
