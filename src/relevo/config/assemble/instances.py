"""``vrrp_instance`` blocks → instances, with the defaults of ``global_defs``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from relevo.config.assemble.strict import accepts, keep_to_the_rfc
from relevo.config.blocks.arguments import Located
from relevo.config.blocks.global_defs import GARP_INTERVAL, GROUP4, GROUP6, SYNC_DAEMON
from relevo.config.blocks.registry import NO_BLOCKS, Fields, Keyword
from relevo.config.blocks.vrrp import (
    ADDRESSES,
    ADVERT_INT,
    AUTH_PASS,
    AUTH_TYPE,
    AUTHENTICATIONS,
    CHECKSUM_AS_V2,
    EXCLUDED,
    GROUP_ADDRESS,
    INSTANCE_TRANSPORT,
    INTERFACE,
    PEERS,
    PREEMPT,
    PREEMPT_DELAY,
    PRIORITY,
    ROUTER_ID,
    SOURCE,
    STATE,
    SYNC_INTERFACE,
    VERSION,
    name_of,
)
from relevo.config.blocks.vrrp_behaviour import GNA_INTERVAL, MIN_GARP, NATIVE_IPV6, NO_ADDRESSES, STRICT
from relevo.config.cursor import Rejected
from relevo.config.diagnostics import Severity
from relevo.config.place import Places
from relevo.model import (
    Authentication,
    AuthenticationType,
    GarpPolicy,
    SyncDaemon,
    VirtualAddress,
    VrrpInstance,
    VrrpNotify,
    VrrpTransport,
)
from relevo.model.vrrp import PRIORITY_OWNER, is_link_local

MAX_ADVERTISED: Final = 255
"""Addresses in an advert: the count is one byte (RFC 9568 §5.2.5)."""
MAX_ADVERTISED_IPV6: Final = 89
"""As many fit into a packet of 1500 bytes, as keepalived counts: peers compare the lists, so that all must end with the same."""
SECRET_LENGTH: Final = 8
"""Bytes of the secret in an advert (RFC 2338 §5.3.10)."""


class Instances:
    """Builds the instances, and finds the synchronisation daemon that one of them declares in the old syntax.

    ``blocks`` are those of the usable instances, by name. What they track is added later, because sync groups take part in it.
    """

    def __init__(self, defaults: Fields, garp_groups: Sequence[Fields], places: Places) -> None:
        self.sync_daemon: SyncDaemon | None = None
        self.blocks: dict[str, Fields] = {}
        self._defaults = defaults
        self._pauses = _pauses(garp_groups)
        self._places = places

    def build(self, blocks: Sequence[Fields]) -> tuple[VrrpInstance, ...]:
        """Return the usable instances. Of two with the same name, or the same number on an interface, the first is used."""
        built: dict[str, VrrpInstance] = {}
        routers: dict[tuple[int, str], list[VrrpInstance]] = {}
        for fields in blocks:
            fields.above = NO_BLOCKS.with_block(self._defaults)
            name = name_of(fields)
            if name in built:
                message = f"vrrp_instance '{name}' is there already: left out"
                fields.report(Severity.ERROR, "name", message, "rename one of the two")
                continue
            try:
                instance = self._instance(fields)
            except Rejected:
                continue
            number = (instance.virtual_router_id, instance.interface)
            other = next((o for o in routers.get(number, ()) if _meet(o, instance)), None)
            if other is not None:
                message = f"virtual_router_id {number[0]} is used by '{other.name}' on the same interface: left out"
                fields.report(Severity.ERROR, ROUTER_ID.key, message, "give each virtual router its own number")
                continue
            routers.setdefault(number, []).append(instance)
            built[name] = instance
            self.blocks[name] = fields
            self._record(fields, name)
        return tuple(built.values())

    def _record(self, fields: Fields, name: str) -> None:
        if not self._places.wanted:
            return
        for keyword in (*fields.origin, ""):
            self._places.record(*fields.located(keyword), "vrrp_instance", name, keyword)
        for row in (ADDRESSES, EXCLUDED):
            for address in fields.given(row, ()):
                word = address.at.args.index("dev") + 2 if "dev" in address.at.args[:-1] else 1
                path = (row.key, str(address.value), address.value.device)
                self._places.record(address.at, word, "vrrp_instance", name, *path)

    def _instance(self, fields: Fields) -> VrrpInstance:
        addresses, excluded = _addresses(fields)
        ipv6 = _family(fields, addresses)
        version = _version(fields, ipv6)
        authentication = _authentication(fields, version)
        peers = _peers(fields, addresses)
        transport = fields.effective(INSTANCE_TRANSPORT, VrrpTransport())
        interface = fields.given(INTERFACE) or next((a.device for a in addresses if peers and a.device), "")
        source = _source(fields, addresses, peers)
        router_id = fields.given(ROUTER_ID)
        if router_id is None:
            raise _refused(fields, "has no virtual_router_id: left out", "write virtual_router_id 1..255")
        if not interface:
            raise _refused(fields, "has no interface: left out", "write interface <name>")
        if transport.udp_port and not (peers and source):
            raise _refused(fields, "uses UDP without unicast_src_ip and unicast_peer: left out", "name both ends")
        if not addresses and not excluded and not fields.given(NO_ADDRESSES, False):
            message = "no virtual_ipaddress: the instance has no addresses"
            fields.report(Severity.ERROR, "name", message, "add a virtual_ipaddress block")
        most = MAX_ADVERTISED_IPV6 if ipv6 else MAX_ADVERTISED
        if len(addresses) > most:
            message = f"an advert holds {most} addresses: the rest is treated as excluded"
            fields.report(Severity.WARNING, ADDRESSES.key, message)
            addresses, excluded = addresses[:most], (*addresses[most:], *excluded)
        if ipv6 and addresses and not peers and not is_link_local(addresses[0].address):
            message = f"the first IPv6 address should be link-local, and {addresses[0].address} is not (RFC 9568 §5.2.9)"
            fields.report(Severity.NOTE, ADDRESSES.key, message, "begin the list with an address such as fe80::10")
        priority = fields.given(PRIORITY, PRIORITY_OWNER if fields.given(STATE, False) else 100)
        starts_as_master = _starts_as_master(fields, authentication, priority)
        self._note_sync_daemon(fields)
        strict = fields.effective(STRICT, False)
        instance = fields.into(
            VrrpInstance,
            name=name_of(fields),
            interface=interface,
            virtual_router_id=router_id,
            priority=priority,
            starts_as_master=starts_as_master or priority == PRIORITY_OWNER,
            version=version,
            advert_interval_s=_advert_interval(fields, version),
            authentication=authentication,
            addresses=addresses,
            excluded_addresses=excluded,
            source_address=source,
            unicast_peers=peers,
            multicast_group=self._group(fields, ipv6),
            transport=transport,
            preempt=_preempt(fields, starts_as_master, priority),
            preempt_delay_s=_preempt_delay(fields, starts_as_master),
            checksum_with_pseudo_header=not fields.effective(CHECKSUM_AS_V2, False),
            garp=self._garp(fields, interface),
            notify=fields.into(VrrpNotify),
            notify_deleted="notify_deleted" in fields,
            accept=accepts(fields, priority, version, strict=strict),
        )
        return keep_to_the_rfc(instance, fields) if strict else instance

    def _group(self, fields: Fields, ipv6: bool) -> str:
        """Return the multicast group: the instance's own if it is of the right IP version, else the general one."""
        general = self._defaults.effective(GROUP6 if ipv6 else GROUP4, "")
        own = fields.given(GROUP_ADDRESS, general)
        if _is_ipv6(own) is ipv6:
            return own
        message = f"group {own} is of another IP version than the addresses: {general} is used"
        fields.report(Severity.ERROR, GROUP_ADDRESS.key, message, "name a group of that version")
        return general

    def _garp(self, fields: Fields, interface: str) -> GarpPolicy:
        """Return how addresses are announced; the pauses are those of the interface's ``garp_group``, else the general ones."""
        policy = fields.into(
            GarpPolicy,
            interval_s=self._defaults.given(GARP_INTERVAL, 0.0),
            gna_interval_s=self._defaults.given(GNA_INTERVAL, 0.0),
        )
        if self._defaults.given(MIN_GARP, False):
            policy = msgspec.structs.replace(policy, delay_s=0.0, repeat=1, refresh_repeat=1)
        return msgspec.structs.replace(policy, **self._pauses.get(interface, {}))

    def _note_sync_daemon(self, fields: Fields) -> None:
        interface = fields.given(SYNC_INTERFACE)
        if interface is None:
            return
        if SYNC_DAEMON.key in self._defaults or self.sync_daemon is not None:
            message = "the synchronisation daemon is declared already: ignored, in keepalived too"
            fields.report(Severity.WARNING, SYNC_INTERFACE.key, message, "keep lvs_sync_daemon in global_defs alone")
            return
        if SYNC_INTERFACE.key == fields.origin[SYNC_INTERFACE.key].keyword:
            message = "keepalived calls this keyword obsolete, and goes on using it"
            hint = f"write lvs_sync_daemon {interface} {name_of(fields)} into global_defs"
            fields.report(Severity.NOTE, SYNC_INTERFACE.key, message, hint)
        self.sync_daemon = SyncDaemon(interface=interface, instance=name_of(fields))


