"""A cursor over the arguments of one statement: typed reads whose findings have a source position.

A reader asks for what it needs and does not handle errors::

    address = cursor.address()                          # "10.0.0.300": an error at that word
    port = cursor.port() if cursor.more() else 0        # an optional argument

A read that fails records a finding at the word that it read (file, line, column, and the chain of expansions that made it) and
raises ``Rejected``; the evaluator catches it for every keyword and leaves the keyword out. ``instead`` names the value
that then counts, so that the message can say it. (Model: Caddy's dispenser.)
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from relevo.config.diagnostics import Findings, Severity
from relevo.config.source import Quoted, script_words
from relevo.config.tree import Statement
from relevo.model import Endpoint, Script

_INTEGER = re.compile(r"[+-]?[0-9]+")
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
MAX_DIGITS: Final = 20
"""Digits of a number that are read: more are out of every range, and ``int`` refuses 4300."""

TRUE = ("on", "true", "yes")
FALSE = ("off", "false", "no")


class Rejected(Exception):
    """The statement cannot be used; a finding has the reason."""


class Cursor(msgspec.Struct, eq=False, gc=False):
    """Reads the arguments of ``statement`` from left to right; ``instead`` is the value of a refused argument."""

    statement: Statement
    findings: Findings
    instead: str = ""
    position: int = 0

    # -- findings ----------------------------------------------------------------------------------------------

    def report(self, severity: Severity, message: str, hint: str = "", *, word: int | None = None) -> None:
        """Record a finding at argument ``word`` (0 is the keyword; by default the argument read last)."""
        at = self.position if word is None else word
        self.findings.add(severity, self.statement.place(at), message, hint, self.statement.keyword)

    def reject(self, message: str, hint: str = "", *, word: int | None = None) -> Rejected:
        """Record an error and return the exception to raise."""
        consequence = f": {self.instead} is used" if self.instead else ""
        self.report(Severity.ERROR, message + consequence, hint, word=word)
        return Rejected()

    def warn(self, message: str, hint: str = "", *, word: int | None = None) -> None:
        """Record a warning."""
        self.report(Severity.WARNING, message, hint, word=word)

    # -- words -------------------------------------------------------------------------------------------------

    def more(self) -> bool:
        """Whether an argument is left."""
        return self.position < len(self.statement.args)

    def peek(self) -> str:
        """Return the next argument without consuming it; empty at the end."""
        return self.statement.args[self.position] if self.more() else ""

    def word(self, what: str = "a value") -> str:
        """Return the next argument. A missing one is fatal in keepalived: exit status 2."""
        args = self.statement.args
        if self.position >= len(args):
            message = f"'{self.statement.keyword}' needs {what}"
            self.report(Severity.MISSING, message, f"write: {self.statement.keyword} <{_bare(what)}>", word=0)
            raise Rejected
        self.position += 1
        return str(args[self.position - 1])

    def value_of(self, option: str, what: str) -> str:
        """Return the value of an option within a line; a missing one rejects the line."""
        if not self.peek():
            raise self.reject(f"'{option}' needs {what}: left out", f"write {option} <{_bare(what)}>", word=self.position)
        return self.word(what)

    def rest(self) -> list[str]:
        """Return all remaining arguments."""
        taken = self.statement.args[self.position :]
        self.position = len(self.statement.args)
        return taken

    # -- numbers -----------------------------------------------------------------------------------------------

    def integer(self, low: int, high: int, what: str = "a number", *, lenient: bool = True, words: bool = False) -> int:
        """Return a decimal integer in ``low``..``high``.

        Garbage after it causes a warning, as keepalived does for most keywords; without ``lenient`` an error. With ``words``, a
        word without digits is 0, if 0 is in the range.
        """
        text = self.word(what)
        if _INTEGER.fullmatch(text):
            value = int(text[:MAX_DIGITS])
        elif lenient and words and low <= 0 <= high and _INTEGER.match(text) is None:
            self.report(Severity.ERROR, f"'{text}' is not {what}: 0 is used, as in keepalived", "write a decimal number")
            return 0
        elif lenient:
            value = self._leading_integer(text, what)
        else:
            raise self.reject(f"'{text}' is not {what}", "write a decimal number")
        if not low <= value <= high:
            raise self.reject(f"{value} is out of range", f"{what} lies in {low}..{high}")
        return value

    def _leading_integer(self, text: str, what: str) -> int:
        found = _INTEGER.match(text)
        if found is None or len(found.group()) == len(text):
            raise self.reject(f"'{text}' is not {what}", "write a decimal number")
        digits = found.group()
        value = int(digits[:MAX_DIGITS])
        self.warn(f"'{text[len(digits) :]}' after the number {value} is ignored", f"write {value}")
        return value

    def seconds(self, low: float, high: float, what: str = "seconds") -> float:
        """Return decimal seconds in ``low``..``high``, with microseconds as in keepalived.

        A word without digits is 0, if 0 is in the range, as in keepalived.
        """
        text = self.word(what)
        try:
            value = float(text if "_" not in text else "")
        except ValueError:
            if low <= 0 and text[:1].isalpha():
                self.report(Severity.ERROR, f"'{text}' is not a time: 0 is used, as in keepalived", "write decimal seconds")
                return 0.0
            raise self.reject(f"'{text}' is not a time", "write decimal seconds, such as 1 or 0.25") from None
        if not math.isfinite(value) or not low <= value <= high:
            raise self.reject(f"{text} is out of range", f"{what} lies in {low:g}..{high:g}")
        return round(value, 6)

    def boolean(self) -> bool:
        """Read ``on true yes`` or ``off false no``; no argument means true."""
        if not self.more():
            return True
        text = self.word()
        if text in TRUE:
            return True
        if text in FALSE:
            return False
        raise self.reject(f"'{text}' is neither on nor off", "write on, true, yes, off, false or no")

    def choice(self, allowed: Iterable[str], what: str, *, any_case: bool = False) -> str:
        """Return one of ``allowed``, as listed; ``any_case`` ignores case. Nearly all of keepalived is case-sensitive."""
        text = self.word(what)
        listed = list(allowed)
        if text in listed:
            return text
        folded = {name.casefold(): name for name in listed}
        if any_case and text.casefold() in folded:
            return folded[text.casefold()]
        if text.casefold() in folded:
            raise self.reject(f"'{text}' is not {what}: case counts, in keepalived too", f"write {folded[text.casefold()]}")
        from difflib import get_close_matches

        near = get_close_matches(text.casefold(), folded, n=1)
        hint = f"did you mean '{folded[near[0]]}'?" if near else f"one of: {' '.join(listed)}"
        raise self.reject(f"'{text}' is not {what}", hint)

    # -- network -----------------------------------------------------------------------------------------------

    def address(self, what: str = "an IP address") -> str:
        """Return the canonical text of an IPv4 or IPv6 literal. A prefix length or range after it causes a warning."""
        text = self.word(what)
        if "/" in text or "-" in text:  # keepalived cuts both off without a message
            literal = re.sub(r"[-/].*", "", text)
            found = self.as_address(literal, what)
            self.warn(f"'{text[len(literal) :]}' after the address {literal} is ignored", f"write {literal}")
            return found
        return self.as_address(text, what)

    def as_address(self, text: str, what: str, *, shown: str = "") -> str:
        """Check that ``text`` is an address literal; a finding quotes ``shown``, by default ``text``."""
        try:
            return canonical_address(text)
        except ValueError:
            hint = "write a literal such as 192.0.2.1 or 2001:db8::1; names are not resolved here"
            raise self.reject(f"'{shown or text}' is not {what}", hint) from None

    def port(self, low: int = 0) -> int:
        """Return a port number."""
        return self.integer(low, 65535, "a port number")

    def endpoint(self, what: str) -> Endpoint:
        """Return an address and, if one follows, a port."""
        address = self.address(what)
        return Endpoint(address, self.port() if self.more() else 0)

    # -- scripts -----------------------------------------------------------------------------------------------

    def script(self, *, identity: bool = True) -> Script:
        """Return a command with its arguments, and ``user [group]`` after it unless ``identity`` is false."""
        if not self.more():
            self.word("a command")
        raw = self.rest()
        if raw[0].startswith("'") and not isinstance(raw[0], Quoted):
            command, *names = script_words(" ".join(raw))
        else:
            command, *names = raw
        argv = script_words(command)
        if names and not identity:
            message = f"'{' '.join(names)}' after the command is ignored, as in keepalived"
            self.warn(message, "write the command with its arguments in quotes", word=2)
            names = []
        named = [part for word in names for part in word.split(":") if part]
        if not argv or not argv[0]:
            raise self.reject("empty command", "name a program with its full path", word=1)
        if not argv[0].startswith("/"):
            message = f"'{argv[0]}' is not a full path: it is looked for in PATH"
            self.report(Severity.NOTE, message, "write the full path of the program", word=1)
        user, group = [*named, "", ""][:2]
        return Script(argv, user, group)


def _bare(what: str) -> str:
    """Return a description without its article."""
    return what.removeprefix("an ").removeprefix("a ")


def canonical_address(text: str) -> str:
    """Return the canonical text of an address literal; ``ValueError`` if it is none."""
    if ":" in text:
        return str(ipaddress.IPv6Address(text))
    if _IPV4.fullmatch(text):  # the common case, ten times the speed of ipaddress
        return text
    return str(ipaddress.IPv4Address(text))
