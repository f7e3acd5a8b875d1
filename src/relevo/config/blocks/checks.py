"""Common parts of checkers: the rows of their settings, and the definition of a kind of checker.

A kind is one file in ``blocks/checkers``: it declares its block, and registers the function that builds the model's check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from relevo.config.blocks.arguments import FOREVER_S, MAX_UINT, address, boolean, integer, interface, seconds
from relevo.config.blocks.registry import Block, Fields, Keyword
from relevo.config.diagnostics import Severity
from relevo.model import Check, Endpoint
from relevo.model.checks import CheckTiming

LONGEST_DELAY_S: Final = 31 * 86_400.0
"""Longest interval or delay of a check."""
SHORTEST_S: Final = 0.001
"""Shortest time limit or interval of a check: keepalived accepts a microsecond, which no check can keep."""

DELAY: Final = seconds(0.0, LONGEST_DELAY_S, "a delay")
DELAY_LOOP: Final = seconds(SHORTEST_S, LONGEST_DELAY_S, "an interval")
CONNECT_TIMEOUT: Final = seconds(SHORTEST_S, FOREVER_S, "a time limit")

CONNECT_IP: Final = Keyword("connect_ip", address("an address to connect to"), "address checked", default_text="the server's")
CONNECT_PORT: Final = Keyword("connect_port", integer(1, 65535, "a port number"), "port checked", default_text="the server's")
BINDTO: Final = Keyword("bindto", address("a source address"), "source address of the check", default_text="any")
BIND_PORT: Final = Keyword("bind_port", integer(1, 65535, "a port number"), "source port of the check", default_text="any")


LOG_ALL: Final = Keyword(
    "log_all_failures", boolean(), "log each failure", inherits=("global_defs.checker_log_all_failures",), default_text="off"
)


def from_server(name: str) -> tuple[str, ...]:
    """Return where a checker's setting comes from: its real server, then the virtual server."""
    return (f"real_server.{name}", f"virtual_server.{name}")


CONNECTION: Final[tuple[Keyword[Any], ...]] = (
    CONNECT_IP,
    CONNECT_PORT,
    BINDTO,
    BIND_PORT,
    Keyword(
        "connect_timeout", CONNECT_TIMEOUT, "time limit of the connection",
        target="connect_timeout_s", inherits=from_server("connect_timeout"), default=5.0,
    ),
    Keyword("bind_if", interface(), "interface of the check", target="device", default_text="the route decides"),
    Keyword("fwmark", integer(1, MAX_UINT, "a mark"), "mark of the check's packets", default_text="none"),
)  # fmt: skip
WARMUP: Final = Keyword(
    "warmup",
    DELAY,
    "longest random delay of the first check",
    target="warmup_s",
    inherits=from_server("warmup"),
    default_text="that of `delay_loop`",
)


def timing(*, retry: int = 1, delay_before_retry_s: float | None = 1.0) -> tuple[Keyword[Any], ...]:
    """Return the rows of when a check runs, for a kind of checker with these retries; a delay of ``None`` is ``delay_loop``."""
    return (
        Keyword("retry", integer(0, MAX_UINT, "a count"), "failures tolerated before leaving service", inherits=from_server("retry"), default=retry),
        Keyword(
            "delay_before_retry", DELAY, "wait before a retry",
            target="delay_before_retry_s", inherits=from_server("delay_before_retry"), default=delay_before_retry_s,
            default_text="" if delay_before_retry_s is not None else "that of `delay_loop`",
        ),
        WARMUP,
        Keyword("delay_loop", DELAY_LOOP, "interval of the checks", target="delay_loop_s", inherits=from_server("delay_loop"), default=60.0),
        Keyword("alpha", boolean(), "out of service until the check succeeds", inherits=from_server("alpha"), default=False),
        LOG_ALL,
    )  # fmt: skip


class Common(msgspec.Struct, frozen=True):
    """Settings of every check, after those of its servers are applied, and what they were made of: the server's address as it is
    ``declared``, and the port of a server ``without_port``.
    """

    timing: CheckTiming
    connect: Endpoint
    bind: Endpoint | None
    declared: Endpoint
    without_port: int


def connect_to(fields: Fields, name: str, declared: Endpoint, inherited_port: int) -> Endpoint:
    """Return what a check connects to; one without any port is reported."""
    port = fields.given(CONNECT_PORT) or declared.port
    if not port:
        port = inherited_port
        if port:
            message = f"{name} goes to port {port}, that of the service; keepalived's goes to port 0 and always fails"
            fields.report(Severity.NOTE, "", message, "write the port behind the real server's address")
        else:
            message = f"{name} has no port to connect to: it can never pass"
            fields.report(Severity.WARNING, "", message, "write connect_port")
    return Endpoint(fields.given(CONNECT_IP, declared.address), port)


def bind_to(fields: Fields, connect: Endpoint) -> Endpoint | None:
    """Return what a check is bound to."""
    address, port = fields.given(BINDTO), fields.given(BIND_PORT)
    if address is None and port is None:
        return None
    ipv6 = ":" in connect.address
    if address is not None and (":" in address) != ipv6:
        message = f"bindto {address} is of another IP version than {connect.address}: ignored"
        fields.report(Severity.ERROR, BINDTO.key, message, "name an address of that version")
        address = None
    return Endpoint(address or ("::" if ipv6 else "0.0.0.0"), port or 0)  # noqa: S104 - "any source"


class Kind(msgspec.Struct, frozen=True):
    """A kind of checker: its keyword, its block, and how checks are made of it (``None``: left out, after a finding).

    One that does not go over the network has nothing to connect to.
    """

    name: str
    help: str
    block: Block
    build: Callable[[Fields, Common], Check | list[Check] | None]
    over_network: bool = True


KINDS: Final[dict[str, Kind]] = {}
"""Keyword → kind, in the order of registration."""


def register(kind: Kind) -> None:
    """Register a kind of checker."""
    KINDS[kind.name] = kind
