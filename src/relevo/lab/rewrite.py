"""Adapts a configuration to a stage: other addresses, higher ports, VRRP over UDP, shorter times.

The text is edited in place, word by word: everything else stays as the administrator wrote it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from relevo.config.diagnostics import Findings
from relevo.config.edits import Edits
from relevo.config.tree import Statement, parse

HEADS = ("virtual_server", "real_server", "sorry_server", "smtp_server")
"""Keywords followed by an address and a port."""
TIMES = ("delay_loop", "persistence_timeout")


@dataclass(frozen=True, slots=True)
class Changes:
    """What to change. ``address`` and ``port`` map old to new; the lines ``instance`` are added to every ``vrrp_instance``.

    ``interface`` replaces every interface name, ``mail_server`` the address and port of ``smtp_server``. ``speed_up`` divides
    check intervals and persistence timeouts. With ``switches``, a folder, each ``vrrp_script`` succeeds while the file of
    ``switch_name`` exists there: what the script would look at is not in the lab.
    """

    address: Callable[[str], str] = lambda text: text
    port: Callable[[int], int] = lambda number: number
    instance: tuple[str, ...] = ()
    speed_up: float = 1.0
    mail_server: str = ""
    interface: str = ""
    switches: str = ""


def rewrite(text: str, changes: Changes) -> str:
    """Return ``text`` with ``changes`` made. Included files are not followed."""
    tree = parse(text, "", lambda pattern, including: [], Findings())
    edits = Edits(tree.sources[""])
    for statement in tree.statements:
        _visit(statement, changes, edits)
    return edits.apply()


def _visit(statement: Statement, changes: Changes, edits: Edits) -> None:
    for number, word in enumerate((statement.keyword, *statement.args)):
        address, slash, length = word.partition("/")
        if address.count(".") == 3 and changes.address(address) != address:
            edits.word(statement, number, changes.address(address) + slash + length)
    if statement.keyword == "smtp_server" and changes.mail_server:
        _move_mail_server(statement, changes.mail_server, edits)
    elif statement.keyword in HEADS and statement.args[1:]:
        _move_port(statement, 2, changes, edits)
    elif statement.keyword == "connect_port":
        _move_port(statement, 1, changes, edits)
    elif statement.keyword in TIMES and statement.args and changes.speed_up != 1.0:
        value = float(statement.args[0]) / changes.speed_up
        edits.word(statement, 1, f"{value:.2f}" if statement.keyword == "delay_loop" else str(max(2, round(value))))
    elif statement.keyword in ("interface", "track_interface") and changes.interface:
        _move_interface(statement, changes.interface, edits)
    elif statement.keyword == "vrrp_script" and statement.args and changes.switches:
        _switch(statement, f"{changes.switches}/{switch_name(statement.args[0])}", edits)
    elif statement.keyword == "vrrp_instance" and changes.instance:
        edits.insert(statement, changes.instance)
    for inner in statement.block or ():
        _visit(inner, changes, edits)


def _move_port(statement: Statement, number: int, changes: Changes, edits: Edits) -> None:
    if len(statement.args) >= number and statement.args[number - 1].isdecimal():
        edits.word(statement, number, str(changes.port(int(statement.args[number - 1]))))


def _move_interface(statement: Statement, name: str, edits: Edits) -> None:
    if statement.args:
        edits.word(statement, 1, name)
    for entry in statement.block or ():
        edits.word(entry, 0, name)


def switch_name(script: str) -> str:
    """Return the name of the file that a script of this name depends on."""
    return script.encode().hex()


def _switch(statement: Statement, file: str, edits: Edits) -> None:
    for inner in statement.block or ():
        if inner.keyword == "script" and inner.args:
            edits.word(inner, 1, f'"/usr/bin/test -e {file}"')
            for number in range(2, len(inner.args) + 1):
                edits.word(inner, number, "")


def _move_mail_server(statement: Statement, server: str, edits: Edits) -> None:
    for number, part in enumerate(server.split(), 1):
        if number <= len(statement.args):
            edits.word(statement, number, part)
        else:
            edits.append(statement, part)
