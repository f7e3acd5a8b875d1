"""The command line of ipvsadm 1.31: words → ``Request``, or ``Usage`` with its message and exit status.

Options are read as popt reads them; errors are looked for in the order in which the original meets them, since only the first
is told. Host and service names are looked up by the functions given, so that reading stays free of I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Final, NoReturn

from relevo.wire import ipvs_netlink as wire
from relevo.wire.ipvs_netlink import Daemon, DaemonState, Destination, Identity, Method, Service, Timeouts, TunnelType

USAGE, REFUSED, FAILED = 2, 255, 1
"""Exit statuses: what was asked makes no sense, the kernel or the first word was refused, a listing found nothing."""
TRY_HELP: Final = "Try `ipvsadm -h' or 'ipvsadm --help' for more information."
DEFAULT_SCHEDULER: Final = "wlc"
DEFAULT_PERSISTENCE_S: Final = 360
"""The manual page says 300, the program does this."""
LONGEST_S: Final = 31 * 24 * 3600
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
"""Commands by the name that messages give them."""
_COMMAND_WORDS: Final = {name: name for name in COMMANDS} | {"clear": "flush"}
_COMMAND_LETTERS: Final = {letter: name for name, letter in COMMANDS.items() if letter} | {"l": "list"}
_DAEMON_COMMANDS: Final = ("start-daemon", "stop-daemon")

_NONE, _REQUIRED, _OPTIONAL = range(3)
_OPTIONS: Final[dict[str, tuple[str, int]]] = {
    "tcp-service": ("t", _REQUIRED),
    "udp-service": ("u", _REQUIRED),
    "sctp-service": ("", _REQUIRED),
    "fwmark-service": ("f", _REQUIRED),
    "scheduler": ("s", _REQUIRED),
    "persistent": ("p", _OPTIONAL),
    "netmask": ("M", _REQUIRED),
    "real-server": ("r", _REQUIRED),
    "masquerading": ("m", _NONE),
    "ipip": ("i", _NONE),
    "gatewaying": ("g", _NONE),
    "weight": ("w", _REQUIRED),
    "u-threshold": ("x", _REQUIRED),
    "l-threshold": ("y", _REQUIRED),
    "numeric": ("n", _NONE),
    "connection": ("c", _NONE),
    "mcast-interface": ("", _REQUIRED),
    "timeout": ("", _NONE),
    "daemon": ("", _NONE),
    "stats": ("", _NONE),
    "rate": ("", _NONE),
    "thresholds": ("", _NONE),
    "persistent-conn": ("", _NONE),
    "nosort": ("", _NONE),
    "sort": ("", _NONE),
    "syncid": ("", _REQUIRED),
    "exact": ("X", _NONE),
    "ipv6": ("6", _NONE),
    "ops": ("o", _NONE),
    "pe": ("", _REQUIRED),
    "sched-flags": ("b", _REQUIRED),
    "mcast-group": ("", _REQUIRED),
    "mcast-port": ("", _REQUIRED),
    "mcast-ttl": ("", _REQUIRED),
    "sync-maxlen": ("", _REQUIRED),
    "tun-info": ("", _NONE),
    "tun-type": ("", _REQUIRED),
    "tun-port": ("", _REQUIRED),
    "tun-nocsum": ("", _NONE),
    "tun-csum": ("", _NONE),
    "tun-remcsum": ("", _NONE),
}
_LETTERS: Final = {letter: name for name, (letter, _) in _OPTIONS.items() if letter}

NAMES: Final = (
    "numeric", "connection", "service-address", "scheduler", "persistent", "netmask", "real-server", "forwarding-method",
    "weight", "u-threshold", "l-threshold", "mcast-interface", "timeout", "daemon", "stats", "rate", "thresholds",
    "persistent-conn", "nosort", "syncid", "exact", "ops", "pe", "sched-flags", "mcast-group", "mcast-port", "mcast-ttl",
    "sync-maxlen", "tun-info", "tun-type", "tun-port", "tun-nocsum", "tun-csum", "tun-remcsum",
)  # fmt: skip
"""Options as messages name them, in the order in which they are looked at."""

_SERVICE: Final = frozenset(("scheduler", "persistent", "netmask", "ops", "pe", "sched-flags"))
_TUNNEL: Final = frozenset(("tun-type", "tun-port", "tun-nocsum", "tun-csum", "tun-remcsum"))
_SERVER: Final = frozenset(("forwarding-method", "weight", "u-threshold", "l-threshold")) | _TUNNEL
_FORMATS: Final = ("stats", "rate", "thresholds", "persistent-conn", "tun-info")
_LISTS_ONE: Final = ("service-address", "connection", "timeout", "daemon")
_DAEMON: Final = frozenset(("mcast-interface", "syncid", "mcast-group", "mcast-port", "mcast-ttl", "sync-maxlen"))
_RULES: Final[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
    # command: what it needs, what else it takes
    "add-service": (frozenset(("service-address",)), _SERVICE),
    "edit-service": (frozenset(("service-address",)), _SERVICE),
    "delete-service": (frozenset(("service-address",)), frozenset()),
    "flush": (frozenset(), frozenset()),
    "restore": (frozenset(), frozenset()),
    "save": (frozenset(), frozenset(("numeric",))),
    "add-server": (frozenset(("service-address", "real-server")), _SERVER),
    "edit-server": (frozenset(("service-address", "real-server")), _SERVER),
    "delete-server": (frozenset(("service-address", "real-server")), frozenset()),
    "list": (frozenset(), frozenset(("numeric", "nosort", "syncid", "exact", *_FORMATS, *_LISTS_ONE))),
    "zero": (frozenset(), frozenset(("service-address",))),
    "set": (frozenset(), frozenset()),
    "start-daemon": (frozenset(), _DAEMON),
    "stop-daemon": (frozenset(), frozenset(("syncid",))),
}
_TUNNEL_RULES: Final = {
    # type: whether it needs a port, the checksum options that it takes
    "ipip": (False, frozenset[str]()),
    "gue": (True, frozenset(("tun-nocsum", "tun-csum", "tun-remcsum"))),
    "gre": (False, frozenset(("tun-nocsum", "tun-csum"))),
}
_METHODS: Final = {"masquerading": Method.MASQUERADE, "ipip": Method.TUNNEL, "gatewaying": Method.ROUTE}
_PROTOCOLS: Final = {"tcp-service": wire.TCP, "udp-service": wire.UDP, "sctp-service": wire.SCTP}
_SCHEDULER_FLAGS: Final = {
    "sh-fallback": ("sh", 0),
    "sh-port": ("sh", 1),
    "mh-fallback": ("mh", 0),
    "mh-port": ("mh", 1),
    "flag-1": ("", 0),
    "flag-2": ("", 1),
    "flag-3": ("", 2),
}


class Usage(Exception):
    """A command line that is refused; ``str`` is what to print on standard error."""

    def __init__(self, message: str, status: int = USAGE) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Names:
    """Looks names up: a host's IPv4 address, a service's port; ``None`` when there is none."""

    host: Callable[[str], str | None] = lambda name: None
    port: Callable[[str, str], int | None] = lambda name, protocol: None


@dataclass
class Request:
    """What is asked. ``format`` is the layout of a listing, empty for the plain one."""

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
        """The layout of a listing: of several the first counts."""
        return next((name for name in _FORMATS if name in self.given), "")


def parse(words: Sequence[str], names: Names) -> Request:
    """Read a command line without the program's name; ``Usage`` when it is refused."""
    if not words:
        return Request("list")
    return _Reader(words, names).read()


