"""``virtual_server_group`` and ``local_address_group``: lists of addresses under a name."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

import msgspec

from relevo.config.blocks.arguments import Argument, Located, entries, listing
from relevo.config.cursor import Cursor, Rejected
from relevo.model import Endpoint, ServiceKey

MAX_MEMBERS = 4096
"""Largest group: each address is a service of its own in the plane."""
MAX_MARK = 0xFFFFFFFF


class Member(msgspec.Struct, frozen=True):
    """An address and port, or a firewall mark with the unspecified address of its IP version."""

    endpoint: Endpoint
    mark: int = 0


class Group(msgspec.Struct, frozen=True):
    """A named list."""

    name: str
    members: tuple[Member, ...]


def addresses(cursor: Cursor) -> list[str]:
    """Read ``ADDRESS``, ``ADDRESS-LAST``, ``ADDRESS-ADDRESS`` or ``NETWORK/LENGTH``; return all addresses."""
    word = cursor.word("an address, a range or a network")
    if "/" in word:
        return _network(cursor, word)
    first_text, dash, last_text = word.partition("-")
    first = ipaddress.ip_address(cursor.as_address(first_text, "an IP address"))
    if not dash:
        return [str(first)]
    last = _end(cursor, first, last_text)
    if last < int(first):
        raise cursor.reject(f"the range {word} ends before it begins", "write the lower address first")
    if last == int(first):
        cursor.warn(f"'{word}' is a single address; keepalived leaves the line out", f"write {first}")
    return _counted(cursor, word, first, last - int(first) + 1)


def _end(cursor: Cursor, first: ipaddress.IPv4Address | ipaddress.IPv6Address, text: str) -> int:
    """Return the last address of a range; its end is an address or the last byte of one (IPv6: last 16 bits, hexadecimal)."""
    base, bits = (10, 8) if first.version == 4 else (16, 16)
    try:
        part = int(text, base) if text.isalnum() else -1
    except ValueError:
        part = -1
    if 0 <= part < 1 << bits:
        return int(first) >> bits << bits | part
    last = ipaddress.ip_address(cursor.as_address(text, "the end of a range"))
    if last.version != first.version:
        raise cursor.reject(f"{first} and {last} are of different IP versions", "write one family")
    return int(last)


def _network(cursor: Cursor, word: str) -> list[str]:
    try:
        network = ipaddress.ip_network(word, strict=False)
    except ValueError:
        raise cursor.reject(f"'{word}' is not a network", "write 192.0.2.0/28") from None
    if not word.startswith(f"{network.network_address}/"):
        message = f"'{word}' is taken for the network {network}; keepalived leaves the line out"
        cursor.warn(message, f"write {network}")
    return _counted(cursor, word, network.network_address, network.num_addresses)


def _counted(cursor: Cursor, word: str, first: ipaddress.IPv4Address | ipaddress.IPv6Address, count: int) -> list[str]:
    if count > MAX_MEMBERS:
        raise cursor.reject(f"{word} is {count} addresses: at most {MAX_MEMBERS}", "use a firewall mark for so many")
    return [str(first + i) for i in range(count)]


def mark(cursor: Cursor) -> int:
    """Read a firewall mark."""
    return cursor.integer(1, MAX_MARK, "a firewall mark")


def _service_members(line: Cursor) -> Iterator[Member]:
    if line.peek() == "fwmark":
        line.word()
        number = mark(line)
        ipv6 = line.more() and line.choice(("inet", "inet6"), "an IP version") == "inet6"
        yield Member(ServiceKey.of_mark(number, ipv6=ipv6).endpoint, number)
        return
    found = addresses(line)
    port = line.port() if line.more() else 0
    for address in found:
        yield Member(Endpoint(address, port))


def _local_members(line: Cursor) -> Iterator[Member]:
    for address in addresses(line):
        yield Member(Endpoint(address))
    if line.more():
        line.warn(f"interface '{line.word()}' is ignored: the address is used where the node has it", "remove the word")


def _group(cursor: Cursor, members: Callable[[Cursor], Iterator[Member]]) -> Located[Group]:
    name = str(cursor.word("a name"))
    found: dict[Member, None] = {}
    for line in entries(cursor):
        try:
            for member in members(line):
                if member in found:
                    line.warn(f"{member.mark or member.endpoint} is listed twice: the second is left out", word=1)
                found[member] = None
        except Rejected:
            continue
    if len(found) > MAX_MEMBERS:
        raise cursor.reject(f"'{name}' has {len(found)} members: at most {MAX_MEMBERS}", "use a firewall mark for so many")
    if not found:
        cursor.warn(f"'{name}' lists nothing", "list addresses", word=1)
    return Located(Group(name, tuple(found)), cursor.statement)


def virtual_server_group() -> Argument[Located[Group]]:
    """A group of virtual addresses and marks."""
    return listing(lambda cursor: _group(cursor, _service_members), "NAME { ADDRESS[-LAST|/LENGTH] [PORT] | fwmark N … }")


def local_address_group() -> Argument[Located[Group]]:
    """A pool of source addresses for FULLNAT."""
    return listing(lambda cursor: _group(cursor, _local_members), "NAME { ADDRESS[-LAST|/LENGTH] … }")
