"""``global_defs``: identity, mail, and defaults for VRRP and LVS."""

from __future__ import annotations

from ipaddress import ip_address
from math import isqrt
from typing import Any, Final, NamedTuple

import msgspec

from relevo.config.blocks.arguments import (
    MAX_UINT,
    Argument,
    boolean,
    choice,
    entries,
    flag,
    integer,
    multicast,
    seconds,
    secret_file,
    text,
    whole_seconds,
)
from relevo.config.blocks.process import KEYWORDS as PROCESS_ROWS
from relevo.config.blocks.registry import OURS, Again, Block, Keyword
from relevo.config.blocks.standing import GLOBALS
from relevo.config.blocks.vrrp_behaviour import DEFAULTS, PAUSE
from relevo.config.cursor import FALSE, TRUE, Cursor, Rejected
from relevo.config.diagnostics import Severity
from relevo.model import Endpoint, GlobalDefs, Mail, PlaneTimeouts, SyncDaemon, Sysctl, VrrpTransport, sysctls


def _recipients(cursor: Cursor) -> tuple[str, ...]:
    found, empty = [], True
    for line in entries(cursor):
        while line.more():
            word, empty = line.word(), False
            if _acceptable(line, word, "left out"):
                found.append(word)
    if empty:
        message = "notification_email has no recipient: it sends no mail"
        cursor.report(Severity.NOTE, message, "list one, or remove the block", word=0)
    return tuple(found)


def _acceptable(cursor: Cursor, word: str, otherwise: str) -> bool:
    """Whether ``word`` can be a recipient. A name without a domain may be known to the mail server, and gets an info."""
    if looks_like_address(word):
        return True
    if looks_like_address(f"{word}@localhost"):
        message = f"'{word}' has no domain: the mail server has to know the name"
        cursor.report(Severity.NOTE, message, "write user@host for any other server")
        return True
    cursor.warn(f"'{word}' is not a mail address: {otherwise}", "write user@host")
    return False


def looks_like_address(word: str) -> bool:
    """Whether a mail could be addressed to ``word``: something, one ``@``, something, no blanks or brackets.

    Nor anything that breaks lines, in a name before the address either: some control characters do. A name before the address
    is words, or one quoted string: a colon there would begin a group (RFC 5322 §3.4).
    """
    name, angle, bare = word.rpartition("<")
    bare = bare.rstrip(">") if angle else bare
    name = name.strip()
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = name[1:-1].translate({ord(c): None for c in "()<>[]:;@,."})
    local, _, domain = bare.rpartition("@")
    if any(c in '()<>[]:;@\\,"' for c in name) or any(part == "" for part in (*local.split("."), *domain.split("."))):
        return False  # dots separate words
    return bool(local and domain and word.isprintable()) and not any(c.isspace() or c in '[]<>(),:;\\"' for c in bare)


def _sender(cursor: Cursor) -> str:
    word = cursor.word("a mail address")
    if _acceptable(cursor, word, "the default sender is used"):
        return word
    cursor.rest()
    return ""


def _server(cursor: Cursor) -> Endpoint:
    host = cursor.word("a mail server")
    return Endpoint(str(host), cursor.port(1) if cursor.more() else 25)


def read_transport(cursor: Cursor) -> VrrpTransport:
    """Read ``ip`` or ``udp PORT`` (shared with ``vrrp_instance``)."""
    if cursor.choice(("ip", "udp"), "a transport") == "ip":
        return VrrpTransport()
    return VrrpTransport(cursor.integer(1, 65535, "a UDP port"))


def _sync_daemon(cursor: Cursor) -> SyncDaemon:
    """``IF [[inst] INSTANCE] [id N] [maxlen N] [port N] [ttl N] [group ADDRESS] [peer ADDRESS …]``, or the old ``IF INSTANCE [N]``.

    An option that cannot be used is left out, as keepalived does; the daemon stays.
    """
    said: dict[str, Any] = {"interface": cursor.word("an interface")}
    while cursor.more():
        try:
            _sync_option(cursor, said)
        except Rejected:
            continue
    return SyncDaemon(**said)


