"""HTTP_GET and SSL_GET against servers that are right, wrong, slow, endless or no web servers at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relevo.machines.check import Failure, Result
from relevo.model import Endpoint, HttpCheck, Url
from relevo.probes import Engine, run_probe
from relevo.probes.exchange import READ_SIZE
from relevo.probes.http import MAX_BODY, Page, judge
from tests.unit.probes.certificates import self_signed
from tests.unit.probes.hostile import ADDRESS, answering, forever, http, read_request, server

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
HELLO = hashlib.md5(b"hello").hexdigest()
SLACK_S = 1.0


def probe(check: HttpCheck) -> Result:
    begun = time.monotonic()
    result = asyncio.run(run_probe(check))
    assert time.monotonic() - begun < check.connect_timeout_s * len(check.urls) + SLACK_S
    return result


def ask(raw: bytes, *urls: Url, **more: object) -> Result:
    with server(answering(raw)) as target:
        return probe(http(target, *urls, **more))  # type: ignore[arg-type]


def memory_of(check: HttpCheck) -> tuple[Result, int]:
    """Probe in a process of its own; return the result and the bytes by which its memory has grown."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            result = asyncio.run(run_probe(check))
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            os.write(writer, f"{result.failure.name if result.failure else ''}\n{result.detail}\n{grown}".encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader) as file:
        failure, detail, grown = file.read().split("\n")
    os.waitpid(pid, 0)
    return Result(Failure[failure] if failure else None, detail), int(grown) * 1024


# -- right answers --------------------------------------------------------------------------------------------------------


def test_a_page_with_status_200_passes() -> None:
    assert ask(OK) == Result(detail="status 200")


def test_a_page_with_the_right_digest_passes_and_with_a_wrong_one_fails() -> None:
    assert ask(OK, Url(path="/", digest=HELLO)).passed
    wrong = ask(OK, Url(path="/x", digest="0" * 32))
    assert wrong == Result(Failure.DIGEST, f"{HELLO} for /x, wanted {'0' * 32}")


@pytest.mark.parametrize(
    ("status", "codes", "passes"),
    [
        (200, (), True),
        (204, (), True),
        (299, (), True),
        (300, (), False),
        (404, (), False),
        (500, (), False),
        (404, ((404, 404),), True),
        (200, ((404, 404),), False),
        (301, ((200, 299), (301, 302)), True),
        (303, ((200, 299), (301, 302)), False),
        (599, ((100, 999),), True),
    ],
)
def test_status_codes_are_compared_with_their_ranges(status: int, codes: tuple[tuple[int, int], ...], passes: bool) -> None:
    result = ask(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status, Url(path="/p", status_codes=codes))
    assert result.passed is passes
    if not passes:
        assert result.failure is Failure.STATUS


def test_a_wrong_status_names_what_was_wanted() -> None:
    url = Url(path="/p", status_codes=((200, 299), (404, 404)))
    assert ask(b"HTTP/1.0 503 Busy\r\n\r\n", url).reason == "status: 503 for /p, wanted 200-299 404"


def test_a_digest_alone_accepts_any_status_and_both_must_hold_if_both_are_declared() -> None:
    missing = b"HTTP/1.0 404 Not Found\r\n\r\nhello"
    assert ask(missing, Url(path="/", digest=HELLO)).passed
    assert ask(missing, Url(path="/", digest=HELLO, status_codes=((200, 200),))).failure is Failure.STATUS


@given(st.integers(100, 999), st.lists(st.tuples(st.integers(100, 999), st.integers(100, 999)), min_size=1, max_size=4))
def test_a_status_passes_exactly_if_some_range_has_it(status: int, ranges: list[tuple[int, int]]) -> None:
    url = Url(path="/", status_codes=tuple(ranges))
    assert judge(url, Page(status)).passed == any(status in range(low, high + 1) for low, high in ranges)


