"""Health checks of real servers, after the cascade virtual server → real server → checker is applied."""

from __future__ import annotations

import msgspec

from relevo.model.endpoint import Endpoint


class CheckTiming(msgspec.Struct, frozen=True, kw_only=True):
    """When a check runs and how much failure it tolerates (keepalived.conf(5), "real server checkers").

    A server is taken out of service after ``retry`` + 1 failures ``delay_before_retry_s`` apart. The first success brings it
    back. ``warmup_s`` bounds the random delay of the first check. With ``log_all_failures`` each failure has a log line, not
    only the first of a row and the last.
    """

    delay_loop_s: float
    retry: int
    delay_before_retry_s: float
    warmup_s: float
    alpha: bool
    log_all_failures: bool = False


class TcpCheck(msgspec.Struct, frozen=True, kw_only=True, tag="TCP_CHECK"):
    """Up when a TCP connection to ``connect`` opens within ``connect_timeout_s``."""

    timing: CheckTiming
    connect: Endpoint
    connect_timeout_s: float
    bind: Endpoint | None = None

    @property
    def name(self) -> str:
        """Keyword of the checker."""
        return "TCP_CHECK"

    @property
    def attempt(self) -> str:
        """What was tried, as keepalived's log lines say it."""
        return "TCP connection"


class Url(msgspec.Struct, frozen=True, kw_only=True):
    """One page that an HTTP check requests.

    ``status_codes`` are inclusive ranges; ``digest`` is the MD5 of the body in lower-case hexadecimal, or empty.
    """

    path: str
    status_codes: tuple[tuple[int, int], ...] = ()
    digest: str = ""
    virtualhost: str = ""


class HttpCheck(msgspec.Struct, frozen=True, kw_only=True, tag="HTTP_GET"):
    """Up when every URL answers as declared; over TLS when ``tls`` (SSL_GET)."""

    timing: CheckTiming
    connect: Endpoint
    connect_timeout_s: float
    urls: tuple[Url, ...]
    tls: bool = False
    enable_sni: bool = False
    http_protocol: str = "1.0"
    virtualhost: str = ""
    bind: Endpoint | None = None

    @property
    def name(self) -> str:
        """Keyword of the checker."""
        return "SSL_GET" if self.tls else "HTTP_GET"

    @property
    def attempt(self) -> str:
        """What was tried, as keepalived's log lines say it."""
        return self.name


Check = TcpCheck | HttpCheck
"""Every kind of check. A kind is a model here, a keyword block in ``config/blocks/checkers``, and a probe in ``probes``; each of
the two registers itself for the model's type.
"""