def _sync_option(cursor: Cursor, said: dict[str, Any]) -> None:
    word = cursor.word()
    if word in _SYNC_NUMBERS:
        field, least, most, what = _SYNC_NUMBERS[word]
        said[field] = cursor.integer(least, most, what, lenient=False)
    elif word == "inst":
        said["instance"] = cursor.word("an instance")
    elif word == "group":
        said["group"] = _multicast(cursor)
    elif word == "peer":
        peer = _peer(cursor)
        if any((":" in other) != (":" in peer) for other in said.get("peers", ())):
            raise cursor.reject("peers are of different IP versions: this one is left out", "write one family")
        said["peers"] = (*said.get("peers", ()), peer)
    elif "instance" not in said:
        said["instance"] = word
    else:
        cursor.position -= 1
        said["sync_id"] = cursor.integer(0, 255, "a sync id", lenient=False)


_SYNC_NUMBERS: Final = {
    "id": ("sync_id", 0, 255, "a sync id"),
    "maxlen": ("max_length", 1, 65_507, "a length"),
    "port": ("port", 1, 65_535, "a UDP port"),
    "ttl": ("ttl", 1, 255, "a time to live"),
}


def _multicast(cursor: Cursor) -> str:
    word = cursor.word("a multicast address")
    try:
        address = ip_address(word)
    except ValueError:
        address = None
    if address is None or not address.is_multicast:
        raise cursor.reject(f"'{word}' is not a multicast address", "such as 224.0.0.81 or ff02::81")
    return str(address)


def _peer(cursor: Cursor) -> str:
    word = cursor.word("an address")
    try:
        address = ip_address(word)
    except ValueError:
        raise cursor.reject(f"'{word}' is not an address", "another director's own, such as 192.0.2.2") from None
    if address.is_multicast:
        raise cursor.reject(f"'{word}' is a multicast address", f"write group {word}")
    return str(address)


def _timeouts(cursor: Cursor) -> PlaneTimeouts:
    """``[tcp S] [tcpfin S] [udp S]``; a pair that cannot be used is left out, 0 leaves a time-out as it is."""
    fields = {"tcp": "tcp_s", "tcpfin": "tcp_fin_s", "udp": "udp_s"}
    said = {}
    if not cursor.more():
        cursor.word("tcp, tcpfin or udp and a time-out")
    while cursor.more():
        try:
            field = fields[cursor.choice(tuple(fields), "a time-out")]
            said[field] = cursor.integer(0, _LONGEST_S, "seconds, up to 31 days", lenient=False)
        except Rejected:
            continue
    return PlaneTimeouts(**said)


def _join_timeouts(former: PlaneTimeouts, latter: PlaneTimeouts, cursor: Cursor) -> PlaneTimeouts:
    """A later line keeps what it does not name."""
    pairs = zip(msgspec.structs.astuple(latter), msgspec.structs.astuple(former), strict=True)
    return PlaneTimeouts(*(new or old for new, old in pairs))


_LONGEST_S: Final = 2_678_400


def _sysctls(cursor: Cursor) -> tuple[Sysctl, ...]:
    found: dict[str, Sysctl] = {}
    for line in cursor.statement.block or []:
        numbers = tuple(int(word) for word in line.args if word.isascii() and word.isdigit())
        sysctl = Sysctl(str(line.keyword), numbers if len(numbers) == len(line.args) else ())
        wrong = sysctls.fault(sysctl)
        if wrong is None:
            found[sysctl.name] = sysctl
        else:
            cursor.findings.add(Severity.ERROR, line.place(0), f"{wrong[0]}: left out", wrong[1], "lvs_sysctls")
    return tuple(found.values())


def _flush_on_stop(cursor: Cursor) -> bool:
    if not cursor.more():
        return True
    cursor.choice(("VS",), "VS")
    return False


def _prime(cursor: Cursor) -> int:
    value = cursor.integer(251, 1_000_003, "a prime number")
    if any(value % divisor == 0 for divisor in range(2, isqrt(value) + 1)):
        raise cursor.reject(f"{value} is not a prime number", "such as 251, 4093, 65537 or 131071")
    return value


class User(NamedTuple):
    """User of scripts; an empty group means the user's own."""

    user: str
    group: str = ""


def _script_user(cursor: Cursor) -> User:
    return User(cursor.word("a user"), cursor.word().removeprefix(":") if cursor.more() else "")


def _skip_check_adv_addr(cursor: Cursor) -> bool:
    """``on`` or ``off``; keepalived reads either as on."""
    value = cursor.boolean()
    if not value:
        cursor.warn(f"'{cursor.statement.keyword} off' is off here, but on in keepalived", "remove the line")
    return value


