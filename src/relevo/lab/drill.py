"""The drill: an administrator's checks of a cluster, each with what was measured.

The order is that of the article the project comes from. The first steps look at the address, the table and the balance. Then
servers stop and return, then directors (``failover``). The last steps read the mails and the logs. Every expectation follows
from the configuration files, so the drill works on any cluster that the lab can build.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email import message_from_string
from email.header import decode_header, make_header
from functools import partial

from relevo.compat.ipvsadm.program import listing_of
from relevo.errors import ControlError
from relevo.lab.client import Prober
from relevo.lab.cluster import Cluster
from relevo.lab.context import SLACK_S, Context, Step, StepFailed
from relevo.lab.failover import FailoverSteps
from relevo.lab.topology import Host
from relevo.model import Endpoint, Protocol, RealServer, VirtualServer
from relevo.observe.snapshot import ServiceSnapshot
from relevo.planes import catalogue

REQUESTS = 300
"""Requests over which the weights are counted: a multiple of the sum of most small weights."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step found; ``measured`` is a line, ``detail`` may have several."""

    name: str
    passed: bool
    measured: str
    seconds: float
    detail: str = ""


class Drill:
    """Runs the steps on a cluster. ``report`` receives a line of progress now and then."""

    def __init__(self, cluster: Cluster, report: Callable[[str], None]) -> None:
        self.cluster = cluster
        self.context = Context(cluster, report)
        self.failover = FailoverSteps(self.context)
        self._sticky: dict[str, tuple[list[int], list[str], float]] = {}

    # -- the plan ----------------------------------------------------------------------------------------------

    def run(self) -> Iterator[Outcome]:
        """Run every step; yield its outcome. The drill goes on after a failed step."""
        for name, step in self.steps():
            self.context.report(name)
            begun = time.monotonic()
            try:
                measured, detail = _pair(step())
                passed = True
            except StepFailed as failure:
                measured, detail, passed = str(failure), "", False
            except (OSError, ControlError) as error:
                measured, detail, passed = f"{type(error).__name__}: {error}", "", False
            yield Outcome(name, passed, measured, time.monotonic() - begun, detail)

    def steps(self) -> list[tuple[str, Step]]:
        """Return the steps for this cluster, by name."""
        services = [s for s in self.context.services() if s.protocol is Protocol.TCP]
        found: list[tuple[str, Step]] = [
            ("start the servers and the directors", self.start),
            ("the address is on the master", self.address_on_master),
            ("the table (ipvsadm -L -n)", self.table),
        ]
        for service in services:
            found += self._balance_steps(service)
        for service in services:
            found += self._server_steps(service)
        for service in services:
            if service.persistence_timeout_s:
                name = f"{self.context.label(service)}: persistence expires"
                found.append((name, partial(self.persistence_expires, service)))
        found += self.failover.steps()
        found.append(("every mail arrived, once and in order", self.mails))
        found.append(("every transition is in the log", self.logs))
        return found

    def _balance_steps(self, service: VirtualServer) -> list[tuple[str, Step]]:
        label = self.context.label(service)
        found: list[tuple[str, Step]] = [(f"{label}: {REQUESTS} requests by weight", partial(self.weights, service))]
        if service.persistence_timeout_s:
            found.append((f"{label}: a client keeps its server", partial(self.persistence_holds, service)))
        return found

    def _server_steps(self, service: VirtualServer) -> list[tuple[str, Step]]:
        label = self.context.label(service)
        found: list[tuple[str, Step]] = [
            (f"{label}: a server stops", partial(self.server_stops, service)),
            (f"{label}: it returns", partial(self.server_returns, service)),
        ]
        if service.sorry_server:
            found.append((f"{label}: all stop, the sorry server answers", partial(self.all_stop, service)))
            found.append((f"{label}: all return", partial(self.all_return, service)))
        return found

    # -- steps: start ------------------------------------------------------------------------------------------

    def start(self) -> str:
        """Start everything; wait until one director is master of everything and every check has run."""
        self.cluster.start_servers()
        for director in self.context.directors:
            self.cluster.start_director(director)
        bound = self.context.takeover_bound_s()
        took = self.context.wait("a director is master", lambda: self.context.master() is not None, bound)
        for director in self.context.directors:
            self.context.expect_vrrp_mails(director, "BACKUP")
        self.context.expect_vrrp_mails(self.context.preferred_master(), "MASTER")
        self.context.wait_for_first_checks()
        count = len(self.cluster.topology.servers)
        plane = self.cluster.snapshot(self.context.require_master()).balancer.plane
        return f"{count} servers, {len(self.context.directors)} directors, data plane {plane}; a master after {took:.1f} s"

    def address_on_master(self) -> str:
        """Check that the virtual addresses are on the master, and only there."""
        master = self.context.master()
        if master is not self.context.preferred_master():
            raise StepFailed(f"the master is {master.name if master else 'none'}, wanted {self.context.preferred_master().name}")
        addresses = [self.context.here(Endpoint(a.address, 1)).address for i in self.context.instances() for a in i.addresses]
        for director in self.context.directors:
            present = self._addresses_of(director)
            wrong = [a for a in addresses if (a in present) is not (director is master)]
            if wrong:
                raise StepFailed(f"{', '.join(wrong)}: wrong on {director.name}")
        return f"{', '.join(addresses)} on {master.name} ({master.address})"

    def _addresses_of(self, director: Host) -> set[str]:
        """Addresses on a machine, from its kernel; on the loopback stage, which has one kernel for all, from its daemon."""
        if self.cluster.stage.name == "loopback":
            instances = self.cluster.snapshot(director).director.instances
            return {a.partition("/")[0] for i in instances if i.state == "MASTER" for a in i.addresses}
        import pyroute2

        with self.cluster.stage.inside(director), pyroute2.IPRoute() as ip:
            return {m.get_attr("IFA_LOCAL") for m in ip.get_addr()}

    def table(self) -> tuple[str, str]:
        """Check that every service and server is in the table of the master."""
        master = self.context.require_master()
        services = self.cluster.snapshot(master).balancer.services
        missing = [f"{s.address}:{s.port}" for s in services for r in s.servers if r.up and not r.in_plane and not r.sorry]
        if missing:
            raise StepFailed(f"servers of {', '.join(missing)} are not in the table")
        servers = sum(len(s.servers) for s in services)
        return f"{len(services)} services, {servers} servers", listing_of(self.cluster.run_dir(master))

    # -- steps: balance ----------------------------------------------------------------------------------------

    def weights(self, service: VirtualServer) -> str:
        """Count which servers answer, with another client for each request. With wrr the shares must follow the weights."""
        here = self.context.here(service.endpoint)
        answers = Counter(self.context.client.who(here, number) for number in self.context.fresh_clients(REQUESTS))
        failed = answers.pop("", 0)
        shares = ", ".join(f"{name} {answers[name]}" for name in self.context.names(service))
        if failed:
            raise StepFailed(f"{failed} of {REQUESTS} failed; {shares}")
        if service.scheduler == "wrr":
            total = sum(r.weight for r in service.real_servers)
            for server, name in zip(service.real_servers, self.context.names(service), strict=True):
                wanted = REQUESTS * server.weight / total
                if abs(answers[name] - wanted) > max(2.0, REQUESTS * 0.02):
                    raise StepFailed(f"{shares}; wanted {wanted:.0f} for {name}")
        elif set(answers) - set(self.context.names(service)):
            raise StepFailed(f"machines other than the real servers answered: {dict(answers)}")
        return f"{shares} ({service.scheduler})"

    def persistence_holds(self, service: VirtualServer) -> str:
        """Check that each of a dozen clients gets the same server five times."""
        here = self.context.here(service.endpoint)
        numbers = list(self.context.fresh_clients(12))
        first = [self.context.client.who(here, number) for number in numbers]
        for _ in range(4):
            again = [self.context.client.who(here, number) for number in numbers]
            if again != first or "" in first:
                raise StepFailed(f"clients moved: {first} then {again}")
        self._sticky[service.name] = (numbers, first, time.monotonic())
        return f"12 clients, 5 times each: the same server ({dict(Counter(first))})"

    def persistence_expires(self, service: VirtualServer) -> str:
        """Check that the persistence templates of idle clients expire after the timeout."""
        if service.name not in self._sticky:
            raise StepFailed("no client had a persistence template")
        _, _, since = self._sticky[service.name]
        timeout = max(2, round(service.persistence_timeout_s / self.cluster.speed_up)) if self.cluster.speed_up != 1 else None
        timeout_s = timeout or service.persistence_timeout_s
        self.context.report(f"waiting for the persistence timeout of {timeout_s} s")
        self.context.wait(
            "persistence templates have expired",
            lambda: self._templates(service) == 0,
            max(0.0, since + timeout_s - time.monotonic()) + timeout_s + SLACK_S + self._template_lag_s(),
        )
        return f"no persistence template is left {time.monotonic() - since:.0f} s after the last request (timeout {timeout_s} s)"

    def _template_lag_s(self) -> float:
        master = self.context.require_master()
        return catalogue.capabilities(self.cluster.snapshot(master).balancer.plane).template_lag_s

    def _templates(self, service: VirtualServer) -> int:
        """Number of persistence templates that the master has for a service; -1 without a master."""
        master = self.context.master()
        if master is None:
            return -1
        found = self.context.snapshot_of(service, self.cluster.snapshot(master))
        return sum(server.persistent for server in found.servers)

    # -- steps: servers ----------------------------------------------------------------------------------------

    def server_stops(self, service: VirtualServer) -> str:
        """Stop the first server; measure how soon it is removed, and how many requests fail until then."""
        server = service.real_servers[0]
        host, what = self.context.host(server.endpoint)
        prober = Prober(self.context.client, self.context.here(service.endpoint), 0.02)
        bound = self.context.removal_bound_s(service)
        with prober.running() as probes:
            time.sleep(0.2)
            self.cluster.stop_service(host, what)
            took = self.context.wait(
                f"{host.name} is removed",
                lambda: self.context.everywhere(service, lambda s: not _up(s, self.context.here(server.endpoint))),
                bound,
            )
            time.sleep(0.3)
        self._expect_server(service, server, "DOWN")
        here = self.context.here(service.endpoint)
        answers = {self.context.client.who(here, n) for n in self.context.fresh_clients(10)}
        if host.name in answers or "" in answers:
            raise StepFailed(f"removed after {took:.1f} s, but {answers} answer")
        return f"{host.name} removed after {took:.1f} s; {probes.failed} of {probes.sent} requests failed"

    def server_returns(self, service: VirtualServer) -> str:
        """Start that server again; measure how soon it is added."""
        server = service.real_servers[0]
        host, what = self.context.host(server.endpoint)
        self.cluster.start_service(host, what)
        took = self._wait_up(service, [server])
        self._expect_server(service, server, "UP")
        here = self.context.here(service.endpoint)
        answers = Counter(self.context.client.who(here, n) for n in self.context.fresh_clients(30))
        if not answers[host.name]:
            raise StepFailed(f"back after {took:.1f} s, but gets no request: {dict(answers)}")
        return f"{host.name} back after {took:.1f} s"

    def _wait_up(self, service: VirtualServer, servers: list[RealServer]) -> float:
        return self.context.wait(
            "every server is back",
            lambda: self.context.everywhere(service, lambda s: all(_up(s, self.context.here(r.endpoint)) for r in servers)),
            self.context.removal_bound_s(service),
        )

    def all_stop(self, service: VirtualServer) -> str:
        """Stop every server; the sorry server must answer."""
        assert service.sorry_server is not None
        for server in service.real_servers:
            self.cluster.stop_service(*self.context.host(server.endpoint))
        took = self.context.wait(
            "every server is removed",
            lambda: self.context.everywhere(service, lambda s: s.uses_sorry_server),
            self.context.removal_bound_s(service),
        )
        self._expect_all(service, "DOWN")
        here, sorry = self.context.here(service.endpoint), self.context.host(service.sorry_server)[0].name
        self.context.wait(
            f"{sorry} answers", lambda: self.context.client.who(here, next(iter(self.context.fresh_clients(1)))) == sorry, SLACK_S
        )
        answers = Counter(self.context.client.who(here, n) for n in self.context.fresh_clients(20))
        if set(answers) != {sorry}:
            raise StepFailed(f"{dict(answers)} answer, wanted {sorry}")
        return f"{sorry} answers after {took:.1f} s"

    def all_return(self, service: VirtualServer) -> str:
        """Start every server; the sorry server must no longer answer."""
        for server in service.real_servers:
            self.cluster.start_service(*self.context.host(server.endpoint))
        took = self._wait_up(service, list(service.real_servers))
        self._expect_all(service, "UP")
        here = self.context.here(service.endpoint)
        answers = Counter(self.context.client.who(here, n) for n in self.context.fresh_clients(30))
        if set(answers) - set(self.context.names(service)):
            raise StepFailed(f"{dict(answers)} answer")
        return f"back after {took:.1f} s: {', '.join(f'{n} {c}' for n, c in sorted(answers.items()))}"

    def _expect_server(self, service: VirtualServer, server: RealServer, state: str) -> None:
        subject = self._server_subject(service, server, state)
        for name in self.context.snapshots():
            self.context.expected_mails[name].add(subject)

    def _expect_all(self, service: VirtualServer, state: str) -> None:
        """Expect a mail for each server and one for the quorum, in any order."""
        subjects = [self._server_subject(service, r, state) for r in service.real_servers if r.smtp_alert]
        if service.smtp_alert:
            subjects.append(f"Virtualserver {self.context.formatted(service.endpoint, service)} - {state}")
        for name in self.context.snapshots():
            self.context.expected_mails[name].add(*subjects)

    def _server_subject(self, service: VirtualServer, server: RealServer, state: str) -> str:
        real, virtual = (self.context.formatted(e, service) for e in (server.endpoint, service.endpoint))
        return f"Realserver {real} of virtual server {virtual} - {state}"

    # -- steps: records ----------------------------------------------------------------------------------------

    def mails(self) -> tuple[str, str]:
        """Check that each director mailed every transition of the drill, once and in order."""
        total, listed = 0, []
        for director in self.context.directors:
            assert director.configuration is not None
            mail = director.configuration.global_defs.mail
            if not mail.recipients or mail.server is None:
                continue
            wanted = [group for group in self.context.expected_mails[director.name].groups if group]
            count = sum(group.total() for group in wanted)
            with contextlib.suppress(StepFailed):
                self.context.wait("the mails have arrived", partial(self._arrived, director, count), 5.0)
            time.sleep(0.5)  # a surplus mail would arrive in this time
            subjects = [_subject(record["text"]) for record in self.cluster.inbox(director)]
            listed += [f"{director.name}: {s}" for s in subjects]
            router_id = director.configuration.global_defs.router_id
            problem = _compare(wanted, [s.removeprefix(f"[{router_id}] ") for s in subjects])
            if problem:
                raise StepFailed(f"{director.name}: {problem}")
            total += len(subjects)
        if not total:
            return "no mail is configured", ""
        return f"{total} mails, each once and in order", "\n".join(listed)

    def _arrived(self, director: Host, count: int) -> bool:
        return len(self.cluster.inbox(director)) >= count

    def logs(self) -> str:
        """Check that the directors logged the transitions in keepalived's words."""
        wanted = [rf"\({re.escape(i.name)}\) Entering MASTER STATE" for i in self.context.instances()]
        wanted += [
            rf"{verb} service {re.escape(self.context.formatted(s.real_servers[0].endpoint, s))}"
            for s in self.context.services()
            if s.protocol is Protocol.TCP
            for verb in ("Removing", "Adding")
        ]
        found = 0
        for director in self.context.directors:
            text = self.cluster.log_text(director)
            if "Traceback" in text:
                raise StepFailed(f"{director.name} logged a traceback")
            for pattern in wanted:
                if not re.search(pattern, text):
                    raise StepFailed(f"{director.name} did not log {pattern!r}")
                found += len(re.findall(pattern, text))
        return f"{found} lines of {len(wanted)} kinds"


def _up(service: ServiceSnapshot, endpoint: Endpoint) -> bool:
    """Whether the plane schedules connections to a server."""
    return any(s.up and s.in_plane for s in service.servers if (s.address, s.port) == (endpoint.address, endpoint.port))


def _subject(text: str) -> str:
    return str(make_header(decode_header(message_from_string(text)["Subject"] or "")))


def _pair(result: str | tuple[str, str]) -> tuple[str, str]:
    return result if isinstance(result, tuple) else (result, "")


def _compare(wanted: list[Counter[str]], got: list[str]) -> str:
    """Return how ``got`` differs from ``wanted``; empty when it does not."""
    rest = list(got)
    for group in wanted:
        part = Counter(rest[: group.total()])
        if part != group:
            return f"wanted {sorted(group)} next, got {rest[: group.total()] or 'nothing'}"
        rest = rest[group.total() :]
    return f"{len(rest)} surplus mails: {rest[:3]}" if rest else ""
