"""Parsing the command line of ipvsadm 1.31 into a ``Request``, or ``Usage`` with its message and exit status.

Options are parsed as popt parses them. Errors are checked in the original's order, because only the first is printed. Host and
service names are looked up by the functions given, so that parsing does no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Final, NoReturn

from relevo.compat.ipvsadm.options import (
    COMMAND_LETTERS,
    COMMAND_WORDS,
    DAEMON_COMMANDS,
    FORMATS,
    LETTERS,
    LIMITS,
    METHODS,
    NAMES,
    NONE,
    OPTIONAL,
    OPTIONS,
    PROTOCOLS,
    REFUSED,
    SCHEDULER_FLAGS,
    TUNNEL,
    TUNNEL_RULES,
    Usage,
    check,
)
from relevo.wire import ipvs_netlink as wire
from relevo.wire.ipvs_netlink import Daemon, DaemonState, Destination, Identity, Method, Service, Timeouts, TunnelType

TRY_HELP: Final = "Try `ipvsadm -h' or 'ipvsadm --help' for more information."
DEFAULT_SCHEDULER: Final = "wlc"
DEFAULT_PERSISTENCE_S: Final = 360
"""The manual page says 300, the program uses this."""
MAX_TIMEOUT_S: Final = 31 * 24 * 3600


@dataclass(frozen=True)
class Names:
    """Functions that look up a host's IPv4 address and a service's port; they return ``None`` when there is none."""

    host: Callable[[str], str | None] = lambda name: None
    port: Callable[[str, str], int | None] = lambda name, protocol: None


@dataclass
class Request:
    """A parsed command line: the command, the options given, and the records made of them."""

    command: str
    given: set[str] = field(default_factory=set)
    identity: Identity | None = None
    service: Service | None = None
    destination: Destination | None = None
    daemon: Daemon | None = None
    timeouts: Timeouts | None = None

    def has(self, name: str) -> bool:
        """Whether an option was given."""
        return name in self.given

    @property
    def format(self) -> str:
        """The layout of a listing, empty for the plain one; of several options the first counts."""
        return next((name for name in FORMATS if name in self.given), "")


def parse(words: Sequence[str], names: Names) -> Request:
    """Parse a command line without the program's name; ``Usage`` when it is wrong."""
    if not words:
        return Request("list")
    return _Parser(words, names).parse()


