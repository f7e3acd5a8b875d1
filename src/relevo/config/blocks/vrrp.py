"""``vrrp_instance`` and ``vrrp_sync_group``."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Interface
from typing import Any, Final, NamedTuple

from relevo.config.blocks.arguments import (
    MAX_INTERFACE_NAME,
    Argument,
    Located,
    address,
    boolean,
    choice,
    entries,
    flag,
    integer,
    interface,
    listing,
    multicast,
    script,
    seconds,
    seconds_or,
    text,
    word_list,
)
from relevo.config.blocks.global_defs import (
    BURST,
    DOWN_TIMER_ADVERTS,
    GARP_DELAY,
    GARP_LOWER_BURST,
    GARP_REFRESH,
    SKIP_CHECK_ADV_ADDR,
    TRANSPORT,
)
from relevo.config.blocks.registry import OURS, Again, Block, Fields, Keyword
from relevo.config.blocks.standing import INSTANCE_ROWS, TRACK_BFD
from relevo.config.blocks.trackers import TRACKS
from relevo.config.blocks.vrrp_behaviour import INSTANCE_ROWS as BEHAVIOUR_ROWS
from relevo.config.blocks.vrrp_behaviour import PRIORITY_CHANGES
from relevo.config.cursor import Cursor, Rejected
from relevo.config.diagnostics import Severity
from relevo.model import (
    AuthenticationType,
    GarpPolicy,
    Script,
    SyncGroup,
    VirtualAddress,
    VrrpInstance,
    VrrpNotify,
)

SCOPES: Final = {"global": 0, "site": 200, "link": 253, "host": 254, "nowhere": 255}
"""Names of address scopes (rtnetlink(7)); a number that has a name is compiled as its name."""
_SCOPE_NAMES: Final = {number: name for name, number in SCOPES.items()}
DEFAULT_PRIORITY: Final = 100


# -- addresses -------------------------------------------------------------------------------------------------------


_FLAGS: Final = ("home", "mngtmpaddr", "noprefixroute", "autojoin")
_IPV6_FLAGS: Final = ("home", "mngtmpaddr")


class _Options(NamedTuple):
    """Options after an address, before they are checked against it."""

    device: str = ""
    label: str = ""
    scope: str = ""
    broadcast: str = ""
    preferred: str = ""
    flags: tuple[str, ...] = ()


def virtual_address(cursor: Cursor) -> VirtualAddress:
    """Read ``IP[/len] [dev IF] [label L] [scope S] [brd A] …`` (keepalived.conf(5), "virtual_ipaddress").

    keepalived leaves the whole address out for a label that is too long, and for a broadcast address that is none. Here
    the address is used without the wrong option, because a missing address does more harm.
    """
    literal, slash, length = cursor.word("an IP address").partition("/")
    found = cursor.as_address(literal, "an IP address")
    prefix = _prefix_length(cursor, length, 128 if ":" in found else 32) if slash else 128 if ":" in found else 32
    options = _address_options(cursor)
    if ":" in found and (options.label or options.scope or options.broadcast):
        cursor.warn("label, scope and broadcast are for IPv4: ignored", "write the address and dev alone", word=1)
        options = options._replace(label="", scope="", broadcast="")
    for option in options.flags:
        if option in _IPV6_FLAGS and ":" not in found:
            cursor.warn(f"'{option}' is for IPv6: ignored", "remove the word", word=1)
    return VirtualAddress(
        address=found,
        prefix_length=prefix,
        device=options.device,
        label=options.label,
        scope=options.scope,
        broadcast=_broadcast(cursor, found, prefix, options.broadcast),
        deprecated=_deprecated(cursor, found, prefix, options.preferred),
        options=tuple(each for each in options.flags if ":" in found or each not in _IPV6_FLAGS),
    )


def _deprecated(cursor: Cursor, found: str, prefix: int, preferred: str) -> bool:
    """Whether the address is no source of connections: as declared, else a single IPv6 address, as in keepalived."""
    if not preferred:
        return ":" in found and prefix == 128
    if ":" not in found:
        cursor.warn("preferred_lft is for IPv6: ignored", "remove it", word=1)
        return False
    if preferred not in ("0", "forever"):
        message = f"preferred_lft {preferred}: an address that follows the master has no age: 'forever' is used"
        cursor.warn(message, "write 0 or forever", word=1)
    return preferred == "0"


def _prefix_length(cursor: Cursor, text: str, longest: int) -> int:
    if text.isdecimal() and len(text) <= 3 and int(text) <= longest:
        return int(text)
    if not text:
        cursor.warn(f"'/' without a length: /{longest} is used; keepalived takes it for /0", f"write /{longest}")
        return longest
    message = f"'/{text}' is not a prefix length: /{longest} is used, as in keepalived"
    cursor.report(Severity.ERROR, message, f"a prefix length lies in 0..{longest}; netmasks are not understood")
    return longest


def _address_options(cursor: Cursor) -> _Options:
    readers: dict[str, Callable[[Cursor], str]] = {
        "dev": lambda cursor: cursor.value_of("dev", "an interface"),
        "label": _label,
        "scope": _scope,
        "brd": lambda cursor: cursor.value_of("brd", "an address, + or -"),
        "broadcast": lambda cursor: cursor.value_of("broadcast", "an address, + or -"),
        "preferred_lft": _preferred,
    }
    fields = {"dev": "device", "brd": "broadcast", "preferred_lft": "preferred"}
    with_value = ("peer", "track_group")
    bare = ("-nodad", "no_track", "use_vmac")
    said: dict[str, str] = {}
    flags: dict[str, None] = {}
    while cursor.more():
        word = cursor.word()
        if word in readers:
            name, value = fields.get(word, word), readers[word](cursor)
            if said.setdefault(name, value) != value and value:
                cursor.warn(f"'{word}' is given already: the first one counts", "remove one of the two")
        elif word in _FLAGS:
            flags[word] = None
        elif word in with_value:
            cursor.value_of(word, "a value")
            cursor.warn(f"option '{word}' is not supported by this version: ignored")
        elif word in bare:
            cursor.warn(f"option '{word}' is not supported by this version: ignored")
        else:
            hint = "after the address: dev IF, label NAME, scope S, brd A"
            cursor.warn(f"unknown address option '{word}': ignored", hint)
    return _Options(**said, flags=tuple(flags))


def _preferred(cursor: Cursor) -> str:
    word = cursor.value_of("preferred_lft", "0, forever, or seconds")
    if word == "forever" or (word.isdecimal() and int(word) < 2**32):
        return word
    cursor.report(Severity.ERROR, f"'{word}' is not a lifetime: ignored", "write 0 or forever")
    return ""


def _label(cursor: Cursor) -> str:
    label = cursor.value_of("label", "a label")
    if len(label.encode()) <= MAX_INTERFACE_NAME:
        return label
    message = f"label '{label}' is too long: the address has none; keepalived leaves the address out"
    cursor.warn(message, f"a label has at most {MAX_INTERFACE_NAME} characters")
    return ""


def _scope(cursor: Cursor) -> str:
    word = cursor.value_of("scope", "a scope")
    if word in SCOPES:
        return word
    if word.isdecimal() and len(word) <= 3 and int(word) <= 255:
        return _SCOPE_NAMES.get(int(word), str(int(word)))
    cursor.report(Severity.ERROR, f"'{word}' is not a scope: ignored", f"one of {' '.join(SCOPES)}, or a number up to 255")
    return ""


def _broadcast(cursor: Cursor, found: str, prefix: int, wanted: str) -> str:
    """Return the broadcast address; ``+`` sets the bits of the host part, ``-`` clears them (ip-address(8))."""
    if wanted not in ("+", "-"):
        if not wanted:
            return ""
        what = "a broadcast address: the address has none; keepalived leaves the address out"
        try:
            return cursor.as_address("" if ":" in wanted else wanted, what, shown=wanted)
        except Rejected:
            return ""
    if prefix > 30:
        cursor.warn(f"a /{prefix} is too long for a broadcast address: there is none", "write a prefix length up to 30", word=1)
        return ""
    network = IPv4Interface(f"{found}/{prefix}").network
    return str(network.broadcast_address if wanted == "+" else network.network_address)


def _addresses(cursor: Cursor) -> tuple[Located[VirtualAddress], ...]:
    found = []
    for line in entries(cursor):
        try:
            found.append(Located(virtual_address(line), line.statement))
        except Rejected:
            continue
    return tuple(found)


# -- lists -----------------------------------------------------------------------------------------------------------


def _peers(cursor: Cursor) -> tuple[Located[str], ...]:
    if cursor.statement.block is None:
        hint = "list the peers in a block: unicast_peer { ADDRESS … }"
        raise cursor.reject("'unicast_peer' needs a block: without peers adverts go to the multicast group", hint, word=0)
    found: list[Located[str]] = []
    for line in entries(cursor):
        try:
            found.append(Located(line.address("a peer's address"), line.statement))
            while line.more():
                option = line.choice(("min_ttl", "max_ttl"), "an option of a peer")
                line.integer(0, 255, option)
                line.warn(f"option '{option}' of a peer is not supported by this version: ignored")
        except Rejected:
            continue
    if not found:
        cursor.warn("no peer is listed: adverts go to the multicast group", "list the peers' addresses", word=0)
    return tuple(found)


# -- instances -------------------------------------------------------------------------------------------------------


def _state(cursor: Cursor) -> bool:
    word = cursor.word("MASTER or BACKUP")
    if word not in ("MASTER", "BACKUP"):
        cursor.report(Severity.ERROR, f"unknown state '{word}': BACKUP is used", "write MASTER or BACKUP")
    return word == "MASTER"


def _join_state(former: bool, latter: bool, cursor: Cursor) -> bool:
    """Ignore a BACKUP after MASTER, but not an unknown word."""
    if former and not latter and cursor.statement.args[0] == "BACKUP":
        cursor.warn("state is MASTER already: BACKUP is ignored, in keepalived too", "remove one of the two")
        return True
    return latter


AUTH_TYPE: Final = Keyword("auth_type", choice(tuple(AuthenticationType), "an authentication type"), "kind of authentication")
AUTH_PASS: Final = Keyword("auth_pass", text("a secret"), "shared secret, 8 bytes significant")
AUTHENTICATION: Final = Block("authentication", (AUTH_TYPE, AUTH_PASS))


def _name(cursor: Cursor, fields: Fields) -> None:
    fields["name"] = cursor.word("a name")
    if cursor.more():
        message = f"'{' '.join(cursor.rest())}' behind the name is ignored; keepalived leaves the whole block out"
        cursor.warn(message, "write one word, or quote the name", word=2)
    fields.origin["name"] = cursor.statement


def name_of(fields: Fields) -> str:
    """Return the name after the keyword of a block."""
    return str(fields["name"])


_FIRST: Final = Again.FIRST
NOTIFIES: Final[tuple[Keyword[Script], ...]] = (
    *(
        Keyword(f"notify_{state}", script(), f"script run on entering {state}", target=state, again=_FIRST)
        for state in ("master", "backup", "fault", "stop")
    ),
    Keyword(
        "notify", script(), "script run at every transition; gets type, name, state and priority", target="any", again=_FIRST
    ),
)
SMTP_ALERT: Final = Keyword(
    "smtp_alert", boolean(), "mail every transition", inherits=("global_defs.smtp_alert_vrrp", "global_defs.smtp_alert")
)

STATE: Final = Keyword(
    "state", Argument(_state, "MASTER | BACKUP"), "state aimed at when starting", default_text="BACKUP", merge=_join_state
)
INTERFACE: Final = Keyword("interface", interface(), "interface of the adverts, and of addresses without dev")
ROUTER_ID: Final = Keyword(
    "virtual_router_id",
    integer(1, 255, "a virtual router id", lenient=False),
    "number shared by the routers of this group",
    default_text="none: it is required",
)
PRIORITY: Final = Keyword(
    "priority", integer(1, 255, "a priority", lenient=False), "the highest becomes master; 255 owns the address",
    default_text="100; 255 with state MASTER", otherwise=DEFAULT_PRIORITY,
)  # fmt: skip
ADVERT_INT: Final = Keyword("advert_int", seconds(0.01, 255, "an advert interval"), "seconds between adverts", default=1.0)
VERSION: Final = Keyword(
    "version", integer(2, 3, "a VRRP version"), "VRRP version", inherits=("global_defs.vrrp_version",), default=2, again=_FIRST
)
AUTHENTICATIONS: Final = Keyword(
    "authentication", AUTHENTICATION.argument, "a secret in each advert; version 2 only", again=Again.JOIN
)
ADDRESSES: Final = Keyword(
    "virtual_ipaddress",
    listing(_addresses, "{ ADDRESS[/LENGTH] [dev IF] [label L] [scope S] [brd A|+|-] [preferred_lft 0|forever] [OPTION …] … }"),
    "addresses that follow the master, and are advertised",
    again=Again.JOIN,
)
EXCLUDED: Final = Keyword(
    "virtual_ipaddress_excluded",
    listing(_addresses, "{ ADDRESS … }"),
    "addresses that follow the master, not advertised",
    again=Again.JOIN,
)
SOURCE: Final = Keyword(
    "unicast_src_ip", address("a source address"), "source of unicast adverts", default_text="that of the interface"
)
PEERS: Final = Keyword(
    "unicast_peer",
    listing(_peers, "{ ADDRESS … }"),
    "peers that get the adverts instead of the multicast group",
    again=Again.JOIN,
)
GROUP_ADDRESS: Final = Keyword(
    "mcast_dst_ip",
    multicast(),
    "multicast group of this instance",
    default_text="`vrrp_mcast_group4` or `vrrp_mcast_group6` of `global_defs`",
)
INSTANCE_TRANSPORT: Final = Keyword(
    "vrrp_transport", TRANSPORT, "transport of the adverts", inherits=("global_defs.vrrp_transport",), since=OURS
)
PREEMPT: Final = Keyword("preempt", flag(), "the default, kept for old files")
PREEMPT_DELAY: Final = Keyword(
    "preempt_delay", seconds(0, 1000, "a delay"), "wait before taking over from a lower master", default=0.0, otherwise=0.0
)
PREEMPT_WHEN_SYNCED: Final = Keyword(
    "preempt_when_synced", seconds_or(60, 1, 1000), "take over from a lower master when its connections are here, or after so many seconds",
    target="preempt_when_synced_s", default_text="60 without a value", since=OURS,
)  # fmt: skip
CHECKSUM_AS_V2: Final = Keyword(
    "v3_checksum_as_v2", boolean(), "checksum without pseudo-header", inherits=("global_defs.v3_checksum_as_v2",)
)
SYNC_INTERFACE: Final = Keyword(
    "lvs_sync_daemon_interface", text("an interface"), "connection synchronisation with this instance's role"
)

_INSTANCE_ROWS: tuple[Keyword[Any], ...] = (
    STATE,
    INTERFACE,
    ROUTER_ID,
    PRIORITY,
    ADVERT_INT,
    VERSION,
    AUTHENTICATIONS,
    ADDRESSES,
    EXCLUDED,
    SOURCE,
    Keyword("mcast_src_ip", address("a source address"), "source of multicast adverts", sets="unicast_src_ip"),
    PEERS,
    GROUP_ADDRESS,
    INSTANCE_TRANSPORT,
    Keyword("nopreempt", flag(value=False), "stay backup when returning with a higher priority", sets="preempt"),
    PREEMPT,
    PREEMPT_DELAY,
    PREEMPT_WHEN_SYNCED,
    Keyword("down_timer_adverts", DOWN_TIMER_ADVERTS, "missed adverts before takeover", inherits=("global_defs.vrrp_down_timer_adverts",)),
    *TRACKS.values(),
    Keyword("dont_track_primary", flag(value=False), "do not go to FAULT with the own interface", target="track_primary", default_text="off"),
    Keyword("garp_master_delay", GARP_DELAY, "delay of the second gratuitous ARP burst", target="delay_s", inherits=("global_defs.vrrp_garp_master_delay",)),
    Keyword("garp_master_repeat", BURST, "messages in a burst", target="repeat", inherits=("global_defs.vrrp_garp_master_repeat",)),
    Keyword("garp_master_refresh", GARP_REFRESH, "interval of refreshing while master", target="refresh_s", inherits=("global_defs.vrrp_garp_master_refresh",), otherwise=0.0),
    Keyword("garp_master_refresh_repeat", BURST, "messages in a refresh", target="refresh_repeat", inherits=("global_defs.vrrp_garp_master_refresh_repeat",)),
    Keyword(
        "garp_lower_prio_delay", GARP_DELAY, "second burst after a lower master", target="lower_prio_delay_s",
        inherits=("global_defs.vrrp_garp_lower_prio_delay", "global_defs.vrrp_garp_master_delay"),
    ),
    Keyword(
        "garp_lower_prio_repeat", GARP_LOWER_BURST, "burst after a lower master", target="lower_prio_repeat",
        inherits=("global_defs.vrrp_garp_lower_prio_repeat", "global_defs.vrrp_garp_master_repeat"),
    ),
    Keyword("lower_prio_no_advert", boolean(), "do not answer an advert of lower priority", inherits=("global_defs.vrrp_lower_prio_no_advert",)),
    Keyword("higher_prio_send_advert", boolean(), "send one more advert before giving way", inherits=("global_defs.vrrp_higher_prio_send_advert",)),
    Keyword("skip_check_adv_addr", SKIP_CHECK_ADV_ADDR, "skip the address list of a master already checked", inherits=("global_defs.vrrp_skip_check_adv_addr",)),
    CHECKSUM_AS_V2,
    SMTP_ALERT,
    SYNC_INTERFACE,
    Keyword(
        "lvs_sync_daemon_inteface", text("an interface"), "the misprint of an old user guide", alias_of="lvs_sync_daemon_interface",
        note="'lvs_sync_daemon_inteface' is a misprint that keepalived ignores; it is taken as it was meant",
    ),
    *NOTIFIES,
    *BEHAVIOUR_ROWS,
    *INSTANCE_ROWS,
)  # fmt: skip

VRRP_INSTANCE: Final = Block("vrrp_instance", _INSTANCE_ROWS, (VrrpInstance, GarpPolicy, VrrpNotify), header=_name, syntax="NAME")

# -- groups ----------------------------------------------------------------------------------------------------------

MEMBERS: Final = Keyword("group", word_list("INSTANCE"), "the instances that move together", again=_FIRST)
TRACKING_WEIGHT: Final = Keyword(
    "sync_group_tracking_weight", flag(), "weights of trackers count for the members", default_text="off"
)
VRRP_SYNC_GROUP: Final = Block(
    "vrrp_sync_group",
    (
        MEMBERS,
        *TRACKS.values(),
        TRACK_BFD,
        TRACKING_WEIGHT,
        Keyword(
            "global_tracking", flag(), "old spelling of sync_group_tracking_weight", alias_of="sync_group_tracking_weight",
            note="'global_tracking' was renamed 'sync_group_tracking_weight' in keepalived 2.0.0",
        ),
        SMTP_ALERT,
        PRIORITY_CHANGES,
        *NOTIFIES,
    ),
    (SyncGroup, VrrpNotify),
    header=_name,
    syntax="NAME",
)  # fmt: skip
