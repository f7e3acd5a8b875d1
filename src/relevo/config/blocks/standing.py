"""Rows of keywords that are read and checked, and have no effect: not needed here, or not yet."""

from __future__ import annotations

from typing import Any, Final

from relevo.config.blocks.arguments import Argument, boolean, entries, flag, integer, seconds, text
from relevo.config.blocks.registry import Block, Fields, Keyword, Standing
from relevo.config.cursor import Cursor


def _rest(cursor: Cursor) -> tuple[str, ...]:
    return tuple(map(str, cursor.rest()))


def _some(cursor: Cursor) -> tuple[str, ...]:
    return (cursor.word("a value"), *map(str, cursor.rest()))


def _lines(cursor: Cursor) -> tuple[str, ...]:
    return tuple(" ".join(map(str, line.rest())) for line in entries(cursor))


WORDS: Final = Argument(_rest, "[WORD …]")
"""Any words, or none."""
SOME: Final = Argument(_some, "WORD …")
"""At least one word."""
LINES: Final = Argument(_lines, "{ … }", takes_block=True)
"""A block of lines."""
BUFFER: Final = integer(1, 2**31 - 1, "a size", "bytes")


def unneeded(name: str, argument: Argument[Any], help_text: str, why: str) -> Keyword[Any]:
    """Return the row of a keyword that nothing needs here, for the reason ``why``."""
    return Keyword(name, argument, help_text, standing=Standing.NO_EFFECT, why=why)


def later(name: str, argument: Argument[Any], help_text: str, why: str = "") -> Keyword[Any]:
    """Return the row of a keyword whose effect is missing; ``why`` says what happens instead."""
    return Keyword(name, argument, help_text, standing=Standing.LATER, why=why)


# -- global_defs -----------------------------------------------------------------------------------------------------

_SNMP: Final = "there is no SNMP agent; relevo status -j has every state and counter"
_DBUS: Final = "there is no D-Bus interface; use relevo status -j and notify scripts"
_BUFFERS: Final = "what the kernel could not report is read again"
_FIREWALL: Final = "no_accept uses nftables"
_BFD: Final = "BFD is not supported yet"
_ROUTES: Final = "routes and rules are not supported yet"

