"""Requests of the control socket, one method for each."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, Protocol

from relevo.api import schema
from relevo.api.schema import Request
from relevo.daemon.messages import CompleteSync, HandOver, Orders, PlaneAnswer, PlaneCall
from relevo.daemon.processes import Workers
from relevo.daemon.reload import Reloads
from relevo.errors import ControlError
from relevo.machines.pool import MAX_WEIGHT
from relevo.model import Configuration, Endpoint, ServerMode, ServerOrder, VirtualServer
from relevo.model.process import PlaneAtStop
from relevo.observe.snapshot import Snapshot
from relevo.planes.catalogue import Choice
from relevo.severity import Severity

COMPLETE_SYNC_S: Final = 20.0
"""Seconds that a complete sync may delay a hand-over: a million connections take sixteen, with a key hardly one."""
NAMED: Final = 20
"""Services or servers in an error."""
HAND_OVER_S: Final = 3.0
"""Seconds that a successor may take; a master waits for it a second at most."""

PlaneRequest = schema.Connections | schema.Table | schema.Sync | CompleteSync


class Daemon(Protocol):
    """What commands need of the daemon: the supervisor is one."""

    configuration: Configuration
    workers: Workers
    plane: Choice
    reloads: Reloads
    masters: set[str]
    mastery_changed: asyncio.Event

    async def snapshot(self) -> Snapshot:
        """Return everything that the daemon knows."""
        ...

    async def reload(self) -> schema.Reloaded | str:
        """Read the configuration again; return what that did, or why nothing was changed."""
        ...

    def stop(self, at_stop: PlaneAtStop) -> None:
        """Begin to stop gracefully."""
        ...

    async def complete_sync(self) -> None:
        """Sync every connection to the peers, and log how that went."""
        ...

    def log(self, text: str, severity: int = Severity.INFO) -> None:
        """Write a line to the log."""
        ...


def _names(service: VirtualServer) -> tuple[str, ...]:
    """Return how an administrator may name a virtual server."""
    keys = (str(key.endpoint) for key in service.keys if not key.mark)
    return (service.name, service.group, f"fwmark {service.mark}", *keys)


def _is_server(endpoint: Endpoint, text: str) -> bool:
    """Whether ``text`` is an endpoint, or its address, which stands for all ports."""
    return text in (str(endpoint), endpoint.address)


class Commands:
    """Handles requests for ``supervisor``."""

    def __init__(self, supervisor: Daemon) -> None:
        self._supervisor = supervisor
        self.orders: tuple[ServerOrder, ...] = ()
        self._calls = 0
        self._answers: dict[int, asyncio.Future[PlaneAnswer]] = {}

    async def handle(self, request: Request) -> Any:
        """Execute a request; ``ControlError`` on failure."""
        match request:
            case schema.Status():
                return await self._supervisor.snapshot()
            case schema.Reload():
                return await self._reload()
            case schema.Plan(file=file):
                return await self._supervisor.reloads.plan(file)
            case schema.Stop(plane=at_stop):
                self._supervisor.stop(at_stop)
                return schema.Done()
            case schema.Plane():
                return schema.PlaneName(self._supervisor.plane.name)
            case schema.Connections():
                return (await self.call_plane(request, schema.CALL_S)).connections
            case schema.Table():
                return (await self.call_plane(request, schema.CALL_S)).table
            case schema.Sync():
                answer = await self.call_plane(request, schema.CALL_S)
                return schema.SyncReport(self._supervisor.plane.name, time.time(), answer.sync)
            case schema.Failover():
                return await self._failover(request)
            case schema.Server():
                return self._order(request)

    async def _reload(self) -> schema.Reloaded:
        done = await self._supervisor.reload()
        if isinstance(done, str):
            raise ControlError(done)
        return done

    # -- servers -----------------------------------------------------------------------------------------------

    def _order(self, wanted: schema.Server) -> schema.ServersSet:
        """Let an administrator say what servers do; ``ControlError`` if there are none of that name."""
        if not 0 <= wanted.weight <= MAX_WEIGHT:
            raise ControlError(f"a weight is 0 to {MAX_WEIGHT}")
        services = self._supervisor.configuration.virtual_servers
        named = [service for service in services if wanted.service in ("all", *_names(service))]
        if not named:
            known = " ".join(str(service.endpoint) for service in services[:NAMED]) or "none"
            raise ControlError(f"there is no virtual server {wanted.service}; there is {known}")
        found = [(s, server) for s in named for server in s.real_servers if _is_server(server.endpoint, wanted.server)]
        if not found:
            known = " ".join(str(server.endpoint) for service in named for server in service.real_servers[:NAMED])
            raise ControlError(f"{wanted.service} has no server {wanted.server}; it has {known}")
        made = [ServerOrder(s.name, str(server.endpoint), wanted.mode, wanted.weight) for s, server in found]
        orders = {(order.service, order.server): order for order in (*self.orders, *made)}
        self.orders = tuple(order for order in orders.values() if order.mode is not ServerMode.READY)
        self._supervisor.workers.send("balancer", Orders(self.orders))
        for order in made:
            self._supervisor.log(f"relevo server: {order.server} of VS {order.service}: {order}", Severity.NOTICE)
        return schema.ServersSet(made)

    def forget_orders(self, configuration: Configuration) -> None:
        """Forget what was said of servers that a reload removed."""
        present = {(s.name, str(server.endpoint)) for s in configuration.virtual_servers for server in s.real_servers}
        kept = tuple(order for order in self.orders if (order.service, order.server) in present)
        if kept != self.orders:
            self.orders = kept
            self._supervisor.workers.send("balancer", Orders(kept))

    # -- the plane ---------------------------------------------------------------------------------------------

    async def call_plane(self, request: PlaneRequest, limit_s: float) -> PlaneAnswer:
        """Send a call to the balancer; ``ControlError`` if it fails or does not answer."""
        worker = self._supervisor.workers.get("balancer")
        if worker is None or worker.channel is None:
            raise ControlError("the configuration has no virtual server")
        if worker.ended.is_set():
            raise ControlError("the balancer is not running: the log says why")
        self._calls += 1
        number = self._calls
        answered: asyncio.Future[PlaneAnswer] = asyncio.get_running_loop().create_future()
        self._answers[number] = answered
        worker.channel.send(PlaneCall(number, request))
        try:
            async with asyncio.timeout(limit_s):
                answer = await answered
        except TimeoutError:
            raise ControlError(f"the balancer did not answer within {limit_s:g} s") from None
        finally:
            del self._answers[number]
        if answer.error:
            raise ControlError(answer.error)
        return answer

    def answered(self, answer: PlaneAnswer) -> None:
        """Pass an answer to the waiting request, if that has not timed out."""
        waiting = self._answers.get(answer.number)
        if waiting is not None and not waiting.done():  # it may have timed out
            waiting.set_result(answer)

    def lost(self, role: str) -> None:
        """Answer the requests that wait for a worker which died."""
        if role == "balancer":
            for number, waiting in self._answers.items():
                if not waiting.done():
                    waiting.set_result(PlaneAnswer(number, error="the balancer died"))

    # -- planned hand-over --------------------------------------------------------------------------------------

    async def complete_sync(self) -> int:
        """Sync every connection to the peers before a hand-over or stop; return how many were sent."""
        supervisor = self._supervisor
        wanted = supervisor.configuration.global_defs.lvs_sync_daemon is not None
        if not wanted or not supervisor.masters or supervisor.workers.get("balancer") is None:
            return 0
        return (await self.call_plane(CompleteSync(), COMPLETE_SYNC_S)).total

    async def _failover(self, wanted: schema.Failover) -> schema.HandedOver:
        supervisor = self._supervisor
        known = [instance.name for instance in supervisor.configuration.vrrp_instances]
        director = supervisor.workers.get("director")
        if wanted.instance not in known or director is None:
            raise ControlError(f"there is no vrrp_instance '{wanted.instance}'; there is {' '.join(known) or 'none'}")
        if wanted.back:
            director.send(HandOver(wanted.instance, back=True))
            return schema.HandedOver(False)
        if wanted.instance not in supervisor.masters:
            raise ControlError(f"{wanted.instance} is not master here: ask the node that is")
        await supervisor.complete_sync()
        director.send(HandOver(wanted.instance))
        try:
            async with asyncio.timeout(HAND_OVER_S):
                while wanted.instance in supervisor.masters:
                    supervisor.mastery_changed.clear()
                    await supervisor.mastery_changed.wait()
        except TimeoutError:
            text = f"no other node took {wanted.instance} over within {HAND_OVER_S:g} s: it is still master here"
            raise ControlError(text) from None
        return schema.HandedOver(True)
