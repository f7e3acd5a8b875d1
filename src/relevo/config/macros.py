"""Lines that select, define and repeat: ``@id``, ``$NAME=``, ``${NAME}``, ``~SEQ`` and ``~LST`` (keepalived.conf(5)).

One written line becomes none, one or many. A definition is replaced where it is used, again and again until nothing is left to
replace; a name that is not defined stays as it is. A definition may have several lines: at the end of a line it stands for the
first of them, and the others follow. Everything that could go on for ever has a limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Final

import msgspec

from relevo.config.diagnostics import Findings, Severity
from relevo.config.place import How, Place, Step
from relevo.config.secrets import is_secret, masked_line, secret_start
from relevo.config.source import MAX_LINE_LENGTH, Line, located_words, without_comment, words
from relevo.strtol import strtol

MAX_REPLACED: Final = 1000
"""Definitions replaced in one line: more are a definition that contains itself."""
MAX_SCANNED: Final = 16 * MAX_LINE_LENGTH
"""Characters read again while the definitions of one line are replaced: a quarter of a million takes 20 ms."""
MAX_DEPTH: Final = 64
"""Repetitions and lines of definitions within one another."""
MAX_LINES: Final = 1_000_000
"""Lines that definitions and repetitions make of a configuration."""
MAX_DIGITS: Final = 24
"""Characters of a number: more are none that keepalived could hold."""
MAX_STEPS: Final = 8
"""Definitions that a finding names."""

SPECIAL: Final = re.compile(r"[$@~]")
"""What a line has in it that this module looks at."""

Draw = Callable[[int, int], int]
"""``draw(low, high)`` returns a random number of that range."""

# Patterns are compiled on first use: most files need none of them, and compiling them all takes longer than reading those files.
_DEFINITION: Final = r"(?a)\$([A-Za-z_]\w*)=[ \t]*"
_USE: Final = r"(?a)\$(?:\{([A-Za-z_]\w*)((?: +\w+)*) *\}|([A-Za-z_]\w*)(?=[ \t,)]|\Z))"
_SELECTED: Final = r"(?s)@(\^?)([^ \t]*)[ \t]+(.*)"
_SEQUENCE: Final = r"~SEQ(x?)[ \t]*\([ \t]*([^ \t,)]+)[ \t]*,([^)]*)\)[ \t]*"
_LIST: Final = r"~LST[ \t]*\("
_NAMED: Final = r"(?m)^[ \t]*instance[ \t]+([^\s{}#!\"]+)[ \t]*(?:[#!].*)?$"
_SEED: Final = r"(?m)^[ \t]*random_seed[ \t]+([0-9]{1,10})"


class Surroundings(msgspec.Struct, frozen=True):
    """What a file can ask about the machine: nothing that a test or another machine could not say instead.

    ``config_id`` selects ``@id`` lines; ``folder`` is that of the file, ``environment`` for ``${_ENV NAME}``. ``random`` makes
    the source of ``${_RANDOM}`` of a seed, ``None`` for any.
    """

    config_id: str = ""
    folder: str = ""
    instance: str = ""
    environment: Mapping[str, str] = {}
    random: Callable[[int | None], Draw] = lambda seed: lambda low, high: low


NOWHERE: Final = Surroundings()
"""Surroundings without any name, for texts that are not a machine's."""


class Definition(msgspec.Struct, frozen=True):
    """The lines that a name stands for, and where it is defined."""

    lines: tuple[str, ...]
    file: str = ""
    number: int = 0


class ExpandedLine(Line):
    """A line that is not written as it is read; its words stand where the ``written`` ones do, if they are as many."""

    written: str = ""

    def place(self, word: int | None = None) -> Place:
        """Place of word ``word`` in the written line; the whole line where the words do not correspond."""
        written, read = located_words(self.written), located_words(self.text)
        before = len(written) - len(read)  # @id
        if word is not None and (before == 0 or (before > 0 and _texts(written)[before:] == _texts(read))) and written:
            _, column, length = written[min(word + before, len(written) - 1)]
            return Place(self.file, self.number, column, length, self.chain)
        bare = self.written.strip()
        return Place(self.file, self.number, self.written.find(bare) + 1, max(1, len(bare)), self.chain)


