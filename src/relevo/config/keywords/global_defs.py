"""``global_defs``: identity, mail, and defaults for VRRP and LVS."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from math import isqrt
from typing import Any, Final

from relevo.config.cursor import Cursor
from relevo.config.diagnostics import Severity
from relevo.config.keywords.readers import boolean, choice, flag, integer, seconds, text, word_list
from relevo.config.keywords.registry import Block, Keyword, reads_block
from relevo.model import Endpoint, PlaneTimeouts, SyncDaemon, Sysctl, VrrpTransport, sysctls


@reads_block
def _recipients(cursor: Cursor) -> tuple[str, ...]:
    found = []
    for line in cursor.statement.block or []:
        for number, word in enumerate((line.keyword, *line.args)):
            if looks_like_address(word):
                found.append(str(word))
                continue
            message = f"'{word}' is not a mail address: left out"
            cursor.findings.add(Severity.WARNING, line.place(number), message, "write user@host", "notification_email")
    if cursor.statement.block is None:
        word_list(cursor)
    return tuple(found)


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
        return False  # dots stand between words
    return bool(local and domain and word.isprintable()) and not any(c.isspace() or c in '[]<>(),:;\\"' for c in bare)


def _sender(cursor: Cursor) -> str:
    word = cursor.word("a mail address")
    if looks_like_address(word):
        return str(word)
    cursor.warn(f"'{word}' is not a mail address: the default sender is used", "write user@host")
    cursor.rest()
    return ""


def _server(cursor: Cursor) -> Endpoint:
    host = cursor.word("a mail server")
    return Endpoint(str(host), cursor.port(1) if cursor.more() else 25)


def _secret_file(what: str) -> Callable[[Cursor], str]:
    """Read ``file:PATH``: secrets do not stand in the configuration, which everybody may read."""

    def read(cursor: Cursor) -> str:
        path = cursor.word("file:PATH")
        if not path.startswith("file:/"):
            raise cursor.reject(f"the {what} is read from a file, not from the configuration", "write file:/full/path")
        return path.removeprefix("file:")

    return read


def read_transport(cursor: Cursor) -> VrrpTransport:
    """Read ``ip`` or ``udp PORT`` (shared with ``vrrp_instance``)."""
    if cursor.choice(("ip", "udp"), "a transport") == "ip":
        return VrrpTransport()
    return VrrpTransport(cursor.integer(1, 65535, "a UDP port"))


def _sync_daemon(cursor: Cursor) -> SyncDaemon:
    """``IF [[inst] INSTANCE] [id N] [maxlen N] [port N] [ttl N] [group ADDRESS] [peer ADDRESS …]``, or the old ``IF INSTANCE [N]``."""
    said: dict[str, Any] = {"interface": cursor.word("an interface")}
    while cursor.more():
        word = cursor.word()
        if word in _SYNC_NUMBERS:
            field, least, most, what = _SYNC_NUMBERS[word]
            said[field] = cursor.integer(least, most, what)
        elif word == "inst":
            said["instance"] = cursor.word("an instance")
        elif word == "group":
            said["group"] = _multicast(cursor)
        elif word == "peer":
            said["peers"] = (*said.get("peers", ()), _peer(cursor))
            if len({":" in peer for peer in said["peers"]}) > 1:
                raise cursor.reject("peers are of different IP versions", "write one family")
        elif "instance" not in said:
            said["instance"] = word
        else:
            cursor.position -= 1
            said["sync_id"] = cursor.integer(0, 255, "a sync id")
    return SyncDaemon(**said)


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
    """``[tcp S] [tcpfin S] [udp S]``."""
    fields = {"tcp": "tcp_s", "tcpfin": "tcp_fin_s", "udp": "udp_s"}
    said = {}
    while cursor.more():
        field = fields[cursor.choice(tuple(fields), "a time-out")]
        said[field] = cursor.integer(1, _LONGEST_S, "seconds, up to 31 days")
    return PlaneTimeouts(**said)


_LONGEST_S: Final = 2_678_400


@reads_block
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


def _script_user(cursor: Cursor) -> tuple[str, str]:
    user = cursor.word("a user")
    group = cursor.word() if cursor.more() else ""
    return user, group


_GARP = "garp_"

KEYWORDS: tuple[Keyword, ...] = (
    Keyword("router_id", text("a name"), "label of this machine; prefix of mail subjects"),
    Keyword(
        "lvs_id", text("a name"), "old spelling of router_id", field="router_id", alias_of="router_id",
        note="'lvs_id' was replaced in keepalived 1.1.7; it is taken as 'router_id'",
    ),
    Keyword("notification_email", _recipients, "recipients of alerts, a block of addresses"),
    Keyword("notification_email_from", _sender, "sender of alerts; user@hostname by default"),
    Keyword("smtp_server", _server, "mail server for alerts, a name or address and a port (25)"),
    Keyword("smtp_helo_name", text("a name"), "name given to the mail server; the hostname by default"),
    Keyword("smtp_connect_timeout", seconds(0.1, 3600, "a time limit"), "time limit of each step with the mail server (30)"),
    Keyword("smtp_security", choice(("none", "starttls", "tls"), "a kind of security"), "none, starttls or tls (none) [Relevo]"),
    Keyword("smtp_user", text("a user"), "user for AUTH at the mail server [Relevo]"),
    Keyword("smtp_password", _secret_file("password"), "file:PATH that holds the password for AUTH [Relevo]"),
    Keyword("smtp_alert", boolean, "mail alerts for every block that does not say otherwise"),
    Keyword("smtp_alert_vrrp", boolean, "the same for VRRP only"),
    Keyword("smtp_alert_checker", boolean, "the same for virtual and real servers only"),
    Keyword("no_email_faults", flag, "no mail when an instance enters FAULT"),
    Keyword("no_checker_emails", flag, "mail only when a real server enters or leaves service"),
    Keyword("script_user", _script_user, "user and group that scripts run as"),
    Keyword("script_timeout", seconds(0.1, 3600, "a time limit"), "time limit of notify scripts (60) [Relevo]", field="script_timeout_s"),
    Keyword("enable_script_security", flag, "refuse scripts that others than root could change"),
    Keyword("vrrp_version", integer(2, 3, "a VRRP version"), "2 or 3 for instances that do not say (2)"),
    Keyword("vrrp_mcast_group4", text("a multicast address"), "group of the adverts (224.0.0.18)"),
    Keyword("vrrp_garp_master_delay", seconds(0, 3600, "a delay"), "delay of the second gratuitous ARP burst (5; 0: none)", field=_GARP + "delay_s"),
    Keyword("vrrp_garp_master_repeat", integer(1, 100, "a count"), "messages in a burst (5)", field=_GARP + "repeat"),
    Keyword("vrrp_garp_master_refresh", seconds(0, 86400, "an interval"), "interval of refreshing while master (0: never)", field=_GARP + "refresh_s"),
    Keyword("vrrp_garp_master_refresh_repeat", integer(1, 100, "a count"), "messages in a refresh (1)", field=_GARP + "refresh_repeat"),
    Keyword("vrrp_garp_lower_prio_delay", seconds(0, 3600, "a delay"), "second burst after hearing a lower master", field=_GARP + "lower_prio_delay_s"),
    Keyword("vrrp_garp_lower_prio_repeat", integer(0, 100, "a count"), "burst after hearing a lower master", field=_GARP + "lower_prio_repeat"),
    Keyword("vrrp_garp_interval", seconds(0, 60, "an interval"), "pause between gratuitous ARP messages (0)", field=_GARP + "interval_s"),
    Keyword("vrrp_skip_check_adv_addr", boolean, "skip the address list of a master already checked"),
    Keyword("vrrp_lower_prio_no_advert", boolean, "do not answer an advert of lower priority"),
    Keyword("vrrp_higher_prio_send_advert", boolean, "send one more advert before giving way"),
    Keyword("vrrp_down_timer_adverts", integer(1, 100, "a count"), "missed adverts before takeover (3)"),
    Keyword("v3_checksum_as_v2", boolean, "VRRPv3 checksum over IPv4 without pseudo-header (RFC 9568, routers)"),
    Keyword("vrrp_rt_priority", integer(1, 99, "a priority"), "real-time priority of the director worker", field="vrrp_realtime_priority"),
    Keyword("lvs_sync_daemon", _sync_daemon, "connection synchronisation: IF [inst INSTANCE] [id N] [maxlen N] [port N] [ttl N] [group ADDRESS | peer ADDRESS …]"),
    Keyword("lvs_sync_key", _secret_file("key"), "file:PATH of the key that seals synchronisation between Relevo's directors [Relevo]"),
    Keyword("lvs_timeouts", _timeouts, "seconds that idle connections are kept: tcp N, tcpfin N, udp N (900 120 300)"),
    Keyword("lvs_sysctls", _sysctls, "settings of IPVS (net.ipv4.vs), a block of names and numbers [Relevo]"),
    Keyword("lvs_flush", flag, "at the start remove the services of others from the kernel's table too"),
    Keyword("lvs_flush_on_stop", _flush_on_stop, "at the stop remove the services of others too; VS: only the own ones"),
    Keyword("lvs_flush_onstop", _flush_on_stop, "old spelling of lvs_flush_on_stop", field="lvs_flush_on_stop", alias_of="lvs_flush_on_stop",
        note="'lvs_flush_onstop' is spelled 'lvs_flush_on_stop' since keepalived 2.2.0",
    ),
    Keyword("vrrp_transport", read_transport, "what carries the adverts: ip, or udp PORT (ip) [Relevo]"),
    Keyword("connection_table_size", integer(1024, 1 << 24, "a number of connections"), "connections that the ebpf plane has room for (524288) [Relevo]"),
    Keyword("ebpf_hooks", choice(("auto", "tc", "xdp"), "a choice of hooks"), "auto: XDP where a driver has it, beside TC; tc: TC alone (auto) [Relevo]"),
    Keyword("mh_table_size", _prime, "slots of lb_algo mh in the ebpf plane, a prime (65537) [Relevo]"),
    Keyword("data_plane", choice(("auto", "ipvs", "ebpf", "proxy", "memory"), "a data plane"), "what moves the connections (auto) [Relevo]", field="plane"),
)  # fmt: skip


GLOBAL_DEFS = Block("global_defs", KEYWORDS, lambda fields: fields)
