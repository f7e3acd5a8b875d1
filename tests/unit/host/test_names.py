"""Looking up a host name, within a limit."""

from __future__ import annotations

import socket
import threading

import pytest

from relevo.host.names import name_problem


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_a_name_that_is_found_is_no_problem(name: str) -> None:
    assert name_problem(name, 10.0) == ""


@pytest.mark.parametrize("name", ["nonesuch.invalid", "a" * 300, "\udcff"])
def test_a_name_that_does_not_exist_is_one(name: str) -> None:
    assert name_problem(name, 30.0) not in ("", "no answer within 30 s")


def test_a_look_up_that_hangs_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: released.wait(60))
    assert name_problem("slow.example", 0.01) == "no answer within 0.01 s"
    released.set()
