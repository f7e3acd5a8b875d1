"""Which addresses on interfaces are this node's doing, and what must be done about them now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from relevo.model import VrrpInstance
from relevo.node.effects import AddAddress
from relevo.node.network import Operation, left_over, reconcile, wanted_addresses
from relevo.node.observation import OperationFailed, SetAddress, World

AddressKey = tuple[int, str, int]

RETRY_S: Final = 5.0
"""Pause before an address that the kernel refused is tried again, if nothing changes on the network meanwhile."""


class Addresses:
    """``placed`` are the keys of what this node, or its predecessor, set and has not removed."""

    def __init__(self, placed: Iterable[AddressKey] = ()) -> None:
        self.placed: set[AddressKey] = set(placed)
        self.lost: set[AddressKey] = set()
        self.retry_at: float | None = None
        self._reasons: dict[SetAddress, str] = {}
        self._blocked: set[SetAddress] = set()

    def observe(self, world: World) -> None:
        """Compare with what is there now: what is missing was removed by somebody else."""
        present = {each.set.key for each in world.addresses}
        self.lost = self.placed - present
        self.placed &= present
        self._blocked.clear()

    def operations(self, world: World, active: list[VrrpInstance], instances: list[VrrpInstance]) -> list[Operation]:
        """Return what sets the addresses of ``active``, and removes whatever else is ours of ``instances``."""
        wanted = wanted_addresses(active, world)
        declared = left_over(instances, world)
        # What is wanted and there already is ours from now on, wherever a later file has it.
        self.placed |= {
            each.set.key for each in world.addresses if each.set.key in wanted and (each.set.index, each.set.address) in declared
        }
        operations = reconcile(wanted, world, self.placed, declared)
        return [operation for operation in operations if operation.address not in self._blocked]

    def done(self, operation: Operation) -> None:
        """Take an operation for carried out, until ``refuse`` says otherwise."""
        if isinstance(operation, AddAddress):
            self.placed.add(operation.address.key)
        else:
            self.placed.discard(operation.address.key)

    def refuse(self, given: OperationFailed, now: float) -> bool:
        """Take note of a refusal, which is tried again later; return whether the reason is new."""
        address = given.address
        self._blocked.add(address)
        self.retry_at = now + RETRY_S
        if given.adding:
            self.placed.discard(address.key)
        else:
            self.placed.add(address.key)
        new = self._reasons.get(address) != given.reason
        self._reasons[address] = given.reason
        return new

    def try_again(self) -> None:
        """Let what was refused be tried again."""
        self._blocked.clear()
        self.retry_at = None
