"""HTTP_GET and SSL_GET: pages answer with the declared status, and have the declared digest or text.

h11 reads what is valid HTTP. Everything else that has a status line is read as leniently as keepalived does.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

import h11

from relevo import __version__
from relevo.errors import HostError
from relevo.host import pcre
from relevo.machines.check import Failure, Result
from relevo.model import Endpoint, HttpCheck, Url
from relevo.probes.exchange import READ_SIZE, Exchange, Opening, Step, exchange_for

MAX_HEADERS: Final = 65_536
"""Longest status line and headers in bytes: eight times the limit of Apache."""
MAX_BODY: Final = 64 << 20
"""Longest body in bytes that is hashed. A page for a health check is small."""
MAX_SEARCHED: Final = 1 << 20
"""Bytes at the beginning of a body that are kept and searched."""
_STATUS_LINE = re.compile(rb"\A(?:HTTP/\d(?:\.\d)?|ICY) +(\d{3})(?!\d)")
"""``ICY`` is what SHOUTcast servers say; keepalived reads the status after the first blank, whatever is before it."""
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


@dataclass(slots=True)
class Page:
    """Status of an answer, and of its body the MD5 and the beginning, if that was read."""

    status: int
    digest: str = ""
    beginning: bytes = b""


class BadResponse(Exception):
    """The answer cannot be used; ``result`` is that of the check."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.result = Result(failure, detail)


@exchange_for(HttpCheck)
class HttpExchange(Exchange[HttpCheck]):
    """Asks for page ``number`` of a check, by a connection of its own; the exchange for the next page follows if it is right."""

    def __init__(self, check: HttpCheck, number: int = 0) -> None:
        super().__init__(check)
        self._number = number
        self._url = check.urls[number]
        self._host = self._url.virtualhost or check.virtualhost
        wanted = bool(self._url.digest or self._url.regex)
        self._answer: _Valid | _Lenient = _Valid(_Body(keeps=bool(self._url.regex)) if wanted else None)

    @property
    def opening(self) -> Opening:
        """Return the socket, and the name in the handshake."""
        check = self.check
        if not check.tls:
            return self.plain
        return Opening(tls=True, server_name=(check.sni_name or self._host or check.connect.address) if check.enable_sni else "")

    def opened(self) -> Step:
        """Ask for the page."""
        return _request(self.check, self._url, self._host)

    def received(self, data: bytes) -> Step:
        """Take a part of the answer, or its end: no bytes."""
        try:
            page = self._answer.feed(data)
            if isinstance(self._answer, _Valid) and self._answer.invalid:
                valid = self._answer
                self._answer = _Lenient(valid.body)
                page = self._answer.feed(bytes(valid.seen))
                if page is None and not data:
                    page = self._answer.feed(b"")
            verdict = None if page is None else judge(self._url, page)
        except BadResponse as bad:
            return bad.result
        if verdict is None:
            return b""
        if verdict.passed and self._number + 1 < len(self.check.urls):
            return HttpExchange(self.check, self._number + 1)
        return verdict

    def closed(self) -> Step:
        """Take the end of the answer."""
        return self.received(b"")


def judge(url: Url, page: Page) -> Result:
    """Compare a page with its declaration. Without status codes or a digest, 200 to 299 pass."""
    ranges = url.status_codes or (() if url.digest else ((200, 299),))
    if ranges and not any(low <= page.status <= high for low, high in ranges):
        wanted = " ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
        return Result(Failure.STATUS, f"{page.status} for {url.path}, wanted {wanted}")
    if url.digest and page.digest != url.digest:
        return Result(Failure.DIGEST, f"{page.digest} for {url.path}, wanted {url.digest}")
    if url.regex and (problem := _search(url, page.beginning)):
        return Result(Failure.REGEX, f"{url.path} {problem}")
    return Result(detail=f"status {page.status}")


def _search(url: Url, beginning: bytes) -> str:
    """Return what is wrong with the text of a page; an empty string if nothing is."""
    try:
        at = pcre.pattern(url.regex, url.regex_options).search(beginning, url.regex_min_offset)
    except HostError as error:
        return str(error)
    found = at is not None and (not url.regex_max_offset or at < url.regex_max_offset)
    if found is not url.regex_no_match:
        return ""
    return f"has '{url.regex}'" if found else f"does not have '{url.regex}'"


