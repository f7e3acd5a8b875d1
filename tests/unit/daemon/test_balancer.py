"""The balancer worker: what it says about a reload whose operations fail, and what it keeps when its plane does not open."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any, cast

import pytest

from relevo.daemon import confinement
from relevo.daemon.balancer import BalancerWorker, PendingReload, serve
from relevo.daemon.messages import StepsTaken
from relevo.errors import PlaneError
from relevo.host import libc
from relevo.model import Configuration, Endpoint, Protocol, RealServer, VirtualServer
from relevo.model.plan import Do
from relevo.node.plan import BalancerBefore
from relevo.planes import catalogue
from relevo.planes.memory import MemoryPlane

SERVICE = VirtualServer(
    endpoint=Endpoint("192.0.2.1", 80), protocol=Protocol.TCP, real_servers=(RealServer(endpoint=Endpoint("10.0.0.1", 80)),)
)


class Channel:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def answers(self) -> list[StepsTaken]:
        return [each for each in self.sent if isinstance(each, StepsTaken)]


async def reload(plane: MemoryPlane) -> StepsTaken:
    """Reload a balancer with its first service; return what it says."""
    channel = Channel()
    worker = BalancerWorker(Configuration(), cast(Any, channel), plane, "")
    before = BalancerBefore(worker.balancer)
    worker._reload = PendingReload(7, before, worker.balancer.configure(Configuration(virtual_servers=(SERVICE,)), 0.0))
    keeper = asyncio.create_task(worker._keep_plane())
    async with asyncio.timeout(10):
        while not channel.answers():
            await asyncio.sleep(0.005)
    keeper.cancel()
    return channel.answers()[0]


def test_a_reload_says_what_it_did() -> None:
    said = asyncio.run(reload(MemoryPlane()))
    assert (said.number, said.error) == (7, "")
    assert [step.do for step in said.steps] == [Do.ADD_SERVICE, Do.ADD_SERVER]


def test_a_plane_that_fails_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise PlaneError("the plane is gone")

    plane = MemoryPlane()
    monkeypatch.setattr(plane, "apply", fail)
    said = asyncio.run(reload(plane))
    assert (said.number, said.error) == (7, "the data plane: the plane is gone")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to drop")
def test_a_balancer_whose_plane_does_not_open_drops_capabilities_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot give up its user, because opening the plane later needs root's files."""
    role = confinement.BALANCERS["memory"]
    reader, writer = os.pipe()
    ours, theirs = socket.socketpair()

    def refuse(plane: object, owner: tuple[int, int]) -> None:
        raise PlaneError("no")

    async def report(worker: BalancerWorker, lacking: list[str]) -> None:
        os.write(writer, f"{libc.effective_capabilities()} {'; '.join(lacking)}".encode())

    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(catalogue, "prepare", refuse)
        monkeypatch.setattr(BalancerWorker, "run", report)
        serve(Configuration(), theirs, MemoryPlane(), "", None, frozenset(), {})
        os._exit(0)
    os.close(writer)
    with open(reader) as said:
        capabilities, _, lacking = said.read().partition(" ")
    os.waitpid(pid, 0)
    ours.close()
    assert int(capabilities) == sum(1 << number for number in role.capabilities)
    assert lacking == "no: the balancer keeps its user and files, to try again"
