"""The options of keepalived(8), read as keepalived's getopt_long reads them."""

from __future__ import annotations

import getopt
import signal
from dataclasses import dataclass, field
from typing import Final

SHORT: Final = "vhlndu:DRS:f:p:i:es:mM:g:Gt:PCr:VXac:ITBb:xA:"
"""Short options. Those of ``OPTIONAL`` take a value only when it is part of the same word."""
OPTIONAL: Final = "Mgt"
LONG: Final = {
    "use-file": "f=", "vrrp": "P", "check": "C", "no_bfd": "B", "all": "all", "log-console": "l", "log-detail": "D",
    "log-facility": "S=", "log-file": "g?", "all-config": "e", "flush-log-file": "flush", "no-syslog": "G",
    "umask": "u=", "release-vips": "X", "dont-release-vrrp": "V", "dont-release-ipvs": "I", "dont-respawn": "R",
    "dont-fork": "n", "dump-conf": "d", "pid": "p=", "vrrp_pid": "r=", "genhash": "T", "checkers_pid": "c=",
    "address-monitoring": "a", "bfd_pid": "b=", "snmp": "x", "snmp-agent-socket": "A=", "core-dump": "m",
    "core-dump-pattern": "M?", "no-mem-check": "mem", "namespace": "s=", "config-id": "i=", "signum": "signum=",
    "config-test": "t?", "config-fd": "fd=", "perf": "perf?", "debug": "debug?", "version": "v", "help": "h",
}  # fmt: skip
"""Long option → its letter or name; ``=`` takes a value, ``?`` may."""
SIGNALS: Final = {
    "STOP": signal.SIGTERM,
    "RELOAD": signal.SIGHUP,
    "DATA": signal.SIGUSR1,
    "STATS": signal.SIGUSR2,
    "STATS_CLEAR": signal.SIGRTMAX - 1,
    "JSON": signal.SIGRTMIN + 2,
}
"""``--signum``: the signals that the daemon understands."""
UNNEEDED: Final = {
    "B": "there is no BFD process",
    "b": "there is no BFD process",
    "all": "processes run where they have something to do",
    "X": "addresses are always removed",
    "x": "there is no SNMP agent",
    "A": "there is no SNMP agent",
    "M": "the pattern of core dumps is the system's",
    "flush": "every line is written at once",
    "mem": "there is nothing to check",
    "fd": "the configuration is not passed between processes",
    "perf": "there is no profile",
    "debug": "there are no debugging options",
    "a": "changes of addresses are always logged",
}
"""Options that are accepted without effect, and why."""


class BadOption(Exception):
    """keepalived's message about an option."""


@dataclass(slots=True)
class Given:
    """The options of a command line: those without value in ``flags``, the others in ``values``; the last one counts."""

    flags: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)


def read(arguments: list[str]) -> Given:
    """Read a command line; ``BadOption`` has keepalived's message."""
    given = Given()
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            given.rest += waiting
            break
        if word.startswith("--"):
            _long(word[2:], waiting, given)
        elif word.startswith("-") and len(word) > 1:
            _short(word[1:], waiting, given)
        else:
            given.rest.append(word)
    return given


def _long(text: str, waiting: list[str], given: Given) -> None:
    name, equals, value = text.partition("=")
    try:
        _, exact = getopt.long_has_args(name, [f"{each}=" for each in LONG])  # type: ignore[attr-defined]
    except getopt.GetoptError:
        raise BadOption(f"Unknown option --{text}") from None
    kind = LONG[exact.rstrip("=")]
    letter = kind.rstrip("=?")
    if kind.endswith("="):
        if not equals and waiting:
            value = waiting.pop(0)
        if not value:
            raise BadOption(f"Missing parameter for option --{exact.rstrip('=')}")
        given.values[letter] = value
    elif kind.endswith("?"):
        given.values[letter] = value
    else:
        given.flags.add(letter)


def _short(text: str, waiting: list[str], given: Given) -> None:
    while text:
        letter, text = text[0], text[1:]
        at = SHORT.find(letter)
        if at < 0 or letter == ":":
            raise BadOption(f"Unknown option -{letter}")
        if SHORT[at + 1 : at + 2] != ":":
            given.flags.add(letter)
            continue
        if not text and letter not in OPTIONAL:
            if not waiting:
                raise BadOption(f"Missing parameter for option -{letter}")
            text = waiting.pop(0)
        given.values[letter] = text
        return
