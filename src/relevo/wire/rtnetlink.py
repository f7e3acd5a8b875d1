"""Addresses and links over rtnetlink: requests and answers (rtnetlink(7), linux/if_addr.h, linux/if_link.h).

Only the frequent operations of a director are here: list links and addresses, add and remove an address, and the setting that
keeps secondary addresses when their primary is removed. The lab uses pyroute2.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from relevo.wire.netlink import ACK, DUMP, NESTED, REQUEST, Fault, Malformed, Message, attribute, attributes, message

NEW_LINK: Final = 16
GET_LINK: Final = 18
NEW_ADDRESS: Final = 20
DELETE_ADDRESS: Final = 21
GET_ADDRESS: Final = 22

INET: Final = 2
INET6: Final = 10
SECONDARY: Final = 0x01
NODAD: Final = 0x02
"""``IFA_F_NODAD``: IPv6 without duplicate address detection."""
TENTATIVE: Final = 0x48
"""``IFA_F_TENTATIVE`` and ``IFA_F_DADFAILED``: nothing can be bound to the address."""
OPTIMISTIC: Final = 0x04
"""``IFA_F_OPTIMISTIC``: a tentative address that can be used all the same (RFC 4429)."""

DEPRECATED: Final = 0x20
"""``IFA_F_DEPRECATED``: the address is not chosen as the source of new connections. It is set by a preferred lifetime of 0."""
HOME: Final = 0x10
MANAGE_TEMPORARY: Final = 0x100
NO_PREFIX_ROUTE: Final = 0x200
AUTO_JOIN: Final = 0x400
OPTIONS: Final = DEPRECATED | HOME | MANAGE_TEMPORARY | NO_PREFIX_ROUTE | AUTO_JOIN
"""What a configuration can ask for (ip-address(8))."""

_EXCLUSIVE: Final = 0x200
_CREATE: Final = 0x400

_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_BROADCAST, _IFA_CACHEINFO, _IFA_FLAGS = 1, 2, 3, 4, 6, 8
_FOREVER: Final = 0xFFFFFFFF
_IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_AF_SPEC, _IFLA_LINK_NETNSID, _IFLA_XDP = 3, 10, 18, 26, 37, 43
_INFO_KIND, _INFO_SLAVE_KIND = 1, 4
_XDP_PROG_ID: Final = 4
_IFLA_INET_CONF: Final = 1
_PROMOTE_SECONDARIES: Final = 20
"""``IPV4_DEVCONF_PROMOTE_SECONDARIES`` of linux/ip.h; the kernel's array begins at 1."""
_IFLA_INET6_CONF: Final = 2
_FORWARDING: Final = 0
"""``DEVCONF_FORWARDING`` of linux/ipv6.h."""

_ADDRESS = struct.Struct("=BBBBI")
_LINK = struct.Struct("=BxHiII")
"""``ifinfomsg``: family, hardware type, index, flags, changed flags."""
_NUMBER = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Address:
    """One address as the kernel lists it. ``label`` and ``broadcast`` are empty for none."""

    index: int
    address: str
    prefix_length: int
    label: str
    broadcast: str
    scope: int
    flags: int


@dataclass(frozen=True, slots=True)
class Link:
    """One interface as the kernel lists it. ``kind`` is empty for hardware, ``port_of`` for an interface without a master."""

    index: int
    name: str
    hardware_type: int
    flags: int
    kind: str
    port_of: str
    """Kind of the master: ``bridge``, ``bond``, ``vrf`` and so on; ``?`` where the kernel does not say."""
    peer_elsewhere: bool
    """Whether its other end is in another network namespace."""
    xdp_program: int
    """Id of the XDP program, 0 for none."""


def list_addresses(sequence: int) -> bytes:
    """Return the request for all addresses of both families."""
    return message(GET_ADDRESS, REQUEST | DUMP, sequence, _ADDRESS.pack(0, 0, 0, 0, 0))


def add_address(sequence: int, address: Address) -> bytes:
    """Return the request to add an address; it fails with EEXIST if the address exists."""
    family = INET6 if ":" in address.address else INET
    packed = packed_address(address.address)
    body = _head(address) + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    if address.label:
        body += attribute(_IFA_LABEL, address.label.encode() + b"\0")
    if address.broadcast and family == INET:
        body += attribute(_IFA_BROADCAST, packed_address(address.broadcast))
    if address.flags & DEPRECATED:
        body += attribute(_IFA_CACHEINFO, struct.pack("=IIII", 0, _FOREVER, 0, 0))
    if address.flags & ~DEPRECATED:
        body += attribute(_IFA_FLAGS, _NUMBER.pack(address.flags & ~DEPRECATED))
    return message(NEW_ADDRESS, REQUEST | ACK | _CREATE | _EXCLUSIVE, sequence, body)


def delete_address(sequence: int, address: Address) -> bytes:
    """Return the request to remove an address; it fails with EADDRNOTAVAIL if there is no such address."""
    packed = packed_address(address.address)
    # The kernel compares the prefix length only where IFA_ADDRESS is given.
    body = _head(address) + attribute(_IFA_LOCAL, packed) + attribute(_IFA_ADDRESS, packed)
    return message(DELETE_ADDRESS, REQUEST | ACK, sequence, body)


def list_links(sequence: int) -> bytes:
    """Return the request for all links."""
    return message(GET_LINK, REQUEST | DUMP, sequence, _LINK.pack(0, 0, 0, 0, 0))


