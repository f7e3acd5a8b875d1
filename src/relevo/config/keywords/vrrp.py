"""``vrrp_instance`` and ``vrrp_sync_group``."""

from __future__ import annotations

import math
from typing import Any, Final

from relevo.config.cursor import Cursor, Rejected
from relevo.config.diagnostics import Severity
from relevo.config.keywords.global_defs import read_transport
from relevo.config.keywords.readers import (
    absence,
    address,
    boolean,
    choice,
    flag,
    integer,
    script,
    seconds,
    seconds_or,
    text,
    word_list,
)
from relevo.config.keywords.registry import Block, Fields, Keyword, entries, reads_block
from relevo.model import AuthenticationType, TrackedInterface, VirtualAddress

MAX_ADVERTISED: Final = 255
"""Addresses in an advert: the count is one octet (RFC 9568 §5.2.5)."""
SCOPES: Final = ("site", "link", "host", "nowhere", "global")


def _family(name: str) -> int:
    return 6 if ":" in name else 4


def virtual_address(cursor: Cursor) -> VirtualAddress:
    """Read ``IP[/len] [dev IF] [label L] [scope S] [brd A] …`` (keepalived.conf(5), "virtual_ipaddress")."""
    literal, _, length = cursor.word("an IP address").partition("/")
    found = cursor.as_address(literal, "an IP address")
    longest = 128 if ":" in found else 32
    fields: dict[str, Any] = {"address": found, "prefix_length": longest}
    if length:
        if not (length.isdecimal() and len(length) <= 3) or int(length) > longest:
            raise cursor.reject(f"'/{length}' is not a prefix length", f"a prefix length lies in 0..{longest}")
        fields["prefix_length"] = int(length)
    options = {"dev": "device", "label": "label", "scope": "scope", "brd": "broadcast", "broadcast": "broadcast"}
    with_value = ("peer", "preferred_lft", "track_group")
    bare = ("home", "-nodad", "mngtmpaddr", "noprefixroute", "autojoin", "no_track", "use_vmac")
    while cursor.more():
        word = cursor.word()
        if word in options:
            fields[options[word]] = text(f"a value for {word}")(cursor)
        elif word in with_value:
            cursor.word(f"a value for {word}")
            cursor.warn(f"option '{word}' is not supported by this version: ignored")
        elif word in bare:
            cursor.warn(f"option '{word}' is not supported by this version: ignored")
        else:
            hint = "after the address: dev IF, label NAME, scope S, brd A"
            cursor.warn(f"unknown address option '{word}': ignored", hint)
    return VirtualAddress(**fields)


@reads_block
def _addresses(cursor: Cursor) -> tuple[VirtualAddress, ...]:
    found: dict[str, VirtualAddress] = {}
    for line in entries(cursor):
        try:
            value = virtual_address(line)
        except Rejected:
            continue
        if value.address in found:
            line.warn(f"address {value.address} is listed twice: the second is left out", word=1)
        else:
            found[value.address] = value
    return tuple(found.values())


@reads_block
def _peers(cursor: Cursor) -> tuple[str, ...]:
    found: list[str] = []
    for line in entries(cursor):
        try:
            found.append(line.address("a peer's address"))
            while line.more():
                option = line.choice(("min_ttl", "max_ttl"), "an option of a peer")
                line.integer(0, 255, option)
                line.warn(f"option '{option}' of a peer is not supported by this version: ignored")
        except Rejected:
            continue
    if not found:
        cursor.warn("no peer is listed: adverts go to the multicast group", "list the peers' addresses", word=0)
    return tuple(dict.fromkeys(found))


@reads_block
def _tracked(cursor: Cursor) -> tuple[TrackedInterface, ...]:
    found: list[TrackedInterface] = []
    for line in entries(cursor):
        name, weight, reverse = line.word("an interface"), 0, False
        try:
            while line.more():
                if line.choice(("weight", "reverse"), "an option of a tracked interface") == "weight":
                    weight = line.integer(-253, 253, "a weight")
                else:
                    reverse = True
        except Rejected:
            continue
        found.append(TrackedInterface(str(name), weight, reverse))
    return tuple(found)