def test_a_chunked_body_is_put_together_for_the_digest() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nA: b\r\n\r\n"
    assert ask(chunked, Url(path="/", digest=HELLO)).passed


def test_a_body_that_ends_with_the_connection_is_read_to_its_end() -> None:
    assert ask(b"HTTP/1.0 200 OK\r\n\r\nhello", Url(path="/", digest=HELLO)).passed


def test_interim_answers_are_passed_over() -> None:
    assert ask(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, Url(path="/", digest=HELLO)
    ).passed


def test_an_answer_without_a_body_has_the_digest_of_nothing() -> None:
    empty = hashlib.md5(b"").hexdigest()
    assert ask(b"HTTP/1.1 204 No Content\r\n\r\n", Url(path="/", digest=empty)).passed


def test_every_page_must_be_right_and_the_first_wrong_one_is_named() -> None:
    def by_path(sock: socket.socket) -> None:
        path = read_request(sock).split()[1]
        sock.sendall(b"HTTP/1.0 %d X\r\n\r\n" % (500 if path == b"/bad" else 200))

    with server(by_path) as target:
        assert probe(http(target, Url(path="/a"), Url(path="/b"))).passed
        result = probe(http(target, Url(path="/a"), Url(path="/bad"), Url(path="/worse")))
    assert result == Result(Failure.STATUS, "500 for /bad, wanted 200-299")


def request_of(**more: object) -> tuple[str, Endpoint]:
    seen: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        seen.append(read_request(sock))
        sock.sendall(OK)

    with server(handle) as target:
        assert probe(http(target, **more)).passed  # type: ignore[arg-type]
    return seen[0].decode(), target


def test_the_request_names_host_and_version_as_the_protocol_wants() -> None:
    request, target = request_of()
    assert request.startswith("GET / HTTP/1.0\r\nUser-Agent: Relevo/")
    assert request.endswith(f"\r\nHost: {target}\r\n\r\n")
    request, target = request_of(http_protocol="1.1")
    assert request.startswith("GET / HTTP/1.1\r\n")
    assert request.endswith(f"\r\nHost: {target}\r\nConnection: close\r\n\r\n")


def test_a_virtualhost_is_sent_and_the_one_of_the_page_wins() -> None:
    assert "\r\nHost: www.example.com\r\n" in request_of(virtualhost="www.example.com")[0]
    seen: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        seen.append(read_request(sock))
        sock.sendall(OK)

    with server(handle) as target:
        probe(http(target, Url(path="/q?a=b", virtualhost="page.example.com"), virtualhost="www.example.com"))
    assert b"GET /q?a=b HTTP/1.0\r\n" in seen[0]
    assert b"\r\nHost: page.example.com\r\n" in seen[0]


def test_bindto_is_the_address_that_the_server_sees() -> None:
    seen: list[str] = []

    def handle(sock: socket.socket) -> None:
        seen.append(sock.getpeername()[0])
        answering(OK)(sock)

    with server(handle) as target:
        assert probe(http(target, bind=Endpoint("127.0.44.5"))).passed
        result = probe(http(target, bind=Endpoint("192.0.2.77")))
    assert seen == ["127.0.44.5"]
    assert result.failure is Failure.LOCAL


# -- odd answers that pass ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.0 200 OK\n\nhello",
        b"HTTP/1.0 200 OK\nServer: old\n\nhello",
        b"HTTP/1.0 200\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nServer : blank before colon\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nno colon at all\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: \x00\x01\x02\r\n\r\nhello",
        b"HTTP/1.1 200 \xff\xfe odd reason\r\n\r\nhello",
        b"HTTP/2 200 OK\r\n\r\nhello",
        b"HTTP/1.1  200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    ],
)
def test_an_odd_answer_with_a_status_line_passes_with_its_body(raw: bytes) -> None:
    assert ask(raw).passed
    assert ask(raw, Url(path="/", digest=HELLO)).passed


