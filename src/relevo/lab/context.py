"""What every step of the drill works with: the running cluster, its files' expectations, its directors' snapshots.

The steps are in ``drill`` and ``failover``. This module contains none: it looks, waits, and keeps the list of expected mails.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from relevo.errors import ControlError
from relevo.lab.client import Client
from relevo.lab.cluster import Cluster
from relevo.lab.topology import Host, Service, kind_of
from relevo.machines.vrrp import VrrpMachine
from relevo.model import Endpoint, VirtualServer, VrrpInstance
from relevo.observe.snapshot import ServiceSnapshot, Snapshot

FIRST_CLIENT = 10_000
SLACK_S = 3.0
"""Added to every bound, for a busy machine."""
POLL_S = 0.1

Step = Callable[[], str | tuple[str, str]]
"""Runs one check. Returns what was measured, with details if there are any; raises ``StepFailed``."""


class StepFailed(Exception):
    """A step found something other than it expected; the text says what."""


@dataclass(slots=True)
class ExpectedMails:
    """Subjects of the mails that a director must have sent, in order; those of one group may arrive in any order."""

    groups: list[Counter[str]] = field(default_factory=list)

    def add(self, *subjects: str) -> None:
        """Append a group."""
        self.groups.append(Counter(subjects))


class Context:
    """A running cluster as the steps see it. ``report`` receives a line of progress now and then."""

    def __init__(self, cluster: Cluster, report: Callable[[str], None]) -> None:
        self.cluster = cluster
        self.report = report
        self.client = Client(cluster.stage, cluster.topology.client, abrupt=cluster.speed_up != 1)
        self.directors = cluster.topology.directors
        self.expected_mails: dict[str, ExpectedMails] = {d.name: ExpectedMails() for d in self.directors}
        self._clients = FIRST_CLIENT

    def fresh_clients(self, count: int) -> range:
        """Return the numbers of ``count`` clients that no step has used yet."""
        first, self._clients = self._clients, self._clients + count
        return range(first, first + count)

    # -- what the files say ------------------------------------------------------------------------------------

    def services(self) -> tuple[VirtualServer, ...]:
        return self.cluster.topology.model.virtual_servers

    def instances(self) -> tuple[VrrpInstance, ...]:
        return self.cluster.topology.model.vrrp_instances

    def label(self, service: VirtualServer) -> str:
        """Short name of a service in the names of steps."""
        return {"http": "web", "smtp": "mail"}.get(kind_of(service.endpoint.port, service.protocol), str(service.endpoint))

    def here(self, endpoint: Endpoint) -> Endpoint:
        """Translate an endpoint of the files to this stage."""
        changes = self.cluster.stage.changes(self.cluster.topology, self.directors[0])
        return Endpoint(changes.address(endpoint.address), changes.port(endpoint.port))

    def host(self, endpoint: Endpoint) -> tuple[Host, Service]:
        """Return the machine of a real or sorry server, and what it serves on that port."""
        here = self.here(endpoint)
        host = self.cluster.topology.server_at(here.address)
        return host, next(s for s in host.services if s.port == here.port)

    def names(self, service: VirtualServer) -> list[str]:
        """Names of the machines of a service's real servers, in the order of the file."""
        return [self.host(server.endpoint)[0].name for server in service.real_servers]

    def formatted(self, endpoint: Endpoint, service: VirtualServer) -> str:
        """Format an endpoint as logs and mails do."""
        return self.here(endpoint).formatted(service.protocol)

    def removal_bound_s(self, service: VirtualServer) -> float:
        """Longest time that the checks may take to notice a dead server."""
        timings = [(c.timing, c.limit_s) for r in service.real_servers for c in r.checks]
        waits = [
            t.delay_loop_s / self.cluster.speed_up + t.retry * (t.delay_before_retry_s + limit) + limit for t, limit in timings
        ]
        return max(waits, default=0.0) + SLACK_S

    def takeover_bound_s(self) -> float:
        """Longest time that a backup may take to notice a dead master: the master-down interval of RFC 9568 §6.1."""
        return max((VrrpMachine(i, "127.0.0.1").master_down_s() for i in self.instances()), default=0.0) + SLACK_S

    def shutdown_bound_s(self) -> float:
        """Longest time that a takeover may last when the master announced its shutdown with priority 0."""
        return max(i.advert_interval_s for i in self.instances()) + SLACK_S

    def preferred_master(self) -> Host:
        """Return the director with the highest priority."""

        def priority(director: Host) -> int:
            assert director.configuration is not None
            return max((i.priority for i in director.configuration.vrrp_instances), default=0)

        return max(self.directors, key=priority)

    # -- what the directors say --------------------------------------------------------------------------------

    def snapshots(self) -> dict[str, Snapshot]:
        """Snapshots of the directors that run, by name."""
        found = {}
        for director in self.directors:
            with contextlib.suppress(ControlError):
                found[director.name] = self.cluster.snapshot(director)
        return found

    def master(self) -> Host | None:
        """Return the director that is master of every instance; without instances, the first director."""
        names = {i.name for i in self.instances()}
        for director in self.directors:
            with contextlib.suppress(ControlError):
                states = {i.name: i.state for i in self.cluster.snapshot(director).director.instances}
                if names and all(states.get(name) == "MASTER" for name in names):
                    return director
        return None if names else self.directors[0]

    def require_master(self) -> Host:
        """Return the master; ``StepFailed`` when there is none."""
        master = self.master()
        if master is None:
            raise StepFailed("there is no master")
        return master

    def snapshot_of(self, service: VirtualServer, snapshot: Snapshot) -> ServiceSnapshot:
        """Find a service of the files in a director's snapshot."""
        here = self.here(service.endpoint)
        return next(s for s in snapshot.balancer.services if (s.address, s.port) == (here.address, here.port))

    def everywhere(self, service: VirtualServer, test: Callable[[ServiceSnapshot], bool]) -> bool:
        """Whether ``test`` holds for a service on every director that runs."""
        found = self.snapshots()
        return bool(found) and all(test(self.snapshot_of(service, s)) for s in found.values())

    # -- waiting -----------------------------------------------------------------------------------------------

    def wait(self, what: str, condition: Callable[[], Any], limit_s: float) -> float:
        """Wait for ``condition``; return the seconds that it took. ``StepFailed`` after ``limit_s``."""
        begun = time.monotonic()
        last_report = begun
        while True:
            if condition():
                return time.monotonic() - begun
            now = time.monotonic()
            if now - begun > limit_s:
                raise StepFailed(f"not within {limit_s:.0f} s: {what}")
            if now - last_report > 1.0:
                last_report = now
                self.report(f"waiting until {what} ({now - begun:.0f} of at most {limit_s:.0f} s)")
            time.sleep(POLL_S)

    def wait_for_first_checks(self) -> None:
        """Wait until every check has run once: from then on a failure needs its retries."""
        longest = max((c.timing.warmup_s for s in self.services() for r in s.real_servers for c in r.checks), default=0.0)

        def checked() -> bool:
            found = self.snapshots().values()
            servers = [s for x in found for v in x.balancer.services for s in v.servers]
            return all(c.last_at is not None for s in servers for c in s.checks)

        self.wait("every server was checked", checked, longest / self.cluster.speed_up + 5.0 + SLACK_S)

    # -- mails -------------------------------------------------------------------------------------------------

    def expect_vrrp_mails(self, director: Host, state: str) -> None:
        """Expect the mails of a director's instances for a transition to ``state``, or for ``STOP``."""
        assert director.configuration is not None
        what = "Stopping" if state == "STOP" else f"Entering {state} state"
        subjects = [f"VRRP Instance {i.name} - {what}" for i in director.configuration.vrrp_instances if i.smtp_alert]
        self.expected_mails[director.name].add(*subjects)
