"""Health checks of real servers, after the cascade virtual server → real server → checker is applied."""

from __future__ import annotations

from typing import Final

import msgspec

from relevo.model.endpoint import Endpoint
from relevo.model.script import Script


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


class NetworkCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks that ask over the network have in common.

    They go to ``connect``, from ``bind`` and by the interface ``device`` if given, with the mark ``fwmark`` (0: none).
    ``connect_timeout_s`` limits the connection and the whole conversation.
    """

    timing: CheckTiming
    connect: Endpoint
    connect_timeout_s: float
    bind: Endpoint | None = None
    device: str = ""
    fwmark: int = 0

    @property
    def limit_s(self) -> float:
        """The longest time that the check takes."""
        return self.connect_timeout_s

    @property
    def target(self) -> str:
        """What is asked."""
        return str(self.connect)


class TcpCheck(NetworkCheck, frozen=True, kw_only=True, tag="TCP_CHECK"):
    """Up when a TCP connection to ``connect`` opens within ``connect_timeout_s``."""

    @property
    def name(self) -> str:
        """Keyword of the checker."""
        return "TCP_CHECK"

    @property
    def attempt(self) -> str:
        """What was tried, as keepalived's log lines say it."""
        return "TCP connection"


REGEX_OPTIONS: Final = (
    "allow_empty_class", "alt_bsux", "auto_callout", "caseless", "dollar_endonly", "dotall", "dupnames", "extended", "firstline",
    "match_unset_backref", "multiline", "never_ucp", "never_utf", "no_auto_capture", "no_auto_possess", "no_dotstar_anchor",
    "no_start_optimize", "ucp", "ungreedy", "utf", "never_backslash_c", "alt_circumflex", "alt_verbnames", "use_offset_limit",
)  # fmt: skip
"""Options of PCRE2, in the order of their bits (pcre2.h)."""


class Url(msgspec.Struct, frozen=True, kw_only=True):
    """One page that an HTTP check requests.

    ``status_codes`` are inclusive ranges; ``digest`` is the MD5 of the body in lower-case hexadecimal, or empty. The body must
    match the expression ``regex`` of PCRE2, or with ``regex_no_match`` must not, from the byte ``regex_min_offset`` on; the match
    begins before ``regex_max_offset``, unless that is 0. ``regex_options`` are names of pcre2api(3) in lower case.
    """

    path: str
    status_codes: tuple[tuple[int, int], ...] = ()
    digest: str = ""
    virtualhost: str = ""
    regex: str = ""
    regex_options: tuple[str, ...] = ()
    regex_no_match: bool = False
    regex_min_offset: int = 0
    regex_max_offset: int = 0


class HttpCheck(NetworkCheck, frozen=True, kw_only=True, tag="HTTP_GET"):
    """Up when every URL answers as declared; over TLS when ``tls`` (SSL_GET), with ``sni_name`` in the handshake if given.

    ``enable_sni`` without a name sends that of the request.
    """

    urls: tuple[Url, ...]
    tls: bool = False
    enable_sni: bool = False
    sni_name: str = ""
    http_protocol: str = "1.0"
    virtualhost: str = ""

    @property
    def name(self) -> str:
        """Keyword of the checker."""
        return "SSL_GET" if self.tls else "HTTP_GET"

    @property
    def attempt(self) -> str:
        """What was tried, as keepalived's log lines say it."""
        return self.name


class SmtpCheck(NetworkCheck, frozen=True, kw_only=True, tag="SMTP_CHECK"):
    """Up when a mail server greets, accepts HELO with ``helo_name``, and answers QUIT."""

    helo_name: str = "smtpchecker.keepalived.org"

    @property
    def name(self) -> str:
        """Keyword of the checker."""
        return "SMTP_CHECK"

    @property
    def attempt(self) -> str:
        """What was tried, as log lines say it."""
        return self.name


