"""``vrrp_script``, ``track_file`` and ``vrrp_track_process``, and the ``track_…`` lists that refer to them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from relevo.config.blocks.arguments import (
    Argument,
    Located,
    entries,
    flag,
    integer,
    listing,
    script,
    seconds,
    text,
)
from relevo.config.blocks.registry import OURS, Again, Block, Fields, Keyword
from relevo.config.cursor import Cursor, Rejected
from relevo.config.diagnostics import Severity
from relevo.model import ParameterMatch, TrackerKind, TrackFile, TrackProcess, VrrpScript
from relevo.model.trackers import MAX_QUORUM

MAX_WEIGHT: Final = 253
"""Largest weight of a script or an interface either way; keepalived clips 254 to it."""
MAX_NUMBER_WEIGHT: Final = 254
"""The same of files and processes."""
LONGEST_INTERVAL_S: Final = 4294.0
"""Longest interval of a script: 32 bits of microseconds."""
SHORTEST_INTERVAL_S: Final = 0.001


class Reference(msgspec.Struct, frozen=True):
    """A line of a ``track_…`` list; what it does not say is ``None``, and comes from the declaration of the source."""

    name: str
    weight: int | None = None
    reverse: bool | None = None


class Weight(msgspec.Struct, frozen=True):
    """``weight N [reverse]`` of a declaration."""

    value: int
    reverse: bool = False


def read_reference(line: Cursor, what: str, largest: int) -> Reference:
    """Read ``NAME [weight N] [reverse|noreverse]``; keepalived leaves a line out that has another option."""
    name, weight, reverse = line.word(what), None, None
    while line.more():
        option = line.choice(("weight", "reverse", "noreverse"), f"an option of {what}: left out")
        if option == "weight":
            line.value_of("weight", "a number")
            line.position -= 1
            weight = _number(line, largest)
            continue
        reverse = option == "reverse"
        if weight is None and reverse:
            message = "'reverse' without a weight before it: keepalived leaves the line out"
            line.warn(message, f"write {name} weight N reverse")
    return Reference(name, weight, reverse)


def _number(line: Cursor, largest: int) -> int | None:
    try:
        weight = line.integer(-254, 254, "a weight", words=True)
    except Rejected:
        line.warn("the weight is left out, as in keepalived", f"write -{largest}..{largest}")
        return None
    if abs(weight) > largest:
        weight = max(-largest, min(largest, weight))
        line.warn(f"a weight is at most {largest} either way: {weight} is used", f"write weight {weight}")
    return weight


def references(what: str, largest: int = MAX_WEIGHT) -> Argument[tuple[Located[Reference], ...]]:
    """A list of sources that are tracked, one a line."""

    def read(cursor: Cursor) -> tuple[Located[Reference], ...]:
        found = []
        for line in entries(cursor):
            try:
                found.append(Located(read_reference(line, what, largest), line.statement))
            except Rejected:
                continue
        return tuple(found)

    name = what.removeprefix("an ").removeprefix("a ").upper()
    return listing(read, f"{{ {name} [weight N [reverse]] … }}")


def _weight(low: int, high: int) -> Argument[Weight]:
    def read(cursor: Cursor) -> Weight:
        value = cursor.integer(low, high, "a weight", words=True)
        reverse = cursor.more() and cursor.choice(("reverse",), "an option of a weight") == "reverse"
        return Weight(value, reverse)

    return Argument(read, "N [reverse]", "", f"{low}..{high}")


def _name(cursor: Cursor, fields: Fields) -> None:
    fields["name"] = cursor.word("a name")
    cursor.rest()
    fields.origin["name"] = cursor.statement


# -- vrrp_script -----------------------------------------------------------------------------------------------------


def _interval(what: str) -> Argument[float]:
    """A time that keepalived before 2.3 reads as whole seconds; 0 means 1."""

    def read(cursor: Cursor) -> float:
        value = cursor.seconds(0, LONGEST_INTERVAL_S, what)
        if value == 0:
            cursor.warn(f"{what} of 0: 1 s is used, as in keepalived", f"write {cursor.statement.keyword} 1")
            return 1.0
        if not value.is_integer():
            cursor.report(Severity.NOTE, f"keepalived before 2.3 takes {value:g} for {int(value) or 1} s")
        return max(SHORTEST_INTERVAL_S, value)

    return Argument(read, "N", "s", f"0..{LONGEST_INTERVAL_S:g}")


def _count() -> Argument[int]:
    return integer(1, 2**31 - 1, "a count of results")


def _user(cursor: Cursor) -> tuple[str, str]:
    return cursor.word("a user"), cursor.word().removeprefix(":") if cursor.more() else ""


SCRIPT: Final = Keyword("script", script(identity=False), "the command; in quotes if it has arguments")
TIMEOUT: Final = Keyword(
    "timeout", _interval("a time limit"), "time limit of a run", target="timeout_s", default_text="that of `interval`"
)
SCRIPT_WEIGHT: Final = Keyword(
    "weight", _weight(-MAX_WEIGHT, MAX_WEIGHT), "added to the priority; 0: failing means FAULT", default_text="0"
)
USER: Final = Keyword(
    "user",
    Argument(_user, "USER [GROUP]"),
    "user and group of the command",
    default_text="that of `script_user`",
)

VRRP_SCRIPT: Final = Block(
    "vrrp_script",
    (
        SCRIPT,
        Keyword("interval", _interval("an interval"), "seconds between the starts of two runs", target="interval_s", default=1.0),
        TIMEOUT,
        SCRIPT_WEIGHT,
        Keyword("rise", _count(), "successes in a row that end a failure", default=1, otherwise=1),
        Keyword("fall", _count(), "failures in a row that count", default=1, otherwise=1),
        USER,
        Keyword("init_fail", flag(), "failed until the first success"),
    ),
    (VrrpScript,),
    header=_name,
    syntax="NAME",
)  # fmt: skip


# -- track_file ------------------------------------------------------------------------------------------------------


class InitFile(msgspec.Struct, frozen=True):
    """``init_file [N] [overwrite]``."""

    value: int = 0
    overwrite: bool = False


def _init_file(cursor: Cursor) -> InitFile:
    value, overwrite = 0, False
    while cursor.more():
        if cursor.peek() == "overwrite":
            cursor.word()
            overwrite = True
            continue
        value = cursor.integer(-(2**31), 2**31 - 1, "a number or 'overwrite'", lenient=False)
        if abs(value) > MAX_NUMBER_WEIGHT:
            cursor.warn(f"{value} is outside of the sensible range", f"a priority changes by at most {MAX_NUMBER_WEIGHT}")
    return InitFile(value, overwrite)


FILE_WEIGHT: Final = Keyword(
    "weight", _weight(-MAX_NUMBER_WEIGHT, MAX_NUMBER_WEIGHT), "what the number is multiplied by; 0: any number but 0 means FAULT",
    default_text="1", again=Again.FIRST,
)  # fmt: skip
INIT_FILE: Final = Keyword(
    "init_file", Argument(_init_file, "[N] [overwrite]"), "number to write at a start if the file is missing, or always"
)
FILE: Final = Keyword("file", text("a file"), "the file with the number", target="path", again=Again.FIRST)


TRACK_FILE: Final = Block("track_file", (FILE, FILE_WEIGHT, INIT_FILE), (TrackFile,), header=_name, syntax="NAME")

# -- vrrp_track_process ----------------------------------------------------------------------------------------------


class Command(msgspec.Struct, frozen=True):
    """``process NAME [PARAMETER …]``."""

    name: str
    parameters: tuple[str, ...] = ()


def _command(cursor: Cursor) -> Command:
    name = cursor.word("the name of a process")
    return Command(name, tuple(map(str, cursor.rest())))


def _match(cursor: Cursor) -> ParameterMatch:
    if not cursor.more():
        return ParameterMatch.EXACT
    return ParameterMatch(cursor.choice(("initial", "partial"), "a kind of comparison"))


def _delay() -> Argument[float]:
    return seconds(0.000001, 3600, "a delay")


COMMAND: Final = Keyword(
    "process", Argument(_command, "NAME [PARAMETER …]"), "name of the processes, and parameters", again=Again.FIRST
)
MATCH: Final = Keyword(
    "param_match",
    Argument(_match, "[initial|partial]"),
    "how parameters are compared",
    default_text="all equal, if any are named",
)
PROCESS_WEIGHT: Final = Keyword(
    "weight", _weight(-MAX_NUMBER_WEIGHT, MAX_NUMBER_WEIGHT), "added to the priority; 0: no quorum means FAULT", default_text="0",
    again=Again.FIRST,
)  # fmt: skip
QUORUM: Final = Keyword("quorum", integer(1, MAX_QUORUM, "a count of processes"), "processes that are needed", default_text="1")
QUORUM_MAX: Final = Keyword(
    "quorum_max",
    integer(0, MAX_QUORUM, "a count of processes"),
    "processes that are allowed; 0: none may run",
    default_text="no limit",
)
DELAY: Final = Keyword("delay", _delay(), "both delays")
FORK_DELAY: Final = Keyword("fork_delay", _delay(), "wait after a process began", target="fork_delay_s", default_text="0")
TERMINATE_DELAY: Final = Keyword(
    "terminate_delay", _delay(), "wait after a process ended", target="terminate_delay_s", default_text="0"
)
FULL_COMMAND: Final = Keyword("full_command", flag(), "compare with the first word of the command line, not with the short name")

TRACK_PROCESS: Final = Block(
    "vrrp_track_process",
    (COMMAND, MATCH, PROCESS_WEIGHT, QUORUM, QUORUM_MAX, DELAY, FORK_DELAY, TERMINATE_DELAY, FULL_COMMAND),
    (TrackProcess,),
    header=_name,
    syntax="NAME",
)

# -- lists -----------------------------------------------------------------------------------------------------------


class ServiceReference(msgspec.Struct, frozen=True):
    """The words that name a virtual server, as after ``virtual_server``, and what its line says."""

    words: tuple[str, ...]
    reference: Reference


def _services(cursor: Cursor) -> tuple[Located[ServiceReference], ...]:
    found = []
    for line in entries(cursor):
        words: list[str] = []
        while line.more() and line.peek() not in ("weight", "reverse", "noreverse"):
            words.append(line.word())
        try:
            if not words:
                raise line.reject("a virtual server is missing", "write ADDRESS PORT, fwmark N or group NAME", word=1)
            line.position -= 1
            found.append(
                Located(ServiceReference(tuple(words), read_reference(line, "a virtual server", MAX_WEIGHT)), line.statement)
            )
        except Rejected:
            continue
    return tuple(found)


_JOIN = Again.JOIN
TRACK_INTERFACE: Final = Keyword(
    "track_interface", references("an interface"), "interfaces whose loss means FAULT or a lower priority", again=_JOIN
)
TRACK_SCRIPT: Final = Keyword(
    "track_script", references("a vrrp_script"), "scripts whose failure means FAULT or a lower priority", again=_JOIN
)
TRACK_FILES: Final = Keyword(
    "track_file", references("a track_file", MAX_NUMBER_WEIGHT), "files whose number changes the priority", again=_JOIN
)
TRACK_PROCESSES: Final = Keyword(
    "track_process",
    references("a vrrp_track_process", MAX_NUMBER_WEIGHT),
    "processes whose end means FAULT or a lower priority",
    again=_JOIN,
)
TRACK_SERVICES: Final = Keyword(
    "track_virtual_server",
    listing(_services, "{ ADDRESS PORT|fwmark N|group NAME [weight N [reverse]] … }"),
    "virtual servers whose loss of quorum means FAULT or a lower priority",
    again=_JOIN,
    since=OURS,
)

TRACKS: Final[dict[TrackerKind, Keyword[Any]]] = {
    TrackerKind.INTERFACE: TRACK_INTERFACE,
    TrackerKind.SCRIPT: TRACK_SCRIPT,
    TrackerKind.FILE: TRACK_FILES,
    TrackerKind.PROCESS: TRACK_PROCESSES,
    TrackerKind.SERVICE: TRACK_SERVICES,
}
"""Kind of source → the keyword of its list, in instances and sync groups."""
