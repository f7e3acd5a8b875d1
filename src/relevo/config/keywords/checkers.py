"""The checkers of a real server. Their settings cascade: virtual server → real server → checker."""

from __future__ import annotations

import re
from typing import Any, Final

from relevo.config.cursor import Cursor
from relevo.config.diagnostics import Severity
from relevo.config.keywords.readers import address, boolean, choice, flag, integer, seconds, text
from relevo.config.keywords.registry import Block, Fields, Keyword
from relevo.model import Check, Endpoint, HttpCheck, TcpCheck, Url
from relevo.model.checks import CheckTiming

DEFAULT_DELAY_LOOP_S: Final = 60.0
DEFAULT_CONNECT_TIMEOUT_S: Final = 5.0

_CONNECTION = (
    Keyword("connect_ip", address("an address to connect to"), "address checked, if not the server's"),
    Keyword("connect_port", integer(1, 65535, "a port number"), "port checked, if not the server's"),
    Keyword("bindto", address("a source address"), "source address of the check"),
    Keyword("bind_port", integer(1, 65535, "a port number"), "source port of the check"),
    Keyword("connect_timeout", seconds(0.001, 86400, "a time limit"), "time limit of the connection (5)"),
)
_TIMING = (
    Keyword("retry", integer(0, 1000, "a count"), "failures tolerated before leaving service (1)"),
    Keyword("delay_before_retry", seconds(0, 86400, "a delay"), "seconds before a retry (1; HTTP 3)"),
    Keyword("warmup", seconds(0, 86400, "a delay"), "longest random delay of the first check (delay_loop)"),
    Keyword("delay_loop", seconds(0.001, 86400, "an interval"), "seconds between checks"),
    Keyword("alpha", boolean, "out of service until the check succeeds"),
)


def _digest(cursor: Cursor) -> str:
    value = cursor.word("an MD5 digest").lower()
    if not re.fullmatch(r"[0-9a-f]{32}", value):
        raise cursor.reject(f"'{value}' is not an MD5 digest", "32 hexadecimal digits, as md5sum prints them")
    return value


def _status_codes(cursor: Cursor) -> tuple[tuple[int, int], ...]:
    ranges = []
    for word in cursor.rest() or [cursor.word("a status code")]:
        low, dash, high = word.partition("-")
        numbers = (low, high if dash else low)
        if not all(n.isdecimal() and len(n) == 3 and int(n) >= 100 for n in numbers) or int(numbers[0]) > int(numbers[1]):
            raise cursor.reject(f"'{word}' is not a status code or range", "write 200 or 200-299")
        ranges.append((int(numbers[0]), int(numbers[1])))
    return tuple(ranges)


def _path(cursor: Cursor) -> str:
    value = str(cursor.word("a path"))
    if not value.isprintable() or " " in value:
        raise cursor.reject("a path holds no blanks or control characters", "encode them as %20 and so on")
    return value if value.startswith("/") else f"/{value}"


def _url(fields: Fields) -> Url | None:
    if "path" not in fields:
        fields.complain(Severity.ERROR, "", "'url' without a path: left out", "write path /")
        return None
    return Url(**fields.picked("path", "digest", "status_codes", "virtualhost"))


URL = Block(
    "url",
    (
        Keyword("path", _path, "path asked for"),
        Keyword("digest", _digest, "MD5 of the body"),
        Keyword("status_code", _status_codes, "status codes or ranges that pass (200-299)", field="status_codes"),
        Keyword("virtualhost", text("a host name"), "Host header of this page"),
    ),
    _url,
)

_HTTP = (
    *_CONNECTION,
    *_TIMING,
    Keyword("nb_get_retry", integer(0, 1000, "a count"), "old spelling of retry", field="retry", alias_of="retry", note="'nb_get_retry' is deprecated"),
    Keyword("url", URL, "a page asked for", field="urls", repeats=True),
    Keyword("virtualhost", text("a host name"), "Host header of every page"),
    Keyword("http_protocol", choice(("1.0", "1.0C", "1.1"), "an HTTP version"), "HTTP version of the requests (1.0)"),
    Keyword("fast_recovery", flag, "ask for every page at once when recovering"),
)  # fmt: skip


def _checker(name: str, keywords: tuple[Keyword, ...], help_text: str) -> Keyword:
    def build(fields: Fields) -> tuple[str, Fields]:
        return name, fields

    return Keyword(name, Block(name, keywords, build), help_text, field="checks", repeats=True)


CHECKERS = (
    _checker("TCP_CHECK", (*_CONNECTION, *_TIMING), "up when a TCP connection opens"),
    _checker("HTTP_GET", _HTTP, "up when pages answer as declared"),
    _checker("SSL_GET", (*_HTTP, Keyword("enable_sni", flag, "send the host name in the handshake")), "HTTP_GET over TLS"),
)


def _cascade(name: str, default: Any, *levels: Fields) -> Any:
    for fields in levels:
        if name in fields:
            return fields[name]
    return default


def build_check(found: tuple[str, Fields], server: Fields, service: Fields, endpoint: Endpoint) -> Check | None:
    """Apply the cascade to one checker; ``None`` (with a finding) when it cannot be used."""
    name, own = found
    levels = (own, server, service)
    delay_loop_s = _cascade("delay_loop", DEFAULT_DELAY_LOOP_S, *levels)
    timing = CheckTiming(
        delay_loop_s=delay_loop_s,
        retry=_cascade("retry", 1, *levels),
        delay_before_retry_s=_cascade("delay_before_retry", 1.0 if name == "TCP_CHECK" else 3.0, *levels),
        warmup_s=_cascade("warmup", delay_loop_s, *levels),
        alpha=_cascade("alpha", False, *levels),
    )
    if not own.get("connect_port", endpoint.port):
        own.complain(Severity.WARNING, "", f"{name} has no port to connect to: it can never pass", "write connect_port")
    common: dict[str, Any] = {
        "timing": timing,
        "connect": Endpoint(own.get("connect_ip", endpoint.address), own.get("connect_port", endpoint.port)),
        "connect_timeout_s": _cascade("connect_timeout", DEFAULT_CONNECT_TIMEOUT_S, *levels),
    }
    if "bindto" in own or "bind_port" in own:
        anywhere = "::" if ":" in common["connect"].address else "0.0.0.0"  # noqa: S104 - "any source"
        common["bind"] = Endpoint(own.get("bindto", anywhere), own.get("bind_port", 0))
    if name == "TCP_CHECK":
        return TcpCheck(**common)
    urls = tuple(url for url in own.get("urls", ()) if url is not None)
    if not urls:
        own.complain(Severity.ERROR, "", f"{name} without a url: left out", "add url { path / }")
        return None
    return HttpCheck(
        urls=urls,
        tls=name == "SSL_GET",
        virtualhost=_cascade("virtualhost", "", *levels),
        **own.picked("enable_sni", "http_protocol", "fast_recovery"),
        **common,
    )