class _Reader:
    """One command line on its way to a request."""

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

    def read(self) -> Request:
        command = self._command()
        if command in ("help", "version"):
            return Request(command)
        while (option := self._next_option()) is not None:
            self._take(*option)
        timeouts = self._timeouts() if command == "set" else None
        if self._left:
            raise Usage(f"unexpected argument {self._left[0]}")
        self._check(command)
        request = Request(command, set(self._given), self._identity, timeouts=timeouts)
        if command in ("add-service", "edit-service"):
            request.service = self._service()
        elif command in ("add-server", "edit-server", "delete-server"):
            request.destination = self._destination(command)
        elif command in _DAEMON_COMMANDS:
            request.daemon = self._daemon(command)
        return request

    # -- words -------------------------------------------------------------------------------------------------

    def _command(self) -> str:
        """Read the first option, which has to be a command."""
        while self._words and not (self._words[0].startswith("-") and len(self._words[0]) > 1):
            self._left.append(self._words.pop(0))
        if not self._words:
            raise Usage(TRY_HELP, REFUSED)
        word = self._words.pop(0)
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            command = _COMMAND_WORDS.get(name, "")
            if value:
                self._words.insert(0, value)
        else:
            command = _COMMAND_LETTERS.get(word[1], "")
            self._bundle = word[2:]
        if not command:
            raise Usage(TRY_HELP, REFUSED)
        if command in _DAEMON_COMMANDS:
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
        """Return the next option and its argument; what is none is kept for the end."""
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
        if letter in _COMMAND_LETTERS:
            raise Usage(f"invalid option `-{letter}'")
        name = _LETTERS.get(letter)
        if name is None:
            raise Usage(f"-{letter}{self._bundle}: unknown option", REFUSED)
        kind = _OPTIONS[name][1]
        if kind == _NONE:
            return name, ""
        attached, self._bundle = self._bundle.removeprefix("="), ""
        return name, attached or self._argument(f"-{letter}", kind)

    def _long(self, word: str) -> tuple[str, str]:
        name, equals, value = word[2:].partition("=")
        if name in _COMMAND_WORDS:
            raise Usage(f"invalid option `{word}'")
        if name not in _OPTIONS:
            raise Usage(f"{word}: unknown option", REFUSED)
        kind = _OPTIONS[name][1]
        if kind == _NONE or equals:
            return name, value
        return name, self._argument(f"--{name}", kind)

    def _argument(self, formatted: str, kind: int) -> str:
        if kind == _OPTIONAL:
            return self._words.pop(0) if self._words and not self._words[0].startswith("-") else ""
        if not self._words:
            raise Usage(f"{formatted}: missing argument", REFUSED)
        return self._words.pop(0)

    # -- options -----------------------------------------------------------------------------------------------

    def _take(self, option: str, value: str) -> None:
        """Note an option; what is wrong with it alone is told at once."""
        if option == "sort":
            return
        if option == "ipv6":
            self._ipv6()
            return
        name = "service-address" if option.endswith("-service") else option
        name = "forwarding-method" if option in _METHODS else name
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
                place = self._parse_place(value, self._identity.protocol if self._identity else wire.TCP)
                if place is None:
                    raise Usage("illegal real server address[:port] specified")
                self._place = place
            case "masquerading" | "ipip" | "gatewaying":
                self._method = _METHODS[option]
            case _:
                self._limits(option, value)

    def _take_service(self, option: str, value: str) -> None:
        if option == "fwmark-service":
            mark = _number(value, 1, 2**32 - 1)
            if mark is None:
                raise Usage(f"invalid fwmark value `{value}' specified")
            self._identity = Identity(mark)
            return
        place = self._parse_place(value, _PROTOCOLS[option])
        if place is None:
            raise Usage("illegal virtual server address[:port] specified")
        address, port = place
        self._family = wire.AF_INET6 if ":" in address else wire.AF_INET
        self._identity = Identity(0, self._family, _PROTOCOLS[option], address, port or 0)

    def _ipv6(self) -> None:
        if self._identity is None or not self._identity.mark:
            raise Usage("-6 used before -f\n")  # the original ends this line twice
        self._family = wire.AF_INET6
        self._identity = Identity(self._identity.mark, wire.AF_INET6)

    def _limits(self, option: str, value: str) -> None:
        """Check options whose argument is a number, a type or a list."""
        limits = {
            "weight": (0, MAX_INT, "weight"),
            "u-threshold": (0, MAX_INT, "u_threshold"),
            "l-threshold": (0, MAX_INT, "l_threshold"),
            "syncid": (0, 255, "syncid"),
            "mcast-port": (1, 65_535, "mcast-port"),
            "mcast-ttl": (1, 255, "mcast-ttl"),
            "sync-maxlen": (1, 65_507, "sync-maxlen"),
            "tun-port": (1, 65_535, "tunnel port"),
        }
        if option in limits:
            least, most, what = limits[option]
            if _number(value, least, most) is None:
                raise Usage(f"illegal {what} specified")
        elif option == "tun-type" and value not in _TUNNEL_RULES:
            raise Usage("illegal tunnel type specified")
        elif option == "mcast-group":
            _check_group(value)
        elif option == "sched-flags":
            self._flags = value

    def _seconds(self, value: str, least: int) -> int:
        seconds = _number(value, least, LONGEST_S)
        if seconds is None:
            raise Usage(f"invalid timeout value `{value}' specified")
        return seconds

    def _netmask(self, value: str) -> int:
        """IPv4 takes an address or even a host's name; IPv6 a prefix length."""
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

    def _parse_place(self, value: str, protocol: int) -> tuple[str, int | None] | None:
        """Return address and port, ``None`` for the port that was not said; ``None`` for what is no address."""
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

    def _check(self, command: str) -> None:
        """Hold what was given against what a command needs and takes, option by option."""
        needed, taken = _RULES[command]
        last = ""
        for name in NAMES:
            if name not in self._given:
                if name in needed:
                    raise Usage(f"You need to supply the '{name}' option for the '{command}' command")
                continue
            if name not in needed and name not in taken:
                raise Usage(f"Illegal '{name}' option with the '{command}' command")
            if command == "list" and name in _LISTS_ONE:
                if last:
                    raise Usage(f"The option '{name}' conflicts with the '{last}' option in the '{command}' command")
                last = name
        if command == "list":
            self._check_list()

    def _check_list(self) -> None:
        given = self._given
        special = any(name in given for name in ("connection", "timeout", "daemon"))
        formats = any(name in given for name in ("stats", "rate", "thresholds"))
        bare = any(name in given for name in ("timeout", "daemon"))
        if (special and formats) or (bare and "persistent-conn" in given):
            raise Usage("options conflicts in the list command")

    def _timeouts(self) -> Timeouts:
        """Take the three values of ``--set``."""
        values = [self._seconds(word, 0) for word in self._left[:3]]
        if len(values) < 3:
            raise Usage("--set option requires 3 timeout values")
        self._left = self._left[3:]
        return Timeouts(*values)

    # -- what comes of it --------------------------------------------------------------------------------------

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
            if name not in _SCHEDULER_FLAGS:
                raise Usage(f"invalid scheduler flag `{name}'")
            only, place = _SCHEDULER_FLAGS[name]
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
            port = identity.port  # these do not touch ports: another one would be a lie
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
        given = [name for name in NAMES if name in _TUNNEL and name in self._given]
        if self._method != Method.TUNNEL:
            if given:
                raise Usage("Tunnel options conflict with forward method")
            return TunnelType.IPIP, 0, 0
        kind = self._given.get("tun-type", "ipip")
        needs_port, checksums = _TUNNEL_RULES[kind]
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


def place_of(identity: Identity) -> tuple[int, int, int, int, int]:
    """Return what a service is sorted by."""
    address = int(ip_address(identity.address)) if identity.address else 0
    return (identity.mark, identity.family, identity.protocol, address, identity.port)
