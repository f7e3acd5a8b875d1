"""``virtual_server`` and ``real_server``."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from relevo.config.cursor import Cursor
from relevo.config.diagnostics import Severity
from relevo.config.keywords.checkers import CHECKERS, build_check
from relevo.config.keywords.readers import boolean, choice, flag, integer, script, seconds, text
from relevo.config.keywords.registry import Block, Fields, Keyword
from relevo.model import Endpoint, Forwarding, Protocol, RealServer, VirtualServer

SCHEDULERS: Final = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "mh", "dh", "fo", "ovf", "sed", "nq", "twos")
MAX_PERSISTENCE_S: Final = 31 * 86400
DEFAULT_PERSISTENCE_S: Final = 360


def _scheduler(cursor: Cursor) -> str:
    return cursor.choice(SCHEDULERS, "a scheduler")


def _forwarding(cursor: Cursor) -> Forwarding:
    kind = Forwarding(cursor.choice(tuple(Forwarding), "a forwarding method"))
    if kind is Forwarding.TUN and cursor.more():
        cursor.warn("options of the tunnel are not supported by this version: ignored")
        cursor.rest()
    return kind


def _persistence(cursor: Cursor) -> int:
    if not cursor.more():
        return DEFAULT_PERSISTENCE_S
    value = cursor.integer(0, MAX_PERSISTENCE_S, "a persistence timeout")
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
        raise cursor.reject(f"'{word}' is not a netmask", "write 255.255.255.0 or 24") from None


def _quorum(cursor: Cursor) -> int:
    value = cursor.integer(0, 1_000_000, "a quorum")
    if value == 0:
        cursor.warn("quorum 0 would never be lost: 1 is used", "write quorum 1")
    return max(1, value)


def _proxy_protocol(cursor: Cursor) -> int:
    return {"v1": 1, "v2": 2, "off": 0}[cursor.choice(("v1", "v2", "off"), "a PROXY protocol version")]


_INHERITED = (
    Keyword("weight", integer(0, 65535, "a weight"), "share of new connections (1); 0 takes none"),
    Keyword("lvs_method", _forwarding, "NAT, DR, TUN or, of our own, FULLNAT", field="forwarding"),
    Keyword("inhibit_on_failure", boolean, "weight 0 rather than removal when a check fails"),
    Keyword("virtualhost", text("a host name"), "Host header of HTTP checks"),
    Keyword("alpha", boolean, "out of service until a check succeeds"),
    Keyword("retry", integer(0, 1000, "a count"), "failures tolerated before leaving service"),
    Keyword("delay_before_retry", seconds(0, 86400, "a delay"), "seconds before a retry"),
    Keyword("warmup", seconds(0, 86400, "a delay"), "longest random delay of the first check"),
    Keyword("connect_timeout", seconds(0.001, 86400, "a time limit"), "time limit of a check's connection (5)"),
    Keyword("delay_loop", seconds(0.001, 86400, "an interval"), "seconds between checks (60)"),
    Keyword("proxy_protocol", _proxy_protocol, "PROXY header sent to the server: v1, v2 or off (off) [Relevo]"),
    Keyword("smtp_alert", boolean, "mail transitions"),
)


def _server(cursor: Cursor, fields: Fields) -> None:
    fields["endpoint"] = cursor.endpoint("a real server's address")


REAL_SERVER = Block(
    "real_server",
    (
        *_INHERITED,
        Keyword("uthreshold", integer(0, 2**31 - 1, "a threshold"), "connections above which the server is skipped", field="upper_threshold"),
        Keyword("lthreshold", integer(0, 2**31 - 1, "a threshold"), "connections below which it is used again", field="lower_threshold"),
        Keyword("notify_up", script, "script run when the server comes up"),
        Keyword("notify_down", script, "script run when the server goes down"),
        *CHECKERS,
    ),
    lambda fields: fields,
    header=_server,
)  # fmt: skip


def _service(cursor: Cursor, fields: Fields) -> None:
    if cursor.peek() in ("fwmark", "group"):
        kind = cursor.word()
        raise cursor.reject(f"virtual_server {kind} is not supported by this version: left out", "write an address and a port")
    fields["endpoint"] = cursor.endpoint("a virtual server's address")
    if cursor.more():
        cursor.warn(
            f"'{' '.join(cursor.rest())}' behind a virtual server is ignored",
            "the interface belongs to the VRRP address",
            word=3,
        )


_ALGORITHM = "scheduler name: " + " ".join(SCHEDULERS)
_FLAGS = ("sh-port", "sh-fallback", "mh-port", "mh-fallback", "flag-1", "flag-2", "flag-3")


def _sorry(cursor: Cursor) -> Endpoint:
    return cursor.endpoint("a sorry server's address")


VIRTUAL_SERVER_KEYWORDS: tuple[Keyword, ...] = (
    *_INHERITED,
    Keyword("lb_algo", _scheduler, _ALGORITHM, field="scheduler"),
    Keyword("lvs_sched", _scheduler, "the same as lb_algo", field="scheduler"),
    Keyword("lb_kind", _forwarding, "NAT, DR, TUN or, of our own, FULLNAT (NAT)", field="forwarding"),
    *(Keyword(name, lambda cursor: str(cursor.statement.keyword), "scheduler flag", field="scheduler_flags", repeats=True) for name in _FLAGS),
    Keyword("protocol", choice(("TCP", "UDP", "SCTP"), "a protocol"), "TCP or UDP"),
    Keyword("persistence_timeout", _persistence, "seconds that a client keeps its server (360 without a value)", field="persistence_timeout_s"),
    Keyword("persistence_granularity", _granularity, "netmask or prefix length that counts as one client"),
    Keyword("omega", flag, "run the down-notifiers when stopping"),
    Keyword("quorum", _quorum, "weight that must live for the service to be up (1)"),
    Keyword("hysteresis", integer(0, 1_000_000, "a number"), "distance around the quorum (0)"),
    Keyword("quorum_up", script, "script run when the quorum is gained"),
    Keyword("quorum_down", script, "script run when the quorum is lost"),
    Keyword("sorry_server", _sorry, "server used when the quorum is lost"),
    Keyword("sorry_server_inhibit", flag, "keep the sorry server at weight 0 rather than removing it"),
    Keyword("real_server", REAL_SERVER, "a server of the pool", field="real_servers", repeats=True),
)  # fmt: skip


def build_service(fields: Fields, smtp_alert: bool | None) -> VirtualServer | None:
    """Make a virtual server of its block; ``None`` (with a finding) when it cannot be used.

    ``smtp_alert`` is the default of ``global_defs``: without one real servers mail and virtual servers do not.
    """
    endpoint: Endpoint = fields["endpoint"]
    protocol = _protocol(fields)
    if protocol is None:
        return None
    if not fields.get("real_servers") and "sorry_server" not in fields:
        message = f"virtual server {endpoint} has no real server: left out"
        fields.complain(Severity.ERROR, "", message, "add a real_server block")
        return None
    values = fields.picked(
        "scheduler", "forwarding", "persistence_timeout_s", "omega", "hysteresis", "quorum_up", "quorum_down",
        "sorry_server_inhibit", "smtp_alert", "alpha", "quorum",
    )  # fmt: skip
    values["delay_loop_s"] = fields.get("delay_loop", 60.0)
    values["scheduler_flags"] = tuple(dict.fromkeys(fields.get("scheduler_flags", ())))
    longest = 128 if ":" in endpoint.address else 32
    values["persistence_granularity"] = min(longest, fields.get("persistence_granularity", longest))
    if endpoint.port == 0 and not values.get("persistence_timeout_s"):
        fields.complain(Severity.WARNING, "", "a service of every port must be persistent: 360 s is used")
        values["persistence_timeout_s"] = DEFAULT_PERSISTENCE_S
    if smtp_alert is not None:
        values.setdefault("smtp_alert", smtp_alert)
    servers = _servers(fields, endpoint, smtp_alert)
    _quorum_fits(fields, values, servers)
    sorry = fields.get("sorry_server")
    if sorry is not None:
        values["sorry_server"] = Endpoint(sorry.address, sorry.port or endpoint.port)
    return VirtualServer(endpoint=endpoint, protocol=protocol, real_servers=servers, **values)


def _protocol(fields: Fields) -> Protocol | None:
    name = fields.get("protocol")
    if name is None:
        message = "'protocol' is not given: UDP is used, as keepalived does"
        fields.complain(Severity.WARNING, "", message, "write protocol TCP or protocol UDP")
        return Protocol.UDP
    if name == "SCTP":
        message = "SCTP is not supported by this version: the virtual server is left out"
        fields.complain(Severity.ERROR, "protocol", message)
        return None
    return Protocol(name)


def _servers(fields: Fields, service: Endpoint, smtp_alert: bool | None) -> tuple[RealServer, ...]:
    built: dict[Endpoint, RealServer] = {}
    for found in fields.get("real_servers", ()):
        server = _build_server(found, fields, service, smtp_alert)
        if (":" in server.endpoint.address) != (":" in service.address) and server.forwarding is not Forwarding.TUN:
            message = f"{server.endpoint} and the virtual server are of different IP versions: left out"
            found.complain(Severity.ERROR, "", message, "only lb_kind TUN may mix them")
        elif server.endpoint in built:
            message = f"real server {server.endpoint} is there already: left out"
            found.complain(Severity.ERROR, "", message, "remove one of the two")
        else:
            built[server.endpoint] = server
    return tuple(built.values())


def _build_server(fields: Fields, service_fields: Fields, service: Endpoint, smtp_alert: bool | None) -> RealServer:
    inherited = service_fields.picked("weight", "forwarding", "inhibit_on_failure", "proxy_protocol")
    own = fields.picked(
        "weight", "forwarding", "inhibit_on_failure", "proxy_protocol", "upper_threshold", "lower_threshold",
        "notify_up", "notify_down", "smtp_alert",
    )  # fmt: skip
    values = {**inherited, **own}
    if smtp_alert is not None:
        values.setdefault("smtp_alert", smtp_alert)
    endpoint: Endpoint = fields["endpoint"]
    forwarding = values.get("forwarding", Forwarding.NAT)
    if forwarding is not Forwarding.NAT and endpoint.port not in (0, service.port):
        message = f"{forwarding} cannot change the port: {service.port} is used"
        fields.complain(Severity.WARNING, "", message, "write the port of the virtual server")
    if endpoint.port == 0 or forwarding is not Forwarding.NAT:
        endpoint = Endpoint(endpoint.address, service.port)
    if values.get("lower_threshold", 0) > values.get("upper_threshold", 0) > 0:
        fields.complain(Severity.ERROR, "lower_threshold", "lthreshold is above uthreshold: both are ignored")
        values["lower_threshold"] = values["upper_threshold"] = 0
    checks = tuple(build_check(check, fields, service_fields, endpoint) for check in fields.get("checks", ()))
    return RealServer(endpoint=endpoint, checks=tuple(c for c in checks if c is not None), **values)


def _quorum_fits(fields: Fields, values: dict[str, Any], servers: tuple[RealServer, ...]) -> None:
    total = sum(server.weight for server in servers)
    quorum = values.get("quorum", 1)
    if servers and quorum > max(total, 1):
        values["quorum"] = max(total, 1)
        message = f"quorum {quorum} is above the total weight {total}: {values['quorum']} is used"
        fields.complain(Severity.WARNING, "quorum", message, "lower the quorum or raise the weights")
    quorum = values.get("quorum", 1)
    if values.get("hysteresis", 0) >= quorum:
        message = f"hysteresis must be below the quorum: {quorum - 1} is used"
        fields.complain(Severity.WARNING, "hysteresis", message)
        values["hysteresis"] = quorum - 1


VIRTUAL_SERVER = Block("virtual_server", VIRTUAL_SERVER_KEYWORDS, lambda fields: fields, header=_service)
