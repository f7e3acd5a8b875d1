"""The commands and options of ipvsadm 1.31: their names and arguments, which go together, and the errors of those that do not."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from relevo.wire import ipvs_netlink as wire
from relevo.wire.ipvs_netlink import Method

USAGE, REFUSED, FAILED = 2, 255, 1
"""Exit statuses: of a wrong command line; of a change that the kernel refuses, or an unknown option; of a failed listing."""
MAX_INT: Final = 2**31 - 1

COMMANDS: Final = {
    "add-service": "A",
    "edit-service": "E",
    "delete-service": "D",
    "flush": "C",
    "restore": "R",
    "save": "S",
    "add-server": "a",
    "edit-server": "e",
    "delete-server": "d",
    "list": "L",
    "zero": "Z",
    "set": "",
    "start-daemon": "",
    "stop-daemon": "",
    "help": "h",
    "version": "v",
}
"""Commands by their names in messages, with their letters."""
COMMAND_WORDS: Final = {name: name for name in COMMANDS} | {"clear": "flush"}
COMMAND_LETTERS: Final = {letter: name for name, letter in COMMANDS.items() if letter} | {"l": "list"}
DAEMON_COMMANDS: Final = ("start-daemon", "stop-daemon")

NONE, REQUIRED, OPTIONAL = range(3)
OPTIONS: Final[dict[str, tuple[str, int]]] = {
    "tcp-service": ("t", REQUIRED),
    "udp-service": ("u", REQUIRED),
    "sctp-service": ("", REQUIRED),
    "fwmark-service": ("f", REQUIRED),
    "scheduler": ("s", REQUIRED),
    "persistent": ("p", OPTIONAL),
    "netmask": ("M", REQUIRED),
    "real-server": ("r", REQUIRED),
    "masquerading": ("m", NONE),
    "ipip": ("i", NONE),
    "gatewaying": ("g", NONE),
    "weight": ("w", REQUIRED),
    "u-threshold": ("x", REQUIRED),
    "l-threshold": ("y", REQUIRED),
    "numeric": ("n", NONE),
    "connection": ("c", NONE),
    "mcast-interface": ("", REQUIRED),
    "timeout": ("", NONE),
    "daemon": ("", NONE),
    "stats": ("", NONE),
    "rate": ("", NONE),
    "thresholds": ("", NONE),
    "persistent-conn": ("", NONE),
    "nosort": ("", NONE),
    "sort": ("", NONE),
    "syncid": ("", REQUIRED),
    "exact": ("X", NONE),
    "ipv6": ("6", NONE),
    "ops": ("o", NONE),
    "pe": ("", REQUIRED),
    "sched-flags": ("b", REQUIRED),
    "mcast-group": ("", REQUIRED),
    "mcast-port": ("", REQUIRED),
    "mcast-ttl": ("", REQUIRED),
    "sync-maxlen": ("", REQUIRED),
    "tun-info": ("", NONE),
    "tun-type": ("", REQUIRED),
    "tun-port": ("", REQUIRED),
    "tun-nocsum": ("", NONE),
    "tun-csum": ("", NONE),
    "tun-remcsum": ("", NONE),
}
LETTERS: Final = {letter: name for name, (letter, _) in OPTIONS.items() if letter}

NAMES: Final = (
    "numeric", "connection", "service-address", "scheduler", "persistent", "netmask", "real-server", "forwarding-method",
    "weight", "u-threshold", "l-threshold", "mcast-interface", "timeout", "daemon", "stats", "rate", "thresholds",
    "persistent-conn", "nosort", "syncid", "exact", "ops", "pe", "sched-flags", "mcast-group", "mcast-port", "mcast-ttl",
    "sync-maxlen", "tun-info", "tun-type", "tun-port", "tun-nocsum", "tun-csum", "tun-remcsum",
)  # fmt: skip
"""Options by their names in messages, in the order in which they are checked."""

_SERVICE: Final = frozenset(("scheduler", "persistent", "netmask", "ops", "pe", "sched-flags"))
TUNNEL: Final = frozenset(("tun-type", "tun-port", "tun-nocsum", "tun-csum", "tun-remcsum"))
_SERVER: Final = frozenset(("forwarding-method", "weight", "u-threshold", "l-threshold")) | TUNNEL
FORMATS: Final = ("stats", "rate", "thresholds", "persistent-conn", "tun-info")
LIST_KINDS: Final = ("service-address", "connection", "timeout", "daemon")
_DAEMON: Final = frozenset(("mcast-interface", "syncid", "mcast-group", "mcast-port", "mcast-ttl", "sync-maxlen"))
RULES: Final[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
    # command: required options, further options allowed
    "add-service": (frozenset(("service-address",)), _SERVICE),
    "edit-service": (frozenset(("service-address",)), _SERVICE),
    "delete-service": (frozenset(("service-address",)), frozenset()),
    "flush": (frozenset(), frozenset()),
    "restore": (frozenset(), frozenset()),
    "save": (frozenset(), frozenset(("numeric",))),
    "add-server": (frozenset(("service-address", "real-server")), _SERVER),
    "edit-server": (frozenset(("service-address", "real-server")), _SERVER),
    "delete-server": (frozenset(("service-address", "real-server")), frozenset()),
    "list": (frozenset(), frozenset(("numeric", "nosort", "syncid", "exact", *FORMATS, *LIST_KINDS))),
    "zero": (frozenset(), frozenset(("service-address",))),
    "set": (frozenset(), frozenset()),
    "start-daemon": (frozenset(), _DAEMON),
    "stop-daemon": (frozenset(), frozenset(("syncid",))),
}
TUNNEL_RULES: Final = {
    # type: whether it requires a port, the checksum options allowed
    "ipip": (False, frozenset[str]()),
    "gue": (True, frozenset(("tun-nocsum", "tun-csum", "tun-remcsum"))),
    "gre": (False, frozenset(("tun-nocsum", "tun-csum"))),
}
METHODS: Final = {"masquerading": Method.MASQUERADE, "ipip": Method.TUNNEL, "gatewaying": Method.ROUTE}
PROTOCOLS: Final = {"tcp-service": wire.TCP, "udp-service": wire.UDP, "sctp-service": wire.SCTP}
SCHEDULER_FLAGS: Final = {
    "sh-fallback": ("sh", 0),
    "sh-port": ("sh", 1),
    "mh-fallback": ("mh", 0),
    "mh-port": ("mh", 1),
    "flag-1": ("", 0),
    "flag-2": ("", 1),
    "flag-3": ("", 2),
}
LIMITS: Final = {
    # option: least, most, its name in messages
    "weight": (0, MAX_INT, "weight"),
    "u-threshold": (0, MAX_INT, "u_threshold"),
    "l-threshold": (0, MAX_INT, "l_threshold"),
    "syncid": (0, 255, "syncid"),
    "mcast-port": (1, 65_535, "mcast-port"),
    "mcast-ttl": (1, 255, "mcast-ttl"),
    "sync-maxlen": (1, 65_507, "sync-maxlen"),
    "tun-port": (1, 65_535, "tunnel port"),
}


class Usage(Exception):
    """A wrong command line; ``str`` is the message for standard error, ``status`` the exit status."""

    def __init__(self, message: str, status: int = USAGE) -> None:
        super().__init__(message)
        self.status = status


def check(command: str, given: Collection[str]) -> None:
    """Check options against those the command requires and allows, in the order of ``NAMES``; ``Usage`` for the first error."""
    needed, taken = RULES[command]
    last = ""
    for name in NAMES:
        if name not in given:
            if name in needed:
                raise Usage(f"You need to supply the '{name}' option for the '{command}' command")
            continue
        if name not in needed and name not in taken:
            raise Usage(f"Illegal '{name}' option with the '{command}' command")
        if command == "list" and name in LIST_KINDS:
            if last:
                raise Usage(f"The option '{name}' conflicts with the '{last}' option in the '{command}' command")
            last = name
    if command == "list":
        _check_list(given)


def _check_list(given: Collection[str]) -> None:
    special = any(name in given for name in ("connection", "timeout", "daemon"))
    formats = any(name in given for name in ("stats", "rate", "thresholds"))
    bare = any(name in given for name in ("timeout", "daemon"))
    if (special and formats) or (bare and "persistent-conn" in given):
        raise Usage("options conflicts in the list command")
