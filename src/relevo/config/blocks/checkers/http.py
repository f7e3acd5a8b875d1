"""``HTTP_GET`` and ``SSL_GET``: a server is up when its pages answer as declared."""

from __future__ import annotations

import re
from typing import Any, Final

from relevo.config.blocks.arguments import MAX_UINT, Argument, boolean, flag, integer, text
from relevo.config.blocks.checks import CONNECTION, Common, Kind, from_server, register, timing
from relevo.config.blocks.registry import Again, Block, Fields, Keyword
from relevo.config.blocks.standing import SOME, unneeded
from relevo.config.cursor import Cursor
from relevo.config.diagnostics import Severity
from relevo.config.source import Quoted, script_words
from relevo.model import HttpCheck, Url
from relevo.model.checks import REGEX_OPTIONS, CheckTiming

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


def _regex(cursor: Cursor) -> str:
    """Read an expression as keepalived does: quotes and escapes are those of scripts, and it is one word."""
    cursor.peek() or cursor.word("an expression")
    raw = cursor.rest()
    words = script_words(f'"{raw[0]}"') if len(raw) == 1 and isinstance(raw[0], Quoted) else script_words(" ".join(raw))
    if len(words) != 1 or not words[0]:
        raise cursor.reject("an expression is one word: ignored, as in keepalived", 'quote it: regex "…"', word=1)
    return words[0]


def _regex_options(cursor: Cursor) -> tuple[str, ...]:
    found = []
    if not cursor.more():
        cursor.word("an option")
    while cursor.more():
        word = cursor.word()
        if word in REGEX_OPTIONS:
            found.append(word)
        else:
            cursor.report(
                Severity.ERROR, f"'{word}' is no option of an expression: left out", f"one of {' '.join(REGEX_OPTIONS)}"
            )
    return tuple(found)


REGEX: Final = Keyword("regex", Argument(_regex, "EXPRESSION"), "expression of PCRE2 that the body must match")
MIN_OFFSET: Final = Keyword(
    "regex_min_offset", integer(0, MAX_UINT, "an offset"), "byte where the search begins", default_text="0"
)
MAX_OFFSET: Final = Keyword(
    "regex_max_offset", integer(0, MAX_UINT, "an offset"), "byte before which the match begins", default_text="none"
)
NO_MATCH: Final = Keyword("regex_no_match", flag(), "the body must not match")
OPTIONS: Final = Keyword(
    "regex_options",
    Argument(_regex_options, "OPTION …", "", "those of pcre2api(3)"),
    "options of the expression",
    again=Again.JOIN,
)
_REGEX: Final = (
    REGEX,
    NO_MATCH,
    OPTIONS,
    MIN_OFFSET,
    MAX_OFFSET,
    unneeded("regex_stack", SOME, "memory for the search", "a search has limits of its own"),
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

ENABLE_SNI: Final = Keyword("enable_sni", boolean(), "send the host name in the handshake")
_ROWS: Final[tuple[Keyword[Any], ...]] = (
    *CONNECTION,
    *timing(delay_before_retry_s=3.0),
    Keyword("nb_get_retry", integer(0, MAX_UINT, "a count"), "old spelling of retry", alias_of="retry", note="'nb_get_retry' is deprecated"),
    URLS,
    Keyword("virtualhost", text("a host name"), "Host header of every page", inherits=from_server("virtualhost")),
    Keyword("http_protocol", Argument(_protocol, "VERSION", "", "1.0 1.0C 1.1"), "HTTP version of the requests"),
    Keyword("fast_recovery", Argument(_fast_recovery, "[on|off]"), "accepted, no effect: a recovering server is asked for every page at once anyway"),
    Keyword("sni_name", text("a host name"), "host name in the handshake; turns enable_sni on", default_text="that of the request"),
    unneeded("tls_compliant", boolean(), "close TLS as the standard says", "it always is"),
    ENABLE_SNI,
)  # fmt: skip
HTTP_GET: Final = Block("HTTP_GET", _ROWS, (HttpCheck, CheckTiming))
SSL_GET: Final = Block("SSL_GET", _ROWS, (HttpCheck, CheckTiming))


def _url(fields: Fields) -> Url | None:
    path = fields.given(PATH)
    if path is None:
        fields.report(Severity.ERROR, "", "'url' without a path: left out", "write path /")
        return None
    if REGEX.key not in fields:
        for row in (NO_MATCH, OPTIONS, MIN_OFFSET, MAX_OFFSET):
            if row.key in fields:
                fields.report(Severity.WARNING, row.key, f"'{row.name}' without a regex: ignored", "write regex EXPRESSION")
        return fields.into(Url, path=path, regex_no_match=False, regex_options=(), regex_min_offset=0, regex_max_offset=0)
    first, last = fields.given(MIN_OFFSET, 0), fields.given(MAX_OFFSET, 0)
    if last and first >= last:
        message = f"a match cannot begin from byte {first} on and before byte {last}: both are ignored, as in keepalived"
        fields.report(Severity.ERROR, MAX_OFFSET.key, message, "write a greater regex_max_offset")
        first = last = 0
    return fields.into(Url, path=path, regex_min_offset=first, regex_max_offset=last)


def _build(fields: Fields, common: Common) -> HttpCheck | None:
    name = fields.block.name
    urls = tuple(url for url in map(_url, fields.given(URLS, ())) if url is not None)
    if not urls:
        fields.report(Severity.ERROR, "", f"{name} without a url: left out", "add url { path / }")
        return None
    return fields.into(
        HttpCheck,
        urls=urls,
        tls=name == "SSL_GET",
        enable_sni=fields.given(ENABLE_SNI, False) or "sni_name" in fields,
        timing=common.timing,
        connect=common.connect,
        bind=common.bind,
    )


register(Kind("HTTP_GET", "up when pages answer as declared", HTTP_GET, _build))
register(Kind("SSL_GET", "HTTP_GET over TLS", SSL_GET, _build))
