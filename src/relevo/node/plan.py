"""What a reload does to a node, before it is done: a copy of the director and of the balancer carries it out.

The copies decide with the same code as the originals, so a plan is what would happen now. The same functions describe what a
reload did. Adverts and announcements are left out: they follow from the states.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, Final, TypeVar

import msgspec

from relevo.machines.pool import CheckName
from relevo.model import Check, Configuration, Endpoint, ServiceKey, Trackers, TrackFile, TrackProcess, VrrpScript
from relevo.model.diff import Changes, changed_fields, changes
from relevo.model.plan import Do, Step
from relevo.model.table import (
    AddServer,
    AddService,
    DeleteServer,
    DeleteService,
    EditServer,
    EditService,
    Operation,
    ServerEntry,
    ServerState,
    ServiceState,
)
from relevo.node.balancer import Balancer, QuorumChanged
from relevo.node.balancer import Effect as BalancerEffect
from relevo.node.director import Director
from relevo.node.effects import (
    AddAddress,
    ClosePort,
    Effect,
    GroupChanged,
    InstanceChanged,
    OpenPort,
    PortSpec,
    RemoveAddress,
)
from relevo.node.observation import Configure, PortOpened, SetAddress, World
from relevo.schedulers.moves import HASHING, moved_share

NamedTracker = TypeVar("NamedTracker", VrrpScript, TrackFile, TrackProcess)

LEAST_MOVE: Final = 0.0005
"""Share of a service's clients below which a move is not said: it would be shown as 0.0 %."""


# -- director -----------------------------------------------------------------------------------------------------------


class DirectorBefore:
    """What a director was before a reload: who is master, and with which priorities."""

    def __init__(self, director: Director) -> None:
        self.masters = {name for name, router in director.routers.items() if router.machine.has_addresses}
        self.priorities = {name: router.machine.priority for name, router in director.routers.items()}
        self.world = director.world


def rehearse_director(director: Director, given: Configure, now: float) -> list[Step]:
    """Return the steps with which ``director`` would take a configuration. It stays as it is; sockets open, in the rehearsal."""
    kept = {id(value): value for value in (director.world, director.configuration)}
    copy = deepcopy(director, kept)
    before, effects = DirectorBefore(director), list(_settle(copy, copy.receive(given, now), now))
    return director_steps(before, effects, copy)


def _settle(director: Director, effects: list[Effect], now: float) -> Iterator[Effect]:
    yield from effects
    for effect in effects:
        if isinstance(effect, OpenPort):
            yield from _settle(director, director.receive(PortOpened(effect.router), now), now)


def director_steps(before: DirectorBefore, effects: Sequence[Effect], director: Director) -> list[Step]:
    """Describe the ``effects`` of a reload; ``director`` is as it is afterwards."""
    added = {effect.address.address for effect in effects if isinstance(effect, AddAddress)}
    steps = [step for effect in effects if (step := _director_step(before, effect, added, director.world)) is not None]
    for name, router in director.routers.items():
        former, present = before.priorities.get(name), router.machine.priority
        if former not in (None, present):
            steps.append(Step(Do.CHANGE_PRIORITY, name, f"{former} → {present}"))
    return steps


def _director_step(before: DirectorBefore, effect: Effect, added: set[str], world: World) -> Step | None:
    match effect:
        case OpenPort(router=name, spec=spec):
            return Step(Do.OPEN_SOCKET, name, _spec_text(spec))
        case ClosePort(router=name):
            return Step(Do.CLOSE_SOCKET, name)
        case AddAddress(address=address):
            return Step(Do.ADD_ADDRESS, _address_text(address, (world, before.world)))
        case RemoveAddress(address=address):
            breaks = "" if address.address in added else "its clients lose it, unless another node takes it over"
            return Step(Do.REMOVE_ADDRESS, _address_text(address, (before.world, world)), "", breaks)
        case InstanceChanged(name=name, state=state, reason=reason):
            gives_up = name in before.masters and state != "MASTER"
            breaks = "no node is master until another takes over" if gives_up else ""
            return Step(Do.CHANGE_STATE, name, f"{state}: {reason}", breaks)
        case GroupChanged(name=name, state=state):
            return Step(Do.CHANGE_GROUP, name, state)
    return None


