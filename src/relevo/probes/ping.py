"""PING_CHECK: the server answers an ICMP echo request (RFC 792, RFC 4443)."""

from __future__ import annotations

import secrets
import struct
from typing import Final

from relevo.machines.check import Result
from relevo.model.checks import PingCheck
from relevo.probes.exchange import Exchange, Opening, Step, Transport, exchange_for

_HEADER: Final = struct.Struct("!BBHHH")
"""Type, code, checksum and identifier, which the kernel sets, and sequence number."""
_REQUEST: Final = {False: 8, True: 128}
_REPLY: Final = {False: 0, True: 129}
PAYLOAD: Final = 24
"""Random bytes in a request. An answer has the same ones, so that no answer to an earlier request passes for it."""


@exchange_for(PingCheck)
class PingExchange(Exchange[PingCheck]):
    """Passes with the answer to its request. The kernel delivers no others but those with its identifier."""

    plain = Opening(Transport.ECHO)

    def __init__(self, check: PingCheck) -> None:
        super().__init__(check)
        self._ipv6 = ":" in check.connect.address
        self._payload = secrets.token_bytes(PAYLOAD)

    def opened(self) -> Step:
        """Ask."""
        return _HEADER.pack(_REQUEST[self._ipv6], 0, 0, 0, 1) + self._payload

    def received(self, data: bytes) -> Step:
        """Take a message."""
        if len(data) >= _HEADER.size and data[0] == _REPLY[self._ipv6] and data[_HEADER.size :] == self._payload:
            return Result()
        return b""
