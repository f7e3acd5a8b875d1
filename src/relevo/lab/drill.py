"""The drill: an administrator's checks of a cluster, each with what was measured.

The order is that of the article the project comes from: look at the address, the table and the balance, then take servers
away and give them back, then the directors, and in the end read the mail and the log. What the drill expects follows from
the files, so that any cluster the lab can build can be drilled.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_string
from email.header import decode_header, make_header
from functools import partial
from typing import Any

from relevo.api import schema
from relevo.api.client import ask
from relevo.compat.ipvsadm.program import listing_of
from relevo.errors import ControlError
from relevo.lab.client import Client, Prober, still_alive
from relevo.lab.cluster import Cluster
from relevo.lab.topology import Host, Service, kind_of
from relevo.machines.vrrp import VrrpMachine
from relevo.model import Endpoint, Protocol, RealServer, VirtualServer, VrrpInstance
from relevo.model.table import SyncRole
from relevo.observe.snapshot import ServiceSnapshot, Snapshot
from relevo.planes import catalogue

REQUESTS = 300
"""Requests that the weights are counted over: three servers of any small weights come out even."""
FIRST_CLIENT = 10_000
PROBE_S = 0.005
SYNC_S = 2.5
"""After this the peers know a connection: the kernel's daemon keeps news for two seconds."""
HELD = 20
SLACK_S = 3.0
"""Added to every bound, for a busy machine."""
POLL_S = 0.1


Step = Callable[[], str | tuple[str, str]]
"""Does a check; returns what was measured, and details if there are any. ``StepFailed`` says what is wrong."""


class StepFailed(Exception):
    """A step found something else than it must; the text says what."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A step that is done."""

    name: str
    passed: bool
    measured: str
    seconds: float
    detail: str = ""


@dataclass(slots=True)
class Expected:
    """Subjects that a director must have mailed, in order; those of one set may come in any order."""

    groups: list[Counter[str]] = field(default_factory=list)

    def add(self, *subjects: str) -> None:
        """Expect these next."""
        self.groups.append(Counter(subjects))


