"""Addresses on interfaces, through netlink."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from relevo.errors import HostError
from relevo.host.interfaces import Interface, Interfaces
from relevo.model import VirtualAddress

SCOPES = {"global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}


class AddressHolder:
    """Adds and removes virtual addresses. Both are idempotent."""

    def __init__(self, interfaces: Interfaces) -> None:
        self._interfaces = interfaces
        self._route: Any = None

    def add(self, address: VirtualAddress, device: str) -> bool:
        """Put ``address`` on ``device``; True if it was not there before."""
        return self._change("add", address, device, errno.EEXIST)

    def remove(self, address: VirtualAddress, device: str) -> bool:
        """Take ``address`` from ``device``; True if it was there."""
        return self._change("del", address, device, errno.EADDRNOTAVAIL)

    def of(self, interface: Interface) -> list[str]:
        """Return the IPv4 addresses of an interface, in the kernel's order; ``HostError`` when they cannot be had."""
        try:
            messages = self._netlink().get_addr(index=interface.index, family=socket.AF_INET)
            return [str(message.get_attr("IFA_LOCAL")) for message in messages]
        except Exception as error:  # pyroute2's own errors, and OSError
            raise HostError(f"cannot list the addresses of {interface.name}: {error}") from error

    def missing(self, addresses: list[tuple[VirtualAddress, str]]) -> list[tuple[VirtualAddress, str]]:
        """Return those of ``addresses`` (with their devices) that are not set now."""
        present = {message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS") for message in self._netlink().get_addr()}
        return [(a, device) for a, device in addresses if not local_everywhere(a.address) and a.address not in present]

    def _change(self, what: str, address: VirtualAddress, device: str, harmless: int) -> bool:
        if local_everywhere(address.address):
            return False
        name = address.device or device
        interface = self._interfaces.find(name)
        if interface is None:
            if what == "del":
                return False
            raise HostError(f"cannot add {address}: interface {name} does not exist")
        try:
            self._netlink().addr(what, index=interface.index, **_arguments(address))
        except Exception as error:  # pyroute2 raises its own NetlinkError, and OSError
            code = getattr(error, "code", getattr(error, "errno", None))
            if code in (harmless, errno.ENODEV):
                return False
            verb = "add" if what == "add" else "remove"
            raise HostError(f"cannot {verb} {address} on {name}: {error}", hint="it takes CAP_NET_ADMIN") from error
        return True

    def _netlink(self) -> Any:
        if self._route is None:
            import pyroute2

            self._route = pyroute2.IPRoute()
        return self._route

    def prepare(self) -> None:
        """Open the netlink socket now, so that a takeover does not wait for it."""
        try:
            self._netlink()
        except Exception as error:
            raise HostError(f"no netlink socket: {error}") from error

    def close(self) -> None:
        """Close the netlink socket."""
        if self._route is not None:
            self._route.close()


def local_networks() -> list[IPv4Network | IPv6Network]:
    """Return the networks that this node has an address in, without host routes; ``HostError`` when they cannot be had."""
    import pyroute2

    try:
        with pyroute2.IPRoute() as route:
            messages = list(route.get_addr())
    except Exception as error:  # pyroute2's own errors, and OSError
        raise HostError(f"cannot list the addresses of this node: {error}") from error
    found = {ip_network(f"{m.get_attr('IFA_ADDRESS')}/{m['prefixlen']}", strict=False) for m in messages if m["scope"] == 0}
    return [network for network in found if network.num_addresses > 1]


def preload() -> None:
    """Import the netlink library now: a director that is forked later is then at work within milliseconds."""
    import pyroute2  # noqa: F401


def _arguments(address: VirtualAddress) -> dict[str, Any]:
    found: dict[str, Any] = {"address": address.address, "prefixlen": address.prefix_length}
    if address.label:
        found["label"] = address.label
    if address.broadcast and address.broadcast not in "+-":
        found["broadcast"] = address.broadcast
    if address.scope:
        found["scope"] = SCOPES.get(address.scope, 0)
    return found


def local_everywhere(address: str) -> bool:
    """Whether every node has ``address`` anyway: the loopback network. It is held by agreement, not by an interface."""
    return address.startswith("127.") or (":" in address and ip_address(address).is_loopback)
