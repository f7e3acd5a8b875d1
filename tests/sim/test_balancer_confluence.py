"""Confluence of the service side: after any edits and failures, the servers in service are those of a fresh start.

``RELEVO_SEED`` and ``RELEVO_HISTORIES`` are those of ``test_confluence``.
"""

import os
import random

import msgspec
import pytest

from relevo.machines.pool import State, Symbol
from relevo.model import Configuration, Endpoint, HttpCheck, Protocol, RealServer, TcpCheck, Url, VirtualServer
from relevo.model.checks import CheckTiming
from relevo.model.diff import check_names
from relevo.node.balancer import QuorumChanged, ServerChanged
from relevo.node.effects import Log
from relevo.sim.services import ServiceHost
from tests.sim.worlds import format_story

HISTORIES = int(os.environ.get("RELEVO_HISTORIES", "10000"))
PARTS = 10
SETTLED_S = 30.0
"""A delay loop, all retries, and a first check fit in here."""
SERVERS = [Endpoint(f"10.0.0.{number}", 80) for number in range(1, 5)]
SORRY = (None, None, Endpoint("127.0.0.1", 8080), Endpoint("127.0.0.1", 9090))


def check(draw, at):
    timing = CheckTiming(
        delay_loop_s=draw.choice((2.0, 5.0)),
        retry=draw.randrange(3),
        delay_before_retry_s=1.0,
        warmup_s=draw.choice((0.0, 2.0)),
        alpha=draw.random() < 0.2,
    )
    target = Endpoint(at.address, draw.choice((80, 80, 8080)))
    if draw.random() < 0.5:
        return TcpCheck(timing=timing, connect=target, connect_timeout_s=1.0)
    return HttpCheck(timing=timing, connect=target, connect_timeout_s=1.0, urls=(Url(path="/"),))


def server(draw, at):
    checks = tuple(check(draw, at) for _ in range(draw.choice((0, 1, 1, 1, 2))))
    return RealServer(endpoint=at, weight=draw.choice((0, 1, 1, 2, 3)), inhibit_on_failure=draw.random() < 0.2, checks=checks)


def service(draw, number):
    return VirtualServer(
        endpoint=Endpoint("192.0.2.1", 80 + number),
        protocol=Protocol.TCP,
        quorum=draw.choice((1, 1, 2, 3)),
        hysteresis=draw.choice((0, 0, 0, 1)),
        omega=draw.random() < 0.3,
        sorry_server=draw.choice(SORRY),
        sorry_server_inhibit=draw.random() < 0.2,
        real_servers=tuple(server(draw, at) for at in SERVERS if draw.random() < 0.7),
    )


def configuration(draw):
    return Configuration(virtual_servers=tuple(service(draw, number) for number in range(2) if draw.random() < 0.9))


def mixed(draw, former, new):
    """Take the new declaration, or some of its servers."""
    if draw.random() < 0.3:
        return new
    exchanged = {each.endpoint: each for each in new.real_servers}
    servers = (exchanged.get(each.endpoint, each) if draw.random() < 0.4 else each for each in former.real_servers)
    return msgspec.structs.replace(former, real_servers=tuple(each for each in servers if draw.random() < 0.9))


def edited(draw, former):
    """Change a few things of a file."""
    fresh = configuration(draw)
    if draw.random() < 0.1:
        return fresh
    other = {each.name: each for each in fresh.virtual_servers}
    services = []
    for each in former.virtual_servers:
        if draw.random() < 0.1:
            continue
        new = other.get(each.name)
        services.append(mixed(draw, each, new) if new is not None else each)
    services += [each for each in fresh.virtual_servers if all(each.name != s.name for s in services) and draw.random() < 0.3]
    return Configuration(virtual_servers=tuple(services))