SKIP_CHECK_ADV_ADDR: Final = Argument(_skip_check_adv_addr, "[on|off]")


def _skip_check_adv_addr_everywhere(cursor: Cursor) -> bool:
    """The same for every instance: here keepalived reads no argument, so that any word but ``off`` is on."""
    return _skip_check_adv_addr(cursor) if cursor.peek() in ("", *TRUE, *FALSE) else flag().read(cursor)


BURST: Final = integer(0, MAX_UINT, "a count of messages", least=1, most=100)
GARP_DELAY: Final = whole_seconds(0, 4294, "a delay")
GARP_REFRESH: Final = whole_seconds(0, MAX_UINT, "an interval")
GARP_LOWER_BURST: Final = integer(0, 2**31 - 1, "a count of messages", most=100)
DOWN_TIMER_ADVERTS: Final = integer(1, 100, "a count")
TRANSPORT: Final = Argument(read_transport, "ip | udp PORT", "", "1..65535")

SCRIPT_USER: Final = Keyword(
    "script_user",
    Argument(_script_user, "USER [GROUP]"),
    "user and group that scripts run as",
    default_text="keepalived_script, else root",
)
ENABLE_SCRIPT_SECURITY: Final = Keyword("enable_script_security", flag(), "refuse scripts that others than root could change")
SMTP_ALERT: Final = Keyword(
    "smtp_alert", boolean(), "mail alerts of every block without its own setting", default_text="on for real servers"
)
VRRP_VERSION: Final = Keyword(
    "vrrp_version", integer(2, 3, "a VRRP version"), "version of instances without their own", default=2
)
VRRP_TRANSPORT: Final = Keyword("vrrp_transport", TRANSPORT, "transport of the adverts", default_text="ip", since=OURS)
SYNC_DAEMON: Final = Keyword(
    "lvs_sync_daemon",
    Argument(_sync_daemon, "INTERFACE [inst INSTANCE] [id N] [maxlen N] [port N] [ttl N] [group ADDRESS | peer ADDRESS …]"),
    "connection synchronisation",
    again=Again.FIRST,
)
SYNC_KEY: Final = Keyword(
    "lvs_sync_key", secret_file("key"), "key that authenticates synchronisation between Relevo's directors", since=OURS
)

GROUP4: Final = Keyword("vrrp_mcast_group4", multicast(4), "group of the adverts over IPv4", default="224.0.0.18")
GROUP6: Final = Keyword("vrrp_mcast_group6", multicast(6), "group of the adverts over IPv6", default="ff02::12")
GARP_INTERVAL: Final = Keyword(
    "vrrp_garp_interval",
    PAUSE,
    "pause between gratuitous ARP messages",
    default=0.0,
)