def _pauses(groups: Sequence[Fields]) -> dict[str, dict[str, float]]:
    """Return the pauses between announcements by interface; an interface belongs to one group."""
    found: dict[str, dict[str, float]] = {}
    for fields in groups:
        names = (("garp_interval", "interval_s"), ("gna_interval", "gna_interval_s"))
        pauses = {field: fields[keyword] for keyword, field in names if keyword in fields}
        interfaces: tuple[Located[str], ...] = fields.get("interface", ())
        if not interfaces:
            fields.report(Severity.WARNING, "", "garp_group without an interface: ignored", "write interface NAME")
        for interface in interfaces:
            if interface.value in found:
                message = f"interface {interface.value} is in a garp_group already: ignored"
                fields.findings.add(Severity.WARNING, interface.at.place(1), message, "remove one of the two", "garp_group")
            found.setdefault(interface.value, pauses)
    return found


def _meet(one: VrrpInstance, other: VrrpInstance) -> bool:
    """Whether the adverts of two instances reach one another's peers: unicast and multicast are separate number spaces."""
    if one.unicast_peers or other.unicast_peers:
        return not set(one.unicast_peers).isdisjoint(other.unicast_peers)
    return one.multicast_group == other.multicast_group


def _refused(fields: Fields, message: str, hint: str) -> Rejected:
    fields.report(Severity.ERROR, "name", f"vrrp_instance '{name_of(fields)}' {message}", hint)
    return Rejected()


