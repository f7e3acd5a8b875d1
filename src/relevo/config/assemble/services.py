"""``virtual_server`` blocks → services, each key in one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relevo.config.assemble.servers import inherited_port, real_servers
from relevo.config.blocks.groups import Group, Member
from relevo.config.blocks.registry import NO_BLOCKS, Fields
from relevo.config.blocks.services import (
    DEFAULT_PERSISTENCE_S,
    GRANULARITY,
    HA_SUSPEND,
    HYSTERESIS,
    IP_FAMILY,
    KIND,
    LOCAL_GROUP,
    METHOD,
    ONE_PACKET,
    PERSISTENCE,
    PROTOCOL,
    QUORUM,
    REAL_SERVERS,
    SCHEDULER_FLAGS,
    SORRY_METHOD,
    SORRY_SERVER,
    Method,
    endpoint_of,
)
from relevo.config.diagnostics import Severity
from relevo.config.place import Places
from relevo.model import Endpoint, Forwarding, Protocol, RealServer, ServiceKey, Tunnel, VirtualServer


def services(
    blocks: Sequence[Fields], defaults: Fields, groups: Mapping[str, Group], pools: Mapping[str, Group], places: Places
) -> tuple[VirtualServer, ...]:
    """Return the services that can be used. ``groups`` are address groups by name, ``pools`` the source addresses of FULLNAT."""
    built: dict[str, VirtualServer] = {}
    taken: dict[ServiceKey, str] = {}
    above = NO_BLOCKS.with_block(defaults)
    for fields in blocks:
        fields.above = above
        service = _service(fields, groups, pools)
        if service is None:
            continue
        if service.name in built:
            message = f"virtual server {service.name} is declared twice: the second is left out"
            fields.report(Severity.ERROR, "", message, "put its servers into one block")
            continue
        former = next((key for key in service.keys if key in taken), None)
        if former is not None:
            message = f"{former} belongs to virtual server {taken[former]} already: {service.name} is left out"
            fields.report(Severity.ERROR, "", message, "let every address and mark be in one virtual server")
            continue
        taken.update(dict.fromkeys(service.keys, service.name))
        built[service.name] = service
        _record(fields, service, places)
    return tuple(built.values())


def _record(fields: Fields, service: VirtualServer, places: Places) -> None:
    if not places.wanted:
        return
    name = service.name
    for keyword in (*fields.origin, ""):
        places.record(*fields.located(keyword), "virtual_server", name, keyword)
    servers: list[Fields] = fields.given(REAL_SERVERS, [])
    for server in servers:
        places.record(server.cursor.statement, 1, "virtual_server", name, "real_server", endpoint_of(server).address)


def _service(fields: Fields, groups: Mapping[str, Group], pools: Mapping[str, Group]) -> VirtualServer | None:
    """Make a virtual server of its block; ``None`` (with a finding) when it cannot be used."""
    members = _members(fields, groups)
    protocol = _protocol(fields)
    if not members or protocol is None:
        return None
    endpoint = members[0].endpoint
    if not fields.given(REAL_SERVERS) and fields.given(SORRY_SERVER) is None:
        message = f"virtual server {_named(fields, endpoint)} has no real server: left out"
        fields.report(Severity.ERROR, "", message, "add a real_server block")
        return None
    method = fields.given(KIND, Method())
    sorry_method = fields.given(SORRY_METHOD)
    suspends = fields.given(HA_SUSPEND, False)
    if suspends and "mark" in fields:
        message = "ha_suspend has no effect for a firewall mark, which has no address: ignored, as in keepalived"
        fields.report(Severity.WARNING, HA_SUSPEND.key, message, "remove the line")
        suspends = False
    servers = real_servers(fields, endpoint)
    quorum, hysteresis = _quorum(fields, servers)
    sorry = fields.given(SORRY_SERVER)
    return fields.into(
        VirtualServer,
        endpoint=endpoint,
        protocol=protocol,
        mark=fields.get("mark", 0),
        group=fields.get("group", ""),
        members=_keys(members, protocol) if "group" in fields else (),
        scheduler_flags=tuple(dict.fromkeys(fields.given(SCHEDULER_FLAGS[0], ()))),
        one_packet=_one_packet(fields, protocol),
        forwarding=method.forwarding,
        tunnel=method.tunnel,
        local_addresses=_local_addresses(fields, pools),
        persistence_timeout_s=_persistence(fields, members),
        persistence_granularity=_granularity(fields, endpoint),
        quorum=quorum,
        hysteresis=hysteresis,
        sorry_server=sorry and Endpoint(sorry.address, sorry.port or inherited_port(fields, endpoint)),
        sorry_forwarding=None if sorry_method is None else sorry_method.forwarding,
        sorry_tunnel=Tunnel() if sorry_method is None else sorry_method.tunnel,
        ha_suspend=suspends,
        real_servers=servers,
    )


def _named(fields: Fields, endpoint: Endpoint) -> str:
    if "group" in fields:
        return f"group {fields['group']}"
    return f"fwmark {fields['mark']}" if "mark" in fields else str(endpoint)


def _keys(members: Sequence[Member], protocol: Protocol) -> tuple[ServiceKey, ...]:
    return tuple(ServiceKey(protocol if not m.mark else Protocol.TCP, m.endpoint, m.mark) for m in members)


def _members(fields: Fields, groups: Mapping[str, Group]) -> tuple[Member, ...]:
    """Return the keys of the service: one address or mark, or those of its group.

    All are of one IP version, unless every server is reached by a tunnel.
    """
    if "endpoint" in fields:
        return (Member(endpoint_of(fields)),)
    if "mark" in fields:
        mark, family = int(fields["mark"]), fields.given(IP_FAMILY)
        servers: list[Fields] = fields.given(REAL_SERVERS, [])
        ipv6 = family == "inet6" if family else bool(servers) and ":" in endpoint_of(servers[0]).address
        return (Member(ServiceKey.of_mark(mark, ipv6=ipv6).endpoint, mark),)
    group = groups.get(fields["group"])
    if group is None or not group.members:
        message = f"virtual_server_group '{fields['group']}' does not exist or lists nothing: the virtual server is left out"
        fields.report(Severity.ERROR, "", message, "declare it in a block of its own")
        return ()
    ipv6 = ":" in group.members[0].endpoint.address
    fitting = tuple(member for member in group.members if (":" in member.endpoint.address) == ipv6)
    if len(fitting) == len(group.members) or _only_tunnels(fields):
        return group.members
    message = f"group '{group.name}' mixes IP versions: only IPv{6 if ipv6 else 4} is used, as of its first member"
    fields.report(Severity.ERROR, "", message, "make a group for each, or write lb_kind TUN")
    return fitting


def _only_tunnels(fields: Fields) -> bool:
    """Whether every server of a service, and its sorry server, is reached by a tunnel."""
    methods = {server.given(METHOD, fields.given(KIND, Method())).forwarding for server in fields.given(REAL_SERVERS, [])}
    if fields.given(SORRY_SERVER) is not None:
        methods.add(fields.given(KIND, Method()).forwarding)
    return methods == {Forwarding.TUN}


def _local_addresses(fields: Fields, pools: Mapping[str, Group]) -> tuple[str, ...]:
    name = fields.given(LOCAL_GROUP)
    if name is None:
        return ()
    if name not in pools:
        message = f"local_address_group '{name}' does not exist: the node's own address is used"
        fields.report(Severity.ERROR, LOCAL_GROUP.key, message, "declare it in a block of its own")
        return ()
    return tuple(member.endpoint.address for member in pools[name].members)


def _protocol(fields: Fields) -> Protocol | None:
    name = fields.given(PROTOCOL)
    if "mark" in fields:
        if name is not None:
            message = "a firewall mark's service takes every protocol: 'protocol' is ignored"
            fields.report(Severity.WARNING, PROTOCOL.key, message, "remove the line")
        return Protocol.TCP
    if name is None:
        message = "'protocol' is not given: UDP is used, as keepalived does"
        fields.report(Severity.WARNING, "", message, "write protocol TCP or protocol UDP")
        return Protocol.UDP
    if name == "SCTP":
        message = "SCTP is not supported by this version: the virtual server is left out"
        fields.report(Severity.ERROR, PROTOCOL.key, message)
        return None
    return Protocol(name)


def _one_packet(fields: Fields, protocol: Protocol) -> bool:
    if fields.given(ONE_PACKET) and protocol is not Protocol.UDP and "mark" not in fields:
        fields.report(Severity.WARNING, ONE_PACKET.key, "ops is for UDP alone: ignored", "remove the line")
        return False
    return fields.given(ONE_PACKET, False)


def _persistence(fields: Fields, members: Sequence[Member]) -> int:
    """Return the persistence: it is on if declared, if a granularity is declared, and for a service of every port."""
    timeout = fields.given(PERSISTENCE, 0)
    if timeout:
        return timeout
    if fields.given(GRANULARITY) is not None:
        message = f"persistence_granularity turns persistence on, as in keepalived: {DEFAULT_PERSISTENCE_S} s is used"
        fields.report(Severity.NOTE, GRANULARITY.key, message, "write persistence_timeout too")
        return DEFAULT_PERSISTENCE_S
    if any(not (member.endpoint.port or member.mark) for member in members):
        message = f"a service of every port must be persistent: {DEFAULT_PERSISTENCE_S} s is used"
        fields.report(Severity.WARNING, "", message, "write persistence_timeout too")
        return DEFAULT_PERSISTENCE_S
    return 0


def _granularity(fields: Fields, endpoint: Endpoint) -> int:
    longest = 128 if ":" in endpoint.address else 32
    given = fields.given(GRANULARITY, longest)
    statement = fields.origin.get(GRANULARITY.key)
    if statement is not None and longest == 32 and given and statement.args[0] == str(given):
        message = f"{given} is taken for a prefix length; keepalived takes it for the netmask 0.0.0.{given}"
        fields.report(Severity.WARNING, GRANULARITY.key, message, "write a netmask such as 255.255.255.0")
    return min(longest, given)


def _quorum(fields: Fields, servers: tuple[RealServer, ...]) -> tuple[int, int]:
    """Return quorum and hysteresis that the servers can reach."""
    total = sum(server.weight for server in servers)
    quorum = fields.given(QUORUM, 1)
    if servers and quorum > max(total, 1):
        message = f"quorum {quorum} is above the total weight {total}: {max(total, 1)} is used"
        fields.report(Severity.WARNING, QUORUM.key, message, "lower the quorum or raise the weights")
        quorum = max(total, 1)
    hysteresis = fields.given(HYSTERESIS, 0)
    if hysteresis >= quorum:
        fields.report(Severity.WARNING, HYSTERESIS.key, f"hysteresis must be below the quorum: {quorum - 1} is used")
        hysteresis = quorum - 1
    return quorum, hysteresis