def _request(check: HttpCheck, url: Url, host: str) -> bytes:
    version = "1.1" if check.http_protocol == "1.1" else "1.0"
    connection = "keep-alive" if check.http_protocol == "1.0" else "close"
    lines = [
        f"GET {url.path} HTTP/{version}",
        f"User-Agent: Relevo/{__version__}",
        f"Host: {host or _host_header(check.connect, check.tls)}",
    ]
    if check.http_protocol != "1.0":
        lines.append(f"Connection: {connection}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "replace")


def _host_header(target: Endpoint, tls: bool) -> str:
    host = f"[{target.address}]" if ":" in target.address else target.address
    return host if target.port == (443 if tls else 80) else f"{host}:{target.port}"


class _Body:
    """Hashes a body piece by piece, up to ``MAX_BODY``, and ``keeps`` its beginning."""

    def __init__(self, *, keeps: bool) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._size = 0
        self._kept = bytearray() if keeps else None

    def add(self, data: bytes | bytearray) -> None:
        """Add bytes; ``BadResponse`` if there are too many."""
        self._size += len(data)
        if self._size > MAX_BODY:
            raise BadResponse(Failure.TOO_LARGE, f"more than {MAX_BODY} bytes")
        self._md5.update(data)
        if self._kept is not None and len(self._kept) < MAX_SEARCHED:
            self._kept += data[: MAX_SEARCHED - len(self._kept)]

    def complete(self, status: int) -> Page:
        """Return the page of this body."""
        return Page(status, self._md5.hexdigest(), bytes(self._kept or b""))


class _Valid:
    """Reads an answer that is HTTP. If it turns out not to be before its body, it is ``invalid``, and ``seen`` is all of it."""

    def __init__(self, body: _Body | None) -> None:
        self.body = body
        self.invalid = False
        self.seen = bytearray()
        self._status = 0
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADERS)
        self._connection.send(_REQUEST)
        self._connection.send(_END)

    def feed(self, data: bytes) -> Page | None:
        """Take a part of the answer, or its end; return the page when it is complete. ``BadResponse`` if there is none."""
        if not self._status:
            self.seen += data
            if len(self.seen) > MAX_HEADERS + READ_SIZE:
                raise BadResponse(Failure.TOO_LARGE, f"more than {MAX_HEADERS} bytes of headers")
        try:
            self._connection.receive_data(data)
            while (event := self._connection.next_event()) is not h11.NEED_DATA:
                page = self._take(event)
                if page is not None:
                    return page
        except h11.RemoteProtocolError:
            if self._status:
                raise BadResponse(Failure.PROTOCOL, "broken framing of the body") from None
            self.invalid = True
        return None

    def _take(self, event: object) -> Page | None:
        match event:
            case h11.Response(status_code=status):
                self._status = status
                return Page(status) if self.body is None else None
            case h11.Data(data=data) if self.body is not None:
                self.body.add(data)
            case h11.EndOfMessage() if self.body is not None:
                return self.body.complete(self._status)
            case h11.InformationalResponse():
                pass
            case _:
                raise BadResponse(Failure.PROTOCOL, "the server closed without an answer")
        return None


class _Lenient:
    """Reads any answer with a status line; the body follows the first empty line."""

    def __init__(self, body: _Body | None) -> None:
        self._body = body
        self._head = bytearray()
        self._status = 0

    def feed(self, data: bytes) -> Page | None:
        """Take a part of the answer, or its end; return the page when it is complete. ``BadResponse`` if there is none."""
        if not self._status:
            self._head += data
            end = _END_OF_HEAD.search(self._head)
            if end is None and data and len(self._head) <= MAX_HEADERS:
                return None
            match = _STATUS_LINE.match(self._head)
            if match is None:
                shown = bytes(self._head[:40]).decode("ascii", "replace")
                raise BadResponse(Failure.PROTOCOL, f"the answer begins with {shown!r}" if shown else "empty answer")
            if end is None and len(self._head) > MAX_HEADERS:
                raise BadResponse(Failure.TOO_LARGE, f"more than {MAX_HEADERS} bytes of headers")
            self._status = int(match.group(1))
            if self._body is None:
                return Page(self._status)
            self._body.add(self._head[end.end() :] if end is not None else b"")
        elif self._body is not None:
            self._body.add(data)
        return None if data or self._body is None else self._body.complete(self._status)


_REQUEST: Final = h11.Request(method="GET", target="/", headers=[("Host", "probe"), ("Connection", "close")])
_END: Final = h11.EndOfMessage()
