"""``virtual_server`` and ``real_server``."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final, NamedTuple

from relevo.config.blocks.arguments import (
    MAX_UINT,
    Argument,
    boolean,
    choice,
    flag,
    integer,
    script,
    text,
)
from relevo.config.blocks.checkers import KINDS
from relevo.config.blocks.checkers.missing import MISSING
from relevo.config.blocks.checks import CONNECT_TIMEOUT, DELAY, DELAY_LOOP
from relevo.config.blocks.groups import mark
from relevo.config.blocks.registry import OURS, Again, Block, Fields, Keyword
from relevo.config.blocks.standing import SERVICE_ROWS, unneeded
from relevo.config.cursor import Cursor, Rejected
from relevo.config.diagnostics import Severity
from relevo.model import Endpoint, Forwarding, RealServer, Tunnel, TunnelChecksum, TunnelKind, VirtualServer

SCHEDULERS: Final = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "mh", "dh", "fo", "ovf", "sed", "nq", "twos")
MAX_PERSISTENCE_S: Final = 31 * 86400
DEFAULT_PERSISTENCE_S: Final = 360
MAX_WEIGHT: Final = 2**31 - 1
"""keepalived's limit: weights in IPVS are signed integers."""


class Method(NamedTuple):
    """How packets reach a server."""

    forwarding: Forwarding = Forwarding.NAT
    tunnel: Tunnel = Tunnel()


def _method(cursor: Cursor) -> Method:
    if cursor.peek() == "FNAT":
        cursor.word()
        cursor.report(Severity.NOTE, "'FNAT', the word of DPVS, is FULLNAT here; keepalived ignores the line", "write FULLNAT")
        return Method(Forwarding.FULLNAT)
    kind = Forwarding(cursor.choice(tuple(Forwarding), "a forwarding method"))
    return Method(kind, _tunnel(cursor)) if kind is Forwarding.TUN else Method(kind)


def _tunnel(cursor: Cursor) -> Tunnel:
    """Read ``[type ipip|gre|gue port N] [nocsum|csum|remcsum]``."""
    kind, port, checksum = TunnelKind.IPIP, 0, TunnelChecksum.NONE
    while cursor.more():
        word = cursor.choice(("type", "port", *TunnelChecksum), "an option of a tunnel")
        if word == "type":
            kind = TunnelKind(cursor.choice(tuple(TunnelKind), "a kind of tunnel"))
        elif word == "port":
            port = cursor.integer(1, 65535, "a port number", lenient=False)
        else:
            checksum = TunnelChecksum(word)
    if kind is TunnelKind.GUE and not port:
        raise cursor.reject("a GUE tunnel needs a port", "write: TUN type gue port 6080", word=0)
    if kind is not TunnelKind.GUE and port:
        cursor.warn(f"a tunnel of type {kind} has no port: ignored; keepalived ignores the whole line", "remove it")
        port = 0
    if kind is TunnelKind.IPIP and checksum is not TunnelChecksum.NONE:
        cursor.warn("a tunnel of type ipip has no checksum: ignored; keepalived ignores the whole line", "remove the word")
        checksum = TunnelChecksum.NONE
    return Tunnel(kind, port, checksum)


def _persistence(cursor: Cursor) -> int:
    if not cursor.more():
        return DEFAULT_PERSISTENCE_S
    value = cursor.integer(0, MAX_PERSISTENCE_S, "a persistence timeout", lenient=False)
    if value == 0:
        cursor.warn("persistence_timeout 0 means off", "remove the line")
    return value


def _granularity(cursor: Cursor) -> int:
    word = cursor.word("a netmask or prefix length")
    if word.isdecimal() and len(word) <= 3 and int(word) <= 128:
        return int(word)
    try:
        return ipaddress.IPv4Network(f"0.0.0.0/{word}").prefixlen
    except ValueError:
        hint = "write 255.255.255.0 or 24"
        if not re.fullmatch(_DOTTED, word):
            raise cursor.reject(f"'{word}' is not a netmask", hint) from None
        cursor.report(Severity.ERROR, f"'{word}' has holes for a netmask: an address is a client, unlike in keepalived", hint)
        return 128


_DOTTED: Final = r"[0-9]{1,10}(\.[0-9]{1,10}){0,3}"
"""Return an IPv4 netmask as keepalived reads it, contiguous or not."""


def _quorum(cursor: Cursor) -> int:
    try:
        value = cursor.integer(0, MAX_UINT, "a quorum")
    except Rejected:
        return 1
    if value == 0:
        cursor.warn("quorum 0 would never be lost: 1 is used", "write quorum 1")
    return max(1, value)


def _proxy_protocol(cursor: Cursor) -> int:
    return {"v1": 1, "v2": 2, "off": 0}[cursor.choice(("v1", "v2", "off"), "a PROXY protocol version", any_case=True)]


METHOD_ARGUMENT: Final = Argument(
    _method, "METHOD [type ipip|gre|gue port N] [csum|remcsum]", "", " ".join(kind.value for kind in Forwarding)
)
_FIRST: Final = Again.FIRST