def _texts(located: list[tuple[str, int, int]]) -> list[str]:
    return [word for word, _, _ in located]


class Expander:
    """Expands lines one after the other; definitions hold from their line on, in all files."""

    def __init__(self, surroundings: Surroundings, findings: Findings) -> None:
        self._surroundings = surroundings
        self._findings = findings
        self._defined: dict[str, Definition] = {}
        self._open: tuple[str, list[str], Line] | None = None
        self._draw: Draw | None = None
        self._seed: int | None = None
        self._instance = ""
        self._made = 0
        self._noted: set[str] = set()
        self._stopped = False

    @property
    def collecting(self) -> bool:
        """Whether a definition of several lines is being read."""
        return self._open is not None

    def see(self, text: str) -> None:
        """Look for ``random_seed`` and ``instance`` in a file: they count before the lines that set them."""
        if not self._instance and "instance" in text and (named := re.search(_NAMED, text)):
            self._instance = named[1]
        if self._seed is None and "random_seed" in text and (found := re.search(_SEED, text)):
            self._seed = int(found[1])

    def expand(self, line: Line, folder: str) -> Iterator[Line]:
        """Yield the lines that ``line`` stands for. ``folder`` is that of its file."""
        text = without_comment(line.text)
        if self._open is not None:
            self._continue(text, line)
        elif text and not self._stopped:
            yield from self._process(text, line, folder, line.chain, 0)

    def finish(self) -> None:
        """End the definition that is being read, at the end of a file."""
        if self._open is not None:
            self._close()

    # -- definitions -------------------------------------------------------------------------------------------

    def _define(self, name: str, value: str, line: Line) -> None:
        if not value.endswith("\\"):
            self._keep(name, (value,), line)
            return
        first = value[:-1].rstrip()
        self._open = (name, [first] if first else [], line)

    def _continue(self, text: str, line: Line) -> None:
        assert self._open is not None
        lines = self._open[1]
        if not line.text.strip():
            self._close()
        elif text.endswith("\\"):
            part = text[:-1].rstrip()
            lines.extend([part] if part else [])
        elif text:
            lines.append(text)
            self._close()

    def _close(self) -> None:
        assert self._open is not None
        name, lines, line = self._open
        self._open = None
        self._keep(name, tuple(lines) or ("",), line)

    def _keep(self, name: str, lines: tuple[str, ...], line: Line) -> None:
        self._defined[name] = Definition(lines, line.file, line.number)
        if is_secret(name):
            self._findings.secrets.update(filter(None, lines))

    def _find(self, name: str, arguments: str, folder: str) -> Definition | None:
        """Return what a name stands for, ``None`` if it is not defined. A definition comes before a predefined name."""
        found = self._defined.get(name)
        words = arguments.split()
        if found is not None:
            return None if words else found
        match name, words:
            case "_PWD", []:
                return Definition((folder,))
            case "_INSTANCE", []:
                known = self._surroundings.instance or self._instance or self._surroundings.config_id
                return Definition((known,))
            case "_HASH", []:
                return Definition(("#",))
            case "_BANG", []:
                return Definition(("!",))
            case "_ENV", [variable]:
                return Definition((self._surroundings.environment.get(variable, ""),))
            case "_RANDOM", _ if len(words) <= 2 and all(word.isdecimal() and len(word) <= 10 for word in words):
                low, high = (int(words[0]) if words else 0), (int(words[1]) if len(words) > 1 else 32_767)
                return Definition((str(self._random(low, high)),)) if low <= high else None
        return None

    def _random(self, low: int, high: int) -> int:
        if self._draw is None:
            self._draw = self._surroundings.random(self._seed)
        return self._draw(low, high)

    # -- lines -------------------------------------------------------------------------------------------------

    def _process(self, text: str, line: Line, folder: str, chain: tuple[Step, ...], depth: int) -> Iterator[Line]:
        """Yield the lines that ``text`` stands for; ``line`` is the written one, ``chain`` how ``text`` came of it."""
        if self._stopped:
            return
        if depth > MAX_DEPTH:
            self._refuse(line, f"definitions and repetitions stand more than {MAX_DEPTH} deep in one another")
            return
        follow: list[tuple[str, tuple[Step, ...]]] = []
        used: list[Definition] = []
        scanned = 0
        while True:
            scanned += len(text)
            if text.startswith("@"):
                text = self._selected(text)
            if not text:
                break
            if defined := re.match(_DEFINITION, text):
                self._define(defined[1], text[defined.end() :], line)
                break
            if text.startswith(("~SEQ", "~LST")):
                yield from self._repeat(text, line, folder, chain, depth)
                break
            use = self._next_use(text, folder)
            if use is None:
                yield from self._made_line(line, text, chain, used)
                break
            match, definition = use
            used.append(definition)
            if len(used) > MAX_REPLACED or len(text) > MAX_LINE_LENGTH or scanned > MAX_SCANNED:
                self._refuse(line, f"the line does not come to an end: ${match[1] or match[3]} probably contains itself")
                break
            chain = self._step(chain, definition)
            text = without_comment(text[: match.start()] + definition.lines[0] + text[match.end() :])
            follow[:0] = [(more, chain) for more in definition.lines[1:]]
        for more, how in follow:
            yield from self._process(more, line, folder, how, depth + 1)

    def _selected(self, text: str) -> str:
        """Return what follows ``@id`` or ``@^id`` if this node is meant, else nothing; the next ``@`` is looked at too."""
        while text.startswith("@"):
            match = re.match(_SELECTED, text)
            if match is None:
                return ""
            meant = bool(match[2]) and match[2] == self._surroundings.config_id
            if meant is bool(match[1]):
                return ""
            text = match[3]
        return text

    def _next_use(self, text: str, folder: str) -> tuple[re.Match[str], Definition] | None:
        """Return the first use of a definition in ``text``; one of several lines counts only at the end."""
        for match in re.finditer(_USE, text) if "$" in text else ():
            definition = self._find(match[1] or match[3], match[2] or "", folder)
            if definition is not None and (len(definition.lines) == 1 or match.end() == len(text)):
                return match, definition
        return None

    @staticmethod
    def _step(chain: tuple[Step, ...], definition: Definition) -> tuple[Step, ...]:
        step = Step(How.EXPANDED, definition.file, definition.number)
        if not definition.file or step in chain or sum(each.how is How.EXPANDED for each in chain) >= MAX_STEPS:
            return chain
        return (step, *chain)

    def _made_line(self, line: Line, text: str, chain: tuple[Step, ...], used: list[Definition]) -> Iterator[Line]:
        if text == without_comment(line.text):
            self._note_undefined(line)
            yield line
            return
        self._made += 1
        if self._made > MAX_LINES:
            self._refuse(line, f"definitions and repetitions make more than {MAX_LINES} lines")
        elif len(text) > MAX_LINE_LENGTH:
            self._refuse(line, f"the line has {len(text)} characters after its definitions are replaced")
        else:
            secret = text[secret_start(text) :]
            if secret:
                self._findings.secrets.update(map(str, words(secret)[:1] or [secret]))
                self._findings.secrets.update(part for each in used for part in each.lines if part and part in secret)
            if not line.text.rstrip().endswith(text):
                chain = (Step(How.BECOMES, line.file, line.number, masked_line(text)), *chain)
            made = ExpandedLine(line.file, line.number, text, chain, line.text)
            self._note_undefined(made)
            yield made

    def _note_undefined(self, line: Line) -> None:
        """Note a name that is not defined, once; not in a line with a secret, of which it may be a part."""
        for match in re.finditer(_USE, line.text.rstrip()) if "$" in line.text else ():
            name = match[1] or match[3]
            if name not in self._noted and secret_start(line.text) == len(line.text):
                self._noted.add(name)
                message = f"${name} is not defined: it is taken as it is written, as in keepalived"
                place = line.place() if isinstance(line, ExpandedLine) else _place(line, match)
                self._findings.add(Severity.NOTE, place, message, f"define it above: ${name}=…")

    def _refuse(self, line: Line, why: str) -> None:
        if not self._stopped:
            self._stopped = True
            self._findings.add(
                Severity.FATAL, line.place(), f"{why}: the rest is left out", "look at the definitions that it uses"
            )

    # -- repetitions -------------------------------------------------------------------------------------------

    def _repeat(self, text: str, line: Line, folder: str, chain: tuple[Step, ...], depth: int) -> Iterator[Line]:
        found = self._sequence(text, folder) if text.startswith("~SEQ") else _list(text)
        if found is None:
            name = text[:4]
            message = f"invalid {name}: the line is ignored"
            hint = (
                "write ~SEQ(NAME, FIRST, STEP, LAST) …"
                if name == "~SEQ"
                else "write ~LST(NAME, VALUE, VALUE) … or ~LST({N,M}, {1,2}, …) …"
            )
            self._findings.add(Severity.ERROR, line.place(), message, hint, name)
            return
        values, body = found
        for row in values:
            if self._stopped:
                return
            for name, value in row:
                self._defined[name] = Definition((value,))
            yield from self._process(body, line, folder, chain, depth + 1)

    def _sequence(self, text: str, folder: str) -> tuple[Iterator[list[tuple[str, str]]], str] | None:
        match = re.match(_SEQUENCE, text)
        if match is None:
            return None
        limits = match[3]
        for _ in range(MAX_DEPTH):
            use = self._next_use(limits, folder)
            if use is None or len(use[1].lines) > 1:
                break
            limits = limits[: use[0].start()] + use[1].lines[0] + limits[use[0].end() :]
        numbers = [_integer(part) for part in limits.split(",")]
        bounds = _bounds([number for number in numbers if number is not None]) if None not in numbers else None
        if bounds is None or (match[1] and min(bounds[0], bounds[2]) < 0):
            return None
        first, step, last = bounds
        form = "x" if match[1] else "d"
        values = range(first, last + (1 if step > 0 else -1), step)
        return ([(match[2], format(value, form))] for value in islice(values, MAX_LINES + 1)), text[match.end() :]