def _spec_text(spec: PortSpec) -> str:
    if spec.udp_port:
        return f"UDP port {spec.udp_port} at {spec.source}"
    to = f"multicast {spec.group}" if spec.group else "unicast"
    return f"{to} from {spec.source}" + (f" on {spec.link.name}" if spec.link is not None else "")


def _address_text(address: SetAddress, worlds: Iterable[World]) -> str:
    names = (link.name for world in worlds for link in world.links.values() if link.index == address.index)
    return f"{address.address}/{address.prefix_length} dev {next(names, f'index {address.index}')}"


# -- balancer -----------------------------------------------------------------------------------------------------------

NamedCheck = tuple[str, Endpoint, CheckName]


class BalancerBefore:
    """What a balancer was before a reload: its checks."""

    def __init__(self, balancer: Balancer) -> None:
        self.checks: Mapping[NamedCheck, Check] = {key: runner.check for key, runner in balancer.checks.runners.items()}


def rehearse_balancer(
    balancer: Balancer, configuration: Configuration, observed: Sequence[ServiceState], now: float, *, shared: bool
) -> list[Step]:
    """Return the steps with which ``balancer`` would take a configuration, for a plane with the ``observed`` table.

    It stays as it is. ``shared``: other programs may have services in the table.
    """
    copy = balancer.copy()
    before, effects = BalancerBefore(balancer), copy.configure(configuration, now)
    return balancer_steps(before, effects, copy.operations(observed, shared=shared), observed, copy)


def balancer_steps(
    before: BalancerBefore,
    effects: Iterable[BalancerEffect],
    operations: Sequence[Operation],
    observed: Sequence[ServiceState],
    balancer: Balancer,
) -> list[Step]:
    """Describe a reload: its ``effects``, and ``operations`` on the ``observed`` table; ``balancer`` is as it is afterwards."""
    steps = _table_steps(operations, {state.service.key: state for state in observed})
    steps += _check_steps(before.checks, BalancerBefore(balancer).checks)
    for effect in effects:
        if isinstance(effect, QuorumChanged):
            what = "gained" if effect.up else "lost"
            steps.append(Step(Do.CHANGE_QUORUM, effect.service, f"{what} with weight {effect.weight}"))
    return steps


def _check_steps(before: Mapping[NamedCheck, Check], after: Mapping[NamedCheck, Check]) -> list[Step]:
    steps = [Step(Do.DELETE_CHECK, _check_text(key)) for key in before if key not in after]
    for key, check in after.items():
        if key not in before:
            steps.append(Step(Do.ADD_CHECK, _check_text(key)))
        elif before[key] != check:
            steps.append(Step(Do.EDIT_CHECK, _check_text(key), _changes(before[key], check)))
    return steps


def _check_text(key: NamedCheck) -> str:
    service, endpoint, (kind, number) = key
    return f"{kind} of {endpoint} in {service}" + (f" (number {number + 1})" if number else "")


