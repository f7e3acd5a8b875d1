"""``real_server`` blocks → the servers of a pool, with settings inherited from their service."""

from __future__ import annotations

from typing import Final

from relevo.config.assemble.checks import checks
from relevo.config.blocks.registry import NO_BLOCKS, Fields
from relevo.config.blocks.services import LTHRESHOLD, METHOD, REAL_SERVERS, UTHRESHOLD, Method, endpoint_of
from relevo.config.diagnostics import Severity
from relevo.model import Endpoint, Forwarding, RealServer

_NAT: Final = Method()


def real_servers(fields: Fields, service: Endpoint) -> tuple[RealServer, ...]:
    """Return the servers of a service: of one IP version but for tunnels, and none twice."""
    built: dict[Endpoint, RealServer] = {}
    blocks: list[Fields] = fields.given(REAL_SERVERS, [])
    above = fields.above.with_block(fields)
    ipv6 = ":" in service.address
    for found in blocks:
        found.above = above
        server = _server(found, fields, service)
        found.above = NO_BLOCKS  # a cycle would keep the whole tree in memory
        if (":" in server.endpoint.address) != ipv6 and server.forwarding is not Forwarding.TUN:
            message = f"{server.endpoint} and the virtual server are of different IP versions: left out"
            found.report(Severity.ERROR, "", message, "only lb_kind TUN may mix them")
        elif server.endpoint in built:
            message = f"real server {server.endpoint} is there already: left out"
            found.report(Severity.ERROR, "", message, "remove one of the two")
        else:
            built[server.endpoint] = server
    return tuple(built.values())


def inherited_port(fields: Fields, service: Endpoint) -> int:
    """Return the port of a server that names none. A group's servers have that of the address that the client asked."""
    return 0 if "group" in fields else service.port


def _server(fields: Fields, outer: Fields, service: Endpoint) -> RealServer:
    declared = endpoint_of(fields)
    method: Method = fields.effective(METHOD, _NAT)
    port = inherited_port(outer, service)
    endpoint = declared
    as_asked = method.forwarding in (Forwarding.DR, Forwarding.TUN)
    if as_asked and declared.port not in (0, port):
        message = f"{method.forwarding} cannot change the port: {port or 'that of the packet'} is used"
        message += f"; checks go to {declared.port}" if fields.get("checks") else ""
        fields.report(Severity.WARNING, "", message, "write the port of the virtual server")
    if declared.port == 0 or as_asked:
        endpoint = Endpoint(declared.address, port)
    upper, lower = fields.given(UTHRESHOLD, 0), fields.given(LTHRESHOLD, 0)
    if lower > upper > 0:
        fields.report(Severity.ERROR, LTHRESHOLD.key, "lthreshold is above uthreshold: both are ignored")
        upper = lower = 0
    return fields.into(
        RealServer,
        endpoint=endpoint,
        forwarding=method.forwarding,
        tunnel=method.tunnel,
        upper_threshold=upper,
        lower_threshold=lower,
        checks=checks(fields, declared, endpoint.port or service.port),
    )
