"""DNS_CHECK: a name server answers a query without an error."""

from __future__ import annotations

import secrets

from relevo.machines.check import Failure, Result
from relevo.model.checks import DnsCheck
from relevo.probes.exchange import Exchange, Opening, Step, Transport, exchange_for
from relevo.wire import dns


@exchange_for(DnsCheck)
class DnsExchange(Exchange[DnsCheck]):
    """Passes with an answer whose code is 0. What does not belong to the query is ignored."""

    plain = Opening(Transport.DATAGRAM)

    def __init__(self, check: DnsCheck) -> None:
        super().__init__(check)
        self._identifier = secrets.randbelow(1 << 16)

    def opened(self) -> Step:
        """Ask."""
        return dns.query(self._identifier, self.check.domain, self.check.record_type)

    def received(self, data: bytes) -> Step:
        """Take a datagram."""
        code = dns.response_code(data, self._identifier)
        if code is None:
            return b""
        if code:
            return Result(Failure.STATUS, f"{dns.RESPONSE_CODES.get(code, code)} for {self.check.domain}")
        return Result()