KEYWORDS: tuple[Keyword[Any], ...] = (
    Keyword("router_id", text("a name"), "label of this machine; prefix of mail subjects", default_text="the hostname"),
    Keyword(
        "lvs_id", text("a name"), "old spelling of router_id", alias_of="router_id",
        note="'lvs_id' was replaced in keepalived 1.1.7; it is taken as 'router_id'",
    ),
    Keyword("notification_email", Argument(_recipients, "{ ADDRESS … }", takes_block=True), "recipients of alerts", target="recipients", again=Again.JOIN),
    Keyword("notification_email_from", Argument(_sender, "ADDRESS"), "sender of alerts", target="sender", default_text="user@hostname"),
    Keyword("smtp_server", Argument(_server, "HOST [PORT]", "", "1..65535"), "mail server for alerts", target="server", default_text="port 25"),
    Keyword("smtp_helo_name", text("a name"), "name given to the mail server", target="helo_name", default_text="the hostname"),
    Keyword("smtp_connect_timeout", whole_seconds(0, 4294, "a time limit", least=1), "time limit of each step with the mail server", target="connect_timeout_s"),
    Keyword("smtp_security", choice(("none", "starttls", "tls"), "a kind of security", any_case=True), "encryption of the way to the mail server", target="security", since=OURS),
    Keyword("smtp_user", text("a user"), "user for AUTH at the mail server", target="user", since=OURS),
    Keyword("smtp_password", secret_file("password"), "file with the password for AUTH", target="password_file", since=OURS),
    SMTP_ALERT,
    Keyword("smtp_alert_vrrp", boolean(), "the same for VRRP only", default_text="that of `smtp_alert`"),
    Keyword("smtp_alert_checker", boolean(), "the same for virtual and real servers only", default_text="that of `smtp_alert`"),
    Keyword("no_email_faults", flag(), "no mail when an instance enters FAULT"),
    Keyword("no_checker_emails", flag(), "mail only when a real server enters or leaves service"),
    SCRIPT_USER,
    Keyword("script_timeout", seconds(0.1, 3600, "a time limit"), "time limit of notify scripts", target="script_timeout_s", since=OURS),
    ENABLE_SCRIPT_SECURITY,
    VRRP_VERSION,
    GROUP4,
    GROUP6,
    Keyword("vrrp_garp_master_delay", GARP_DELAY, "delay of the second gratuitous ARP burst; 0: there is none", default=5.0),
    Keyword("vrrp_garp_master_repeat", BURST, "messages in a burst", default=5),
    Keyword("vrrp_garp_master_refresh", GARP_REFRESH, "interval of refreshing while master; 0: never", default=0.0, otherwise=0.0),
    Keyword("vrrp_garp_master_refresh_repeat", BURST, "messages in a refresh", default=1),
    Keyword("vrrp_garp_lower_prio_delay", GARP_DELAY, "second burst after an advert of lower priority", default_text="that of `vrrp_garp_master_delay`"),
    Keyword("vrrp_garp_lower_prio_repeat", GARP_LOWER_BURST, "burst after an advert of lower priority", default_text="that of `vrrp_garp_master_repeat`"),
    GARP_INTERVAL,
    Keyword("vrrp_skip_check_adv_addr", Argument(_skip_check_adv_addr_everywhere, "[on|off]"), "skip the address list of a master already checked", default_text="off"),
    Keyword("vrrp_lower_prio_no_advert", boolean(), "do not answer an advert of lower priority", default_text="off"),
    Keyword("vrrp_higher_prio_send_advert", boolean(), "send one more advert before giving way", default_text="off"),
    Keyword("vrrp_down_timer_adverts", DOWN_TIMER_ADVERTS, "missed adverts before takeover", default=3),
    Keyword("v3_checksum_as_v2", boolean(), "VRRPv3 checksum over IPv4 without pseudo-header (RFC 9568, routers)", default_text="off"),
    Keyword("vrrp_rt_priority", integer(-(2**31), 2**31 - 1, "a real-time priority", least=1, most=99), "real-time priority of the director worker", default_text="1 where the kernel allows it"),
    SYNC_DAEMON,
    SYNC_KEY,
    Keyword("lvs_timeouts", Argument(_timeouts, "[tcp N] [tcpfin N] [udp N]", "s", f"0..{_LONGEST_S}"), "how long idle connections are kept", default_text="900 120 300", merge=_join_timeouts),
    Keyword("lvs_sysctls", Argument(_sysctls, "{ NAME N … }", takes_block=True), "settings of IPVS (net.ipv4.vs)", since=OURS),
    Keyword("lvs_flush", flag(), "at the start remove the services of others from the kernel's table too"),
    Keyword("lvs_flush_on_stop", Argument(_flush_on_stop, "[VS]"), "at the stop remove the services of others too; VS: only the own ones"),
    Keyword(
        "lvs_flush_onstop", Argument(_flush_on_stop, "[VS]"), "old spelling of lvs_flush_on_stop", alias_of="lvs_flush_on_stop",
        note="'lvs_flush_onstop' was renamed 'lvs_flush_on_stop' in keepalived 2.2.0",
    ),
    VRRP_TRANSPORT,
    Keyword("connection_table_size", integer(1024, 1 << 24, "a number of connections"), "size of the connection table of the ebpf plane", since=OURS),
    Keyword("ebpf_hooks", choice(("auto", "tc", "xdp"), "a choice of hooks", any_case=True), "auto: XDP where a driver has it, beside TC; tc: TC alone", since=OURS),
    Keyword("mh_table_size", Argument(_prime, "N", "", "251..1000003, a prime"), "slots of lb_algo mh in the ebpf plane", since=OURS),
    *DEFAULTS,
    *PROCESS_ROWS,
    *GLOBALS,
    Keyword("data_plane", choice(("auto", "ipvs", "ebpf", "proxy", "memory"), "a data plane", any_case=True), "the data plane", target="plane", since=OURS),
)  # fmt: skip


GLOBAL_DEFS = Block("global_defs", KEYWORDS, models=(GlobalDefs, Mail))
