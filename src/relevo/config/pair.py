"""The peer's file: what a director's configuration must say on the other node of a pair.

MASTER and BACKUP, priorities and unicast addresses change places, ``router_id`` gets another number. All the rest must be the
same on both nodes, and is left as it is written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from relevo.config.cursor import canonical_address
from relevo.config.diagnostics import Findings, Severity
from relevo.config.edits import Edits
from relevo.config.macros import NOWHERE, ExpandedLine, Surroundings
from relevo.config.preprocess import Reader
from relevo.config.tree import Statement, parse

STEP: Final = 50
"""Between the priorities of the two nodes, as in keepalived's examples (150 and 100)."""
DEFAULT_PRIORITY: Final = 100
LOWEST, HIGHEST = 1, 254
_NUMBER_AT_END = re.compile(r"\d+\Z")
_LETTER_AT_END = re.compile(r"(?<=[^A-Za-z])[A-Za-z]\Z")
_ROLES = {"MASTER": "BACKUP", "BACKUP": "MASTER", "PRIMARY": "SECONDARY", "SECONDARY": "PRIMARY"}


@dataclass(slots=True)
class Pair:
    """``text`` is the peer's file; ``findings`` name what only the administrator knows."""

    text: str
    findings: Findings


def peer_of(text: str, file: str, reader: Reader = lambda pattern, including: [], surroundings: Surroundings = NOWHERE) -> Pair:
    """Return the file of the other node. Included files are read but not changed: they hold what both nodes share.

    With several unicast peers it is that of the first one.
    """
    findings = Findings()
    tree = parse(text, file, reader, Findings(), surroundings)
    maker = _PeerMaker(file, Edits(tree.sources[file]), findings)
    for statement in tree.statements:
        if statement.keyword == "global_defs":
            maker.globals(statement)
        elif statement.keyword == "vrrp_instance":
            maker.instance(statement)
    return Pair(maker.edits.apply(), findings)


def other_name(name: str) -> str:
    """Return a name for the other node: another number, letter or role where the name has one, else ``name-2``."""
    if number := _NUMBER_AT_END.search(name):
        digits = number.group()
        value = int(digits)
        other = value - 1 if value and value % 2 == 0 else value + 1
        return name[: number.start()] + str(other).zfill(len(digits) if digits[0] == "0" else 0)
    if letter := _LETTER_AT_END.search(name):
        code = ord(letter.group())
        return name[: letter.start()] + chr(code + 1 if code % 2 else code - 1)
    for role, other_role in _ROLES.items():
        for old, new in ((role, other_role), (role.lower(), other_role.lower())):
            if old in name:
                return name.replace(old, new, 1)
    return f"{name}-2"


class _PeerMaker:
    def __init__(self, file: str, edits: Edits, findings: Findings) -> None:
        self.edits = edits
        self._file = file
        self._findings = findings

    def _say(self, at: Statement, message: str, hint: str) -> None:
        self._findings.add(Severity.WARNING, at.place(), message, hint, at.keyword)

    def _replace(self, statement: Statement, number: int, text: str) -> None:
        """Replace a word, if it is written in this file as it is read."""
        line = statement.source
        if line.chain or line.file != self._file or isinstance(line, ExpandedLine):
            self._say(statement, f"the peer needs '{text}' here, but the line is included or defined elsewhere", "edit it there")
        elif len(statement.args) >= number:
            self.edits.word(statement, number, text)

    def globals(self, block: Statement) -> None:
        """Give the peer a name of its own."""
        for statement in block.block or ():
            if statement.keyword in ("router_id", "lvs_id", "smtp_helo_name") and statement.args:
                self._replace(statement, 1, other_name(statement.args[0]))

    def instance(self, block: Statement) -> None:
        """Exchange the roles of a virtual router, and its addresses."""
        found = {statement.keyword: statement for statement in block.block or ()}
        self._exchange_roles(block, found)
        self._exchange_addresses(found)
        if "mcast_src_ip" in found:
            at = found["mcast_src_ip"]
            self._say(
                at, "mcast_src_ip is an address of this node: the peer has another one", "write the peer's, or remove the line"
            )

    def _exchange_roles(self, block: Statement, found: dict[str, Statement]) -> None:
        state, priority = found.get("state"), found.get("priority")
        leads = state is not None and state.args[:1] == ["MASTER"]
        number = DEFAULT_PRIORITY
        if priority is not None and priority.args and priority.args[0].isdecimal():
            number = int(priority.args[0])
        first = leads or "nopreempt" in found or number > DEFAULT_PRIORITY
        other = max(LOWEST, number - STEP) if first else min(HIGHEST, number + STEP)
        if priority is not None:
            self._replace(priority, 1, str(other))
        else:
            self.edits.insert(block, (f"priority {other}",))
        if state is not None and "nopreempt" not in found:
            self._replace(state, 1, "BACKUP" if first else "MASTER")

    def _exchange_addresses(self, found: dict[str, Statement]) -> None:
        source, peers = found.get("unicast_src_ip"), found.get("unicast_peer")
        entries = [entry for entry in peers.block or () if entry.keyword] if peers is not None else []
        if not entries:
            return
        assert peers is not None
        if source is None or not source.args:
            self._say(
                peers, "without unicast_src_ip this node's address is not known", "write this node's address into the peer's list"
            )
            return
        first = entries[0]
        if _same_address(first.keyword, source.args[0]):
            self._say(peers, "the first peer is this node itself", "list the other nodes")
            return
        self._replace(source, 1, first.keyword)
        self._replace(first, 0, source.args[0])


def _same_address(one: str, other: str) -> bool:
    try:
        return canonical_address(one) == canonical_address(other)
    except ValueError:
        return one == other
