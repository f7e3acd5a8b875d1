"""HTTP_GET and SSL_GET: pages answer with the declared status, and with the declared digest.

Certificates are not verified, as in keepalived: the check tests whether the server works, not its identity.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import h11

from relevo import __version__
from relevo.machines.check import Failure, Result
from relevo.model import Endpoint, HttpCheck, Url
from relevo.probes.registry import probe_for
from relevo.probes.tcp import connect, failed

READ_SIZE: Final = 65_536
MAX_HEADERS: Final = 65_536
"""Longest status line and headers in bytes: eight times the limit of Apache."""
MAX_BODY: Final = 64 << 20
"""Longest body in bytes that is hashed. A page for a health check is small."""
SLICE: Final = 100
"""Chunks of a body that are parsed at a time, about two milliseconds: 64 kB in chunks of one byte would take a quarter of a
second, in which no other check is answered."""
_STATUS_LINE = re.compile(rb"\A(?:HTTP/\d(?:\.\d)?|ICY) +(\d{3})(?!\d)")
"""``ICY`` is what SHOUTcast servers say; keepalived reads the status after the first blank, whatever is before it."""


@dataclass(slots=True)
class Page:
    """Status of an answer, and the MD5 of its body if that was read."""

    status: int
    digest: str = ""


class BadResponse(Exception):
    """The answer cannot be used; ``result`` is that of the check."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(detail)
        self.result = Result(failure, detail)


@probe_for(HttpCheck)
async def probe_http(check: HttpCheck) -> Result:
    """Pass if every page answers as declared; each has ``connect_timeout_s`` for connection and answer."""
    detail = ""
    for url in check.urls:
        try:
            async with asyncio.timeout(check.connect_timeout_s):
                page = await _fetch(check, url)
        except BadResponse as bad:
            return bad.result
        except (OSError, TimeoutError) as error:
            return failed(error, check.connect_timeout_s)
        verdict = judge(url, page)
        if not verdict.passed:
            return verdict
        detail = verdict.detail
    return Result(detail=detail)


def judge(url: Url, page: Page) -> Result:
    """Compare a page with its declaration. Without status codes or a digest, 200 to 299 pass."""
    ranges = url.status_codes or (() if url.digest else ((200, 299),))
    if ranges and not any(low <= page.status <= high for low, high in ranges):
        wanted = " ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
        return Result(Failure.STATUS, f"{page.status} for {url.path}, wanted {wanted}")
    if url.digest and page.digest != url.digest:
        return Result(Failure.DIGEST, f"{page.digest} for {url.path}, wanted {url.digest}")
    return Result(detail=f"status {page.status}")


async def _fetch(check: HttpCheck, url: Url) -> Page:
    host = url.virtualhost or check.virtualhost
    sock = await connect(check.connect, check.bind)
    try:
        tls = _tls_context() if check.tls else None
        name = (host or check.connect.address) if check.tls and check.enable_sni else ("" if check.tls else None)
        reader, writer = await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=name, limit=READ_SIZE)
    except BaseException:
        sock.close()
        raise
    try:
        writer.write(_request(check, url, host))
        await writer.drain()
        return await _answer(reader, hashing=bool(url.digest))
    finally:
        writer.transport.abort()


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
    """Hashes a body piece by piece, up to ``MAX_BODY``."""

    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._size = 0

    def add(self, data: bytes) -> None:
        """Add bytes; ``BadResponse`` if there are too many."""
        self._size += len(data)
        if self._size > MAX_BODY:
            raise BadResponse(Failure.TOO_LARGE, f"more than {MAX_BODY} bytes")
        self._md5.update(data)

    def digest(self) -> str:
        """Return the MD5 in lower-case hexadecimal."""
        return self._md5.hexdigest()


async def _answer(reader: asyncio.StreamReader, *, hashing: bool) -> Page:
    """Read an answer: with h11 if it is valid HTTP, else as leniently as keepalived."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADERS)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "probe"), ("Connection", "close")]))
    connection.send(h11.EndOfMessage())
    seen = bytearray()
    try:
        page = await _head(reader, connection, seen)
    except h11.RemoteProtocolError:
        return await _lenient(reader, seen, hashing=hashing)
    if hashing:
        try:
            page.digest = await _digest(reader, connection)
        except h11.RemoteProtocolError:
            raise BadResponse(Failure.PROTOCOL, "broken framing of the body") from None
    return page


async def _head(reader: asyncio.StreamReader, connection: h11.Connection, seen: bytearray) -> Page:
    """Read up to the end of the headers; ``seen`` collects the bytes for the lenient parser."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(READ_SIZE)
            seen += data
            if len(seen) > MAX_HEADERS + READ_SIZE:
                raise BadResponse(Failure.TOO_LARGE, f"more than {MAX_HEADERS} bytes of headers")
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            return Page(event.status_code)
        elif not isinstance(event, h11.InformationalResponse):
            raise BadResponse(Failure.PROTOCOL, "the server closed without an answer")


async def _digest(reader: asyncio.StreamReader, connection: h11.Connection) -> str:
    """Read the body; return its digest."""
    body = _Body()
    for number in itertools.count(1):
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(READ_SIZE))
        elif isinstance(event, h11.Data):
            body.add(bytes(event.data))
        else:
            break
        if number % SLICE == 0:
            await asyncio.sleep(0)
    return body.digest()


async def _lenient(reader: asyncio.StreamReader, seen: bytearray, *, hashing: bool) -> Page:
    """Read any answer with a status line; the body follows the first empty line."""
    while b"\n\n" not in seen.replace(b"\r", b"") and len(seen) <= MAX_HEADERS:
        data = await reader.read(READ_SIZE)
        if not data:
            break
        seen += data
    match = _STATUS_LINE.match(seen)
    if match is None:
        shown = bytes(seen[:40]).decode("ascii", "replace")
        raise BadResponse(Failure.PROTOCOL, f"the answer begins with {shown!r}" if shown else "empty answer")
    head = re.search(rb"\r?\n\r?\n", seen)
    if head is None and len(seen) > MAX_HEADERS:
        raise BadResponse(Failure.TOO_LARGE, f"more than {MAX_HEADERS} bytes of headers")
    page = Page(int(match.group(1)))
    if not hashing:
        return page
    body = _Body()
    data = bytes(seen[head.end() :]) if head else b""
    while True:
        body.add(data)
        data = await reader.read(READ_SIZE)
        if not data:
            page.digest = body.digest()
            return page


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