def _state(cursor: Cursor) -> bool:
    word = cursor.word("MASTER or BACKUP")
    if word not in ("MASTER", "BACKUP"):
        cursor.complain(Severity.ERROR, f"unknown state '{word}': BACKUP is used", "write MASTER or BACKUP")
    return word == "MASTER"


def _authentication(fields: Fields) -> Fields | None:
    if "auth_type" not in fields:
        fields.complain(Severity.ERROR, "", "'authentication' without auth_type: ignored", "write auth_type PASS")
        return None
    if not fields.get("auth_pass"):
        fields.complain(Severity.ERROR, "", "'authentication' without auth_pass: ignored", "write auth_pass <secret>")
        return None
    if len(fields["auth_pass"].encode("utf-8", "surrogatepass")) > 8:
        fields.complain(Severity.WARNING, "auth_pass", "only the first 8 characters of auth_pass are used")
    return fields


AUTHENTICATION = Block(
    "authentication",
    (
        Keyword("auth_type", choice(tuple(AuthenticationType), "an authentication type"), "PASS or AH"),
        Keyword("auth_pass", text("a secret"), "shared secret, 8 characters significant"),
    ),
    _authentication,
)


def _name(cursor: Cursor, fields: Fields) -> None:
    fields["name"] = str(cursor.word("a name"))
    fields.origin["name"] = cursor.statement


NOTIFIES = (
    *(
        Keyword(f"notify_{state}", script, f"script run on entering {state}", field=f"notify_{state}")
        for state in ("master", "backup", "fault", "stop")
    ),
    Keyword("notify", script, "script run at every transition; gets type, name, state and priority", field="notify_any"),
)

_SYNC = "lvs_sync_daemon_interface"

