"""UDP_CHECK: the server does not refuse a datagram, or answers it with the right bytes."""

from __future__ import annotations

from relevo.machines.check import Failure, Result
from relevo.model.checks import UdpCheck
from relevo.probes.exchange import Exchange, Opening, Step, Transport, exchange_for

MAX_QUOTED = 32
"""Bytes of a wrong answer in the reason."""


@exchange_for(UdpCheck)
class UdpExchange(Exchange[UdpCheck]):
    """Passes when the time is over without a refusal, unless a reply is required."""

    plain = Opening(Transport.DATAGRAM)

    def opened(self) -> Step:
        """Send the payload."""
        return self.check.payload

    def received(self, data: bytes) -> Step:
        """Compare a reply, as far as it and the declared one go, as keepalived does."""
        check = self.check
        if not check.require_reply or not check.reply:
            return Result()
        if not check.min_reply_length <= len(data) <= check.max_reply_length:
            wanted = f"{check.min_reply_length} to {check.max_reply_length}"
            return Result(Failure.REPLY, f"{len(data)} bytes, wanted {wanted}")
        ignored = check.ignored or bytes(len(check.reply))
        if any((got ^ wanted) & ~mask & 0xFF for got, wanted, mask in zip(data, check.reply, ignored, strict=False)):
            return Result(Failure.REPLY, f"the answer begins with {data[:MAX_QUOTED].hex()}")
        return Result()

    def expired(self) -> Result:
        """No refusal came; that is an answer, if no other is required."""
        return super().expired() if self.check.require_reply else Result(detail="not refused")
