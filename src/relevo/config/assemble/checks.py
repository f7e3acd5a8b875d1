"""Checker blocks → checks, after the cascade virtual server → real server → checker."""

from __future__ import annotations

from typing import Any

from relevo.config.blocks.checks import BIND_PORT, BINDTO, CONNECT_IP, CONNECT_PORT, KINDS, WARMUP, Common
from relevo.config.blocks.registry import NO_BLOCKS, Fields
from relevo.config.diagnostics import Severity
from relevo.model import Check, Endpoint
from relevo.model.checks import CheckTiming


def checks(server: Fields, declared: Endpoint, inherited_port: int) -> tuple[Check, ...]:
    """Return the checks of a real server.

    They go to the port that the server declares, also where forwarding keeps the service's (DR, TUN); a server without one is
    checked at ``inherited_port``.
    """
    found = server.get("checks")
    if not found:
        return ()
    above = server.above.with_block(server)
    built = []
    for fields in found:
        fields.above = above
        check = _check(fields, declared, inherited_port)
        fields.above = NO_BLOCKS  # a cycle would keep the whole tree in memory
        if check is not None:
            built.append(check)
    return tuple(built)


def _check(fields: Fields, declared: Endpoint, inherited_port: int) -> Check | None:
    kind = KINDS[fields.block.name]
    port = fields.given(CONNECT_PORT) or declared.port
    if not port:
        port = inherited_port
        if port:
            message = f"{kind.name} goes to port {port}, that of the service; keepalived's goes to port 0 and always fails"
            fields.report(Severity.NOTE, "", message, "write the port behind the real server's address")
        else:
            message = f"{kind.name} has no port to connect to: it can never pass"
            fields.report(Severity.WARNING, "", message, "write connect_port")
    connect = Endpoint(fields.given(CONNECT_IP, declared.address), port)
    return kind.build(fields, Common(fields.shared(CheckTiming, _timing), connect, _bind(fields, connect)))


def _timing(values: dict[str, Any]) -> CheckTiming:
    values.setdefault(WARMUP.target, values["delay_loop_s"])
    return CheckTiming(**values)


def _bind(fields: Fields, connect: Endpoint) -> Endpoint | None:
    address, port = fields.given(BINDTO), fields.given(BIND_PORT)
    if address is None and port is None:
        return None
    ipv6 = ":" in connect.address
    if address is not None and (":" in address) != ipv6:
        message = f"bindto {address} is of another IP version than {connect.address}: ignored"
        fields.report(Severity.ERROR, BINDTO.key, message, "name an address of that version")
        address = None
    return Endpoint(address or ("::" if ipv6 else "0.0.0.0"), port or 0)  # noqa: S104 - "any source"