VRRP_INSTANCE = Block(
    "vrrp_instance",
    (
        Keyword("state", _state, "MASTER or BACKUP: the state aimed at when starting", field="starts_as_master"),
        Keyword("interface", text("an interface"), "interface of the adverts and of addresses without dev"),
        Keyword("virtual_router_id", integer(1, 255, "a virtual router id"), "number shared by the routers of this group"),
        Keyword("priority", integer(1, 255, "a priority"), "the highest becomes master; 255 owns the address"),
        Keyword("advert_int", seconds(0.01, 255, "an advert interval"), "seconds between adverts (1)"),
        Keyword("version", integer(2, 3, "a VRRP version"), "VRRP version, 2 or 3"),
        Keyword("authentication", AUTHENTICATION, "PASS or AH and its secret; version 2 only"),
        Keyword("virtual_ipaddress", _addresses, "addresses that follow the master, and are advertised"),
        Keyword("virtual_ipaddress_excluded", _addresses, "addresses that follow the master, not advertised"),
        Keyword("unicast_src_ip", address("a source address"), "source of unicast adverts", field="source_address"),
        Keyword("mcast_src_ip", address("a source address"), "source of multicast adverts", field="source_address"),
        Keyword("unicast_peer", _peers, "peers that get the adverts instead of the multicast group"),
        Keyword("mcast_dst_ip", address("a multicast address"), "multicast group of this instance"),
        Keyword("vrrp_transport", read_transport, "what carries the adverts: ip, or udp PORT [Relevo]"),
        Keyword("nopreempt", absence, "stay backup when returning with a higher priority", field="preempt"),
        Keyword("preempt", flag, "the default, kept for old files"),
        Keyword("preempt_delay", seconds(0, 1000, "a delay"), "seconds to wait before taking over from a lower master"),
        Keyword(
            "preempt_when_synced", seconds_or(60, 1, 1000),
            "take over from a lower master when its connections are here, or after so many seconds [Relevo]",
            field="preempt_when_synced_s",
        ),
        Keyword("down_timer_adverts", integer(1, 100, "a count"), "missed adverts before takeover (3)"),
        Keyword("track_interface", _tracked, "interfaces whose loss means FAULT or a lower priority"),
        Keyword("dont_track_primary", absence, "do not go to FAULT with the own interface", field="track_primary"),
        Keyword("garp_master_delay", seconds(0, 3600, "a delay"), "delay of the second gratuitous ARP burst", field="garp_delay_s"),
        Keyword("garp_master_repeat", integer(1, 100, "a count"), "messages in a burst", field="garp_repeat"),
        Keyword("garp_master_refresh", seconds(0, 86400, "an interval"), "interval of refreshing while master", field="garp_refresh_s"),
        Keyword("garp_master_refresh_repeat", integer(1, 100, "a count"), "messages in a refresh", field="garp_refresh_repeat"),
        Keyword("garp_lower_prio_delay", seconds(0, 3600, "a delay"), "second burst after a lower master", field="garp_lower_prio_delay_s"),
        Keyword("garp_lower_prio_repeat", integer(0, 100, "a count"), "burst after a lower master", field="garp_lower_prio_repeat"),
        Keyword("lower_prio_no_advert", boolean, "do not answer an advert of lower priority"),
        Keyword("higher_prio_send_advert", boolean, "send one more advert before giving way"),
        Keyword("skip_check_adv_addr", boolean, "skip the address list of a master already checked"),
        Keyword("v3_checksum_as_v2", boolean, "checksum without pseudo-header"),
        Keyword("smtp_alert", boolean, "mail every transition"),
        Keyword(_SYNC, text("an interface"), "connection synchronisation with this instance's role", field=_SYNC),
        Keyword(
            "lvs_sync_daemon_inteface", text("an interface"), "the misprint of an old user guide", field=_SYNC, alias_of=_SYNC,
            note="'lvs_sync_daemon_inteface' is a misprint that keepalived ignores; it is taken as it was meant",
        ),
        *NOTIFIES,
    ),
    lambda fields: fields,
    header=_name,
)  # fmt: skip


@reads_block
def _members(cursor: Cursor) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word_list(cursor)))


VRRP_SYNC_GROUP = Block(
    "vrrp_sync_group",
    (
        Keyword("group", _members, "the instances that move together"),
        Keyword("smtp_alert", boolean, "mail every transition of the group"),
        *NOTIFIES,
    ),
    lambda fields: fields,
    header=_name,
)


def advert_interval(fields: Fields, version: int) -> float:
    """Advert interval a version can carry: whole seconds in 2, centiseconds up to 40.95 s in 3 (RFC 9568 §5.2.7)."""
    given = float(fields.get("advert_int", 1.0))
    if version == 2:
        value = float(max(1, math.floor(given + 0.5)))
        hint = "write whole seconds, or version 3 for shorter ones"
    else:
        value = min(40.95, max(0.01, math.floor(given * 100 + 0.5) / 100))
        hint = "VRRPv3 carries hundredths of a second up to 40.95"
    if not math.isclose(value, given):
        fields.complain(Severity.WARNING, "advert_int", f"VRRPv{version} cannot carry {given:g} s: {value:g} s is used", hint)
    return value


def one_family(fields: Fields, name: str, found: tuple[VirtualAddress, ...]) -> tuple[VirtualAddress, ...]:
    """Keep the addresses of the first one's family: an instance speaks one."""
    if not found:
        return found
    first = _family(found[0].address)
    kept = tuple(a for a in found if _family(a.address) == first)
    if len(kept) < len(found):
        message = f"{len(found) - len(kept)} addresses of the other IP version are left out"
        fields.complain(Severity.ERROR, name, message, "put them in virtual_ipaddress_excluded")
    return kept