SNMP: Final = (
    *(
        unneeded(name, flag(), "part of the SNMP MIB", _SNMP)
        for name in (
            "enable_snmp_vrrp", "enable_snmp_keepalived", "enable_snmp_checker", "enable_snmp_rfc", "enable_snmp_rfcv2",
            "enable_snmp_rfcv3", "enable_traps",
        )
    ),
    unneeded("snmp_socket", text("an address"), "address of the SNMP master agent", _SNMP),
    unneeded("snmp_vs_stats_update_interval", seconds(0, 30, "an interval"), "how long SNMP counters are kept", _SNMP),
    unneeded("snmp_rs_stats_update_interval", seconds(0, 30, "an interval"), "how long SNMP counters are kept", _SNMP),
)  # fmt: skip
DBUS: Final = (
    unneeded("enable_dbus", flag(), "D-Bus interface", _DBUS),
    unneeded("dbus_service_name", text("a name"), "name of the D-Bus service", _DBUS),
    unneeded("dbus_no_interface_name", text("a name"), "D-Bus name of an instance without interface", _DBUS),
)
BUFFERS: Final = tuple(
    unneeded(f"{name}{force}", boolean() if force else BUFFER, "buffer of a socket for kernel events", _BUFFERS)
    for name in (
        "vrrp_netlink_cmd_rcv_bufs", "vrrp_netlink_monitor_rcv_bufs", "lvs_netlink_cmd_rcv_bufs", "lvs_netlink_monitor_rcv_bufs",
        "process_monitor_rcv_bufs",
    )
    for force in ("", "_force")
)  # fmt: skip
FIREWALL: Final = (
    unneeded("vrrp_iptables", WORDS, "chains of iptables", _FIREWALL),
    unneeded("vrrp_ipsets", WORDS, "names of ipsets", _FIREWALL),
    unneeded("nftables_ifindex", flag(), "match interfaces by index", _FIREWALL),
    unneeded("nftables_ipvs", WORDS, "a firewall mark for each group of virtual servers", "each address is a service of its own"),
    unneeded("nftables_ipvs_priority", integer(-(2**31), 2**31 - 1, "a priority"), "priority of those chains", "there are none"),
    unneeded("nftables_ipvs_start_fwmark", integer(1, 2**32 - 1, "a mark"), "first of those marks", "there are none"),
)
BFD_PROCESS: Final = (
    later("bfd_cpu_affinity", SOME, "processors of the BFD process", _BFD),
    later("bfd_no_swap", flag(), "lock the memory of the BFD process", _BFD),
    later("bfd_priority", integer(-20, 19, "a nice value"), "nice value of the BFD process", _BFD),
    later("bfd_process_name", text("a name"), "name of the BFD process", _BFD),
    later("bfd_rlimit_rttime", integer(1, 2**32 - 1, "a time"), "CPU time limit of the BFD process", _BFD),
    later("bfd_rlimit_rtime", integer(1, 2**32 - 1, "a time"), "old spelling of bfd_rlimit_rttime", _BFD),
    later("bfd_rt_priority", integer(1, 99, "a real-time priority"), "real-time priority of the BFD process", _BFD),
)
GLOBALS: Final[tuple[Keyword[Any], ...]] = (
    *SNMP,
    *DBUS,
    *BUFFERS,
    *FIREWALL,
    *BFD_PROCESS,
    unneeded("config_save_dir", text("a folder"), "where to keep configurations of reloads", "the log names every finding of a reload"),
    unneeded("tmp_config_directory", text("a folder"), "where the shared copy of the configuration is", "it is kept in memory"),
    unneeded("use_symlink_paths", boolean(), "run scripts by the path as written", "scripts always run by that path"),
    unneeded("vrrp_rx_bufs_policy", SOME, "receive buffers of VRRP sockets", "the director reads each socket at once"),
    unneeded("vrrp_rx_bufs_multiplier", integer(1, 2**31 - 1, "a factor"), "receive buffers of VRRP sockets", "the director reads each socket at once"),
    unneeded("data_use_instance", boolean(), "instance in the names of dump files", "dumps are in the run directory of their daemon"),
    unneeded("json_version", integer(1, 2, "a version"), "shape of the JSON dump", "the dump is what relevo status -j prints"),
    unneeded("reload_check_config", WORDS, "check the file before a reload", "a bad file is always refused, and nothing changes"),
    later("default_interface", text("an interface"), "interface of static addresses without dev", "static addresses are not supported yet"),
    later("iproute_etc_dir", text("a folder"), "where names of routing tables are", _ROUTES),
    later("iproute_usr_dir", text("a folder"), "where names of routing tables are", _ROUTES),
    later("vmac_prefix", text("a prefix"), "names of VMAC interfaces", "VMACs are not supported yet"),
    later("vmac_addr_prefix", text("a prefix"), "names of VMAC interfaces of addresses", "VMACs are not supported yet"),
    later("include_check", WORDS, "include problems are errors", "use the keywords includer, includem, includew, includeb and includea"),
)  # fmt: skip

# -- outside any block -----------------------------------------------------------------------------------------------


def _header(cursor: Cursor, fields: Fields) -> None:
    fields["name"] = cursor.word("a name")


_MILLISECONDS: Final = seconds(0.01, 4_294_967, "milliseconds")
_BFD_INSTANCE: Final = Block(
    "bfd_instance",
    (
        Keyword("neighbor_ip", text("an address"), "the other end"),
        Keyword("neighbour_ip", text("an address"), "the same as neighbor_ip"),
        Keyword("source_ip", text("an address"), "this end"),
        Keyword("min_rx", _MILLISECONDS, "shortest interval of receiving"),
        Keyword("min_tx", _MILLISECONDS, "shortest interval of sending"),
        Keyword("idle_tx", _MILLISECONDS, "interval while the session is down"),
        Keyword("multiplier", integer(1, 255, "a factor"), "missed packets that end the session"),
        Keyword("passive", flag(), "wait for the other end"),
        Keyword("ttl", integer(1, 255, "a time to live"), "time to live of packets"),
        Keyword("hoplimit", integer(1, 255, "a hop limit"), "the same over IPv6"),
        Keyword("max_hops", integer(-1, 255, "a count"), "hops that packets may have made"),
        Keyword("multihop", boolean(), "use the port of RFC 5883"),
        Keyword("weight", SOME, "change of the priority"),
        Keyword("vrrp", flag(), "tell VRRP alone"),
        Keyword("checker", flag(), "tell checks alone"),
    ),
    header=_header,
    syntax="NAME",
)
_TRACK_GROUP: Final = Block(
    "track_group", (Keyword("group", LINES, "instances that follow the addresses"),), header=_header, syntax="NAME"
)
_SSL: Final = Block(
    "SSL",
    tuple(
        Keyword(name, text("a file or word"), help_text)
        for name, help_text in (
            ("password", "password of the key"), ("ca", "certificate authority"),
            ("certificate", "client certificate of SSL_GET"), ("key", "its key"),
        )
    ),
)  # fmt: skip

