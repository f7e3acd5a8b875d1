"""VRRP instances, their addresses and sync groups, in the terms of RFC 9568 and keepalived.conf(5)."""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec

from relevo.model.script import Script
from relevo.model.trackers import Tracked

PRIORITY_OWNER: Final = 255
"""Priority of the router that owns the addresses."""


class AuthenticationType(enum.StrEnum):
    """VRRPv2 authentication (removed by RFC 3768; PASS is still in most configurations)."""

    PASS = "PASS"  # noqa: S105 - the name of the method
    AH = "AH"


class Authentication(msgspec.Struct, frozen=True):
    """Type and password, of which eight bytes count. Adverts with PASS carry them; AH signs packets with them."""

    type: AuthenticationType
    password: str

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("type", self.type.value), ("password", "***")]

    def __repr__(self) -> str:
        return f"Authentication(type={self.type.value!r}, password='***')"


class VirtualAddress(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual address. An empty ``device`` means the interface of the instance.

    A ``deprecated`` one is not chosen as the source of connections (RFC 6724). ``options`` are ``home``, ``mngtmpaddr``,
    ``noprefixroute`` and ``autojoin`` (ip-address(8)).
    """

    address: str
    prefix_length: int = 32
    device: str = ""
    label: str = ""
    scope: str = ""
    broadcast: str = ""
    deprecated: bool = False
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix_length}"


class GarpPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Gratuitous ARP: ``repeat`` messages at takeover and after ``delay_s``; ``refresh_repeat`` every ``refresh_s``, 0: never.

    ``interval_s`` is the pause between two messages, ``gna_interval_s`` that between neighbour advertisements.
    """

    delay_s: float = 5.0
    repeat: int = 5
    refresh_s: float = 0.0
    refresh_repeat: int = 1
    lower_prio_repeat: int = 5
    lower_prio_delay_s: float = 5.0
    interval_s: float = 0.0
    gna_interval_s: float = 0.0


class VrrpNotify(msgspec.Struct, frozen=True, kw_only=True):
    """Scripts for transitions; ``any`` gets four further arguments (keepalived.conf(5), "notify").

    ``deleted`` runs when a reload removes the instance, ``lower_priority`` when a master receives an advert of lower priority.
    """

    master: Script | None = None
    backup: Script | None = None
    fault: Script | None = None
    stop: Script | None = None
    any: Script | None = None
    deleted: Script | None = None
    lower_priority: Script | None = None


class VrrpTransport(msgspec.Struct, frozen=True):
    """Transport of adverts: IP protocol 112 if ``udp_port`` is 0, else UDP unicast to that port."""

    udp_port: int = 0


class VrrpInstance(msgspec.Struct, frozen=True, kw_only=True):
    """One virtual router. Empty ``unicast_peers`` means multicast; version 2 needs whole seconds in ``advert_interval_s``.

    Adverts are of the IP version of ``multicast_group``, also where they are unicast.
    """

    name: str
    interface: str
    virtual_router_id: int
    priority: int = 100
    starts_as_master: bool = False
    advert_interval_s: float = 1.0
    version: int = 2
    authentication: Authentication | None = None
    addresses: tuple[VirtualAddress, ...] = ()
    excluded_addresses: tuple[VirtualAddress, ...] = ()
    source_address: str = ""
    unicast_peers: tuple[str, ...] = ()
    multicast_group: str = "224.0.0.18"
    transport: VrrpTransport = VrrpTransport()
    preempt: bool = True
    preempt_delay_s: float = 0.0
    preempt_when_synced_s: float = 0.0
    down_timer_adverts: int = 3
    checksum_with_pseudo_header: bool = True
    skip_check_adv_addr: bool = False
    lower_prio_no_advert: bool = False
    higher_prio_send_advert: bool = False
    track_primary: bool = True
    tracked: tuple[Tracked, ...] = ()
    garp: GarpPolicy = GarpPolicy()
    smtp_alert: bool = False
    notify: VrrpNotify = VrrpNotify()
    notify_priority_changes: bool = False
    notify_deleted: bool = False
    accept: bool = True
    unicast_ttl: int = 255
    unicast_fault_no_peer: bool = False
    owner_ignore_adverts: bool = False

    @property
    def is_ipv6(self) -> bool:
        """Whether adverts are IPv6 packets, with IPv6 addresses."""
        return ":" in self.multicast_group

    @property
    def has_ah(self) -> bool:
        """Whether adverts have the authentication header of IPsec."""
        return self.authentication is not None and self.authentication.type is AuthenticationType.AH


class SyncGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Instances that change state together (keepalived.conf(5), "vrrp_sync_group")."""

    name: str
    members: tuple[str, ...]
    smtp_alert: bool = False
    notify: VrrpNotify = VrrpNotify()


def is_link_local(address: str) -> bool:
    """Whether an IPv6 address is valid on its link alone (fe80::/10)."""
    return address[:3].lower() in ("fe8", "fe9", "fea", "feb") and address.index(":") == 4