def test_an_answer_that_stops_amid_its_headers_still_has_a_status() -> None:
    assert ask(b"HTTP/1.0 200 OK\r\n").passed
    assert ask(b"HTTP/1.0 503 Busy\r\nServer").failure is Failure.STATUS


def test_an_answer_in_single_bytes_passes() -> None:
    def drip(sock: socket.socket) -> None:
        read_request(sock)
        for byte in OK:
            sock.sendall(bytes([byte]))
            time.sleep(0.001)

    with server(drip) as target:
        assert probe(http(target, Url(path="/", digest=HELLO))).passed


def test_a_status_of_four_digits_is_none() -> None:
    assert not ask(b"HTTP/1.1 2000 OK\r\n\r\nhello").passed


# -- answers that fail ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        (b"", "empty answer"),
        (b"<html>no status line, as HTTP/0.9 had it</html>", "the answer begins with '<html>no status line, as HTTP/0.9 had it'"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer begins with 'SSH-2.0-OpenSSH_9.2\\r\\n'"),
        (b"220 mail.example.com ESMTP\r\n", "the answer begins with '220 mail.example.com ESMTP\\r\\n'"),
        (b"HTTP/1.1 OK\r\n\r\n", "the answer begins with 'HTTP/1.1 OK\\r\\n\\r\\n'"),
        (b"HTTP/1.1 20\r\n\r\n", "the answer begins with 'HTTP/1.1 20\\r\\n\\r\\n'"),
        (b"\x16\x03\x01\x00\xff", "the answer begins with '\\x16\\x03\\x01\\x00�'"),
    ],
)
def test_an_answer_that_is_not_http_fails_with_its_beginning(raw: bytes, detail: str) -> None:
    assert ask(raw) == Result(Failure.PROTOCOL, detail)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 100_000,
    ],
    ids=["short", "chunk cut", "no chunk", "chunk of unending length"],
)
def test_a_body_with_broken_framing_has_no_digest(raw: bytes) -> None:
    assert ask(raw, Url(path="/", digest=HELLO)) == Result(Failure.PROTOCOL, "broken framing of the body")
    assert ask(raw).passed  # the check has no digest


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_garbage_never_breaks_the_probe(raw: bytes) -> None:
    for front in (b"", b"HTTP/1.1 200 OK\r\n"):
        result = ask(front + raw, Url(path="/", digest=HELLO), timeout_s=1.0)
        assert result.failure in (None, Failure.PROTOCOL, Failure.DIGEST, Failure.STATUS, Failure.RESET)


def test_a_closed_port_is_refused() -> None:
    with socket.socket() as sock:
        sock.bind((ADDRESS, 0))
        assert probe(http(Endpoint(*sock.getsockname()))) == Result(Failure.REFUSED)


