"""Snapshots of the service side of a node, with the state of its plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relevo.machines import pool as pooling
from relevo.machines.pool import PoolMachine
from relevo.model import Endpoint, RealServer, ServiceKey, VirtualServer
from relevo.model.diff import check_names
from relevo.model.table import ServerState, ServiceState
from relevo.node.balancer import Balancer
from relevo.node.checks import CheckRunner
from relevo.observe.snapshot import CheckSnapshot, ServerSnapshot, ServiceSnapshot


@dataclass(frozen=True, slots=True)
class ServiceView:
    """``observed`` is the plane's table by service; ``offset`` converts monotonic times to Unix seconds."""

    balancer: Balancer
    observed: Mapping[ServiceKey, ServiceState]
    offset: float

    def services(self) -> tuple[ServiceSnapshot, ...]:
        """Return a snapshot of each service; for a group, one of each member."""
        pools = self.balancer.pools.values()
        return tuple(self._service(pool, key) for pool in pools for key in pool.service.keys)

    def _service(self, pool: PoolMachine, key: ServiceKey) -> ServiceSnapshot:
        service, state = pool.service, self.observed.get(key)
        return ServiceSnapshot(
            name=service.name,
            protocol=key.protocol.value,
            address=key.endpoint.address,
            port=key.endpoint.port,
            mark=key.mark,
            group=service.group,
            scheduler=service.scheduler,
            scheduler_flags=service.scheduler_flags,
            one_packet=service.one_packet,
            persistence_timeout_s=service.persistence_timeout_s,
            persistence_granularity=service.persistence_granularity,
            up=pool.state is pooling.State.UP,
            since_at=pool.since + self.offset,
            quorum=service.quorum,
            live_weight=pool.live_weight(),
            uses_sorry_server=pool.uses_sorry,
            listening=state.listening if state else "",
            refused=state.refused if state else {},
            connections=state.traffic.connections if state else 0,
            servers=tuple(self._servers(pool, key, state)),
        )

    def _servers(self, pool: PoolMachine, key: ServiceKey, state: ServiceState | None) -> list[ServerSnapshot]:
        service, port = pool.service, key.endpoint.port
        observed = {each.server.endpoint: each for each in state.servers} if state else {}
        servers = [
            self._server(
                service,
                health.server,
                health.up,
                health.since,
                observed.get(Endpoint(at.address, at.port or port)),
                order=str(health.order or ""),
            )
            for at, health in pool.servers.items()
        ]
        sorry = service.sorry_server
        if sorry is not None and (sorry := Endpoint(sorry.address, sorry.port or port)) in observed:
            stand_in = RealServer(endpoint=sorry, forwarding=service.forwarding)
            servers.append(self._server(service, stand_in, True, pool.since, observed[sorry], sorry=True))
        return servers

    def _server(
        self,
        service: VirtualServer,
        server: RealServer,
        up: bool,
        since: float,
        observed: ServerState | None,
        *,
        sorry: bool = False,
        order: str = "",
    ) -> ServerSnapshot:
        names = [(service.name, server.endpoint, name) for name, _ in check_names(server)]
        runners = [self.balancer.checks.runners.get(key) for key in names]
        return ServerSnapshot(
            address=server.endpoint.address,
            port=observed.server.endpoint.port if observed else server.endpoint.port,
            up=up,
            in_plane=observed is not None,
            weight=observed.server.weight if observed else 0,
            declared_weight=server.weight,
            forwarding=server.forwarding.value,
            active=observed.active if observed else 0,
            inactive=observed.inactive if observed else 0,
            persistent=observed.persistent if observed else 0,
            connections=observed.traffic.connections if observed else 0,
            bytes_in=observed.traffic.bytes_in if observed else 0,
            bytes_out=observed.traffic.bytes_out if observed else 0,
            since_at=since + self.offset,
            sorry=sorry,
            order=order,
            checks=tuple(self._check(runner) for runner in runners if runner is not None),
        )

    def _check(self, runner: CheckRunner) -> CheckSnapshot:
        machine = runner.machine
        last = machine.last
        return CheckSnapshot(
            kind=runner.check.name,
            target=runner.check.target,
            up=machine.up,
            state=machine.state.value,
            failures=machine.failures,
            last_result="" if last is None else (last.reason or last.detail or "ok"),
            last_at=None if machine.last_at is None else machine.last_at + self.offset,
        )