def _table_steps(operations: Sequence[Operation], observed: Mapping[ServiceKey, ServiceState]) -> list[Step]:
    moves = dict(_moves(operations, observed))
    touched = {operation.key for operation in operations if isinstance(operation, EditServer | DeleteServer)}
    servers = {key: {server.server.endpoint: server for server in observed[key].servers} for key in touched}
    steps: list[Step] = []
    for operation in operations:
        match operation:
            case AddService(service=service):
                steps.append(Step(Do.ADD_SERVICE, str(service.key), service.scheduler))
            case EditService(service=service):
                steps.append(Step(Do.EDIT_SERVICE, str(service.key), _changes(observed[service.key].service, service)))
            case DeleteService(key=key):
                broken = sum(map(_connections, observed[key].servers))
                steps.append(Step(Do.DELETE_SERVICE, str(key), "", _breaks(broken)))
            case AddServer(key=key, server=server):
                steps.append(Step(Do.ADD_SERVER, f"{server.endpoint} to {key}", f"weight {server.weight}"))
            case EditServer(key=key, server=server):
                former = servers[key][server.endpoint].server
                steps.append(Step(Do.EDIT_SERVER, f"{server.endpoint} of {key}", _changes(former, server)))
            case DeleteServer(key=key, endpoint=endpoint):
                broken = _connections(servers[key][endpoint])
                steps.append(Step(Do.DELETE_SERVER, f"{endpoint} of {key}", "", _breaks(broken)))
    return steps + [
        Step(Do.EDIT_SERVICE, str(key), "hash table", f"about {share:.1%} of its clients get another server")
        for key, share in moves.items()
        if share >= LEAST_MOVE
    ]


def _connections(server: ServerState) -> int:
    return server.active + server.inactive


def _breaks(connections: int) -> str:
    return f"{connections} connection{'s' * (connections != 1)}" if connections else ""


def _moves(operations: Sequence[Operation], observed: Mapping[ServiceKey, ServiceState]) -> Iterator[tuple[ServiceKey, float]]:
    """Yield the services of a hashing scheduler whose servers change, with the share of clients that get another server."""
    kept: dict[ServiceKey, dict[Endpoint, ServerEntry]] = {}
    added: dict[ServiceKey, list[ServerEntry]] = {}
    for operation in operations:
        if not isinstance(operation, AddServer | EditServer | DeleteServer) or operation.key not in observed:
            continue
        key = operation.key
        if observed[key].service.scheduler not in HASHING:
            continue
        if key not in kept:
            kept[key], added[key] = {each.server.endpoint: each.server for each in observed[key].servers}, []
        match operation:
            case AddServer(server=server):
                added[key].append(server)
            case EditServer(server=server):
                kept[key][server.endpoint] = server
            case DeleteServer(endpoint=endpoint):
                kept[key].pop(endpoint, None)
    for key, servers in kept.items():
        before = [each.server for each in observed[key].servers]
        after = [*reversed(added[key]), *servers.values()]  # an added one is at the head of the list, as in IPVS
        yield key, moved_share(observed[key].service.scheduler, before, after)


# -- trackers -----------------------------------------------------------------------------------------------------------


def tracker_steps(former: Trackers, new: Trackers) -> list[Step]:
    """Return the trackers that a reload removes, adds and changes."""
    return [
        *_kind_steps("vrrp_script", former.scripts, new.scripts),
        *_kind_steps("track_file", former.files, new.files),
        *_kind_steps("vrrp_track_process", former.processes, new.processes),
    ]


def _kind_steps(keyword: str, former: Iterable[NamedTracker], new: Iterable[NamedTracker]) -> list[Step]:
    found: Changes[str, NamedTracker] = changes(former, new, lambda each: each.name)
    return [
        *(Step(Do.DELETE_TRACKER, f"{keyword} {each.name}") for each in found.removed),
        *(Step(Do.ADD_TRACKER, f"{keyword} {each.name}") for each in found.added),
        *(Step(Do.EDIT_TRACKER, f"{keyword} {each.name}", _changes(each.before, each.after)) for each in found.changed),
    ]


# -- text ---------------------------------------------------------------------------------------------------------------


def _changes(before: msgspec.Struct, after: msgspec.Struct) -> str:
    if type(before) is not type(after):
        return ""
    changed = changed_fields(before, after)
    names = (name for name in after.__struct_fields__ if name in changed)
    return ", ".join(f"{name} {_value(getattr(before, name))} → {_value(getattr(after, name))}" for name in names)


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_value, value)) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