def test_a_server_that_resets_fails_with_reset() -> None:
    def handle(sock: socket.socket) -> None:
        read_request(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with server(handle) as target:
        assert probe(http(target)) == Result(Failure.RESET)


@pytest.mark.parametrize(
    "handle",
    [
        lambda sock: sock.recv(0) or time.sleep(1.0),
        lambda sock: read_request(sock) and time.sleep(1.0),
        forever(b"HTTP/1.1 200 OK\r\n", b"X", pause_s=0.02),
        forever(b"", b"H", pause_s=0.02),
    ],
    ids=["does not read", "does not answer", "drips headers", "drips nonsense"],
)
def test_all_of_a_probe_is_bounded_in_time(handle: Callable[[socket.socket], None]) -> None:
    with server(handle) as target:
        begun = time.monotonic()
        result = asyncio.run(run_probe(http(target, timeout_s=0.3)))
        assert time.monotonic() - begun < 0.8
    assert result == Result(Failure.TIMEOUT, "no answer within 0.3 s")


def test_a_dripping_body_is_bounded_in_time_if_it_is_read_and_does_not_matter_if_it_is_not() -> None:
    with server(forever(b"HTTP/1.1 200 OK\r\n\r\n", b"x", pause_s=0.02)) as target:
        assert probe(http(target, timeout_s=0.3)).passed
        result = probe(http(target, Url(path="/", digest=HELLO), timeout_s=0.3))
    assert result.failure is Failure.TIMEOUT


# -- answers without end --------------------------------------------------------------------------------------------------

DIGESTED = Url(path="/", digest=HELLO)
BIG = b"x" * (1 << 20)


@pytest.mark.parametrize(
    ("front", "again"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nX-Header: ", b"v" * 10_000),
        (b"HTTP/1.1 200 ", b"v" * 10_000),
    ],
    ids=["headers", "a header", "a reason"],
)
def test_endless_headers_are_cut_off(front: bytes, again: bytes) -> None:
    with server(forever(front, again)) as target:
        result, grown = memory_of(http(target, timeout_s=5.0))
    assert result == Result(Failure.TOO_LARGE, "more than 65536 bytes of headers")
    assert grown < 16 << 20


def test_endless_nonsense_is_cut_off() -> None:
    with server(forever(b"", b"nonsense" * 1000)) as target:
        result, grown = memory_of(http(target, timeout_s=5.0))
    assert result == Result(Failure.PROTOCOL, f"the answer begins with {'nonsense' * 5!r}")
    assert grown < 16 << 20


def test_a_body_of_a_gigabyte_is_not_read_without_a_digest() -> None:
    with server(forever(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", BIG)) as target:
        result, grown = memory_of(http(target, timeout_s=5.0))
    assert result.passed
    assert grown < 16 << 20


@pytest.mark.parametrize(
    ("front", "again"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", BIG),
        (b"HTTP/1.1 200 OK\r\n\r\n", BIG),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"100000\r\n" + BIG + b"\r\n"),
        (b"HTTP/1.1 200 OK\nodd\n\n", BIG),
    ],
    ids=["with a length", "to the end", "chunked", "odd"],
)
def test_a_gigabyte_to_be_hashed_is_cut_off_and_costs_no_memory(front: bytes, again: bytes) -> None:
    with server(forever(front, again)) as target:
        result, grown = memory_of(http(target, DIGESTED, timeout_s=8.0))
    assert result == Result(Failure.TOO_LARGE, f"more than {MAX_BODY} bytes")
    assert grown < 16 << 20


def test_a_body_in_chunks_of_one_byte_leaves_others_their_turn() -> None:
    """The engine reads no more than that of a server before it looks at the others."""
    chunks = 10_000
    body = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * chunks + b"0\r\n\r\n"
    page = Url(path="/", digest=hashlib.md5(b"x" * chunks).hexdigest())

    async def work() -> list[str]:
        order: list[str] = []
        engine: Engine[str] = Engine(lambda results: order.extend(key for key, _ in results))
        with server(answering(body)) as endless, server(answering(OK)) as quick:
            engine.start("endless", http(endless, page))
            engine.start("quick", http(quick, Url(path="/", digest=HELLO)))
            async with asyncio.timeout(10.0):
                while len(order) < 2:
                    await asyncio.sleep(0.001)
        engine.close()
        return order

    assert len(body) > READ_SIZE * 10
    assert asyncio.run(work()) == ["quick", "endless"]


def test_endless_interim_answers_cost_little_memory() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\n" + b"Link: %s\r\n" % (b"x" * 30_000) + b"\r\n"
    with server(forever(b"", interim)) as target:
        result, grown = memory_of(http(target, timeout_s=1.0))
    assert not result.passed
    assert grown < 16 << 20


# -- TLS ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    certificate, key = self_signed(Path(tmp_path_factory.mktemp("tls")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def secured(tls: ssl.SSLContext, handle: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        with tls.wrap_socket(sock, server_side=True) as encrypted:
            handle(encrypted)

    return serve


def test_a_self_signed_server_passes_over_tls(tls: ssl.SSLContext) -> None:
    with server(secured(tls, answering(OK))) as target:
        check = http(target, Url(path="/", digest=HELLO, status_codes=((200, 200),)), tls=True)
        assert probe(check) == Result(detail="status 200")
        assert check.name == "SSL_GET"


def test_the_name_is_sent_in_the_handshake_only_if_asked(tls: ssl.SSLContext) -> None:
    names: list[str | None] = []
    tls.sni_callback = lambda sock, name, context: names.append(name)  # type: ignore[assignment]
    with server(secured(tls, answering(OK))) as target:
        assert probe(http(target, tls=True, virtualhost="www.example.com")).passed
        assert probe(http(target, tls=True, virtualhost="www.example.com", enable_sni=True)).passed
        assert probe(http(target, Url(path="/", virtualhost="page.example.com"), tls=True, enable_sni=True)).passed
    tls.sni_callback = None  # type: ignore[assignment]
    assert names == [None, "www.example.com", "page.example.com"]


def test_a_plain_server_fails_a_check_over_tls() -> None:
    def plain(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        sock.recv(4096)

    with server(plain) as target:
        result = probe(http(target, tls=True))
    assert result.failure is Failure.TLS
    assert result.detail


def test_a_server_over_tls_fails_a_plain_check(tls: ssl.SSLContext) -> None:
    with server(secured(tls, answering(OK))) as target:
        assert probe(http(target)).failure in (Failure.PROTOCOL, Failure.RESET)


def test_a_handshake_without_end_is_bounded_in_time() -> None:
    with server(lambda sock: time.sleep(1.0)) as target:
        assert probe(http(target, tls=True, timeout_s=0.3)) == Result(Failure.TIMEOUT, "no answer within 0.3 s")


def test_a_handshake_that_is_hung_up_on_fails() -> None:
    with server(lambda sock: sock.recv(4096) and None) as target:
        assert probe(http(target, tls=True)).failure in (Failure.RESET, Failure.TLS)


def test_endless_headers_over_tls_are_cut_off(tls: ssl.SSLContext) -> None:
    with server(secured(tls, forever(b"HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n" * 1000))) as target:
        result, grown = memory_of(http(target, tls=True, timeout_s=5.0))
    assert result.failure is Failure.TOO_LARGE
    assert grown < 16 << 20


def test_probes_of_every_outcome_leave_no_descriptor_open(tls: ssl.SSLContext) -> None:
    async def round_(targets: list[HttpCheck]) -> None:
        for _ in range(10):
            await asyncio.gather(*(run_probe(check) for check in targets))

    with (
        server(answering(OK)) as good,
        server(answering(b"no http")) as odd,
        server(lambda sock: time.sleep(0.2)) as slow,
        server(secured(tls, answering(OK))) as secure,
    ):
        checks = [http(good), http(odd), http(slow, timeout_s=0.02), http(secure, tls=True), http(secure)]
        checks.append(http(good, tls=True, timeout_s=0.05))
        asyncio.run(run_probe(checks[3]))  # what the TLS library opens once
        asyncio.run(round_(checks))
        deadline = time.monotonic() + 5
        targets = {str(t.port) for t in (good, odd, slow, secure)}
        while (left := connections_to(targets)) and time.monotonic() < deadline:
            time.sleep(0.02)
    assert left == []


def connections_to(ports: set[str]) -> list[str]:
    """This process's own sockets that are connected to one of ``ports``."""
    inodes = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            inodes.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[2] for row in rows if str(int(row[2].split(":")[1], 16)) in ports and f"socket:[{row[9]}]" in inodes]


def test_every_failure_that_a_probe_can_name_is_produced_by_some_test() -> None:
    here = Path(__file__).parent
    names = ("test_http.py", "test_tcp.py", "test_others.py", "../daemon/test_script_checks.py", "../node/test_balancer.py")
    produced = "".join((here / name).read_text() for name in names)
    assert [failure.name for failure in Failure if f"Failure.{failure.name}" not in produced] == []
