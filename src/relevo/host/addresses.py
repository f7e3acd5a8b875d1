"""Addresses on interfaces: list all, add one, remove one without losing others."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from relevo.errors import HostError
from relevo.host.netlink import ROUTE, NetlinkError, NetlinkSocket
from relevo.node.observation import ObservedAddress, SetAddress
from relevo.wire import rtnetlink
from relevo.wire.netlink import Malformed

Encode = Callable[[int, rtnetlink.Address], bytes]

FORWARDING_S: Final = 5.0
"""Seconds after which a link's forwarding is looked up again: a burst of announcements asks once, as in keepalived."""
_GONE = (errno.EADDRNOTAVAIL, errno.ENODEV)


class AddressTable:
    """The kernel's addresses, in the network namespace of the socket's creation. Failures are a ``HostError``."""

    def __init__(self) -> None:
        self._forwarding: dict[int, tuple[bool, float]] = {}
        try:
            self._socket = NetlinkSocket(ROUTE)
        except OSError as error:
            raise HostError(f"no netlink socket: {error.strerror}") from error

    def addresses(self, names: dict[int, str]) -> tuple[ObservedAddress, ...]:
        """List every address. ``names`` are links by index: a label that is the link's name is the default one, and left out."""
        number = self._socket.next_sequence()
        try:
            answers = self._socket.converse(rtnetlink.list_addresses(number), number)
            return tuple(_observed(each, names.get(each.index, "")) for each in rtnetlink.decode_addresses(answers))
        except (OSError, Malformed) as error:
            raise HostError(f"cannot list addresses: {error}") from error

    def add(self, address: SetAddress) -> None:
        """Add an address; one that exists already is no error."""
        flags = address.flags | (rtnetlink.NODAD if ":" in address.address else 0)
        self._change(
            f"add {address.address}/{address.prefix_length}", rtnetlink.add_address, _wire(address, flags), (errno.EEXIST,)
        )

    def remove(self, address: SetAddress, survivors: tuple[SetAddress, ...] = ()) -> None:
        """Remove an address; one that does not exist is no error.

        ``survivors`` are its secondary addresses. The kernel promotes one (``promote_secondaries``); where that cannot be set,
        they are added again.
        """
        if not survivors:
            self._remove(address)
            return
        try:
            former = self._promote(address.index, 1)
        except (OSError, Malformed):
            self._remove(address)
            for each in survivors:
                self.add(each)
            return
        try:
            self._remove(address)
        finally:
            if not former:
                self._promote(address.index, former)

    def _remove(self, address: SetAddress) -> None:
        self._change(f"remove {address.address}/{address.prefix_length}", rtnetlink.delete_address, _wire(address, 0), _GONE)

    def _promote(self, index: int, value: int) -> int:
        """Set ``promote_secondaries`` of a link; return the former value."""
        number = self._socket.next_sequence()
        former = rtnetlink.promote_secondaries(self._socket.converse(rtnetlink.get_link(number, index), number)[-1])
        if former != value:
            number = self._socket.next_sequence()
            self._socket.converse(rtnetlink.set_promote_secondaries(number, index, value), number)
        return former

    def forwards_ipv6(self, index: int) -> bool:
        """Return whether a link forwards IPv6 packets; what it was is remembered for a while."""
        known = self._forwarding.get(index)
        if known is None or time.monotonic() - known[1] > FORWARDING_S:
            number = self._socket.next_sequence()
            try:
                value = rtnetlink.forwards_ipv6(self._socket.converse(rtnetlink.get_link(number, index), number)[-1])
            except (OSError, Malformed, IndexError):  # without IPv6, or the link has gone
                value = False
            known = self._forwarding[index] = (value, time.monotonic())
        return known[0]

    def _change(self, what: str, encode: Encode, address: rtnetlink.Address, harmless: tuple[int, ...]) -> None:
        number = self._socket.next_sequence()
        try:
            self._socket.converse(encode(number, address), number)
        except NetlinkError as error:
            if error.errno in harmless:
                return
            hint = "this needs CAP_NET_ADMIN" if error.errno == errno.EPERM else ""
            raise HostError(f"cannot {what}: {os.strerror(error.errno or 0)}", hint=hint) from error
        except OSError as error:
            raise HostError(f"cannot {what}: {error}") from error

    def close(self) -> None:
        """Close the netlink socket."""
        self._socket.close()


def _wire(address: SetAddress, flags: int) -> rtnetlink.Address:
    return rtnetlink.Address(
        address.index, address.address, address.prefix_length, address.label, address.broadcast, address.scope, flags
    )


def _observed(found: rtnetlink.Address, link: str) -> ObservedAddress:
    ipv6 = ":" in found.address
    return ObservedAddress(
        SetAddress(
            index=found.index,
            address=found.address,
            prefix_length=found.prefix_length,
            label="" if found.label == link else found.label,
            broadcast=found.broadcast,
            scope=0 if ipv6 else found.scope,
            flags=found.flags & rtnetlink.OPTIONS,
        ),
        secondary=not ipv6 and bool(found.flags & rtnetlink.SECONDARY),
        tentative=ipv6 and bool(found.flags & rtnetlink.TENTATIVE) and not found.flags & rtnetlink.OPTIMISTIC,
    )


def local_networks() -> list[IPv4Network | IPv6Network]:
    """Return the networks of this node's addresses, without host and link-local ones; ``HostError`` if they cannot be listed."""
    table = AddressTable()
    try:
        found = {
            ip_network(f"{each.set.address}/{each.set.prefix_length}", strict=False)
            for each in table.addresses({})
            if each.set.scope == 0
        }
    finally:
        table.close()
    return [network for network in found if network.num_addresses > 1 and not network.is_link_local]
