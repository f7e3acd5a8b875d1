"""Links and addresses of one simulated host, with the rules of Linux for primary and secondary addresses."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network

from relevo.node.observation import Link, ObservedAddress, SetAddress, World


class Kernel:
    """The first IPv4 address of a subnet on a link is its primary; removing it removes the secondary ones too."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self.addresses: list[ObservedAddress] = []
        self._index = 0

    def world(self) -> World:
        """Return the observation of the present state."""
        return World(dict(self.links), tuple(self.addresses))

    # -- links --------------------------------------------------------------------------------------------------

    def add_link(self, name: str, *, up: bool = True) -> Link:
        """Add a link with a new index and hardware address."""
        self._index += 1
        link = self.links[name] = Link(name, self._index, up, bytes((2, 0, 0, 0, 0, self._index & 0xFF)))
        return link

    def remove_link(self, name: str) -> None:
        """Remove a link, and with it its addresses."""
        link = self.links.pop(name, None)
        if link is not None:
            self.addresses = [each for each in self.addresses if each.set.index != link.index]

    def set_up(self, name: str, up: bool) -> None:
        """Set a link up or down; IPv4 addresses stay."""
        if name in self.links:
            self.links[name] = replace(self.links[name], up=up)

    def rename(self, name: str, new: str) -> None:
        """Give a link another name."""
        if name in self.links and new not in self.links:
            self.links[new] = replace(self.links.pop(name), name=new)

    def set_hardware_address(self, name: str, address: bytes) -> None:
        """Give a link another hardware address."""
        if name in self.links:
            self.links[name] = replace(self.links[name], hardware_address=address)

    # -- addresses ----------------------------------------------------------------------------------------------

    def add(self, address: SetAddress) -> str:
        """Add an address; return an empty string, or why the kernel refuses."""
        if all(link.index != address.index for link in self.links.values()):
            return "No such device"
        if any(each.set.key == address.key for each in self.addresses):
            return "File exists"
        secondary = any(not each.secondary and _one_subnet(each.set, address) for each in self.addresses)
        self.addresses.append(ObservedAddress(address, secondary))
        return ""

    def remove(self, address: SetAddress, survivors: tuple[SetAddress, ...] = ()) -> str:
        """Remove an address; of the secondary ones of its subnet ``survivors`` stay, the first of them as primary."""
        found = next((each for each in self.addresses if each.set.key == address.key), None)
        if found is None:
            return "Cannot assign requested address"
        self.addresses.remove(found)
        if not found.secondary:
            kept = {each.key for each in survivors}
            dependent = [each for each in self.addresses if each.secondary and _one_subnet(each.set, found.set)]
            for each in dependent:
                self.addresses.remove(each)
            for each in dependent:
                if each.set.key in kept:
                    self.add(each.set)
        return ""

    def flush(self, name: str) -> None:
        """Remove every address of a link, as ``ip address flush`` does."""
        link = self.links.get(name)
        if link is not None:
            self.addresses = [each for each in self.addresses if each.set.index != link.index]


def _one_subnet(one: SetAddress, other: SetAddress) -> bool:
    if one.index != other.index or one.prefix_length != other.prefix_length or ":" in one.address + other.address:
        return False
    return ip_interface(f"{one.address}/{one.prefix_length}").network == ip_network(
        f"{other.address}/{other.prefix_length}", strict=False
    )