def _is_ipv6(address: str) -> bool:
    return ":" in address


# -- addresses -------------------------------------------------------------------------------------------------------


def _family(fields: Fields, addresses: tuple[VirtualAddress, ...]) -> bool:
    """Return whether adverts are IPv6 packets: the first address decides; without any, what else is there."""
    if addresses:
        ipv6 = _is_ipv6(addresses[0].address)
        if fields.given(NATIVE_IPV6, False) and not ipv6:
            message = f"the first address, {addresses[0].address}, decides: adverts are IPv4"
            fields.report(Severity.WARNING, NATIVE_IPV6.key, message, "remove the line")
        return ipv6
    if fields.given(NATIVE_IPV6, False):
        return True
    told = (fields.given(SOURCE, ""), *(peer.value for peer in fields.given(PEERS, ())), fields.given(GROUP_ADDRESS, ""))
    return _is_ipv6(next(filter(None, told), ""))


def _version(fields: Fields, ipv6: bool) -> int:
    """Return the version of the protocol. IPv6 is in version 3 alone, and whoever wrote 2 must know that."""
    version = fields.effective(VERSION, 2)
    if not ipv6 or version == 3:
        return version
    if VERSION.key in fields:
        message = "VRRPv2 is for IPv4 alone: version 3 is used, as in keepalived"
        fields.report(Severity.WARNING, VERSION.key, message, "write version 3")
    return 3


def _starts_as_master(fields: Fields, authentication: Authentication | None, priority: int) -> bool:
    """Return whether the instance begins as master. With AH it must first hear the number that its peer has reached."""
    wanted = fields.given(STATE, False)
    if wanted and authentication and authentication.type is AuthenticationType.AH and priority != PRIORITY_OWNER:
        message = "with auth_type AH a node must hear its peer before it becomes master: BACKUP is used, as in keepalived"
        fields.report(Severity.WARNING, STATE.key, message, "write state BACKUP")
        return False
    return wanted


def _addresses(fields: Fields) -> tuple[tuple[VirtualAddress, ...], tuple[VirtualAddress, ...]]:
    """Return the advertised and the excluded addresses: the former of one IP version, and no address twice on a device."""
    found: dict[tuple[str, str], None] = {}
    advertised = _without_twins(fields, ADDRESSES, found)
    kept = tuple(a for a in advertised if _is_ipv6(a.address) == _is_ipv6(advertised[0].address))
    if len(kept) < len(advertised):
        message = f"{len(advertised) - len(kept)} addresses of the other IP version are left out"
        fields.report(Severity.ERROR, ADDRESSES.key, message, "put them in virtual_ipaddress_excluded")
    return kept, _without_twins(fields, EXCLUDED, found)


def _without_twins(
    fields: Fields, row: Keyword[tuple[Located[VirtualAddress], ...]], found: dict[tuple[str, str], None]
) -> tuple[VirtualAddress, ...]:
    kept = []
    for address in fields.given(row, ()):
        key = (address.value.address, address.value.device or fields.given(INTERFACE, ""))
        if key in found:
            message = f"address {key[0]} is listed twice: the second is left out"
            fields.findings.add(Severity.WARNING, address.at.place(1), message, "remove one of the two", row.name)
            continue
        found[key] = None
        kept.append(address.value)
    return tuple(kept)