class Drill:
    """Runs the steps on a cluster. ``tell`` hears what is going on."""

    def __init__(self, cluster: Cluster, tell: Callable[[str], None]) -> None:
        self.cluster = cluster
        self.tell = tell
        self.client = Client(cluster.stage, cluster.topology.client, abrupt=cluster.speed_up != 1)
        self.directors = cluster.topology.directors
        self.expected: dict[str, Expected] = {d.name: Expected() for d in self.directors}
        self._clients = FIRST_CLIENT
        self._sticky: dict[str, tuple[list[int], list[str], float]] = {}

    # -- the plan ----------------------------------------------------------------------------------------------

    def run(self) -> Iterator[Outcome]:
        """Run every step; yield its outcome. A failed step does not end the drill."""
        for name, step in self.steps():
            self.tell(name)
            begun = time.monotonic()
            try:
                measured, detail = _pair(step())
                passed = True
            except StepFailed as unmet:
                measured, detail, passed = str(unmet), "", False
            except (OSError, ControlError) as error:
                measured, detail, passed = f"{type(error).__name__}: {error}", "", False
            yield Outcome(name, passed, measured, time.monotonic() - begun, detail)

    def steps(self) -> list[tuple[str, Step]]:
        """Return the steps for this cluster, by name."""
        services = [s for s in self._services() if s.protocol is Protocol.TCP]
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
                name = f"{self._label(service)}: the client's server is forgotten"
                found.append((name, partial(self.persistence_expires, service)))
        if len(self.directors) > 1 and self._instances():
            found += [
                ("the master dies", self.master_dies),
                ("it returns and takes over", self.master_returns),
                ("the master is stopped politely", self.master_stops),
                ("it returns and takes over again", self.master_returns),
                ("it hands over as planned", self.master_hands_over),
                ("it takes back what it gave", self.master_takes_back),
            ]
        found.append(("every mail arrived, once and in order", self.mails))
        found.append(("the log tells of it", self.logs))
        return found

    def _balance_steps(self, service: VirtualServer) -> list[tuple[str, Step]]:
        label = self._label(service)
        found: list[tuple[str, Step]] = [(f"{label}: {REQUESTS} requests by weight", partial(self.weights, service))]
        if service.persistence_timeout_s:
            found.append((f"{label}: a client keeps its server", partial(self.persistence_holds, service)))
        return found

    def _server_steps(self, service: VirtualServer) -> list[tuple[str, Step]]:
        label = self._label(service)
        found: list[tuple[str, Step]] = [
            (f"{label}: a server stops", partial(self.server_stops, service)),
            (f"{label}: it returns", partial(self.server_returns, service)),
        ]
        if service.sorry_server:
            found.append((f"{label}: all stop, the sorry server answers", partial(self.all_stop, service)))
            found.append((f"{label}: all return", partial(self.all_return, service)))
        return found

    # -- what the files say ------------------------------------------------------------------------------------

    def _services(self) -> tuple[VirtualServer, ...]:
        return self.cluster.topology.model.virtual_servers

    def _instances(self) -> tuple[VrrpInstance, ...]:
        return self.cluster.topology.model.vrrp_instances

    def _label(self, service: VirtualServer) -> str:
        return {"http": "web", "smtp": "mail"}.get(kind_of(service.endpoint.port, service.protocol), str(service.endpoint))

    def _here(self, endpoint: Endpoint) -> Endpoint:
        """Return where an endpoint of the files is on this stage."""
        changes = self.cluster.stage.changes(self.cluster.topology, self.directors[0])
        return Endpoint(changes.address(endpoint.address), changes.port(endpoint.port))

    def _host(self, endpoint: Endpoint) -> tuple[Host, Service]:
        here = self._here(endpoint)
        host = self.cluster.topology.server_at(here.address)
        return host, next(s for s in host.services if s.port == here.port)

    def _names(self, service: VirtualServer) -> list[str]:
        return [self._host(server.endpoint)[0].name for server in service.real_servers]

    def _removal_bound_s(self, service: VirtualServer) -> float:
        """Longest time in which checks must notice a dead server."""
        timings = [(c.timing, c.connect_timeout_s) for r in service.real_servers for c in r.checks]
        waits = [
            t.delay_loop_s / self.cluster.speed_up + t.retry * (t.delay_before_retry_s + limit) + limit for t, limit in timings
        ]
        return max(waits, default=0.0) + SLACK_S

    def _formatted(self, endpoint: Endpoint, service: VirtualServer) -> str:
        return self._here(endpoint).formatted(service.protocol)

    # -- what the directors say --------------------------------------------------------------------------------

    def _snapshots(self) -> dict[str, Snapshot]:
        found = {}
        for director in self.directors:
            with contextlib.suppress(ControlError):
                found[director.name] = self.cluster.snapshot(director)
        return found

    def _master(self) -> Host | None:
        names = {i.name for i in self._instances()}
        for director in self.directors:
            with contextlib.suppress(ControlError):
                states = {i.name: i.state for i in self.cluster.snapshot(director).director.instances}
                if names and all(states.get(name) == "MASTER" for name in names):
                    return director
        return None if names else self.directors[0]

    def _balanced(self, service: VirtualServer, snapshot: Snapshot) -> ServiceSnapshot:
        here = self._here(service.endpoint)
        return next(s for s in snapshot.balancer.services if (s.address, s.port) == (here.address, here.port))

    def _wait(self, what: str, condition: Callable[[], Any], limit_s: float) -> float:
        """Wait for ``condition``; return the seconds that it took."""
        begun = time.monotonic()
        last_told = begun
        while True:
            if condition():
                return time.monotonic() - begun
            now = time.monotonic()
            if now - begun > limit_s:
                raise StepFailed(f"not within {limit_s:.0f} s: {what}")
            if now - last_told > 1.0:
                last_told = now
                self.tell(f"waiting until {what} ({now - begun:.0f} of at most {limit_s:.0f} s)")
            time.sleep(POLL_S)

    def _everywhere(self, service: VirtualServer, test: Callable[[ServiceSnapshot], bool]) -> bool:
        """Whether ``test`` holds on every director that runs."""
        found = self._snapshots()
        return bool(found) and all(test(self._balanced(service, s)) for s in found.values())

    # -- steps: start ------------------------------------------------------------------------------------------

    def start(self) -> str:
        """Start everything; wait until one director is master of everything and every check has run."""
        self.cluster.start_servers()
        for director in self.directors:
            self.cluster.start_director(director)
        slowest = max((_takeover_bound_s(i) for i in self._instances()), default=0.0)
        took = self._wait("a director is master", lambda: self._master() is not None, slowest + SLACK_S)
        for director in self.directors:
            self._expect_vrrp(director, "BACKUP")
        self._expect_vrrp(self._wanted_master(), "MASTER")
        self._check_once()
        count = len(self.cluster.topology.servers)
        plane = self.cluster.snapshot(self._need_master()).balancer.plane
        return f"{count} servers, {len(self.directors)} directors, data plane {plane}; a master after {took:.1f} s"

    def _wanted_master(self) -> Host:
        def priority(director: Host) -> int:
            assert director.configuration is not None
            return max((i.priority for i in director.configuration.vrrp_instances), default=0)

        return max(self.directors, key=priority)

    def _check_once(self) -> None:
        """Wait until every check has run once: after that a failure needs its retries."""
        longest = max((c.timing.warmup_s for s in self._services() for r in s.real_servers for c in r.checks), default=0.0)

        def checked() -> bool:
            found = self._snapshots().values()
            servers = [s for x in found for v in x.balancer.services for s in v.servers]
            return all(c.last_at is not None for s in servers for c in s.checks)

        self._wait("every server was checked", checked, longest / self.cluster.speed_up + 5.0 + SLACK_S)

    def _expect_vrrp(self, director: Host, state: str) -> None:
        assert director.configuration is not None
        what = "Stopping" if state == "STOP" else f"Entering {state} state"
        subjects = [f"VRRP Instance {i.name} - {what}" for i in director.configuration.vrrp_instances if i.smtp_alert]
        self.expected[director.name].add(*subjects)

    def address_on_master(self) -> str:
        """The virtual addresses are where the master is, and only there."""
        master = self._master()
        if master is not self._wanted_master():
            raise StepFailed(f"the master is {master.name if master else 'nobody'}, wanted {self._wanted_master().name}")
        addresses = [self._here(Endpoint(a.address, 1)).address for i in self._instances() for a in i.addresses]
        for director in self.directors:
            present = self._addresses_of(director)
            wrong = [a for a in addresses if (a in present) is not (director is master)]
            if wrong:
                raise StepFailed(f"{', '.join(wrong)}: wrong on {director.name}")
        return f"{', '.join(addresses)} on {master.name} ({master.address})"

    def _addresses_of(self, director: Host) -> set[str]:
        """Addresses on a machine: the kernel's word in namespaces, the daemon's where all share one loopback."""
        if self.cluster.stage.name == "loopback":
            instances = self.cluster.snapshot(director).director.instances
            return {a.partition("/")[0] for i in instances if i.state == "MASTER" for a in i.addresses}
        import pyroute2

        with self.cluster.stage.inside(director), pyroute2.IPRoute() as ip:
            return {m.get_attr("IFA_LOCAL") for m in ip.get_addr()}

    def table(self) -> tuple[str, str]:
        """Every service and server is in the table of the master."""
        master = self._need_master()
        services = self.cluster.snapshot(master).balancer.services
        missing = [f"{s.address}:{s.port}" for s in services for r in s.servers if r.up and not r.in_plane and not r.sorry]
        if missing:
            raise StepFailed(f"servers of {', '.join(missing)} are not in the table")
        servers = sum(len(s.servers) for s in services)
        return f"{len(services)} services, {servers} servers", listing_of(self.cluster.run_dir(master))

    # -- steps: balance ----------------------------------------------------------------------------------------

    def _fresh_clients(self, count: int) -> range:
        first, self._clients = self._clients, self._clients + count
        return range(first, first + count)

    def weights(self, service: VirtualServer) -> str:
        """Requests of as many clients are spread by weight (exactly for wrr; least-connection even for idle servers)."""
        here = self._here(service.endpoint)
        answers = Counter(self.client.who(here, number) for number in self._fresh_clients(REQUESTS))
        failed = answers.pop("", 0)
        shares = ", ".join(f"{name} {answers[name]}" for name in self._names(service))
        if failed:
            raise StepFailed(f"{failed} of {REQUESTS} failed; {shares}")
        if service.scheduler == "wrr":
            total = sum(r.weight for r in service.real_servers)
            for server, name in zip(service.real_servers, self._names(service), strict=True):
                wanted = REQUESTS * server.weight / total
                if abs(answers[name] - wanted) > max(2.0, REQUESTS * 0.02):
                    raise StepFailed(f"{shares}; wanted {wanted:.0f} for {name}")
        elif set(answers) - set(self._names(service)):
            raise StepFailed(f"strangers answered: {dict(answers)}")
        return f"{shares} ({service.scheduler})"

    def persistence_holds(self, service: VirtualServer) -> str:
        """Each of a dozen clients gets the same server again and again."""
        here = self._here(service.endpoint)
        numbers = list(self._fresh_clients(12))
        first = [self.client.who(here, number) for number in numbers]
        for _ in range(4):
            again = [self.client.who(here, number) for number in numbers]
            if again != first or "" in first:
                raise StepFailed(f"clients moved: {first} then {again}")
        self._sticky[service.name] = (numbers, first, time.monotonic())
        return f"12 clients, 5 times each: the same server ({dict(Counter(first))})"

    def persistence_expires(self, service: VirtualServer) -> str:
        """After the time-out the director has forgotten the clients."""
        if service.name not in self._sticky:
            raise StepFailed("no client was remembered")
        _, _, since = self._sticky[service.name]
        timeout = max(2, round(service.persistence_timeout_s / self.cluster.speed_up)) if self.cluster.speed_up != 1 else None
        timeout_s = timeout or service.persistence_timeout_s
        self.tell(f"waiting for the {timeout_s} s of persistence to pass")
        self._wait(
            f"{timeout_s} s are over",
            lambda: self._remembered(service) == 0,
            max(0.0, since + timeout_s - time.monotonic()) + timeout_s + SLACK_S + self._template_lag_s(),
        )
        return f"no client is remembered {time.monotonic() - since:.0f} s after the last of them (time-out {timeout_s} s)"

    def _template_lag_s(self) -> float:
        master = self._need_master()
        return catalogue.capabilities(self.cluster.snapshot(master).balancer.plane).template_lag_s

    def _remembered(self, service: VirtualServer) -> int:
        master = self._master()
        if master is None:
            return -1
        found = self._balanced(service, self.cluster.snapshot(master))
        return sum(server.persistent for server in found.servers)

    # -- steps: servers ----------------------------------------------------------------------------------------

    def server_stops(self, service: VirtualServer) -> str:
        """The first server dies: how soon it is out, and what clients felt."""
        server = service.real_servers[0]
        host, what = self._host(server.endpoint)
        prober = Prober(self.client, self._here(service.endpoint), 0.02)
        bound = self._removal_bound_s(service)
        with prober.running() as watch:
            time.sleep(0.2)
            self.cluster.stop_service(host, what)
            took = self._wait(
                f"{host.name} is out", lambda: self._everywhere(service, lambda s: not _up(s, self._here(server.endpoint))), bound
            )
            time.sleep(0.3)
        self._expect_server(service, server, "DOWN")
        here = self._here(service.endpoint)
        answers = {self.client.who(here, n) for n in self._fresh_clients(10)}
        if host.name in answers or "" in answers:
            raise StepFailed(f"out after {took:.1f} s, but {answers} answer")
        return f"{host.name} out after {took:.1f} s; {watch.failed} of {watch.sent} requests failed"

    def server_returns(self, service: VirtualServer) -> str:
        """The dead server comes back."""
        server = service.real_servers[0]
        host, what = self._host(server.endpoint)
        self.cluster.start_service(host, what)
        took = self._wait_up(service, [server])
        self._expect_server(service, server, "UP")
        here = self._here(service.endpoint)
        answers = Counter(self.client.who(here, n) for n in self._fresh_clients(30))
        if not answers[host.name]:
            raise StepFailed(f"back after {took:.1f} s, but gets nothing: {dict(answers)}")
        return f"{host.name} back after {took:.1f} s"

    def _wait_up(self, service: VirtualServer, servers: list[RealServer]) -> float:
        return self._wait(
            "they are back",
            lambda: self._everywhere(service, lambda s: all(_up(s, self._here(r.endpoint)) for r in servers)),
            self._removal_bound_s(service),
        )

    def all_stop(self, service: VirtualServer) -> str:
        """Every server dies: the sorry server answers."""
        assert service.sorry_server is not None
        for server in service.real_servers:
            self.cluster.stop_service(*self._host(server.endpoint))
        took = self._wait(
            "all are out", lambda: self._everywhere(service, lambda s: s.uses_sorry_server), self._removal_bound_s(service)
        )
        self._expect_all(service, "DOWN")
        here, sorry = self._here(service.endpoint), self._host(service.sorry_server)[0].name
        self._wait(f"{sorry} answers", lambda: self.client.who(here, next(iter(self._fresh_clients(1)))) == sorry, SLACK_S)
        answers = Counter(self.client.who(here, n) for n in self._fresh_clients(20))
        if set(answers) != {sorry}:
            raise StepFailed(f"{dict(answers)} answer, wanted {sorry}")
        return f"{sorry} answers after {took:.1f} s"

    def all_return(self, service: VirtualServer) -> str:
        """Every server comes back: the sorry server leaves."""
        for server in service.real_servers:
            self.cluster.start_service(*self._host(server.endpoint))
        took = self._wait_up(service, list(service.real_servers))
        self._expect_all(service, "UP")
        here = self._here(service.endpoint)
        answers = Counter(self.client.who(here, n) for n in self._fresh_clients(30))
        if set(answers) - set(self._names(service)):
            raise StepFailed(f"{dict(answers)} answer")
        return f"back after {took:.1f} s: {', '.join(f'{n} {c}' for n, c in sorted(answers.items()))}"

    def _expect_server(self, service: VirtualServer, server: RealServer, state: str) -> None:
        subject = self._server_subject(service, server, state)
        for name in self._snapshots():
            self.expected[name].add(subject)

    def _expect_all(self, service: VirtualServer, state: str) -> None:
        """Expect a mail for each server, in any order; that of the quorum may stand anywhere between them."""
        subjects = [self._server_subject(service, r, state) for r in service.real_servers if r.smtp_alert]
        if service.smtp_alert:
            subjects.append(f"Virtualserver {self._formatted(service.endpoint, service)} - {state}")
        for name in self._snapshots():
            self.expected[name].add(*subjects)

    def _server_subject(self, service: VirtualServer, server: RealServer, state: str) -> str:
        where = f"{self._formatted(server.endpoint, service)} of virtual server {self._formatted(service.endpoint, service)}"
        return f"Realserver {where} - {state}"

    # -- steps: directors --------------------------------------------------------------------------------------

    def _probed_service(self) -> Endpoint:
        service = next(s for s in self._services() if s.protocol is Protocol.TCP)
        return self._here(service.endpoint)

    def master_dies(self) -> str:
        """The master's machine dies: how long nobody answers, and which connections are lost."""
        master = self._need_master()
        bound = max(_takeover_bound_s(i) for i in self._instances()) + SLACK_S
        text = self._watch_handover(master, lambda: self.cluster.crash_director(master), bound)
        for other in self.directors:
            if other is not master:
                self._expect_vrrp(other, "MASTER")
        return text

    def master_stops(self) -> str:
        """The master is stopped politely: the same, and it says goodbye."""
        master = self._need_master()
        bound = max(i.advert_interval_s for i in self._instances()) + SLACK_S
        text = self._watch_handover(master, lambda: self.cluster.stop_director(master), bound)
        self._expect_vrrp(master, "STOP")
        for other in self.directors:
            if other is not master:
                self._expect_vrrp(other, "MASTER")
        return text

    def _need_master(self) -> Host:
        master = self._master()
        if master is None:
            raise StepFailed("there is no master")
        return master

    def master_hands_over(self) -> str:
        """The administrator asks the master to hand over: as a polite stop, and it stays, as backup."""
        master = self._need_master()
        bound = max(i.advert_interval_s for i in self._instances()) + SLACK_S
        text = self._watch_handover(master, lambda: self._failover(master), bound)
        self._expect_vrrp(master, "BACKUP")
        for other in self.directors:
            if other is not master:
                self._expect_vrrp(other, "MASTER")
        return text

    def master_takes_back(self) -> str:
        """Priorities decide again."""
        wanted = self._wanted_master()
        bound = max(_takeover_bound_s(i) for i in self._instances()) + SLACK_S
        text = self._watch_handover(self._need_master(), lambda: self._failover(wanted, back=True), bound)
        self._expect_vrrp(wanted, "MASTER")
        for other in self.directors:
            if other is not wanted:
                self._expect_vrrp(other, "BACKUP")
        self._check_once()
        return text

    def _failover(self, director: Host, *, back: bool = False) -> None:
        for instance in self._instances():
            try:
                ask(self.cluster.run_dir(director), schema.Failover(instance.name, back=back))
            except ControlError as error:
                raise StepFailed(str(error)) from error

    def _is_synchronised(self, director: Host) -> bool:
        """Whether a director tells its peers of its connections."""
        state = self.cluster.snapshot(director).balancer.sync
        return state is not None and SyncRole.MASTER in state.roles and not state.problem

    def _watch_handover(self, master: Host, end: Callable[[], None], bound: float) -> str:
        service = self._probed_service()
        synchronised = self._is_synchronised(master)
        held = self.client.hold(service, HELD)
        prober = Prober(self.client, service, PROBE_S)
        with prober.running() as watch:
            time.sleep(SYNC_S if synchronised else 0.3)
            end()
            self._wait("another is master", lambda: self._master() not in (None, master), bound)
            time.sleep(0.7)
        lost = sum(not still_alive(sock, service) for sock in held)
        for sock in held:
            sock.close()
        gap = watch.longest_gap_s()
        if gap > bound or len(watch.answers) < 10:
            raise StepFailed(f"nobody answered for {gap:.2f} s, at most {bound:.1f} s are right")
        taker = self._need_master()
        if lost and synchronised:
            raise StepFailed(f"{lost} of {HELD} held connections lost, though connections are synchronised")
        return f"{taker.name} answers after a gap of {gap * 1000:.0f} ms; {lost} of {HELD} held connections lost"

    def master_returns(self) -> str:
        """The director with the highest priority comes back and takes over."""
        wanted = self._wanted_master()
        others = [d for d in self.directors if d is not wanted]
        service = self._probed_service()
        bound = max(_takeover_bound_s(i) for i in self._instances()) + SLACK_S
        prober = Prober(self.client, service, PROBE_S)
        with prober.running() as watch:
            self.cluster.revive_director(wanted)
            took = self._wait(f"{wanted.name} is master", lambda: self._master() is wanted, bound)
            time.sleep(0.5)
        self._expect_vrrp(wanted, "BACKUP")
        self._expect_vrrp(wanted, "MASTER")
        for other in others:
            self._expect_vrrp(other, "BACKUP")
        self._check_once()
        return f"{wanted.name} is master after {took:.1f} s; gap {watch.longest_gap_s() * 1000:.0f} ms"

    # -- steps: records ----------------------------------------------------------------------------------------

    def mails(self) -> tuple[str, str]:
        """Each director mailed every transition of the drill, once and in order."""
        total, listed = 0, []
        for director in self.directors:
            assert director.configuration is not None
            mail = director.configuration.global_defs.mail
            if not mail.recipients or mail.server is None:
                continue
            wanted = [group for group in self.expected[director.name].groups if group]
            count = sum(group.total() for group in wanted)
            with contextlib.suppress(StepFailed):
                self._wait("the mails have arrived", partial(self._arrived, director, count), 5.0)
            time.sleep(0.5)  # one too many would arrive now
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
        """The directors logged the transitions in keepalived's words."""
        wanted = [rf"\({re.escape(i.name)}\) Entering MASTER STATE" for i in self._instances()]
        wanted += [
            rf"{verb} service {re.escape(self._formatted(s.real_servers[0].endpoint, s))}"
            for s in self._services()
            if s.protocol is Protocol.TCP
            for verb in ("Removing", "Adding")
        ]
        found = 0
        for director in self.directors:
            text = self.cluster.log_text(director)
            if "Traceback" in text:
                raise StepFailed(f"{director.name} logged a traceback")
            for pattern in wanted:
                if not re.search(pattern, text):
                    raise StepFailed(f"{director.name} did not log {pattern!r}")
                found += len(re.findall(pattern, text))
        return f"{found} lines of {len(wanted)} kinds"


def _takeover_bound_s(instance: VrrpInstance) -> float:
    return VrrpMachine(instance, "127.0.0.1").master_down_s()


def _up(service: ServiceSnapshot, endpoint: Endpoint) -> bool:
    """Whether the plane gives connections to a server."""
    return any(s.up and s.in_plane for s in service.servers if (s.address, s.port) == (endpoint.address, endpoint.port))


def _subject(text: str) -> str:
    return str(make_header(decode_header(message_from_string(text)["Subject"] or "")))


def _pair(result: str | tuple[str, str]) -> tuple[str, str]:
    return result if isinstance(result, tuple) else (result, "")


def _compare(wanted: list[Counter[str]], got: list[str]) -> str:
    """Say how ``got`` differs from ``wanted``, or nothing."""
    rest = list(got)
    for group in wanted:
        part = Counter(rest[: group.total()])
        if part != group:
            return f"wanted {sorted(group)} next, got {rest[: group.total()] or 'nothing'}"
        rest = rest[group.total() :]
    return f"{len(rest)} mails too many: {rest[:3]}" if rest else ""