class DnsCheck(NetworkCheck, frozen=True, kw_only=True, tag="DNS_CHECK"):
    """Up when a name server answers a query for records of ``domain`` without an error; ``record_type`` is IANA's number."""

    domain: str = "."
    record_type: int = 6

    @property
    def name(self) -> str:
        """Keyword of the checker."""
        return "DNS_CHECK"

    @property
    def attempt(self) -> str:
        """What was tried, as log lines say it."""
        return self.name


class UdpCheck(NetworkCheck, frozen=True, kw_only=True, tag="UDP_CHECK"):
    """Up unless a datagram with ``payload`` is refused; with ``require_reply``, when the answer has the declared bytes.

    Of ``reply`` the bits that are set in ``ignored`` may differ. Only a declared reply has its length compared.
    """

    payload: bytes = bytes(range(32))
    require_reply: bool = False
    reply: bytes = b""
    ignored: bytes = b""
    min_reply_length: int = 0
    max_reply_length: int = 255

    @property
    def name(self) -> str:
        """Keyword of the checker."""
        return "UDP_CHECK"

    @property
    def attempt(self) -> str:
        """What was tried, as keepalived's log lines say it."""
        return "UDP connection"


class PingCheck(NetworkCheck, frozen=True, kw_only=True, tag="PING_CHECK"):
    """Up when the server answers an ICMP echo request."""

    @property
    def name(self) -> str:
        """Keyword of the checker."""
        return "PING_CHECK"

    @property
    def attempt(self) -> str:
        """What was tried, as keepalived's log lines say it."""
        return "ICMP connection"


class MiscCheck(msgspec.Struct, frozen=True, kw_only=True, tag="MISC_CHECK"):
    """Up when ``script`` exits with status 0 within ``timeout_s``.

    With ``dynamic``, from status 2 on the weight of the server becomes the status less two.
    """

    timing: CheckTiming
    script: Script
    timeout_s: float
    dynamic: bool = False

    @property
    def name(self) -> str:
        """Keyword of the checker."""
        return "MISC_CHECK"

    @property
    def attempt(self) -> str:
        """What was tried, as log lines say it."""
        return f"Misc check by [{self.script.argv[0]}]"

    @property
    def limit_s(self) -> float:
        """The longest time that the check takes."""
        return self.timeout_s

    @property
    def target(self) -> str:
        """What is asked."""
        return self.script.argv[0]


FAULT_WEIGHT: Final = -(2**31)
"""A file whose number times the weight is this or less takes its server out of service."""


class FileCheck(msgspec.Struct, frozen=True, kw_only=True, tag="FILE_CHECK"):
    """The number in ``track_file`` times ``weight`` is added to the server's weight, or with ``reverse`` subtracted.

    With weight 0 the server is down while the number is not 0, or with ``reverse`` while it is. It is compared when it changes.
    """

    track_file: str
    weight: int = 1
    reverse: bool = False

    @property
    def name(self) -> str:
        """Keyword of the checker."""
        return "FILE_CHECK"

    @property
    def attempt(self) -> str:
        """What was tried, as log lines say it."""
        return f"File check by {self.track_file}"

    @property
    def limit_s(self) -> float:
        """The longest time that the check takes."""
        return 0.0

    @property
    def target(self) -> str:
        """What is asked."""
        return self.track_file

    @property
    def timing(self) -> CheckTiming:
        """Return when it runs: never by a clock, and the first result counts."""
        return NEVER


NEVER: Final = CheckTiming(delay_loop_s=0.0, retry=0, delay_before_retry_s=0.0, warmup_s=0.0, alpha=False)

AskedCheck = TcpCheck | HttpCheck | SmtpCheck | DnsCheck | UdpCheck | PingCheck
"""The checks that ask the server over the network."""
Check = AskedCheck | MiscCheck | FileCheck
"""Every kind of check. A kind is a model here, and a keyword block in ``config/blocks/checkers``, which registers itself. Those
that ask have an exchange in ``probes``; the supervisor runs scripts and reads files.
"""