def _peers(fields: Fields, addresses: tuple[VirtualAddress, ...]) -> tuple[str, ...]:
    """Return the peers, all of the IP version of the addresses."""
    kept: dict[str, None] = {}
    given = fields.given(PEERS, ())
    for peer in given:
        if addresses and _is_ipv6(peer.value) != _is_ipv6(addresses[0].address):
            message = f"peer {peer.value} is of another IP version than the addresses: left out"
            fields.findings.add(Severity.ERROR, peer.at.place(1), message, "name the peer's address of that version", PEERS.name)
        else:
            kept[peer.value] = None
    if given and not kept:
        message = "no peer is left: adverts go to the multicast group"
        fields.report(Severity.WARNING, PEERS.key, message, "list the peers' addresses")
    return tuple(kept)


def _source(fields: Fields, addresses: tuple[VirtualAddress, ...], peers: tuple[str, ...]) -> str:
    source = fields.given(SOURCE, "")
    other = next((a.address for a in addresses), next(iter(peers), ""))
    if source and other and _is_ipv6(source) != _is_ipv6(other):
        message = f"source {source} is of another IP version than {other}: ignored"
        fields.report(Severity.ERROR, SOURCE.key, message, "name this node's address of that version")
        return ""
    return source


# -- timing and authentication ---------------------------------------------------------------------------------------


def _advert_interval(fields: Fields, version: int) -> float:
    """Advert interval a version can carry: whole seconds in 2, centiseconds up to 40.95 s in 3 (RFC 9568 §5.2.7)."""
    given = fields.effective(ADVERT_INT, 1.0)
    if version == 2:
        value = float(max(1, math.floor(given + 0.5)))
        hint = "write whole seconds, or version 3 for shorter ones"
    else:
        value = min(40.95, max(0.01, math.floor(given * 100 + 0.5) / 100))
        hint = "VRRPv3 carries hundredths of a second up to 40.95"
    if not math.isclose(value, given):
        fields.report(Severity.WARNING, ADVERT_INT.key, f"VRRPv{version} cannot carry {given:g} s: {value:g} s is used", hint)
    return value


def _authentication(fields: Fields, version: int) -> Authentication | None:
    found: Fields | None = fields.given(AUTHENTICATIONS)
    if found is None:
        return None
    kind, secret = found.given(AUTH_TYPE), found.given(AUTH_PASS)
    if kind is None:
        found.report(Severity.ERROR, "", "'authentication' without a valid auth_type: adverts have none", "write auth_type PASS")
        return None
    if secret is None:
        found.report(Severity.ERROR, "", "'authentication' without auth_pass: adverts have none", "write auth_pass <secret>")
        return None
    if version == 3:
        message = "VRRPv3 has no authentication: left out"
        fields.report(Severity.WARNING, AUTHENTICATIONS.key, message, "remove the block, or write version 2")
        return None
    if len(secret.encode("utf-8", "surrogatepass")) > SECRET_LENGTH:
        message = f"only the first {SECRET_LENGTH} bytes of auth_pass are used, as in keepalived"
        found.report(Severity.WARNING, AUTH_PASS.key, message, f"an advert has room for {SECRET_LENGTH}")
    if kind == AuthenticationType.AH and fields.effective(INSTANCE_TRANSPORT, VrrpTransport()).udp_port:
        message = "AH is a header of IP, and adverts in UDP have none: left out"
        fields.report(Severity.ERROR, AUTHENTICATIONS.key, message, "write auth_type PASS, or remove vrrp_transport")
        return None
    return Authentication(AuthenticationType(kind), secret)


def _preempt(fields: Fields, starts_as_master: bool, priority: int) -> bool:
    preempt = fields.given(PREEMPT, True)
    if not preempt and (starts_as_master or priority == PRIORITY_OWNER):
        message = "nopreempt has no effect with state MASTER: ignored"
        fields.report(Severity.WARNING, PREEMPT.key, message, "write state BACKUP on every node")
        return True
    return preempt


def _preempt_delay(fields: Fields, starts_as_master: bool) -> float:
    delay = fields.given(PREEMPT_DELAY, 0.0)
    if delay and (starts_as_master or not fields.given(PREEMPT, True)):
        message = "preempt_delay has no effect with state MASTER or nopreempt: ignored"
        fields.report(Severity.WARNING, PREEMPT_DELAY.key, message, "write state BACKUP and no nopreempt")
        return 0.0
    return delay