def _place(line: Line, match: re.Match[str]) -> Place:
    return Place(line.file, line.number, match.start() + 1, match.end() - match.start(), line.chain)


def _bounds(numbers: list[int]) -> tuple[int, int, int] | None:
    """Return first, step and last of ``~SEQ``; ``None`` if they make no sequence."""
    match numbers:
        case [last]:
            return (-1 if last < 0 else 1, -1 if last < 1 else 1, last)
        case [first, last]:
            return (first, 1 if first <= last else -1, last)
        case [first, step, last] if step and not (first < last and step < 0) and not (first > last and step > 0):
            return (first, step, last)
    return None


def _integer(text: str) -> int | None:
    """Return a number; a missing one is 0."""
    if len(text.strip()) > MAX_DIGITS:
        return None
    found = strtol(text if text.strip(" \t+-") else "0")
    return found[0] if found is not None and not found[1].strip(" \t") else None


def _list(text: str) -> tuple[Iterator[list[tuple[str, str]]], str] | None:
    """Read ``~LST(NAME, …)`` or ``~LST({NAME, …}, {…}, …)``; missing values are empty."""
    match = re.match(_LIST, text)
    end = text.find(")")
    if match is None or end < 0:
        return None
    groups = _groups(text[match.end() : end])
    if groups is None or len(groups) < 2 or any(len(group) > len(groups[0]) for group in groups):
        return None
    names = groups[0]
    rows = ([(name, (group + [""] * len(names))[i]) for i, name in enumerate(names)] for group in groups[1:])
    return rows, text[end + 1 :].strip()


def _groups(text: str) -> list[list[str]] | None:
    """Split at commas outside of braces; each part is a list of words."""
    parts, depth, part = [], 0, ""
    for character in text:
        if character == "," and not depth:
            parts.append(part)
            part = ""
            continue
        depth += (character == "{") - (character == "}")
        if not 0 <= depth <= 1:
            return None
        part += character
    if depth:
        return None
    parts.append(part)
    found = []
    for each in (part.strip() for part in parts):
        if each.startswith("{") is not each.endswith("}"):
            return None
        found.append([word.strip() for word in (each[1:-1].split(",") if each.startswith("{") else [each])])
    return found
