"""Snapshots of the VRRP side of a node."""

from __future__ import annotations

from relevo.machines.tracker import share_of
from relevo.node.director import Director
from relevo.node.router import Router
from relevo.observe.snapshot import DirectorSnapshot, GroupSnapshot, InstanceSnapshot, TrackerSnapshot


def director_snapshot(director: Director, offset: float, realtime: str) -> DirectorSnapshot:
    """Return the snapshot of a director. ``offset`` converts its monotonic times to Unix seconds."""
    return DirectorSnapshot(
        instances=tuple(_instance(router, _trackers(director, router), offset) for router in director.routers.values()),
        groups=tuple(
            GroupSnapshot(name=group.name, state=group.state.value, members=group.members)
            for group in director.groups.machines.values()
        ),
        unknown_adverts=dict(director.unknown),
        realtime=realtime,
    )


def _instance(router: Router, trackers: tuple[TrackerSnapshot, ...], offset: float) -> InstanceSnapshot:
    instance, machine = router.instance, router.machine
    counters = machine.counters
    return InstanceSnapshot(
        name=instance.name,
        state=machine.state.value,
        reason=machine.reason,
        since_at=machine.since + offset,
        waiting=machine.waiting.value if machine.waiting is not None else "",
        interface=instance.interface,
        virtual_router_id=instance.virtual_router_id,
        version=instance.version,
        priority=machine.priority,
        base_priority=instance.priority,
        advert_interval_s=instance.advert_interval_s,
        addresses=tuple(str(a) for a in (*instance.addresses, *instance.excluded_addresses)),
        own_address=machine.own_address,
        master_address=machine.master_address,
        master_priority=machine.master_priority,
        faults=tuple(map(str, machine.faults)),
        trackers=trackers,
        adverts_sent=counters.adverts_sent,
        adverts_received=counters.adverts_received,
        became_master=counters.became_master,
        released_master=counters.released_master,
        priority_zero_sent=counters.priority_zero_sent,
        priority_zero_received=counters.priority_zero_received,
        address_list_mismatches=counters.address_list_mismatches,
        unanswered=counters.unanswered,
        refused={str(k): v for k, v in counters.refused.items()},
    )


def _trackers(director: Director, router: Router) -> tuple[TrackerSnapshot, ...]:
    observed = director.sources.observed(director.world)
    shares = [share_of(tracked, observed(tracked)) for tracked in router.instance.tracked]
    return tuple(
        TrackerSnapshot(
            kind=share.tracked.kind.value,
            name=share.tracked.name,
            weight=share.tracked.weight,
            reverse=share.tracked.reverse,
            value=share.value,
            contribution=share.weight,
            fault=share.fault is not None,
        )
        for share in shares
    )
