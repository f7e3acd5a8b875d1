"""Which addresses on interfaces this node has set, and the operations that are due."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from relevo.model import VrrpInstance
from relevo.node.effects import AddAddress
from relevo.node.network import Operation, left_over, reconcile, wanted_addresses
from relevo.node.observation import OperationFailed, SetAddress, World

AddressKey = tuple[int, str, int]

RETRY_S: Final = 5.0
"""Seconds before a refused operation is retried, unless the network changes before."""


class Addresses:
    """``placed`` are the keys of addresses that this node or its predecessor has set and not removed."""

    def __init__(self, placed: Iterable[AddressKey] = ()) -> None:
        self.placed: set[AddressKey] = set(placed)
        self.lost: set[AddressKey] = set()
        self.retry_at: float | None = None
        self._reasons: dict[SetAddress, str] = {}
        self._blocked: set[SetAddress] = set()

    def observe(self, world: World) -> None:
        """Compare with the addresses that exist now. A missing one was removed by another program."""
        present = {each.set.key for each in world.addresses}
        self.lost = self.placed - present
        self.placed &= present
        self._blocked.clear()

    def operations(self, world: World, active: list[VrrpInstance], instances: list[VrrpInstance]) -> list[Operation]:
        """Return the operations that set the addresses of ``active`` instances and remove the other ones of ``instances``."""
        wanted = wanted_addresses(active, world)
        declared = left_over(instances, world)
        # An address that is wanted and exists already belongs to this node from now on, also after a reload.
        self.placed |= {
            each.set.key for each in world.addresses if each.set.key in wanted and (each.set.index, each.set.address) in declared
        }
        operations = reconcile(wanted, world, self.placed, declared)
        return [operation for operation in operations if operation.address not in self._blocked]

    def done(self, operation: Operation) -> None:
        """Assume that an operation succeeds; ``refuse`` corrects that."""
        if isinstance(operation, AddAddress):
            self.placed.add(operation.address.key)
        else:
            self.placed.discard(operation.address.key)

    def refuse(self, given: OperationFailed, now: float) -> bool:
        """Record that the kernel refused an operation, for a retry; return whether the reason is new."""
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
        """Retry refused operations."""
        self._blocked.clear()
        self.retry_at = None
