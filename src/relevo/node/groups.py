"""The sync groups of a node: their machines, members, and members with faults."""

from __future__ import annotations

from collections.abc import Mapping

from relevo.machines.sync_group import Effect, Report, Symbol, SyncGroupMachine
from relevo.machines.tracker import Standing
from relevo.machines.vrrp import State
from relevo.model import SyncGroup

Orders = list[tuple[SyncGroupMachine, list[Effect]]]


class Groups:
    """Machines by name, and the group of each member."""

    def __init__(self) -> None:
        self.machines: dict[str, SyncGroupMachine] = {}
        self.of: dict[str, SyncGroupMachine] = {}

    def configure(self, declared: tuple[SyncGroup, ...], routers: Mapping[str, object], now: float) -> Orders:
        """Use the declared groups, with those members that are in ``routers``; stop removed groups."""
        present, self.machines, self.of = self.machines, {}, {}
        names = {group.name for group in declared}
        gone = [machine for name, machine in present.items() if name not in names]
        for group in declared:
            members = tuple(name for name in group.members if name in routers)
            machine = self.machines[group.name] = present.get(group.name) or SyncGroupMachine(group.name, members)
            machine.set_members(members)
            self.of.update(dict.fromkeys(members, machine))
        return [(machine, machine.receive(Report(Symbol.STOP), now)) for machine in gone]

    def failed(self, standings: Mapping[str, Standing]) -> dict[str, set[str]]:
        """Return the members of each group that have faults of their own."""
        return {name: {m for m in group.members if standings[m].faults} for name, group in self.machines.items()}

    def others_failed(self, member: str, failed: Mapping[str, set[str]]) -> bool:
        """Whether another member of the same group has a fault of its own."""
        group = self.of.get(member)
        return group is not None and bool(failed[group.name] - {member})

    def awaited(self, member: str, awaited: Mapping[str, str]) -> str:
        """Return the tracker that a router waits for, or another member of its group; empty if there is none."""
        group = self.of.get(member)
        members = (member, *group.members) if group is not None else (member,)
        return next((awaited[name] for name in members if awaited.get(name)), "")


def judge(group: SyncGroupMachine, failed: bool, now: float) -> list[Effect]:
    """Start a new group, and update its FAULT state."""
    effects = group.receive(Report(Symbol.START), now) if group.state is State.INIT else []
    if (group.state is State.FAULT) is not failed:
        effects += group.receive(Report(Symbol.FAIL if failed else Symbol.RECOVER), now)
    return effects
