"""Rows of ``vrrp_instance`` and of its defaults in ``global_defs``: strictness, packets for the addresses, unicast, events."""

from __future__ import annotations

from typing import Any, Final

from relevo.config.blocks.arguments import (
    FOREVER_S,
    Argument,
    Located,
    boolean,
    entries,
    flag,
    integer,
    script,
    seconds,
)
from relevo.config.blocks.registry import Again, Keyword
from relevo.config.blocks.standing import later, unneeded
from relevo.config.cursor import Cursor
from relevo.config.diagnostics import Severity

DEFAULT_TABLE: Final = "keepalived"
"""Name of the nftables table that ``nftables`` without a name means."""


def _pause(cursor: Cursor) -> float:
    value = cursor.seconds(0, FOREVER_S, "an interval")
    if value == 0:
        cursor.report(Severity.NOTE, "keepalived refuses an interval of 0, and then has none either", "remove the line")
    return value


def _table(cursor: Cursor) -> str:
    return cursor.word() if cursor.more() else DEFAULT_TABLE


def _dynamic(cursor: Cursor) -> str:
    return cursor.choice(("allow_if_changes",), "an option") if cursor.more() else ""


def _extra(cursor: Cursor) -> float:
    if cursor.peek() == "all":
        cursor.word()
    return cursor.seconds(1, 86_400, "an interval")


PAUSE: Final = Argument(_pause, "N", "s", "0..4294.967295")
STRICT: Final = Keyword(
    "strict_mode", boolean(), "keep to the RFC; also: no packets for the addresses", inherits=("global_defs.vrrp_strict",)
)
ACCEPT: Final = Keyword("accept", flag(), "take packets for the addresses as master", default_text="on; off in strict mode")
NO_ACCEPT: Final = Keyword(
    "no_accept", flag(value=False), "drop packets for the addresses, unless the priority is 255", sets="accept"
)
NO_ADDRESSES: Final = Keyword("no_virtual_ipaddress", flag(), "the instance has no addresses on purpose")
NATIVE_IPV6: Final = Keyword("native_ipv6", flag(), "adverts over IPv6, of an instance without addresses; deprecated")
GNA_INTERVAL: Final = Keyword("vrrp_gna_interval", PAUSE, "pause between neighbour advertisements", default=0.0)
MIN_GARP: Final = Keyword("vrrp_min_garp", boolean(), "one message, and no second burst", default_text="off")

DEFAULTS: Final[tuple[Keyword[Any], ...]] = (
    Keyword("vrrp_strict", flag(), "keep to the RFC: no unicast, no authentication, no preempt_delay, no_accept; MASTER only with 255", default_text="off"),
    GNA_INTERVAL,
    MIN_GARP,
    Keyword("vrrp_owner_ignore_adverts", boolean(), "a node with priority 255 ignores adverts", default_text="off"),
    Keyword("vrrp_startup_delay", seconds(0.001, 1_000_000, "a delay"), "wait so long at the start before taking over", target="vrrp_startup_delay_s", default_text="none"),
    Keyword("vrrp_delay_after_boot", seconds(0.001, 1_000_000, "a delay"), "the same, counted from the machine's boot", target="vrrp_delay_after_boot_s", default_text="none"),
    Keyword("log_unknown_vrids", flag(), "log adverts of other virtual routers"),
    Keyword("nftables", Argument(_table, "[TABLE]"), "nftables table of no_accept", default_text="relevo"),
    Keyword("nftables_priority", integer(-(2**31), 2**31 - 1, "a priority"), "priority of its chains", default=-1),
    Keyword("nftables_counters", flag(), "its rules count packets"),
    unneeded("vrrp_check_unicast_src", flag(), "accept unicast adverts from peers alone", "others are never accepted"),
    unneeded("dynamic_interfaces", Argument(_dynamic, "[allow_if_changes]"), "interfaces may come and go", "they always may"),
    later("vrrp_garp_extra_if", Argument(_extra, "[all] N", "s", "1..86400"), "announce again on other interfaces"),
    later("vrrp_vmac_garp_intvl", Argument(_extra, "[all] N", "s", "1..86400"), "old spelling of vrrp_garp_extra_if"),
)  # fmt: skip

LOWER_PRIORITY: Final = Keyword(
    "notify_master_rx_lower_pri", script(), "script run when a master receives an advert of lower priority", target="lower_priority", again=Again.FIRST
)  # fmt: skip
PRIORITY_CHANGES: Final = Keyword(
    "notify_priority_changes", boolean(), "changes of the effective priority go to the pipe", inherits=("global_defs.vrrp_notify_priority_changes",)
)  # fmt: skip


def _deleted(cursor: Cursor) -> Any:
    return cursor.script() if cursor.more() else None


INSTANCE_ROWS: Final[tuple[Keyword[Any], ...]] = (
    STRICT,
    ACCEPT,
    NO_ACCEPT,
    NO_ADDRESSES,
    NATIVE_IPV6,
    Keyword("unicast_ttl", integer(0, 255, "a time to live"), "time to live of unicast adverts"),
    Keyword("unicast_fault_no_peer", flag(), "no unicast_peer means FAULT, not multicast"),
    Keyword("owner_ignore_adverts", boolean(), "ignore adverts with priority 255", inherits=("global_defs.vrrp_owner_ignore_adverts",)),
    LOWER_PRIORITY,
    PRIORITY_CHANGES,
    Keyword("notify_deleted", Argument(_deleted, "[COMMAND [USER [GROUP]]]"), "script run when a reload removes the instance", target="deleted", again=Again.FIRST),
    unneeded("check_unicast_src", boolean(), "accept unicast adverts from peers alone", "others are never accepted"),
    unneeded("track_src_ip", flag(), "a missing source address means FAULT", "it always does"),
    unneeded("promote_secondaries", flag(), "keep the other addresses of a subnet when one goes", "they are always kept"),
    later("garp_extra_if", Argument(_extra, "[all] N", "s", "1..86400"), "announce again on other interfaces"),
    later("vmac_garp_intvl", Argument(_extra, "[all] N", "s", "1..86400"), "old spelling of garp_extra_if"),
    later("timer_expired_backup", Argument(lambda cursor: cursor.integer(1, 254, "a priority") if cursor.more() else 0, "[N]"), "yield after a stall"),
    later("thread_timer_expired", Argument(lambda cursor: cursor.rest(), "[N]"), "old spelling of timer_expired_backup"),
)  # fmt: skip

# -- garp_group ------------------------------------------------------------------------------------------------------


def _interfaces(cursor: Cursor) -> tuple[Located[str], ...]:
    if cursor.statement.block is None:
        return (Located(cursor.word("an interface"), cursor.statement),)
    return tuple(Located(line.word(), line.statement) for line in entries(cursor))


GARP_GROUP_ROWS: Final[tuple[Keyword[Any], ...]] = (
    Keyword("garp_interval", PAUSE, "pause between gratuitous ARP messages on these interfaces"),
    Keyword("gna_interval", PAUSE, "pause between neighbour advertisements on these interfaces"),
    Keyword("interface", Argument(_interfaces, "INTERFACE"), "an interface", again=Again.JOIN),
    Keyword("interfaces", Argument(_interfaces, "{ INTERFACE … }", takes_block=True), "interfaces", sets="interface", again=Again.JOIN),
)  # fmt: skip