def _inherited(name: str, argument: Argument[Any], help_text: str, **more: Any) -> Keyword[Any]:
    """Make a row of ``real_server`` whose value is that of its ``virtual_server`` where it is not given."""
    return Keyword(name, argument, help_text, inherits=(f"virtual_server.{name}",), **more)


# -- real_server -----------------------------------------------------------------------------------------------------


def _server(cursor: Cursor, fields: Fields) -> None:
    fields["endpoint"] = cursor.endpoint("a real server's address")


def endpoint_of(fields: Fields) -> Endpoint:
    """Return the address and port after the keyword of a block."""
    found: Endpoint = fields["endpoint"]
    return found


WEIGHT: Final[Keyword[int]] = _inherited(
    "weight", integer(0, MAX_WEIGHT, "a weight"), "share of new connections; 0 takes none", default=1
)
METHOD: Final[Keyword[Method]] = Keyword(
    "lvs_method", METHOD_ARGUMENT, "how packets reach this server", inherits=("virtual_server.lb_kind",), default_text="NAT"
)
UTHRESHOLD: Final = Keyword(
    "uthreshold",
    integer(0, MAX_UINT, "a threshold"),
    "connections above which the server is skipped; 0: no limit",
    target="upper_threshold",
)
LTHRESHOLD: Final = Keyword(
    "lthreshold", integer(0, MAX_UINT, "a threshold"), "connections below which it is used again", target="lower_threshold"
)
CHECKS: Final = "checks"

REAL_SERVER: Final = Block(
    "real_server",
    (
        WEIGHT,
        METHOD,
        _inherited("inhibit_on_failure", boolean(), "weight 0 rather than removal when a check fails"),
        _inherited("virtualhost", text("a host name"), "Host header of HTTP checks"),
        _inherited("alpha", boolean(), "out of service until a check succeeds"),
        _inherited("retry", integer(1, MAX_UINT, "a count", lenient=False), "failures tolerated before leaving service", default_text="that of the checker"),
        _inherited("delay_before_retry", DELAY, "wait before a retry", default_text="that of the checker"),
        _inherited("warmup", DELAY, "longest random delay of the first check", default_text="that of `delay_loop`"),
        _inherited("connect_timeout", CONNECT_TIMEOUT, "time limit of a check's connection", default=5.0),
        _inherited("delay_loop", DELAY_LOOP, "interval of the checks", default=60.0),
        _inherited("proxy_protocol", Argument(_proxy_protocol, "VERSION", "", "v1 v2 off"), "PROXY header sent to the server", default_text="off", since=OURS),
        Keyword("smtp_alert", boolean(), "mail transitions", inherits=("global_defs.smtp_alert_checker", "global_defs.smtp_alert"), default_text="on"),
        UTHRESHOLD,
        LTHRESHOLD,
        Keyword("notify_up", script(), "script run when the server comes up", again=_FIRST),
        Keyword("notify_down", script(), "script run when the server goes down", again=_FIRST),
        unneeded("snmp_name", text("a name"), "name in the SNMP MIB", "there is no SNMP agent"),
        *MISSING,
        *(Keyword(kind.name, kind.block.argument, kind.help, sets=CHECKS, again=Again.EACH) for kind in KINDS.values()),
    ),
    models=(RealServer,),
    header=_server,
    syntax="ADDRESS [PORT]",
)  # fmt: skip

# -- virtual_server --------------------------------------------------------------------------------------------------


def _service(cursor: Cursor, fields: Fields) -> None:
    if cursor.peek() == "fwmark":
        cursor.word()
        fields["mark"] = mark(cursor)
    elif cursor.peek() == "group":
        cursor.word()
        fields["group"] = cursor.word("the name of a virtual_server_group")
    else:
        fields["endpoint"] = cursor.endpoint("a virtual server's address")
    if cursor.more():
        cursor.warn(
            f"'{' '.join(cursor.rest())}' behind a virtual server is ignored",
            "the interface belongs to the VRRP address",
            word=3,
        )


def _refusal(cursor: Cursor) -> bool:
    return cursor.choice(("icmp", "reset"), "a refusal", any_case=True) == "reset"


def _flag_name(cursor: Cursor) -> str:
    return cursor.statement.keyword


def _scheduler_flag(name: str) -> Keyword[str]:
    scheduler = name.partition("-")[0]
    below = ("lb_algo", scheduler) if scheduler in SCHEDULERS else None
    return Keyword(name, Argument(_flag_name), "scheduler flag", sets="scheduler_flags", again=Again.EACH, below=below)