def get_link(sequence: int, index: int) -> bytes:
    """Return the request for one link, by index."""
    return message(GET_LINK, REQUEST | ACK, sequence, _LINK.pack(0, 0, index, 0, 0))


def set_promote_secondaries(sequence: int, index: int, value: int) -> bytes:
    """Return the request to set ``promote_secondaries`` of a link (sysctl ``net.ipv4.conf.IF.promote_secondaries``)."""
    setting = attribute(_PROMOTE_SECONDARIES, _NUMBER.pack(value))
    family = attribute(NESTED | INET, attribute(NESTED | _IFLA_INET_CONF, setting))
    body = _LINK.pack(0, 0, index, 0, 0) + attribute(NESTED | _IFLA_AF_SPEC, family)
    return message(NEW_LINK, REQUEST | ACK, sequence, body)


def promote_secondaries(answer: Message) -> int:
    """Read ``promote_secondaries`` from the answer to ``get_link``."""
    return _setting(answer, INET, _IFLA_INET_CONF, _PROMOTE_SECONDARIES - 1)


def forwards_ipv6(answer: Message) -> bool:
    """Read from the answer to ``get_link`` whether the link forwards IPv6 packets (``net.ipv6.conf.IF.forwarding``)."""
    return _setting(answer, INET6, _IFLA_INET6_CONF, _FORWARDING) != 0


def _setting(answer: Message, family: int, kind: int, number: int) -> int:
    """Return one of the settings that a link has for an address family."""
    name = f"settings of IPv{4 if family == INET else 6}"
    if len(answer.payload) < _LINK.size:
        raise Malformed(Fault.TRUNCATED, "link")
    found = attributes(answer.payload[_LINK.size :])
    for each in (_IFLA_AF_SPEC, family):
        if each not in found:
            raise Malformed(Fault.MISSING, name)
        found = attributes(found[each])
    if kind not in found:
        raise Malformed(Fault.MISSING, name)
    if len(found[kind]) < (number + 1) * _NUMBER.size:
        raise Malformed(Fault.SIZE, name)
    return int(_NUMBER.unpack_from(found[kind], number * _NUMBER.size)[0])


def decode_links(answers: list[Message]) -> Iterator[Link]:
    """Decode the answers to ``list_links``; ``Malformed`` for a broken one."""
    for answer in answers:
        if answer.type != NEW_LINK:
            continue
        if len(answer.payload) < _LINK.size:
            raise Malformed(Fault.TRUNCATED, "link")
        _, hardware_type, index, flags, _ = _LINK.unpack_from(answer.payload)
        found = attributes(answer.payload[_LINK.size :])
        if _IFLA_IFNAME not in found:
            raise Malformed(Fault.MISSING, "name of a link")
        information = attributes(found.get(_IFLA_LINKINFO, memoryview(b"")))
        program = attributes(found.get(_IFLA_XDP, memoryview(b""))).get(_XDP_PROG_ID, memoryview(bytes(4)))
        if len(program) != _NUMBER.size:
            raise Malformed(Fault.SIZE, "XDP program")
        yield Link(
            index,
            _string(found[_IFLA_IFNAME]),
            hardware_type,
            flags,
            kind=_string(information.get(_INFO_KIND)),
            port_of=(_string(information.get(_INFO_SLAVE_KIND)) or "?") if _IFLA_MASTER in found else "",
            peer_elsewhere=_IFLA_LINK_NETNSID in found,
            xdp_program=_NUMBER.unpack(program)[0],
        )


def decode_addresses(answers: list[Message]) -> Iterator[Address]:
    """Decode the answers to ``list_addresses``; ``Malformed`` for a broken one. Other families are skipped."""
    for answer in answers:
        if answer.type == NEW_ADDRESS:
            found = _decode(answer.payload)
            if found is not None:
                yield found


def _decode(payload: memoryview) -> Address | None:
    if len(payload) < _ADDRESS.size:
        raise Malformed(Fault.TRUNCATED, "address")
    family, length, flags, scope, index = _ADDRESS.unpack_from(payload)
    if family not in (INET, INET6):
        return None
    found = attributes(payload[_ADDRESS.size :])
    local = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS))
    if local is None:
        raise Malformed(Fault.MISSING, "address")
    if length > (32 if family == INET else 128):
        raise Malformed(Fault.VALUE, "prefix length")
    if _IFA_FLAGS in found:
        if len(found[_IFA_FLAGS]) != _NUMBER.size:
            raise Malformed(Fault.SIZE, "flags")
        flags = _NUMBER.unpack(found[_IFA_FLAGS])[0]
    label = _string(found.get(_IFA_LABEL))
    broadcast = _text(family, found[_IFA_BROADCAST]) if _IFA_BROADCAST in found else ""
    return Address(index, _text(family, local), length, label, broadcast, scope, flags)


def _string(value: memoryview | None) -> str:
    return "" if value is None else bytes(value).split(b"\0")[0].decode("utf-8", "replace")


def _text(family: int, packed: memoryview) -> str:
    if len(packed) != (4 if family == INET else 16):
        raise Malformed(Fault.SIZE, "address")
    return str(ipaddress.ip_address(bytes(packed)))


def _head(address: Address) -> bytes:
    family = INET6 if ":" in address.address else INET
    return _ADDRESS.pack(family, address.prefix_length, address.flags & 0xFF, address.scope, address.index)


def packed_address(address: str) -> bytes:
    """Return an address in network order: 4 or 16 bytes."""
    return ipaddress.ip_address(address).packed
