"""Idle connections move to overflow workers when descriptors run short, and clients and servers do not notice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relevo.model.table import DeleteServer
from tests.unit.proxy.rig import Backend, Process, dial, echo, proxy_process, read_exactly, read_line, wait_until

DESCRIPTORS = 400
"""Room for 72 connections in one process; the spare ones are not used."""
MANY = 150


@pytest.fixture
def process() -> Iterator[Process]:
    with proxy_process(DESCRIPTORS) as made:
        yield made


def children(process: Process) -> list[int]:
    return [int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def open_many(key, count: int) -> list:  # type: ignore[no-untyped-def,type-arg]
    """Open connections, each used once and then left alone; with pauses, in which idle ones can move."""
    held = []
    for number in range(count):
        sock = dial(key, f"127.7.1.{number % 250 + 1}")
        read_line(sock)
        sock.sendall(b"hello")
        assert read_exactly(sock, 5) == b"hello"
        held.append(sock)
        time.sleep(0.015)
    return held


def test_the_plane_holds_more_connections_than_one_process_has_descriptors_for(process: Process) -> None:
    backend = Backend(echo("a"))
    key = process.serve(backend.entry)
    held = open_many(key, MANY)
    assert len(children(process)) >= 1, "no overflow worker was started"
    assert process.service(key).servers[0].active == MANY
    assert len(process.connections()) == MANY
    for number, sock in enumerate(held):
        text = f"again {number}".encode()
        sock.sendall(text)
        assert read_exactly(sock, len(text)) == text, f"connection {number} was lost"
    for sock in held:
        sock.close()
    state = process.wait_idle(key)
    assert state.servers[0].traffic.connections == MANY
    assert state.servers[0].traffic.bytes_in == MANY * 5 + sum(len(f"again {n}") for n in range(MANY))
    backend.close()


def test_a_burst_of_connections_is_offloaded_too(process: Process) -> None:
    backend = Backend(echo("a"))
    key = process.serve(backend.entry)
    held = [dial(key) for _ in range(MANY)]
    for sock in held:
        assert read_line(sock) == b"a\n"
    assert process.service(key).refused == {}
    for sock in held:
        sock.close()
    process.wait_idle(key)
    backend.close()


def test_bulk_is_relayed_by_an_overflow_worker(process: Process) -> None:
    backend = Backend(echo("a"))
    key = process.serve(backend.entry)
    held = open_many(key, MANY)
    wait_until(lambda: children(process), "an overflow worker")
    block = os.urandom(1 << 20)
    for sock in held[:3]:  # the oldest ones have moved
        sock.settimeout(10)
        for at in range(0, len(block), 65536):
            sock.sendall(block[at : at + 65536])
            assert read_exactly(sock, 65536) == block[at : at + 65536]
    for sock in held:
        sock.close()
    process.wait_idle(key)
    backend.close()


def test_a_removed_server_resets_its_offloaded_connections_too(process: Process) -> None:
    backend = Backend(echo("a"))
    key = process.serve(backend.entry)
    held = open_many(key, MANY)
    process.apply(DeleteServer(key, backend.entry.endpoint))
    for sock in held:
        sock.settimeout(5)
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            pass
        sock.close()
    wait_until(lambda: process.connections() == [], "the plane has no connection left")
    backend.close()


def test_the_death_of_an_overflow_worker_loses_its_connections_and_nothing_else(process: Process) -> None:
    backend = Backend(echo("a"))
    key = process.serve(backend.entry)
    held = open_many(key, MANY)
    for pid in children(process):
        os.kill(pid, signal.SIGKILL)
    alive = 0
    for sock in held:
        sock.settimeout(5)
        try:
            sock.sendall(b"x")
            alive += read_exactly(sock, 1) == b"x"
        except OSError:
            pass
    assert 0 < alive < MANY
    wait_until(lambda: process.service(key).servers[0].active == alive, "the lost ones are counted out")
    for sock in held:
        sock.close()
    process.wait_idle(key)
    assert process.running()
    backend.close()


def test_overflow_workers_end_with_the_proxy(process: Process) -> None:
    backend = Backend(echo("a"))
    key = process.serve(backend.entry)
    held = open_many(key, MANY)
    workers = children(process)
    assert workers
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the overflow workers end")
    for sock in held:
        sock.close()
    backend.close()
