"""SMTP_CHECK, DNS_CHECK, UDP_CHECK, PING_CHECK and the text of HTTP_GET, against servers that are right and others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.dns import DNS

from relevo.machines.check import Failure, Result
from relevo.model import Endpoint, Url
from relevo.model.checks import DnsCheck, NetworkCheck, PingCheck, SmtpCheck, UdpCheck
from relevo.probes import run_probe
from relevo.probes.exchange import Exchange, begin
from tests.unit.probes.hostile import ADDRESS, TIMING, answering, http, server

LIMIT_S = 0.5
HELLO = b"HTTP/1.0 200 OK\r\n\r\nHello, world. There are 3 of you.\n"


def probe(check: NetworkCheck) -> Result:
    begun = time.monotonic()
    result = asyncio.run(run_probe(check))
    assert time.monotonic() - begun < check.connect_timeout_s + 1.0
    return result


# -- SMTP -----------------------------------------------------------------------------------------------------------------


def smtp(target: Endpoint, **more: object) -> SmtpCheck:
    return SmtpCheck(timing=TIMING, connect=target, connect_timeout_s=LIMIT_S, **more)  # type: ignore[arg-type]


def saying(*answers: bytes) -> Callable[[socket.socket], None]:
    """Say the first answer at once, and each further one after a line."""

    def handle(sock: socket.socket) -> None:
        sock.sendall(answers[0])
        for answer in answers[1:]:
            while (data := sock.recv(100)) and not data.endswith(b"\n"):
                pass
            sock.sendall(answer)
        sock.recv(1)

    return handle


def test_a_real_mail_server_passes() -> None:
    controller = Controller(object(), hostname=ADDRESS, port=0)
    with socket.socket() as spare:
        spare.bind((ADDRESS, 0))
        controller.port = spare.getsockname()[1]
    controller.start()
    try:
        assert probe(smtp(Endpoint(ADDRESS, controller.port))).passed
    finally:
        controller.stop()


def test_the_server_is_greeted_by_the_declared_name() -> None:
    heard: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        sock.sendall(b"220 here\r\n")
        heard.append(sock.recv(100))
        sock.sendall(b"250 fine\r\n")
        heard.append(sock.recv(100))
        sock.sendall(b"221 bye\r\n")

    with server(handle) as target:
        assert probe(smtp(target, helo_name="director.example")).passed
    assert heard == [b"HELO director.example\r\n", b"QUIT\r\n"]


@pytest.mark.parametrize(
    "answers",
    [
        (b"220 a\r\n", b"250 b\r\n", b"221 c\r\n"),
        (b"220-a\r\n220-b\r\n220 c\r\n", b"250-a\r\n250 SIZE\r\n", b"221 c\r\n"),
        (b"220\n", b"250\n", b"221\n"),
        (b"220 a\r\n", b"250 b\r\n", b"500 whatever\r\n"),
    ],
)
def test_right_answers_pass(answers: tuple[bytes, ...]) -> None:
    with server(saying(*answers)) as target:
        assert probe(smtp(target)).passed


def test_a_server_that_hangs_up_after_quit_passes() -> None:
    def handle(sock: socket.socket) -> None:
        sock.sendall(b"220 a\r\n")
        sock.recv(100)
        sock.sendall(b"250 b\r\n")
        sock.recv(100)

    with server(handle) as target:
        assert probe(smtp(target)).passed


@pytest.mark.parametrize(
    ("answers", "failure", "detail"),
    [
        ((b"554 go away\r\n",), Failure.STATUS, "554 after the greeting, wanted 220"),
        ((b"220 a\r\n", b"421 busy\r\n"), Failure.STATUS, "421 after HELO, wanted 250"),
        ((b"SSH-2.0-OpenSSH\r\n",), Failure.REPLY, "it begins with 'SSH-2.0-OpenSSH\\r\\n'"),
        ((b"220-" + b"x" * 9000,), Failure.TOO_LARGE, "more than 8192 bytes after the greeting"),
        ((b"",), Failure.TIMEOUT, "no answer within 0.5 s"),
        ((b"220 never ends",), Failure.TIMEOUT, "no answer within 0.5 s"),
    ],
)
def test_wrong_answers_fail(answers: tuple[bytes, ...], failure: Failure, detail: str) -> None:
    with server(saying(*answers)) as target:
        assert probe(smtp(target)) == Result(failure, detail)


def test_a_server_that_hangs_up_at_once_fails() -> None:
    with server(lambda sock: None) as target:
        assert probe(smtp(target)).failure is Failure.RESET


# -- datagrams ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def datagrams(answer: Callable[[bytes], list[bytes]]) -> Iterator[Endpoint]:
    """Answer every datagram by those that ``answer`` makes of it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((ADDRESS, 0))
        sock.settimeout(0.05)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError, ConnectionError):
                    data, peer = sock.recvfrom(65_536)
                    for each in answer(data):
                        sock.sendto(each, peer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Endpoint(*sock.getsockname())
        finally:
            over.set()
            thread.join()


def closed_port() -> Endpoint:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((ADDRESS, 0))
        return Endpoint(*sock.getsockname())


def dns_check(target: Endpoint, **more: object) -> DnsCheck:
    return DnsCheck(timing=TIMING, connect=target, connect_timeout_s=LIMIT_S, **more)  # type: ignore[arg-type]


def response(data: bytes, code: int = 0) -> bytes:
    query = DNS(data)
    return bytes(DNS(id=query.id, qr=1, rd=1, ra=1, rcode=code, qd=query.qd))


def test_a_name_server_passes_and_reads_the_question() -> None:
    asked: list[tuple[bytes, int, int, int]] = []

    def answer(data: bytes) -> list[bytes]:
        query = DNS(data)
        asked.append((query.qd[0].qname, query.qd[0].qtype, query.qd[0].qclass, query.rd))
        return [response(data)]

    with datagrams(answer) as target:
        assert probe(dns_check(target, domain="www.example.org", record_type=15)) == Result()
        assert probe(dns_check(target)) == Result()
    assert asked == [(b"www.example.org.", 15, 1, 1), (b".", 6, 1, 1)]


@pytest.mark.parametrize(("code", "name"), [(2, "SERVFAIL"), (5, "REFUSED"), (9, "9")])
def test_an_error_of_a_name_server_fails_by_its_name(code: int, name: str) -> None:
    with datagrams(lambda data: [response(data, code)]) as target:
        assert probe(dns_check(target, domain="example.org")) == Result(Failure.STATUS, f"{name} for example.org")


def test_answers_to_other_queries_and_queries_are_passed_over() -> None:
    def answer(data: bytes) -> list[bytes]:
        right = response(data)
        other = bytes([right[0] ^ 1]) + right[1:]
        return [b"", b"\0" * 11, data, other, right]

    with datagrams(answer) as target:
        assert probe(dns_check(target)).passed
    with datagrams(lambda data: [data, b"\xff" * 500]) as target:
        assert probe(dns_check(target)) == Result(Failure.TIMEOUT, "no answer within 0.5 s")
    assert probe(dns_check(closed_port())) == Result(Failure.REFUSED)


def udp(target: Endpoint, **more: object) -> UdpCheck:
    return UdpCheck(timing=TIMING, connect=target, connect_timeout_s=0.2, **more)  # type: ignore[arg-type]


def test_a_datagram_that_is_not_refused_passes_when_the_time_is_over() -> None:
    with datagrams(lambda data: []) as target:
        assert probe(udp(target)) == Result(detail="not refused")
        assert probe(udp(target, require_reply=True)) == Result(Failure.TIMEOUT, "no answer within 0.2 s")
    assert probe(udp(closed_port())) == Result(Failure.REFUSED)


@pytest.mark.parametrize(
    ("reply", "more", "passes"),
    [
        (b"\x01\x02\x03", {}, True),
        (b"\x01\x02\x03", {"reply": b"\x01\x02"}, True),
        (b"\x01", {"reply": b"\x01\x02"}, True),  # as much is compared as both have
        (b"\x01\x0f", {"reply": b"\x01\x00", "ignored": b"\x00\x0f"}, True),
        (b"\x01\x1f", {"reply": b"\x01\x00", "ignored": b"\x00\x0f"}, False),
        (b"\x02", {"reply": b"\x01"}, False),
        (b"\x01\x02\x03", {"reply": b"\x01", "max_reply_length": 2}, False),
        (b"\x01", {"reply": b"\x01", "min_reply_length": 2}, False),
        (b"", {"reply": b"\x01"}, True),
        (b"\x01" * 300, {}, True),
    ],
)
def test_a_reply_is_compared_as_in_keepalived(reply: bytes, more: dict[str, object], passes: bool) -> None:
    sent: list[bytes] = []

    def answer(data: bytes) -> list[bytes]:
        sent.append(data)
        return [reply]

    with datagrams(answer) as target:
        result = probe(udp(target, require_reply=True, payload=b"\xaa\xbb", **more))
    assert result.failure is (None if passes else Failure.REPLY)
    assert sent == [b"\xaa\xbb"]


# -- ICMP -----------------------------------------------------------------------------------------------------------------


def may_ping() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()
    except PermissionError:
        return False
    return True


def ping(address: str) -> PingCheck:
    return PingCheck(timing=TIMING, connect=Endpoint(address, 0), connect_timeout_s=LIMIT_S)


@pytest.mark.skipif(not may_ping(), reason="net.ipv4.ping_group_range does not allow echo requests")
@pytest.mark.parametrize("address", [ADDRESS, "::1"])
def test_a_machine_that_is_there_answers(address: str) -> None:
    if ":" in address and not Path("/proc/net/if_inet6").read_text():
        pytest.skip("no IPv6")
    assert probe(ping(address)) == Result()


def test_an_answer_to_another_request_is_passed_over() -> None:
    exchange = begin(ping(ADDRESS))
    request = exchange.opened()
    assert isinstance(request, bytes)
    for wrong in (b"", b"\0" * 8, request, b"\0" + request[1:-1], b"\3" + request[1:]):
        assert exchange.received(wrong) == b""
    assert exchange.received(b"\0" + request[1:]) == Result()


# -- text of pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "detail"),
    [
        ({"regex": "world"}, None),
        ({"regex": "WORLD"}, "/ does not have 'WORLD'"),
        ({"regex": "WORLD", "regex_options": ("caseless",)}, None),
        ({"regex": r"\d+ of you\.$"}, None),
        ({"regex": "Hello.*you"}, None),
        ({"regex": "world", "regex_no_match": True}, "/ has 'world'"),
        ({"regex": "moon", "regex_no_match": True}, None),
        ({"regex": "Hello", "regex_min_offset": 1}, "/ does not have 'Hello'"),
        ({"regex": "world", "regex_max_offset": 7}, "/ does not have 'world'"),
        ({"regex": "world", "regex_max_offset": 8}, None),
        ({"regex": "x", "regex_min_offset": 10_000}, "/ does not have 'x'"),
        ({"regex": "("}, "/ regex '(' is invalid at character 1: missing closing parenthesis"),
    ],
)
def test_the_text_of_a_page_is_searched(more: dict[str, object], detail: str | None) -> None:
    with server(answering(HELLO)) as target:
        result = probe(http(target, Url(path="/", **more)))  # type: ignore[arg-type]
    assert result == (Result(detail="status 200") if detail is None else Result(Failure.REGEX, detail))


