"""``virtual_server`` and ``real_server``."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from relevo.config.cursor import Cursor
from relevo.config.diagnostics import Severity
from relevo.config.keywords.checkers import CHECKERS, build_check
from relevo.config.keywords.groups import Group, Member, mark
from relevo.config.keywords.readers import boolean, choice, flag, integer, script, seconds, text
from relevo.config.keywords.registry import Block, Fields, Keyword
from relevo.model import (
    Endpoint,
    Forwarding,
    Protocol,
    RealServer,
    ServiceKey,
    Tunnel,
    TunnelChecksum,
    TunnelKind,
    VirtualServer,
)

SCHEDULERS: Final = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "mh", "dh", "fo", "ovf", "sed", "nq", "twos")
MAX_PERSISTENCE_S: Final = 31 * 86400
DEFAULT_PERSISTENCE_S: Final = 360


def _scheduler(cursor: Cursor) -> str:
    return cursor.choice(SCHEDULERS, "a scheduler")


class Method(NamedTuple):
    """How packets reach a server."""

    forwarding: Forwarding = Forwarding.NAT
    tunnel: Tunnel = Tunnel()


def _method(cursor: Cursor) -> Method:
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
            port = cursor.port(1)
        else:
            checksum = TunnelChecksum(word)
    if kind is TunnelKind.GUE and not port:
        raise cursor.reject("a GUE tunnel needs a port", "write: TUN type gue port 6080", word=0)
    if kind is not TunnelKind.GUE and port:
        cursor.warn(f"a tunnel of type {kind} has no port: ignored", "remove it")
        port = 0
    if kind is TunnelKind.IPIP and checksum is not TunnelChecksum.NONE:
        cursor.warn("a tunnel of type ipip has no checksum: ignored", "remove the word")
        checksum = TunnelChecksum.NONE
    return Tunnel(kind, port, checksum)


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
    Keyword("lvs_method", _method, "NAT, DR, TUN [type ipip|gre|gue port N] or, of our own, FULLNAT", field="method"),
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
    if cursor.peek() == "fwmark":
        cursor.word()
        fields["mark"] = mark(cursor)
    elif cursor.peek() == "group":
        cursor.word()
        fields["group"] = str(cursor.word("the name of a virtual_server_group"))
    else:
        fields["endpoint"] = cursor.endpoint("a virtual server's address")
    if cursor.more():
        cursor.warn(
            f"'{' '.join(cursor.rest())}' behind a virtual server is ignored",
            "the interface belongs to the VRRP address",
            word=3,
        )


_ALGORITHM = "scheduler name: " + " ".join(SCHEDULERS)
_FLAGS = ("sh-port", "sh-fallback", "mh-port", "mh-fallback", "flag-1", "flag-2", "flag-3")


def _refusal(cursor: Cursor) -> bool:
    return cursor.choice(("icmp", "reset"), "a refusal") == "reset"


def _sorry(cursor: Cursor) -> Endpoint:
    return cursor.endpoint("a sorry server's address")


VIRTUAL_SERVER_KEYWORDS: tuple[Keyword, ...] = (
    *_INHERITED,
    Keyword("lb_algo", _scheduler, _ALGORITHM, field="scheduler"),
    Keyword("lvs_sched", _scheduler, "the same as lb_algo", field="scheduler"),
    Keyword("lb_kind", _method, "NAT, DR, TUN [type ipip|gre|gue port N] or, of our own, FULLNAT (NAT)", field="method"),
    *(Keyword(name, lambda cursor: str(cursor.statement.keyword), "scheduler flag", field="scheduler_flags", repeats=True) for name in _FLAGS),
    Keyword("protocol", choice(("TCP", "UDP", "SCTP"), "a protocol"), "TCP or UDP"),
    Keyword("ops", flag, "UDP: schedule every datagram, remember nothing", field="one_packet"),
    Keyword("refuse_with", _refusal, "what clients get when no server is there: icmp or reset (icmp) [Relevo]", field="refuses_by_reset"),
    Keyword("ip_family", choice(("inet", "inet6"), "an IP version"), "IP version of a firewall mark's packets"),
    Keyword("laddr_group_name", text("the name of a local_address_group"), "FULLNAT: where source addresses come from [Relevo]", field="local_group"),
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


def build_service(
    fields: Fields, smtp_alert: bool | None, groups: Mapping[str, Group], pools: Mapping[str, Group]
) -> VirtualServer | None:
    """Make a virtual server of its block; ``None`` (with a finding) when it cannot be used.

    ``smtp_alert`` is the default of ``global_defs``: without one real servers mail and virtual servers do not. ``groups``
    are the ``virtual_server_group`` blocks by name, ``pools`` the ``local_address_group`` blocks.
    """
    members = _members(fields, groups)
    protocol = _protocol(fields)
    if not members or protocol is None:
        return None
    endpoint = members[0].endpoint
    if not fields.get("real_servers") and "sorry_server" not in fields:
        message = f"virtual server {_named(fields, endpoint)} has no real server: left out"
        fields.complain(Severity.ERROR, "", message, "add a real_server block")
        return None
    values = fields.picked(
        "scheduler", "persistence_timeout_s", "omega", "hysteresis", "quorum_up", "quorum_down",
        "sorry_server_inhibit", "smtp_alert", "alpha", "quorum", "mark", "group", "one_packet", "refuses_by_reset",
    )  # fmt: skip
    if "group" in fields:
        values["members"] = tuple(ServiceKey(protocol if not m.mark else Protocol.TCP, m.endpoint, m.mark) for m in members)
    values["forwarding"], values["tunnel"] = fields.get("method", Method())
    values["local_addresses"] = _local_addresses(fields, pools)
    values["delay_loop_s"] = fields.get("delay_loop", 60.0)
    values["scheduler_flags"] = tuple(dict.fromkeys(fields.get("scheduler_flags", ())))
    longest = 128 if ":" in endpoint.address else 32
    values["persistence_granularity"] = min(longest, fields.get("persistence_granularity", longest))
    every_port = any(not (member.endpoint.port or member.mark) for member in members)
    if every_port and not values.get("persistence_timeout_s"):
        fields.complain(Severity.WARNING, "", "a service of every port must be persistent: 360 s is used")
        values["persistence_timeout_s"] = DEFAULT_PERSISTENCE_S
    if values.get("one_packet") and protocol is not Protocol.UDP and not fields.get("mark"):
        fields.complain(Severity.WARNING, "one_packet", "ops is for UDP alone: ignored", "remove the line")
        values["one_packet"] = False
    if smtp_alert is not None:
        values.setdefault("smtp_alert", smtp_alert)
    servers = _servers(fields, endpoint, smtp_alert)
    _quorum_fits(fields, values, servers)
    sorry = fields.get("sorry_server")
    if sorry is not None:
        values["sorry_server"] = Endpoint(sorry.address, sorry.port or _inherited_port(fields, endpoint))
    return VirtualServer(endpoint=endpoint, protocol=protocol, real_servers=servers, **values)


def _named(fields: Fields, endpoint: Endpoint) -> str:
    if "group" in fields:
        return f"group {fields['group']}"
    return f"fwmark {fields['mark']}" if "mark" in fields else str(endpoint)


def _members(fields: Fields, groups: Mapping[str, Group]) -> tuple[Member, ...]:
    """What the service answers to: one address or mark, or those of its group, all of one IP version."""
    if "endpoint" in fields:
        return (Member(fields["endpoint"]),)
    if "mark" in fields:
        ipv6 = fields.get("ip_family") == "inet6"
        if "ip_family" not in fields and fields.get("real_servers"):
            ipv6 = ":" in fields["real_servers"][0]["endpoint"].address
        return (Member(ServiceKey.of_mark(fields["mark"], ipv6=ipv6).endpoint, fields["mark"]),)
    group = groups.get(fields["group"])
    if group is None or not group.members:
        message = f"virtual_server_group '{fields['group']}' does not exist or lists nothing: the virtual server is left out"
        fields.complain(Severity.ERROR, "", message, "declare it in a block of its own")
        return ()
    ipv6 = ":" in group.members[0].endpoint.address
    fitting = tuple(member for member in group.members if (":" in member.endpoint.address) == ipv6)
    if len(fitting) < len(group.members):
        message = f"group '{group.name}' mixes IP versions: only IPv{6 if ipv6 else 4} is used, as of its first member"
        fields.complain(Severity.ERROR, "", message, "make a group for each")
    return fitting


def _local_addresses(fields: Fields, pools: Mapping[str, Group]) -> tuple[str, ...]:
    name = fields.get("local_group")
    if name is None:
        return ()
    if name not in pools:
        message = f"local_address_group '{name}' does not exist: the node's own address is used"
        fields.complain(Severity.ERROR, "local_group", message, "declare it in a block of its own")
        return ()
    return tuple(member.endpoint.address for member in pools[name].members)


def _protocol(fields: Fields) -> Protocol | None:
    name = fields.get("protocol")
    if "mark" in fields:
        if name is not None:
            message = "a firewall mark's service takes every protocol: 'protocol' is ignored"
            fields.complain(Severity.WARNING, "protocol", message, "remove the line")
        return Protocol.TCP
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


def _inherited_port(fields: Fields, service: Endpoint) -> int:
    """The port of a server that names none. A group's servers have that of the address that the client asked."""
    return 0 if "group" in fields else service.port


