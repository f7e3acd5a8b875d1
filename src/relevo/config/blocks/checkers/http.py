"""``HTTP_GET`` and ``SSL_GET``: a server is up when its pages answer as declared."""

from __future__ import annotations

import re
from typing import Any, Final

from relevo.config.blocks.arguments import MAX_UINT, Argument, boolean, integer, text
from relevo.config.blocks.checks import CONNECTION, Common, Kind, from_server, register, timing
from relevo.config.blocks.registry import Again, Block, Fields, Keyword
from relevo.config.blocks.standing import SOME, later, unneeded
from relevo.config.cursor import Cursor
from relevo.config.diagnostics import Severity
from relevo.model import HttpCheck, Url
from relevo.model.checks import CheckTiming

Range = tuple[int, int]


def _digest(cursor: Cursor) -> str:
    value = cursor.word("an MD5 digest").lower()
    if not re.fullmatch(r"[0-9a-f]{32}", value):
        raise cursor.reject(f"'{value}' is not an MD5 digest", "32 hexadecimal digits, as md5sum prints them")
    return value


def _status_codes(cursor: Cursor) -> tuple[Range, ...]:
    """Read codes and ranges; one that is neither is left out and the others stay, as in keepalived."""
    ranges = []
    if not cursor.more():
        cursor.word("a status code")
    while cursor.more():
        word = cursor.word()
        low, dash, high = word.partition("-")
        numbers = (low, high if dash else low)
        if all(n.isdecimal() and len(n) == 3 and 100 <= int(n) <= 599 for n in numbers) and int(numbers[0]) <= int(numbers[1]):
            ranges.append((int(numbers[0]), int(numbers[1])))
        else:
            message = f"'{word}' is not a status code or range: left out"
            cursor.report(Severity.ERROR, message, "write 200 or 200-299, from 100 to 599")
    return tuple(ranges)


def _path(cursor: Cursor) -> str:
    value = cursor.word("a path")
    if not value.isprintable() or " " in value:
        raise cursor.reject("a path has no blanks or control characters", "encode them as %20 and so on")
    return value if value.startswith("/") else f"/{value}"


def _protocol(cursor: Cursor) -> str:
    if cursor.peek() == "1.0c":  # the one word of keepalived's whose case does not count
        return cursor.word().upper()
    return cursor.choice(("1.0", "1.0C", "1.1"), "an HTTP version")


def _fast_recovery(cursor: Cursor) -> bool:
    value = cursor.boolean()
    message = "fast_recovery changes nothing here: a recovering server is asked for every page at once anyway"
    cursor.report(Severity.NOTE, message, "the line may go", word=0)
    return value


PATH: Final = Keyword("path", Argument(_path, "PATH"), "path of the request", default_text="none: it is required")
STATUS_CODE: Final = Keyword(
    "status_code", Argument(_status_codes, "N[-N] …", "", "100..599"), "status codes that pass",
    target="status_codes", default_text="200-299", again=Again.JOIN,
)  # fmt: skip
_NOT_SEARCHED: Final = "the body is not searched: the status and the digest decide"
_REGEX: Final = (
    later("regex", SOME, "expression that the body must have", _NOT_SEARCHED),
    later("regex_no_match", boolean(), "expression that the body must not have", _NOT_SEARCHED),
    later("regex_options", SOME, "options of the expression", _NOT_SEARCHED),
    later("regex_min_offset", integer(0, MAX_UINT, "an offset"), "where the search begins", _NOT_SEARCHED),
    later("regex_max_offset", integer(0, MAX_UINT, "an offset"), "where the search ends", _NOT_SEARCHED),
    later("regex_stack", SOME, "memory for the search", _NOT_SEARCHED),
    unneeded("tls_compliant", boolean(), "close TLS as the standard says", "it always is"),
)
URL: Final = Block(
    "url",
    (
        PATH,
        Keyword("digest", Argument(_digest, "MD5"), "MD5 of the body", again=Again.FIRST),
        STATUS_CODE,
        Keyword("virtualhost", text("a host name"), "Host header of this page"),
        *_REGEX,
    ),
    (Url,),
)
URLS: Final[Keyword[Any]] = Keyword("url", URL.argument, "a page to request", again=Again.EACH)

_ROWS: Final[tuple[Keyword[Any], ...]] = (
    *CONNECTION,
    *timing(delay_before_retry_s=3.0),
    Keyword("nb_get_retry", integer(0, MAX_UINT, "a count"), "old spelling of retry", alias_of="retry", note="'nb_get_retry' is deprecated"),
    URLS,
    Keyword("virtualhost", text("a host name"), "Host header of every page", inherits=from_server("virtualhost")),
    Keyword("http_protocol", Argument(_protocol, "VERSION", "", "1.0 1.0C 1.1"), "HTTP version of the requests"),
    Keyword("fast_recovery", Argument(_fast_recovery, "[on|off]"), "accepted, no effect: a recovering server is asked for every page at once anyway"),
    later("sni_name", text("a host name"), "host name in the handshake", "it is that of the request"),
    unneeded("tls_compliant", boolean(), "close TLS as the standard says", "it always is"),
    Keyword("enable_sni", boolean(), "send the host name in the handshake"),
)  # fmt: skip
HTTP_GET: Final = Block("HTTP_GET", _ROWS, (HttpCheck, CheckTiming))
SSL_GET: Final = Block("SSL_GET", _ROWS, (HttpCheck, CheckTiming))


def _url(fields: Fields) -> Url | None:
    path = fields.given(PATH)
    if path is None:
        fields.report(Severity.ERROR, "", "'url' without a path: left out", "write path /")
        return None
    return fields.into(Url, path=path)


def _build(fields: Fields, common: Common) -> HttpCheck | None:
    name = fields.block.name
    urls = tuple(url for url in map(_url, fields.given(URLS, ())) if url is not None)
    if not urls:
        fields.report(Severity.ERROR, "", f"{name} without a url: left out", "add url { path / }")
        return None
    return fields.into(
        HttpCheck, urls=urls, tls=name == "SSL_GET", timing=common.timing, connect=common.connect, bind=common.bind
    )


register(Kind("HTTP_GET", "up when pages answer as declared", HTTP_GET, _build))
register(Kind("SSL_GET", "HTTP_GET over TLS", SSL_GET, _build))
