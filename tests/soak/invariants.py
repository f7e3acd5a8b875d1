"""What must hold: within a while after the last fault was mended, everything is as if nothing had been."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from relevo.errors import ControlError
from relevo.model.table import SyncRole
from relevo.observe.snapshot import Snapshot
from tests.soak.plan import Round
from tests.soak.rig import PRIORITIES, ROUTERS, SERVERS, SYNCED, Process, Rig

SETTLE_S: Final = 25.0
"""Within it the cluster is as usual: checks, a full synchronisation, and the restart of a worker take seconds."""
STAYS_S: Final = 2.5
"""For so long it must stay as usual: a check that began while a server was out of reach fails within it."""
ASKED: Final = 6
"""Requests of each service, from as many clients."""
CALM_GAP_S: Final = 1.0
"""Longest time without an answer in a round in which no address may move and no server ends."""
CLEAN: Final = {"power", "kill", "stop", "unplug", "silence", "interface", "flush", "gate", "priority", "failover", "worker"}
"""Faults after which the other director is master within four intervals."""
CLEAN_GAP_S: Final = 2.0
"""Longest time without an answer when one of them is all that happens."""
GAP_S: Final = 8.0
"""What may come on top of the faults' own time in the others."""
GROWTH_KB: Final = 1_500
"""What a process may grow in a block of rounds: its heap's own breathing."""
GROWTH_DESCRIPTORS: Final = 6
"""What its sockets and files may: a connection of the proxy has two, and lasts until its time-out where its client has gone to
the other director with the address."""
SETTLED: Final = 4
"""Rounds of a block after which processes are measured."""
COMPARED: Final = 4
"""Rounds at both ends of what was measured."""


def unusual(rig: Rig) -> list[str]:
    """Return what differs from the usual: nothing when all is well."""
    found = []
    for number in (0, 1):
        try:
            found += [f"director-{number + 1}: {each}" for each in _of_director(rig, number, rig.snapshot(number))]
        except ControlError as error:
            found.append(f"director-{number + 1}: does not answer: {error}")
    if not found:  # asking a service that is not there takes seconds
        for name in ROUTERS:
            answered = [rig.answers(name) for _ in range(ASKED)]
            if not all(answered):
                found.append(f"{name}: {answered.count('')} of {ASKED} requests without an answer")
    return found


def _of_director(rig: Rig, number: int, snapshot: Snapshot) -> Iterator[str]:
    expected = {"director", "balancer", "proxy"} if rig.plane == "proxy" else {"director", "balancer"}
    answering = {worker.role for worker in snapshot.workers if worker.answered}
    if answering != expected:
        yield f"workers that answer: {', '.join(sorted(answering))}"
    if snapshot.reload_error:
        yield f"reload: {snapshot.reload_error}"
    usual = {name: "MASTER" if PRIORITIES[name][number] > PRIORITIES[name][1 - number] else "BACKUP" for name in ROUTERS}
    states = {each.name: each.state for each in snapshot.director.instances}
    if states != usual:
        yield f"routers: {states}"
    if {each.base_priority for each in snapshot.director.instances} != {each[number] for each in PRIORITIES.values()}:
        yield "the file's former priorities"
    addresses = {rig.directors[number].address, *(ROUTERS[name] for name, state in usual.items() if state == "MASTER")}
    if rig.addresses(number) != addresses:
        yield f"addresses: {rig.addresses(number)}"
    told = {name: rig.notified().get((number, name)) for name in ROUTERS}
    if told != usual:
        yield f"scripts were told last: {told}"
    yield from _of_balancer(rig, snapshot)


def _of_balancer(rig: Rig, snapshot: Snapshot) -> Iterator[str]:
    balancer = snapshot.balancer
    if balancer.plane != rig.plane or balancer.plane_error:
        yield f"plane {balancer.plane}: {balancer.plane_error}"
    seen = {}
    for service in balancer.services:
        if not service.up or service.uses_sorry_server:
            yield f"service {service.address} is {'up, on the sorry server' if service.up else 'down'}"
        for server in service.servers:
            if not server.sorry:
                seen[server.address] = server.weight if server.up and server.in_plane else None
    if seen != dict(zip(SERVERS, (2, 1, 2, 1), strict=True)):
        yield f"servers: {seen}"
    if rig.plane == "ebpf":
        if balancer.sync is None or balancer.sync.problem:
            yield f"synchronisation: {balancer.sync and balancer.sync.problem}"
        elif SyncRole.BACKUP in balancer.sync.roles and not balancer.sync.in_sync:
            yield "synchronisation: not in sync"


def transitions(rig: Rig) -> dict[tuple[int, str], float]:
    """Return since when each router of each director has its state."""
    return {(number, each.name): each.since_at for number in (0, 1) for each in rig.snapshot(number).director.instances}


def longest_gap_s(done: Round) -> float:
    """Return how long a service may be without an answer in a round."""
    if not done.moves and not any(fault.kind.kills for fault in done.faults):
        return CALM_GAP_S
    if len(done.faults) == 1 and done.faults[0].kind.name in CLEAN:
        return CLEAN_GAP_S
    return sum(fault.lasts_s for fault in done.faults) + GAP_S


def may_lose(done: Round, plane: str, lost: str) -> bool:
    """Whether a round may have ended a connection to a server."""
    if any(fault.kind.kills for fault in done.faults):
        return True
    synced = plane == "ebpf" and lost.startswith(SYNCED)
    return not done.keeps if synced else done.moves


def growth(samples: list[dict[str, Process]]) -> Iterator[str]:
    """Yield the processes that grew over the rounds of a block. One that was replaced begins anew.

    What it has at least in the last rounds is compared with what it had at most in the first: connections come and go.
    """
    for role in samples[-1] if samples else ():
        same = [each[role] for each in samples[SETTLED:] if role in each and each[role].pid == samples[-1][role].pid]
        if len(same) < 2 * COMPARED:
            continue
        first, last = same[:COMPARED], same[-COMPARED:]
        for what, allowed, of in (("kB", GROWTH_KB, _memory), ("descriptors", GROWTH_DESCRIPTORS, _descriptors)):
            before, now = max(map(of, first)), min(map(of, last))
            if now > before + allowed:
                yield f"{role} has {now} {what}, and had {before} {len(same)} rounds before"


def _memory(process: Process) -> int:
    return process.memory_kb


def _descriptors(process: Process) -> int:
    return process.descriptors
