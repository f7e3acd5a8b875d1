"""Reconciliation of addresses: ordered operations from the observed to the desired state. Equal states give none.

Only three kinds of addresses are removed: those that this node set, those that its predecessor left, and declared virtual
addresses on their declared interfaces. The interface's own addresses stay, also when one of ours is the primary of their
subnet and the kernel would remove them with it (``RemoveAddress.survivors``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from typing import Final

from relevo.model import VirtualAddress, VrrpInstance
from relevo.model.vrrp import PRIORITY_OWNER
from relevo.node.effects import AddAddress, RemoveAddress
from relevo.node.observation import ObservedAddress, SetAddress, World, is_local_everywhere
from relevo.wire import rtnetlink

SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}
"""Names of scopes (iproute2's ``rt_scopes``); others are numbers."""

_OPTIONS: Final = {
    "home": rtnetlink.HOME,
    "mngtmpaddr": rtnetlink.MANAGE_TEMPORARY,
    "noprefixroute": rtnetlink.NO_PREFIX_ROUTE,
    "autojoin": rtnetlink.AUTO_JOIN,
}

Operation = AddAddress | RemoveAddress


def virtual_addresses(instance: VrrpInstance) -> tuple[VirtualAddress, ...]:
    """Return all virtual addresses of an instance, without loopback ones."""
    found = (*instance.addresses, *instance.excluded_addresses)
    return tuple(address for address in found if not is_local_everywhere(address.address))


def resolve(address: VirtualAddress, instance: VrrpInstance, world: World) -> SetAddress | None:
    """Return the address with the index of its interface, ``None`` if that interface does not exist."""
    link = world.links.get(address.device or instance.interface)
    if link is None:
        return None
    ipv6 = ":" in address.address
    return SetAddress(
        index=link.index,
        address=address.address,
        prefix_length=address.prefix_length,
        label="" if ipv6 or address.label == link.name else address.label,
        broadcast="" if ipv6 else _broadcast(address),
        scope=0 if ipv6 else _scope(address.scope),
        flags=_flags(address),
    )


def _flags(address: VirtualAddress) -> int:
    deprecated = rtnetlink.DEPRECATED if address.deprecated else 0
    return deprecated | sum(_OPTIONS[option] for option in address.options)


def _broadcast(address: VirtualAddress) -> str:
    """Return the broadcast address; ``+`` and ``-`` set and clear the host bits (ip-address(8))."""
    if address.broadcast not in ("+", "-"):
        return address.broadcast
    network = ip_interface(f"{address.address}/{address.prefix_length}").network
    return str(network.broadcast_address if address.broadcast == "+" else network.network_address)


def _scope(name: str) -> int:
    return SCOPES.get(name, int(name) if name.isdecimal() else 0)


def wanted_addresses(instances: Iterable[VrrpInstance], world: World) -> dict[tuple[int, str, int], SetAddress]:
    """Return the addresses of these instances, which have them now; the first declaration of an address counts."""
    found: dict[tuple[int, str, int], SetAddress] = {}
    for instance in instances:
        for address in virtual_addresses(instance):
            resolved = resolve(address, instance, world)
            if resolved is not None:
                found.setdefault(resolved.key, resolved)
    return found


def left_over(instances: Iterable[VrrpInstance], world: World) -> frozenset[tuple[int, str]]:
    """Return (index, address) of the declared virtual addresses: if they exist there, a predecessor has left them.

    An owner's addresses are the interface's own, so this leaves them out.
    """
    found: set[tuple[int, str]] = set()
    for instance in instances:
        if instance.priority == PRIORITY_OWNER:
            continue
        for address in virtual_addresses(instance):
            link = world.links.get(address.device or instance.interface)
            if link is not None:
                found.add((link.index, address.address))
    return frozenset(found)


def reconcile(
    wanted: dict[tuple[int, str, int], SetAddress],
    world: World,
    ours: Iterable[tuple[int, str, int]],
    declared: frozenset[tuple[int, str]],
) -> list[Operation]:
    """Return the operations from the observed to the wanted addresses, as far as they are ours.

    ``ours`` are keys that this node or its predecessor set, ``declared`` the pairs of ``left_over``. Additions come before
    removals, so that an address that changes its interface is never absent. One that changes an attribute must be removed
    first, because the kernel identifies addresses by interface, address and prefix length.
    """
    known = frozenset(ours)
    present = {each.set.key: each for each in world.addresses}
    operations: list[Operation] = []
    keys = set(wanted)
    unwanted = [
        each
        for each in world.addresses
        if each.set.key not in keys and (each.set.key in known or (each.set.index, each.set.address) in declared)
    ]
    fresh = [ObservedAddress(address, secondary=True) for key, address in wanted.items() if key not in present]
    kept = (*(each for each in world.addresses if each not in unwanted), *fresh)
    for key, address in wanted.items():
        observed = present.get(key)
        if observed is None:
            operations.append(AddAddress(address))
        elif observed.set != address:
            operations += [removal(observed, kept), AddAddress(address)]
    return [*operations, *(removal(each, kept) for each in unwanted)]


def removal(gone: ObservedAddress, kept: Iterable[ObservedAddress]) -> RemoveAddress:
    """Return the operation that removes ``gone`` and keeps those of ``kept`` that depend on it."""
    if gone.secondary or ":" in gone.set.address:
        return RemoveAddress(gone.set)
    network = ip_interface(f"{gone.set.address}/{gone.set.prefix_length}").network
    survivors = tuple(
        each.set
        for each in kept
        if each.secondary
        and each.set.index == gone.set.index
        and each.set.prefix_length == gone.set.prefix_length
        and each.set.key != gone.set.key
        and ip_address(each.set.address) in network
    )
    return RemoveAddress(gone.set, survivors)


def expected_after(world: World, operation: Operation) -> World:
    """Return the assumed state of the network after an operation, valid until the next observation."""
    key = operation.address.key
    others = tuple(each for each in world.addresses if each.set.key != key)
    if isinstance(operation, AddAddress):
        others += (ObservedAddress(operation.address),)
    return replace(world, addresses=others)
