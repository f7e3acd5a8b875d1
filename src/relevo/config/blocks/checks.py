"""Common parts of checkers: the rows of their settings, and the definition of a kind of checker.

A kind is one file in ``blocks/checkers``: it declares its block, and registers the function that builds the model's check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from relevo.config.blocks.arguments import FOREVER_S, MAX_UINT, address, boolean, integer, seconds, text
from relevo.config.blocks.registry import Block, Fields, Keyword
from relevo.config.blocks.standing import later
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


_OPTIONS_LATER: Final = (
    later("bind_if", text("an interface"), "interface of the check", "the route decides"),
    later("fwmark", integer(1, MAX_UINT, "a mark"), "mark of the check's packets", "they have none"),
)
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
    *_OPTIONS_LATER,
)  # fmt: skip
WARMUP: Final = Keyword(
    "warmup",
    DELAY,
    "longest random delay of the first check",
    target="warmup_s",
    inherits=from_server("warmup"),
    default_text="that of `delay_loop`",
)


def timing(*, delay_before_retry_s: float) -> tuple[Keyword[Any], ...]:
    """Return the rows of when a check runs, for a kind of checker with this delay before a retry."""
    return (
        Keyword("retry", integer(0, MAX_UINT, "a count"), "failures tolerated before leaving service", inherits=from_server("retry"), default=1),
        Keyword(
            "delay_before_retry", DELAY, "wait before a retry",
            target="delay_before_retry_s", inherits=from_server("delay_before_retry"), default=delay_before_retry_s,
        ),
        WARMUP,
        Keyword("delay_loop", DELAY_LOOP, "interval of the checks", target="delay_loop_s", inherits=from_server("delay_loop"), default=60.0),
        Keyword("alpha", boolean(), "out of service until the check succeeds", inherits=from_server("alpha"), default=False),
        LOG_ALL,
    )  # fmt: skip


class Common(msgspec.Struct, frozen=True):
    """Settings of every check, after those of its servers are applied."""

    timing: CheckTiming
    connect: Endpoint
    bind: Endpoint | None


class Kind(msgspec.Struct, frozen=True):
    """A kind of checker: its keyword, its block, and how a check is made of it (``None``: left out, after a finding)."""

    name: str
    help: str
    block: Block
    build: Callable[[Fields, Common], Check | None]


KINDS: Final[dict[str, Kind]] = {}
"""Keyword → kind, in the order of registration."""


def register(kind: Kind) -> None:
    """Register a kind of checker."""
    KINDS[kind.name] = kind