class Watcher:
    """Derives from events alone which servers are up and which pools have a quorum."""

    def __init__(self, host):
        self.host = host
        self.seen = 0
        self.up = {}
        self.quorum = {}

    def begin(self):
        """Add the initial state, which has no events."""
        for name, pool in self.host.balancer.pools.items():
            if name not in self.quorum:
                self.quorum[name] = pool.state is State.UP
                self.up |= {(name, at): health.up for at, health in pool.servers.items()}

    def follow(self, declared):
        formatted = {(s.name, r.endpoint.formatted(s.protocol)): (s.name, r.endpoint) for s in declared for r in s.real_servers}
        gone = set(self.quorum) - set(self.host.balancer.pools)
        lines = [each.text for each in self.host.effects[self.seen :] if isinstance(each, Log)]
        for effect in self.host.effects[self.seen :]:
            if isinstance(effect, ServerChanged) and effect.transition:
                key = formatted[effect.service, effect.server]
                assert self.up.get(key, False) is not effect.up, f"reported twice: {effect}"
                self.up[key] = effect.up
                if effect.service not in gone:
                    assert any("Adding service" in t or "Removing service" in t for t in lines)
            elif isinstance(effect, QuorumChanged):
                assert self.quorum[effect.service] is not effect.up, f"reported twice: {effect}"
                self.quorum[effect.service] = effect.up
        self.seen = len(self.host.effects)
        for name in gone:
            assert not self.quorum.pop(name), f"{name} was removed with its quorum, without an event"
            self.up = {key: up for key, up in self.up.items() if key[0] != name}
        self.begin()
        for name, pool in self.host.balancer.pools.items():
            assert self.quorum[name] is (pool.state is State.UP), f"quorum of {name}"
            for at, health in pool.servers.items():
                assert self.up.get((name, at), False) is health.up, f"{at} of {name} is {'up' if health.up else 'down'}"


def verdicts(host):
    """Which server is up, by service, server and the names of its checks: an edit of their settings keeps that."""
    return {
        (name, at, tuple(check for check, _ in check_names(health.server))): health.up
        for name, pool in host.balancer.pools.items()
        for at, health in pool.servers.items()
    }


def outcome(host):
    """Servers in service and the plane's table; a quorum between its two limits depends on the history."""
    found = {}
    for name, pool in host.balancer.pools.items():
        history = pool._symbol() is Symbol.BETWEEN
        found[name] = {
            "servers": {at: health.up for at, health in pool.servers.items()},
            "state": "history" if history else pool.state,
            "table": None if history else pool.desired(),
        }
    return found


def history(seed):
    """Run one history; return what happened, or raise AssertionError with it."""
    draw = random.Random(seed)
    alive = {(at.address, port) for at in SERVERS for port in (80, 8080) if draw.random() < 0.7}
    host = ServiceHost(lambda check: (check.connect.address, check.connect.port) in alive, draw.random)
    present = configuration(draw)
    declared = list(present.virtual_servers)
    watcher = Watcher(host)
    story = [(0.0, present)]
    host.configure(present)
    watcher.begin()
    try:
        for _ in range(draw.randrange(1, 7)):
            if draw.random() < 0.6:
                present = edited(draw, present)
                declared += present.virtual_servers
                story.append((host.now, present))
                before = verdicts(host)
                planned = host.plan(present)
                assert host.configure(present) == planned, "a reload does what its plan says"
                watcher.follow(declared)
                after = verdicts(host)
                assert all(after[key] == up for key, up in before.items() if key in after), "an edit is no proof"
            else:
                target = (draw.choice(SERVERS).address, draw.choice((80, 8080)))
                alive ^= {target}
                story.append((host.now, f"{target} {'lives' if target in alive else 'dies'}"))
            host.run(host.now + draw.choice((0.0, 0.0, 1.01, 1.5, 4.0, 12.0)))
            watcher.follow(declared)
        host.run(host.now + SETTLED_S)
        watcher.follow(declared)
        fresh = ServiceHost(host._answers, draw.random)
        fresh.configure(present)
        fresh.run(SETTLED_S)
        assert outcome(host) == outcome(fresh)
        for name, pool in host.balancer.pools.items():
            held = {key: [each.server for each in host.table[key].servers] for key in pool.service.keys}
            wanted = {item.service.key: list(item.servers) for item in pool.desired()}
            assert {k: sorted(v, key=str) for k, v in held.items()} == {k: sorted(v, key=str) for k, v in wanted.items()}, name
        assert set(host.table) == {key for pool in host.balancer.pools.values() for key in pool.service.keys}
        before = len(host.effects)
        host.configure(present)
        assert host.effects[before:] == [], "a reload without changes has effects"
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}\n{format_story(story)}") from None
    return format_story(story)


if "RELEVO_SEED" in os.environ:

    def test_one_history(capsys):
        with capsys.disabled():
            print(history(int(os.environ["RELEVO_SEED"])))  # noqa: T201

else:

    @pytest.mark.parametrize("part", range(PARTS))
    def test_every_history_ends_where_a_fresh_start_would(part):
        for seed in range(part, HISTORIES, PARTS):
            history(seed)