def test_a_search_that_goes_back_and_forth_is_given_up() -> None:
    page = b"HTTP/1.0 200 OK\r\n\r\n" + b"a" * 5000 + b"b"
    with server(answering(page)) as target:
        begun = time.process_time()
        result = probe(http(target, Url(path="/", regex="^(a+)+c"), timeout_s=5.0))
        took_s = time.process_time() - begun
    assert (result.failure, took_s < 2.0) == (Failure.REGEX, True), result
    assert "given up" in result.detail


def test_the_status_is_compared_before_the_text() -> None:
    with server(answering(HELLO.replace(b"200 OK", b"500 No"))) as target:
        assert probe(http(target, Url(path="/", regex="world"))).failure is Failure.STATUS


# -- hostile answers ------------------------------------------------------------------------------------------------------

EXCHANGES = [
    smtp(Endpoint(ADDRESS, 1)),
    dns_check(Endpoint(ADDRESS, 1)),
    udp(Endpoint(ADDRESS, 1), require_reply=True, reply=b"\1\2", ignored=b"\xf0"),
    ping(ADDRESS),
    http(Endpoint(ADDRESS, 1), Url(path="/", digest="0" * 32, regex="a+b")),
]


@pytest.mark.parametrize("check", EXCHANGES, ids=lambda check: check.name)
@given(
    pieces=st.lists(
        st.binary(max_size=60) | st.sampled_from([b"220 a\r\n", b"250 b\r\n", b"HTTP/1.1 200 OK\r\n", b"\r\n"]), max_size=12
    )
)
@settings(max_examples=200, deadline=None)
def test_no_answer_breaks_an_exchange(check: NetworkCheck, pieces: list[bytes]) -> None:
    exchange: Exchange[NetworkCheck] = begin(check)
    step = exchange.opened()
    for piece in pieces:
        if not isinstance(step, bytes):
            break
        step = exchange.received(piece)
    if isinstance(step, bytes) and exchange.opening.transport.value == "TCP":
        step = exchange.closed()
    assert isinstance(step, bytes | Result)
    assert isinstance(exchange.expired(), Result)
