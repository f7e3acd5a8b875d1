"""TCP_CHECK against servers of every temper."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import time

import pytest

from relevo.machines.check import Failure, Result
from relevo.model import Endpoint
from relevo.probes import Engine, engine, run_probe
from relevo.probes.engine import failed
from tests.unit.probes.hostile import ADDRESS, server, tcp


def probe(check: object) -> Result:
    return asyncio.run(run_probe(check))  # type: ignore[arg-type]


def test_a_server_that_accepts_passes_and_receives_a_fin() -> None:
    ends: list[bytes] = []
    with server(lambda sock: ends.append(sock.recv(1))) as target:
        assert probe(tcp(target)) == Result()
        for _ in range(200):
            if ends:
                break
            time.sleep(0.01)
    assert ends == [b""]  # an end, no reset


def test_a_closed_port_is_refused() -> None:
    with socket.socket() as sock:
        sock.bind((ADDRESS, 0))  # bound and not listening: no other process can take it
        assert probe(tcp(Endpoint(*sock.getsockname()))) == Result(Failure.REFUSED)


def test_a_server_that_does_not_answer_fails_at_the_time_limit() -> None:
    with socket.socket() as listener, socket.socket() as one, socket.socket() as two:
        listener.bind((ADDRESS, 0))
        listener.listen(0)
        for filler in (one, two):
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        begun = time.monotonic()
        result = probe(tcp(Endpoint(*listener.getsockname()), 0.2))
        assert 0.2 <= time.monotonic() - begun < 1.0
    assert result == Result(Failure.TIMEOUT, "no answer within 0.2 s")
    assert result.reason == "timeout: no answer within 0.2 s"


def test_bindto_is_the_address_that_the_server_sees() -> None:
    seen: list[str] = []
    listener = socket.create_server((ADDRESS, 0))
    with listener:
        assert probe(tcp(Endpoint(*listener.getsockname()), bind=Endpoint("127.0.44.4"))).passed
        connection, peer = listener.accept()
        connection.close()
        seen.append(peer[0])
    assert seen == ["127.0.44.4"]


def test_bindto_with_a_port_can_be_used_again_at_once() -> None:
    with socket.create_server(("127.0.44.4", 0)) as spare:
        port = spare.getsockname()[1]
    with server(lambda sock: None) as target:
        for _ in range(3):
            result = probe(tcp(target, bind=Endpoint("127.0.44.4", port)))
            assert result.failure in (None, Failure.LOCAL)  # the kernel may still have the pair in use
        assert probe(tcp(target, bind=Endpoint("127.0.44.5", port))).passed


def test_an_address_that_is_not_here_cannot_be_bound_to_and_the_server_is_not_blamed() -> None:
    result = probe(tcp(Endpoint(ADDRESS, 1), bind=Endpoint("192.0.2.77")))
    assert result.failure is Failure.LOCAL
    assert result.detail == os.strerror(errno.EADDRNOTAVAIL)


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (OSError(errno.ETIMEDOUT, "timed out"), Failure.TIMEOUT),
        (OSError(errno.ECONNREFUSED, "refused"), Failure.REFUSED),
        (OSError(errno.ECONNRESET, "reset"), Failure.RESET),
        (OSError(errno.EPIPE, "broken pipe"), Failure.RESET),
        (OSError(errno.ENETUNREACH, "no network"), Failure.UNREACHABLE),
        (OSError(errno.EHOSTUNREACH, "no host"), Failure.UNREACHABLE),
        (OSError(errno.ENETDOWN, "down"), Failure.UNREACHABLE),
        (OSError(errno.EMFILE, "too many open files"), Failure.LOCAL),
        (OSError(errno.EACCES, "denied"), Failure.LOCAL),
    ],
    ids=repr,
)
def test_every_error_has_its_name(error: OSError, failure: Failure) -> None:
    assert failed(error).failure is failure


def test_an_error_of_tls_is_named_by_its_reason() -> None:
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    error.reason = "WRONG_VERSION_NUMBER"  # as the library sets it
    assert failed(error) == Result(Failure.TLS, "WRONG_VERSION_NUMBER")


def test_an_unreachable_network_differs_from_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable(socket.socket):
        def connect_ex(self, _address: object) -> int:
            return errno.ENETUNREACH

    monkeypatch.setattr(engine.socket, "socket", Unreachable)
    assert probe(tcp(Endpoint(ADDRESS, 1))) == Result(Failure.UNREACHABLE, "Network is unreachable", local=True)


def test_a_thousand_probes_leave_no_descriptor_open() -> None:
    async def many(target: Endpoint) -> list[Result]:
        return [r for _ in range(10) for r in await asyncio.gather(*(run_probe(tcp(target, 5.0)) for _ in range(50)))]

    with socket.socket() as closed:
        closed.bind((ADDRESS, 0))
        before = len(os.listdir("/proc/self/fd"))
        results = asyncio.run(many(Endpoint(*closed.getsockname())))
        assert {r.failure for r in results} == {Failure.REFUSED}
        assert len(os.listdir("/proc/self/fd")) == before


def test_ten_thousand_checks_that_cannot_even_begin_all_have_their_result(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoDescriptors(socket.socket):
        def connect_ex(self, _address: object) -> int:
            return errno.ENETUNREACH

    monkeypatch.setattr(engine.socket, "socket", NoDescriptors)

    async def work() -> int:
        done: list[int] = []
        running: Engine[int] = Engine(lambda results: done.extend(key for key, _ in results))
        for key in range(10_000):
            running.start(key, tcp(Endpoint(ADDRESS, 1)))
        async with asyncio.timeout(20.0):
            while len(done) < 10_000:
                await asyncio.sleep(0.001)
        running.close()
        return len(set(done))

    assert asyncio.run(work()) == 10_000


def test_a_probe_that_is_cancelled_has_no_result_and_those_that_wait_get_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_PROBES", 1)

    async def work() -> list[tuple[str, Result]]:
        done: list[tuple[str, Result]] = []
        running: Engine[str] = Engine(done.extend)
        with server(lambda sock: sock.recv(1)) as target, socket.socket() as listener:
            listener.bind((ADDRESS, 0))  # bound and not listening
            for key in ("first", "second", "third", "fourth"):
                running.start(key, tcp(target))
            running.cancel("first")
            running.cancel("third")
            async with asyncio.timeout(5.0):
                while len(done) < 2:
                    await asyncio.sleep(0.001)
        running.close()
        return done

    assert asyncio.run(work()) == [("second", Result()), ("fourth", Result())]