class _Parser:
    """The state of parsing one command line."""

    def __init__(self, words: Sequence[str], names: Names) -> None:
        self._names = names
        self._words = list(words)
        self._bundle = ""  # letters left of a word such as -Ln
        self._left: list[str] = []
        self._given: dict[str, str] = {}
        self._family = wire.AF_INET
        self._identity: Identity | None = None
        self._scheduler = ""
        self._mask: int | None = None
        self._flags = ""
        self._method = Method.ROUTE
        self._place: tuple[str, int | None] = ("", None)
        self._daemon_state = 0

    def parse(self) -> Request:
        command = self._command()
        if command in ("help", "version"):
            return Request(command)
        while (option := self._next_option()) is not None:
            self._take(*option)
        timeouts = self._timeouts() if command == "set" else None
        if self._left:
            raise Usage(f"unexpected argument {self._left[0]}")
        check(command, self._given)
        request = Request(command, set(self._given), self._identity, timeouts=timeouts)
        if command in ("add-service", "edit-service"):
            request.service = self._service()
        elif command in ("add-server", "edit-server", "delete-server"):
            request.destination = self._destination(command)
        elif command in DAEMON_COMMANDS:
            request.daemon = self._daemon(command)
        return request

    # -- words -------------------------------------------------------------------------------------------------

    def _command(self) -> str:
        """Take the first option, which must be a command."""
        while self._words and not (self._words[0].startswith("-") and len(self._words[0]) > 1):
            self._left.append(self._words.pop(0))
        if not self._words:
            raise Usage(TRY_HELP, REFUSED)
        word = self._words.pop(0)
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            command = COMMAND_WORDS.get(name, "")
            if value:
                self._words.insert(0, value)
        else:
            command = COMMAND_LETTERS.get(word[1], "")
            self._bundle = word[2:]
        if not command:
            raise Usage(TRY_HELP, REFUSED)
        if command in DAEMON_COMMANDS:
            self._daemon_role(command)
        return command

    def _daemon_role(self, command: str) -> None:
        if not self._words:
            raise Usage(TRY_HELP, REFUSED)
        role = self._words.pop(0)
        states = {"master": DaemonState.MASTER, "backup": DaemonState.BACKUP}
        if role not in states:
            raise Usage(f"illegal {command} parameter specified")
        self._daemon_state = states[role]

    def _next_option(self) -> tuple[str, str] | None:
        """Return the next option and its argument, ``None`` at the end; other words are kept in ``_left``."""
        while not self._bundle:
            if not self._words:
                return None
            word = self._words.pop(0)
            if word.startswith("--") and len(word) > 2:
                return self._long(word)
            if word.startswith("-") and len(word) > 1:
                self._bundle = word[1:]
            else:
                self._left.append(word)
        letter, self._bundle = self._bundle[0], self._bundle[1:]
        if letter in COMMAND_LETTERS:
            raise Usage(f"invalid option `-{letter}'")
        name = LETTERS.get(letter)
        if name is None:
            raise Usage(f"-{letter}{self._bundle}: unknown option", REFUSED)
        kind = OPTIONS[name][1]
        if kind == NONE:
            return name, ""
        attached, self._bundle = self._bundle.removeprefix("="), ""
        return name, attached or self._argument(f"-{letter}", kind)

    def _long(self, word: str) -> tuple[str, str]:
        name, equals, value = word[2:].partition("=")
        if name in COMMAND_WORDS:
            raise Usage(f"invalid option `{word}'")
        if name not in OPTIONS:
            raise Usage(f"{word}: unknown option", REFUSED)
        kind = OPTIONS[name][1]
        if kind == NONE or equals:
            return name, value
        return name, self._argument(f"--{name}", kind)

    def _argument(self, formatted: str, kind: int) -> str:
        if kind == OPTIONAL:
            return self._words.pop(0) if self._words and not self._words[0].startswith("-") else ""
        if not self._words:
            raise Usage(f"{formatted}: missing argument", REFUSED)
        return self._words.pop(0)

    # -- options -----------------------------------------------------------------------------------------------

    def _take(self, option: str, value: str) -> None:
        """Record an option; ``Usage`` for an error in this option alone."""
        if option == "sort":
            return
        if option == "ipv6":
            self._ipv6()
            return
        name = "service-address" if option.endswith("-service") else option
        name = "forwarding-method" if option in METHODS else name
        if name in self._given:
            raise Usage(f"multiple '{name}' options specified")
        self._given[name] = value
        if name == "service-address":
            self._take_service(option, value)
            return
        match option:
            case "scheduler":
                self._scheduler = value
            case "persistent":
                self._seconds(value or str(DEFAULT_PERSISTENCE_S), 1)
            case "netmask":
                self._mask = self._netmask(value)
            case "real-server":
                place = self._parse_endpoint(value, self._identity.protocol if self._identity else wire.TCP)
                if place is None:
                    raise Usage("illegal real server address[:port] specified")
                self._place = place
            case "masquerading" | "ipip" | "gatewaying":
                self._method = METHODS[option]
            case _:
                self._limits(option, value)

    def _take_service(self, option: str, value: str) -> None:
        if option == "fwmark-service":
            mark = _number(value, 1, 2**32 - 1)
            if mark is None:
                raise Usage(f"invalid fwmark value `{value}' specified")
            self._identity = Identity(mark)
            return
        place = self._parse_endpoint(value, PROTOCOLS[option])
        if place is None:
            raise Usage("illegal virtual server address[:port] specified")
        address, port = place
        self._family = wire.AF_INET6 if ":" in address else wire.AF_INET
        self._identity = Identity(0, self._family, PROTOCOLS[option], address, port or 0)

    def _ipv6(self) -> None:
        if self._identity is None or not self._identity.mark:
            raise Usage("-6 used before -f\n")  # the original prints two line feeds
        self._family = wire.AF_INET6
        self._identity = Identity(self._identity.mark, wire.AF_INET6)

    def _limits(self, option: str, value: str) -> None:
        """Check options whose argument is a number, a type or a list."""
        if option in LIMITS:
            least, most, what = LIMITS[option]
            if _number(value, least, most) is None:
                raise Usage(f"illegal {what} specified")
        elif option == "tun-type" and value not in TUNNEL_RULES:
            raise Usage("illegal tunnel type specified")
        elif option == "mcast-group":
            _check_group(value)
        elif option == "sched-flags":
            self._flags = value

    def _seconds(self, value: str, least: int) -> int:
        seconds = _number(value, least, MAX_TIMEOUT_S)
        if seconds is None:
            raise Usage(f"invalid timeout value `{value}' specified")
        return seconds

    def _netmask(self, value: str) -> int:
        """Return the mask: of IPv4 given as an address or a host's name, of IPv6 as a prefix length."""
        if self._family == wire.AF_INET6:
            length = _number(value, 1, 128)
            if length is None:
                raise Usage("illegal ipv6 netmask specified")
            return length
        mask = self._names.host(value)
        if mask is None:
            raise Usage("illegal virtual server persistent mask specified")
        return int(IPv4Address(mask))

    # -- addresses ---------------------------------------------------------------------------------------------

    def _parse_endpoint(self, value: str, protocol: int) -> tuple[str, int | None] | None:
        """Return address and port, with port ``None`` where none is given; ``None`` for what is no address."""
        if value.isdigit():
            return None
        six = _ipv6(value)
        if six is not None:
            return six, None
        if value.startswith("["):
            inside, bracket, port = value[1:].partition("]:")
            six = _ipv6(inside)
            number = self._port(port, protocol)
            return (six, number) if bracket and six is not None and number is not None else None
        host, colon, port = value.partition(":")
        address = self._names.host(host)
        if address is None:
            return None
        if not colon:
            return address, None
        number = self._port(port, protocol)
        return None if number is None else (address, number)

    def _port(self, text: str, protocol: int) -> int | None:
        number = _number(text, 0, 65_535)
        if number is not None or text.isdigit():
            return number
        return self._names.port(text, "udp" if protocol == wire.UDP else "tcp")

    # -- rules -------------------------------------------------------------------------------------------------

    def _timeouts(self) -> Timeouts:
        """Return the three values of ``--set``."""
        values = [self._seconds(word, 0) for word in self._left[:3]]
        if len(values) < 3:
            raise Usage("--set option requires 3 timeout values")
        self._left = self._left[3:]
        return Timeouts(*values)

    # -- records -----------------------------------------------------------------------------------------------

    def _service(self) -> Service:
        assert self._identity is not None
        identity = self._identity
        scheduler = self._scheduler or DEFAULT_SCHEDULER
        flags = self._scheduler_flags(scheduler)
        if "persistent" in self._given:
            flags |= wire.PERSISTENT
        if not (identity.mark or identity.port or "persistent" in self._given):
            raise Usage("Zero port specified for non-persistent service")
        if "ops" in self._given:
            if not identity.mark and identity.protocol != wire.UDP:
                raise Usage("One-Packet Scheduling is only for UDP virtual services")
            flags |= wire.ONE_PACKET
        whole = 128 if identity.family == wire.AF_INET6 else 0xFFFFFFFF
        return Service(
            identity=identity,
            scheduler=scheduler[:15],
            flags=flags,
            timeout_s=int(self._given.get("persistent") or DEFAULT_PERSISTENCE_S) if "persistent" in self._given else 0,
            netmask=whole if self._mask is None else self._mask,
            engine=self._given.get("pe", "")[:16],
        )

    def _scheduler_flags(self, scheduler: str) -> int:
        found = 0
        for name in filter(None, self._flags.split(",")):
            if name not in SCHEDULER_FLAGS:
                raise Usage(f"invalid scheduler flag `{name}'")
            only, place = SCHEDULER_FLAGS[name]
            if only and only != scheduler:
                raise Usage(f"incompatible scheduler flag `{name}'")
            found |= wire.SCHEDULER_FLAGS[place]
        return found

    def _destination(self, command: str) -> Destination:
        assert self._identity is not None
        identity, method = self._identity, self._method
        address, port = self._place
        changes = command != "delete-server"
        tunnel = self._tunnel() if changes else (TunnelType.IPIP, 0, 0)
        mixed = (":" in address) != (identity.family == wire.AF_INET6)
        if mixed and changes and method != Method.TUNNEL:
            raise Usage("Different address family is allowed only for tunneling servers")
        if port is None or (changes and not identity.mark and method in (Method.ROUTE, Method.TUNNEL)):
            port = identity.port  # these methods do not change ports
        return Destination(
            address=address,
            port=port,
            method=method,
            weight=self._value("weight", 1),
            upper_threshold=self._value("u-threshold", 0),
            lower_threshold=self._value("l-threshold", 0),
            tunnel_type=tunnel[0],
            tunnel_port=tunnel[1],
            tunnel_flags=tunnel[2],
        )

    def _tunnel(self) -> tuple[int, int, int]:
        """Return type, port and flags of the tunnel."""
        given = [name for name in NAMES if name in TUNNEL and name in self._given]
        if self._method != Method.TUNNEL:
            if given:
                raise Usage("Tunnel options conflict with forward method")
            return TunnelType.IPIP, 0, 0
        kind = self._given.get("tun-type", "ipip")
        needs_port, checksums = TUNNEL_RULES[kind]
        last = ""
        for name in ("tun-port", "tun-nocsum", "tun-csum", "tun-remcsum"):
            if name not in given:
                if name == "tun-port" and needs_port:
                    raise Usage(f"You need to supply the '{name}' option for the '{kind}' tunnel type")
                continue
            if name not in checksums and not (name == "tun-port" and needs_port):
                raise Usage(f"Illegal '{name}' option with the '{kind}' tunnel type")
            if name != "tun-port":
                if last:
                    raise Usage(f"The option '{name}' conflicts with the '{last}' option in the '{kind}' tunnel type")
                last = name
        flags = {"tun-csum": wire.TUNNEL_CHECKSUM, "tun-remcsum": wire.TUNNEL_REMOTE_CHECKSUM}.get(last, 0)
        return TunnelType[kind.upper()], self._value("tun-port", 0), flags

    def _daemon(self, command: str) -> Daemon:
        interface = "eth0" if command == "start-daemon" else ""
        return Daemon(
            state=self._daemon_state,
            interface=self._given.get("mcast-interface", interface)[:15],
            sync_id=self._value("syncid", 0),
            max_length=self._value("sync-maxlen", 0),
            group=self._given.get("mcast-group", ""),
            port=self._value("mcast-port", 0),
            ttl=self._value("mcast-ttl", 0),
        )

    def _value(self, name: str, default: int) -> int:
        return int(self._given.get(name, default))


def _check_group(value: str) -> None:
    try:
        group = ip_address(value)
    except ValueError:
        _no_group(value, 6 if ":" in value else 4)
    if not group.is_multicast:
        _no_group(value, group.version)


def _no_group(value: str, version: int) -> NoReturn:
    raise Usage(f"invalid IPv{version} mcast-group `{value}'")


def _number(text: str, least: int, most: int) -> int | None:
    """Return a number between two others; ``None`` for everything else."""
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        return None
    return int(text) if least <= int(text) <= most else None


def _ipv6(text: str) -> str | None:
    try:
        return str(IPv6Address(text)) if ":" in text and "%" not in text else None
    except AddressValueError:
        return None