_SCHEDULER: Final = choice(SCHEDULERS, "a scheduler")
SCHEDULER: Final = Keyword("lb_algo", _SCHEDULER, "which server gets the next connection", target="scheduler")
KIND: Final = Keyword("lb_kind", METHOD_ARGUMENT, "how packets reach the servers; FULLNAT is Relevo's", default_text="NAT")
PROTOCOL: Final = Keyword(
    "protocol", choice(("TCP", "UDP", "SCTP"), "a protocol", any_case=True), "protocol of the clients", default_text="UDP"
)
ONE_PACKET: Final = Keyword("ops", flag(), "UDP: schedule every datagram by itself, without a connection", target="one_packet")
IP_FAMILY: Final = Keyword(
    "ip_family",
    choice(("inet", "inet6"), "an IP version"),
    "IP version of a firewall mark's packets",
    default_text="that of the servers",
)
LOCAL_GROUP: Final = Keyword(
    "laddr_group_name",
    text("the name of a local_address_group"),
    "FULLNAT: where source addresses come from",
    default_text="the director's own",
    since=OURS,
)
PERSISTENCE: Final = Keyword(
    "persistence_timeout", Argument(_persistence, "[N]", "s", f"1..{MAX_PERSISTENCE_S}"), "how long a client keeps its server",
    target="persistence_timeout_s", default_text="off; 360 without a value",
)  # fmt: skip
GRANULARITY: Final = Keyword(
    "persistence_granularity",
    Argument(_granularity, "NETMASK | LENGTH"),
    "what counts as one client; turns persistence on",
    default_text="one address",
)
QUORUM: Final = Keyword("quorum", Argument(_quorum, "N", "", "1..2³²-1"), "live weight that the service needs to be up")
HYSTERESIS: Final = Keyword("hysteresis", integer(0, MAX_UINT, "a number"), "distance around the quorum")
SORRY_SERVER: Final = Keyword(
    "sorry_server", Argument(lambda cursor: cursor.endpoint("a sorry server's address"), "ADDRESS [PORT]"), "server used when the quorum is lost"
)  # fmt: skip
SORRY_METHOD: Final = Keyword(
    "sorry_server_lvs_method", METHOD_ARGUMENT, "how packets reach the sorry server", default_text="that of `lb_kind`", below=("sorry_server", "")
)  # fmt: skip
HA_SUSPEND: Final = Keyword("ha_suspend", flag(), "check only while the address is on this node")
REAL_SERVERS: Final[Keyword[Any]] = Keyword("real_server", REAL_SERVER.argument, "a server of the pool", again=Again.EACH)
SCHEDULER_FLAGS: Final = tuple(
    _scheduler_flag(name) for name in ("sh-port", "sh-fallback", "mh-port", "mh-fallback", "flag-1", "flag-2", "flag-3")
)

_SERVICE_ROWS: tuple[Keyword[Any], ...] = (
    SCHEDULER,
    Keyword("lvs_sched", _SCHEDULER, "the same as lb_algo", sets="lb_algo"),
    KIND,
    Keyword("lvs_method", METHOD_ARGUMENT, "the same as lb_kind", sets="lb_kind"),
    *SCHEDULER_FLAGS,
    PROTOCOL,
    ONE_PACKET,
    Keyword("refuse_with", Argument(_refusal, "WORD", "", "icmp reset"), "answer to clients when there is no server", target="refuses_by_reset", default_text="icmp", since=OURS),
    IP_FAMILY,
    LOCAL_GROUP,
    PERSISTENCE,
    GRANULARITY,
    Keyword("delay_loop", DELAY_LOOP, "interval of the checks", target="delay_loop_s"),
    Keyword("retry", integer(1, MAX_UINT, "a count", lenient=False), "failures tolerated before leaving service", default_text="that of the checker"),
    Keyword("delay_before_retry", DELAY, "wait before a retry", default_text="that of the checker"),
    Keyword("warmup", DELAY, "longest random delay of the first check", default_text="that of `delay_loop`"),
    Keyword("connect_timeout", CONNECT_TIMEOUT, "time limit of a check's connection", default=5.0),
    Keyword("virtualhost", text("a host name"), "Host header of HTTP checks"),
    Keyword("alpha", flag(), "servers are out of service until their checks succeed"),
    Keyword("inhibit_on_failure", flag(), "weight 0 rather than removal when a check fails"),
    Keyword("weight", integer(1, MAX_WEIGHT, "a weight"), "weight of servers without their own", default=1),
    Keyword("proxy_protocol", Argument(_proxy_protocol, "VERSION", "", "v1 v2 off"), "PROXY header sent to the servers", default_text="off", since=OURS),
    Keyword("smtp_alert", boolean(), "mail changes of the quorum", inherits=("global_defs.smtp_alert_checker", "global_defs.smtp_alert")),
    Keyword("omega", flag(), "run the down-notifiers when stopping"),
    QUORUM,
    HYSTERESIS,
    Keyword("quorum_up", script(), "script run when the quorum is gained", again=_FIRST),
    Keyword("quorum_down", script(), "script run when the quorum is lost", again=_FIRST),
    SORRY_SERVER,
    Keyword("sorry_server_inhibit", flag(), "keep the sorry server at weight 0 rather than removing it", below=("sorry_server", "")),
    SORRY_METHOD,
    HA_SUSPEND,
    REAL_SERVERS,
    *SERVICE_ROWS,
)  # fmt: skip

VIRTUAL_SERVER: Final = Block(
    "virtual_server", _SERVICE_ROWS, (VirtualServer,), header=_service, syntax="ADDRESS [PORT] | fwmark N | group NAME"
)