def _build_server(fields: Fields, service_fields: Fields, service: Endpoint, smtp_alert: bool | None) -> RealServer:
    inherited = service_fields.picked("weight", "method", "inhibit_on_failure", "proxy_protocol")
    own = fields.picked(
        "weight", "method", "inhibit_on_failure", "proxy_protocol", "upper_threshold", "lower_threshold",
        "notify_up", "notify_down", "smtp_alert",
    )  # fmt: skip
    values = {**inherited, **own}
    forwarding, values["tunnel"] = values.pop("method", Method())
    values["forwarding"] = forwarding
    if smtp_alert is not None:
        values.setdefault("smtp_alert", smtp_alert)
    endpoint: Endpoint = fields["endpoint"]
    port = _inherited_port(service_fields, service)
    as_asked = forwarding in (Forwarding.DR, Forwarding.TUN)
    if as_asked and endpoint.port not in (0, port):
        message = f"{forwarding} cannot change the port: {port or 'that of the packet'} is used"
        fields.complain(Severity.WARNING, "", message, "write the port of the virtual server")
    if endpoint.port == 0 or as_asked:
        endpoint = Endpoint(endpoint.address, port)
    if values.get("lower_threshold", 0) > values.get("upper_threshold", 0) > 0:
        fields.complain(Severity.ERROR, "lower_threshold", "lthreshold is above uthreshold: both are ignored")
        values["lower_threshold"] = values["upper_threshold"] = 0
    checked = Endpoint(endpoint.address, endpoint.port or service.port)
    checks = tuple(build_check(check, fields, service_fields, checked) for check in fields.get("checks", ()))
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
