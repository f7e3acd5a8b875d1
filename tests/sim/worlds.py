"""Random configurations, worlds and events for one director with a peer, and the state that must not depend on the history."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from relevo.machines.vrrp import State
from relevo.model import (
    Configuration,
    Script,
    SyncGroup,
    Tracked,
    TrackerKind,
    Trackers,
    VirtualAddress,
    VrrpInstance,
    VrrpScript,
)
from relevo.node.effects import GroupChanged, InstanceChanged, RemoveAddress
from relevo.node.observation import Configure, Kind, Observation, SetAddress
from relevo.sim.host import Host
from relevo.sim.lan import Simulation

LINKS = ("eth0", "eth1")
OWN = {"eth0": "10.0.0.1", "eth1": "10.0.1.1"}
PEER = {"eth0": "10.0.0.2", "eth1": "10.0.1.2"}
PEER_PRIORITY = 100
SCRIPT = VrrpScript(name="chk", script=Script(("/bin/check",)))
FIRST_RESULT_S = 0.3
"""When the first result of a script follows its declaration."""
SETTLED_S = 16.0
"""Recovery, a full wait, and a takeover with its second burst fit in here."""
RETRIED_S = 75.0
"""The longest pause before sending is tried again, and the same."""


def brief(value: object) -> str:
    """Format a value with the fields that differ from their defaults."""
    if isinstance(value, tuple):
        return "(" + " ".join(map(brief, value)) + ")"
    if not isinstance(value, msgspec.Struct):
        return str(value)
    defaults = {field.name: field.default for field in msgspec.structs.fields(value)}
    changed = ((name, getattr(value, name)) for name in value.__struct_fields__)
    return "{" + ", ".join(f"{name}={brief(each)}" for name, each in changed if each != defaults[name]) + "}"


def format_story(story: list[tuple[float, object]]) -> str:
    """Format a history with its times."""
    return "\n".join(f"  {at:.2f}: {brief(what)}" for at, what in story)


def address(draw: random.Random, number: int, link: str) -> VirtualAddress:
    """One of the ways in which an instance may declare its virtual address."""
    subnet = "10.0.0" if link == "eth0" else "10.0.1"
    return VirtualAddress(
        address=f"{subnet}.{100 + 10 * number + draw.randrange(2)}",
        prefix_length=draw.choice((24, 24, 32)),
        device=draw.choice(("", "", "eth0", "eth1")),
        label=draw.choice(("", "", f"{link}:v")),
        broadcast=draw.choice(("", "", f"{subnet}.255")),
    )


def instance(draw: random.Random, number: int) -> VrrpInstance:
    link = LINKS[number % 2]
    weight, reverse = draw.choice((0, -60, 60)), draw.random() < 0.2
    interface = Tracked(TrackerKind.INTERFACE, "eth1", weight, reverse)
    tracked = draw.choice(((), (), (), (interface,), (), (Tracked(TrackerKind.SCRIPT, SCRIPT.name, weight, reverse),)))
    # A wait of its own for each: how long a lower master has been there is history.
    return VrrpInstance(
        name=f"V{number}",
        interface=link,
        virtual_router_id=50 + number + draw.choice((0, 0, 0, 20)),
        priority=draw.choice((50, 150, 150)),
        addresses=tuple(dict.fromkeys(address(draw, number, link) for _ in range(draw.randrange(1, 3)))),
        excluded_addresses=draw.choice(((), (), (VirtualAddress(address=f"10.9.{number}.1", device=draw.choice(("", "eth1"))),))),
        track_primary=draw.random() < 0.9,
        tracked=tracked,
        starts_as_master=draw.random() < 0.2,
        source_address=draw.choice(("", "", "", OWN[link])),
    )


def configuration(draw: random.Random) -> Configuration:
    instances = [instance(draw, number) for number in range(3) if draw.random() < 0.85]
    names = [each.name for each in instances]
    draw.shuffle(names)
    split = draw.choice((0, 0, len(names), len(names), max(0, len(names) - 1)))
    groups = (SyncGroup(name="G", members=tuple(sorted(names[:split]))),) if split else ()
    return Configuration(vrrp_instances=tuple(instances), sync_groups=groups, trackers=trackers(instances))


def trackers(instances: Iterable[VrrpInstance]) -> Trackers:
    """What the instances track, declared."""
    used = any(each.kind is TrackerKind.SCRIPT for instance in instances for each in instance.tracked)
    return Trackers(scripts=(SCRIPT,) if used else ())


def edited(draw: random.Random, former: Configuration) -> Configuration:
    """Change a file a little, or replace it."""
    if draw.random() < 0.15:
        return configuration(draw)
    fresh = configuration(draw)
    other = {each.name: each for each in fresh.vrrp_instances}
    kept = [other.get(each.name, each) if draw.random() < 0.4 else each for each in former.vrrp_instances if draw.random() < 0.9]
    names = {each.name for each in kept}
    kept += [each for each in fresh.vrrp_instances if each.name not in names and draw.random() < 0.3]
    kept.sort(key=lambda each: each.name)
    groups = former.sync_groups if draw.random() < 0.5 else fresh.sync_groups
    names = {each.name for each in kept}
    groups = tuple(
        SyncGroup(name=group.name, members=members)
        for group in groups
        if (members := tuple(name for name in group.members if name in names))
    )
    return Configuration(vrrp_instances=tuple(kept), sync_groups=groups, trackers=trackers(kept))


def peer_configuration() -> Configuration:
    """Configuration of the other director: every virtual router that the director under test may have."""
    return Configuration(
        vrrp_instances=tuple(
            VrrpInstance(
                name=f"V{number}",
                interface=LINKS[number % 2],
                virtual_router_id=50 + number,
                priority=PEER_PRIORITY,
                addresses=(VirtualAddress(address=f"10.7.{number}.1"),),
            )
            for number in range(3)
        )
    )


@dataclass
class Run:
    """A director under test in its world, and the observations of that world."""

    configuration: Configuration
    simulation: Simulation = field(default_factory=Simulation)
    own: set[tuple[str, str]] = field(default_factory=set)
    peer_there: bool = True
    plane_ready: bool = True
    firewalled: bool = False
    script_passes: bool = True

    def __post_init__(self) -> None:
        self.host = self._host("a", OWN)
        self.peer = self._host("b", PEER)
        self.own = set(OWN.items())
        self.host.start(self.configuration)
        self.peer.start(peer_configuration())
        self._follow_script(Configuration())

    def _host(self, name: str, addresses: dict[str, str]) -> Host:
        host = Host(name, self.simulation)
        for link in LINKS:
            made = host.kernel.add_link(link)
            host.attach(link, link)
            host.kernel.add(SetAddress(made.index, addresses[link], 24))
        return host

    # -- what happens ------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        self.simulation.run(self.simulation.now + seconds)

    def reload(self, configuration: Configuration) -> None:
        former, self.configuration = self.configuration, configuration
        planned = self.host.plan(configuration)
        done = self.host.reload(configuration)
        assert done is None or done == planned, "a reload does what its plan says"
        self._follow_script(former)

    def _follow_script(self, former: Configuration) -> None:
        """Do what the driver of trackers does: forget a removed script, and report the first result of a new one."""
        if not self.configuration.trackers.scripts:
            self.host.sources.clear()
        elif not former.trackers.scripts:
            self.simulation.at(self.simulation.now + FIRST_RESULT_S, self._report_script)

    def _report_script(self) -> None:
        if self.configuration.trackers.scripts:
            self.host.observe_source(Observation(TrackerKind.SCRIPT, int(self.script_passes), SCRIPT.name))

    def script(self, passes: bool) -> None:
        """The script gives another result from now on."""
        self.script_passes = passes
        if self.host.sources:
            self._report_script()

    def present(self, link: str) -> str:
        """The name that the link has now, empty when it is gone."""
        return next((name for name in (link, "away") if name in self.host.kernel.links and (name == link or link == "eth1")), "")

    def set_up(self, link: str, up: bool) -> None:
        self.host.kernel.set_up(self.present(link), up)
        self.host.observe()

    def remove_link(self, link: str) -> None:
        self.host.kernel.remove_link(self.present(link))
        self.own -= {each for each in self.own if each[0] == link}
        self.host.observe()

    def make_link(self, link: str) -> None:
        """Make a link again; the machine gives it its address a little later."""
        if not self.present(link):
            self.host.kernel.add_link(link)
            self.host.observe()
            self.add_own(link)

    def rename(self, link: str) -> None:
        """Rename a link, or give it its name back."""
        kernel = self.host.kernel
        if "away" in kernel.links:
            kernel.rename("away", "eth1")
        elif link == "eth1":
            kernel.rename(link, "away")
        self.host.observe()

    def flush(self, link: str) -> None:
        self.host.kernel.flush(self.present(link))
        self.own -= {each for each in self.own if each[0] == link}
        self.host.observe()

    def add_own(self, link: str) -> None:
        there = self.host.kernel.links.get(self.present(link))
        if there is not None and (link, OWN[link]) not in self.own:
            self.host.kernel.add(SetAddress(there.index, OWN[link], 24))
            self.own.add((link, OWN[link]))
            self.host.observe()

    def take_virtual_address(self, draw: random.Random) -> None:
        """Another program removes one of our addresses."""
        ours = [each for each in self.host.kernel.addresses if each.set.address not in OWN.values() and each.secondary]
        if ours:
            self.host.kernel.remove(draw.choice(ours).set)
            self.host.observe()

    def firewall(self, closed: bool) -> None:
        self.host.firewall = closed
        self.firewalled |= closed

    def plane(self, ready: bool) -> None:
        self.plane_ready = ready
        self.host.observe_source(Observation(Kind.PLANE, ready))

    def worker_dies(self) -> None:
        """The worker dies and is replaced; the supervisor has the former masters."""
        director = self.host.director
        assert director is not None
        masters = frozenset(name for name, router in director.routers.items() if router.machine.state is State.MASTER)
        self.host.events.clear()
        self.host.log.clear()
        self.host.crash()
        self.host.start(self.configuration, resume=masters, placed=self.host.local.placed, plane_ready=self.plane_ready)

    def daemon_dies(self) -> None:
        """The daemon dies and starts again without any state."""
        self.host.sources.clear()
        self.host.events.clear()
        self.host.log.clear()
        self.host.crash()
        self.host.start(self.configuration, plane_ready=self.plane_ready)
        self._follow_script(Configuration())

    def peer_comes_or_goes(self) -> None:
        self.peer_there = not self.peer_there
        if self.peer_there:
            self.peer.start(peer_configuration())
        else:
            self.peer.crash()

    # -- what must hold ----------------------------------------------------------------------------------------

    def own_addresses(self) -> set[tuple[str, str]]:
        names = {link.index: name for name, link in self.host.kernel.links.items()}
        found = {(names[each.set.index], each.set.address) for each in self.host.kernel.addresses}
        return {("eth1" if name == "away" else name, at) for name, at in found if at in OWN.values()}

    def outcome(self) -> dict[str, object]:
        """The state that must not depend on the history."""
        director = self.host.director
        assert director is not None
        names = {link.index: name for name, link in self.host.kernel.links.items()}
        return {
            "instances": {
                name: (
                    str(r.machine.state),
                    tuple(sorted(map(str, r.machine.faults))),
                    r.machine.priority,
                    r.machine.own_address if not r.machine.faults else "",
                )
                for name, r in director.routers.items()
            },
            "groups": {name: (str(group.state), group.members) for name, group in director.groups.machines.items()},
            "addresses": {
                (names[e.set.index], e.set.address, e.set.prefix_length, e.set.label, e.set.broadcast)
                for e in self.host.kernel.addresses
            },
            "held": self.host.local.addresses,
        }

    def fresh(self) -> Run:
        """The same file in the same world, with a fresh start."""
        other = Run(Configuration())
        other.host.crash()
        other.configuration = self.configuration
        kernel = other.host.kernel
        kernel.links = dict(self.host.kernel.links)
        kernel.addresses = []
        for each in self.host.kernel.addresses:
            if each.set.address in OWN.values():
                kernel.add(each.set)
        other.own = set(self.own)
        other.host.sources = dict(self.host.sources)
        if not self.peer_there:
            other.peer_comes_or_goes()
        other.wait(SETTLED_S)
        other.host.start(self.configuration, plane_ready=self.plane_ready)
        return other

    def check_operations(self) -> None:
        """No step takes an address away for a moment: none is removed and set again, unchanged, at once."""
        last: dict[SetAddress, float] = {}
        for at, operation in self.host.operations:
            if isinstance(operation, RemoveAddress):
                last[operation.address] = at
            else:
                assert last.get(operation.address) != at, f"{operation.address} was removed and set again at {at}"
        self.host.operations.clear()

    def check_events(self) -> None:
        """Every change of a state has its event and its log line, and no event repeats a state."""
        director = self.host.director
        assert director is not None
        last: dict[tuple[type, str], str] = {}
        for event in self.host.events:
            key = (type(event), event.name)
            assert last.get(key) != event.state, f"reported twice: {event}"
            last[key] = event.state
        for name, router in director.routers.items():
            assert last.get((InstanceChanged, name)) == str(router.machine.state), (
                f"{name} is {router.machine.state}, last reported {last}"
            )
        for name, group in director.groups.machines.items():
            assert last.get((GroupChanged, name)) == str(group.state), f"group {name} is {group.state}, last reported {last}"
        entering = sum("Entering" in line.text for line in self.host.log)
        changes = sum(isinstance(e, InstanceChanged) and e.state not in ("STOP", "DELETED") for e in self.host.events)
        assert entering == changes, f"{changes} changes, {entering} lines"

    def idle_reload_does_nothing(self) -> None:
        director = self.host.director
        assert director is not None
        assert director.receive(Configure(self.configuration, self.host.kernel.world()), self.simulation.now) == []


Step = tuple[str, Callable[[Run], None]]


def step(draw: random.Random, run: Run) -> Step:
    """The next thing that happens."""
    link = draw.choice(LINKS)
    up = draw.random() < 0.6
    seconds = draw.choice((0.0, 0.05, 0.7, 1.5, 4.0))
    wanted = edited(draw, run.configuration)
    choices: list[tuple[int, Step]] = [
        (6, ("reload", lambda r: r.reload(wanted))),
        (3, (f"{link} {'up' if up else 'down'}", lambda r: r.set_up(link, up))),
        (1, (f"remove {link}", lambda r: r.remove_link(link))),
        (2, (f"make {link}", lambda r: r.make_link(link))),
        (1, (f"rename {link}", lambda r: r.rename(link))),
        (2, (f"flush {link}", lambda r: r.flush(link))),
        (3, (f"add own of {link}", lambda r: r.add_own(link))),
        (1, ("take an address", lambda r: r.take_virtual_address(draw))),
        (1, ("firewall", lambda r: r.firewall(not r.host.firewall))),
        (1, (f"plane {up}", lambda r: r.plane(up))),
        (3, (f"script {up}", lambda r: r.script(up))),
        (1, ("worker dies", lambda r: r.worker_dies())),
        (1, ("daemon dies", lambda r: r.daemon_dies())),
        (1, ("peer", lambda r: r.peer_comes_or_goes())),
    ]
    name, what = draw.choices([each for _, each in choices], [weight for weight, _ in choices])[0]

    def act(r: Run) -> None:
        what(r)
        r.wait(seconds)

    return f"{name}, then {seconds} s", act
