"""TCP_CHECK: the server accepts a connection."""

from __future__ import annotations

from relevo.model import TcpCheck
from relevo.probes.exchange import Exchange, exchange_for


@exchange_for(TcpCheck)
class TcpExchange(Exchange[TcpCheck]):
    """Passes when the connection is open."""