_LINKBEAT: Final = "the kernel reports carriers by itself"
ROOT_ROWS: Final[tuple[Keyword[Any], ...]] = (
    unneeded("linkbeat_use_polling", flag(), "poll the state of links", _LINKBEAT),
    unneeded("linkbeat_interfaces", LINES, "links whose state is polled", _LINKBEAT),
    unneeded("namespace_with_ipsets", flag(), "ipsets in a network namespace", _FIREWALL),
    later("static_ipaddress", LINES, "addresses that stay on this node", "set them with the system's network configuration"),
    later("static_routes", LINES, "routes that stay on this node", "set them with the system's network configuration"),
    later("static_rules", LINES, "rules that stay on this node", "set them with the system's network configuration"),
    later("track_group", _TRACK_GROUP.argument, "instances that follow static addresses"),
    later("bfd_instance", _BFD_INSTANCE.argument, "a BFD session", _BFD),
    later("SSL", _SSL.argument, "client certificate of SSL_GET", "checks send no client certificate"),
    later("interface_up_down_delays", LINES, "delays before a change of a link counts"),
    later("net_namespace_ipvs", WORDS, "network namespace of IPVS"),
)  # fmt: skip


# -- vrrp_instance and vrrp_sync_group -------------------------------------------------------------------------------

_VMAC: Final = "addresses have the interface's own hardware address"
TRACK_BFD: Final = later(
    "track_bfd", LINES, "BFD sessions whose loss means FAULT or a lower priority", "BFD is not supported yet"
)
AUTH_HMAC: Final = Block(
    "auth_hmac",
    (
        Keyword("key", SOME, "a key and its number"),
        Keyword("active_key", integer(1, 255, "a number"), "key of the adverts sent"),
        Keyword("anti_replay", SOME, "protection against replays"),
        Keyword("time_window", integer(1, 300, "seconds"), "difference of clocks that is tolerated"),
        Keyword("mode", SOME, "what happens to adverts without it"),
    ),
)
INSTANCE_ROWS: Final[tuple[Keyword[Any], ...]] = (
    unneeded("debug", WORDS, "never had an effect in keepalived either", "it never had one in keepalived either"),
    unneeded("kernel_rx_buf_size", BUFFER, "receive buffer", "the director reads each socket at once"),
    unneeded("linkbeat_use_polling", flag(), "poll the state of the link", _LINKBEAT),
    later("use_vmac", WORDS, "a virtual hardware address", _VMAC),
    later("use_vmac_addr", flag(), "the same for addresses on other interfaces", _VMAC),
    later("vmac_xmit_base", flag(), "adverts by the base interface", "they always go there"),
    later("use_ipvlan", WORDS, "an ipvlan interface", _VMAC),
    later("vrf", text("a VRF"), "VRF of an instance without interface"),
    later("virtual_routes", LINES, "routes that follow the master", _ROUTES),
    later("virtual_rules", LINES, "rules that follow the master", _ROUTES),
    later("auth_hmac", AUTH_HMAC.argument, "adverts with HMAC-SHA256", "adverts have none"),
    later("old_unicast_checksum", WORDS, "checksum of keepalived before 1.3.7"),
    TRACK_BFD,
)

# -- virtual_server and real_server ----------------------------------------------------------------------------------

SERVICE_ROWS: Final[tuple[Keyword[Any], ...]] = (
    unneeded("hashed", flag(), "not documented", "it has none in keepalived either"),
    unneeded("snmp_name", text("a name"), "name in the SNMP MIB", _SNMP),
    later("persistence_engine", text("a name"), "persistence by SIP call", "a client's address decides"),
)
