"""SMTP_CHECK: a mail server greets, accepts HELO, and answers QUIT (RFC 5321)."""

from __future__ import annotations

import re
from typing import Final

from relevo.machines.check import Failure, Result
from relevo.model.checks import SmtpCheck
from relevo.probes.exchange import Exchange, Step, exchange_for

MAX_ANSWER: Final = 8192
"""Longest answer in bytes: sixteen lines of the greatest length (RFC 5321 §4.5.3.1.5). Some servers greet at length."""
_REPLY: Final = re.compile(rb"\A(?:(\d{3})-[^\n]*\n)*(\d{3})(?:[ \r][^\n]*)?\n")
"""Lines of one answer: all but the last have a hyphen behind the code."""


@exchange_for(SmtpCheck)
class SmtpExchange(Exchange[SmtpCheck]):
    """Passes with the answer to QUIT, whatever that is: a server that accepts HELO accepts mail."""

    def __init__(self, check: SmtpCheck) -> None:
        super().__init__(check)
        self._seen = b""
        self._steps = [("the greeting", b"220", f"HELO {check.helo_name}\r\n"), ("HELO", b"250", "QUIT\r\n"), ("QUIT", b"", "")]

    def opened(self) -> Step:
        """Wait for the greeting."""
        return b""

    def received(self, data: bytes) -> Step:
        """Take a part of an answer."""
        self._seen += data
        reply = _REPLY.match(self._seen)
        if reply is None:
            if len(self._seen) > MAX_ANSWER:
                return Result(Failure.TOO_LARGE, f"more than {MAX_ANSWER} bytes after {self._steps[0][0]}")
            if b"\n" in self._seen and not self._seen[:3].isdigit():
                return self._refused()
            return b""
        what, wanted, following = self._steps.pop(0)
        if wanted and reply[2] != wanted:
            return Result(Failure.STATUS, f"{reply[2].decode()} after {what}, wanted {wanted.decode()}")
        self._seen = self._seen[reply.end() :]
        if not self._steps:
            return Result(detail="mail server")
        return following.encode("ascii", "replace")

    def closed(self) -> Step:
        """A server may hang up instead of answering QUIT."""
        if len(self._steps) == 1:
            return Result(detail="mail server")
        return (
            Result(Failure.RESET, f"the server closed the connection after {self._steps[0][0]}")
            if self._seen
            else super().closed()
        )

    def _refused(self) -> Result:
        return Result(Failure.REPLY, f"it begins with {self._seen[:40].decode('ascii', 'replace')!r}")
