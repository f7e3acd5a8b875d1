"""``relevo connections``: what the data plane holds, filtered; or the end of it."""

from __future__ import annotations

import re
import sys
from typing import Any

import click
import msgspec

from relevo.cli.status import ask_daemon, run_dir_option
from relevo.daemon.control import CALL_S
from relevo.model.table import Connection, ConnectionFilter

_TITLES = ("Pro", "Expires", "State", "Client", "Virtual", "Server")


class Answer(msgspec.Struct):
    """What the daemon says."""

    total: int = 0
    connections: list[Connection] = []


class End(click.ParamType[tuple[str, int]]):
    """``ADDRESS``, ``NETWORK/LENGTH``, ``ADDRESS:PORT``, ``[IPV6]:PORT`` or ``:PORT``."""

    name = "end"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Return address and port; 0 and an empty string mean any."""
        if isinstance(value, tuple):
            return value
        address, port = _split(value)
        if port > 65_535:
            self.fail(f"{port} is not a port", param, ctx)
        try:
            ConnectionFilter(client=address).test()
        except ValueError:
            self.fail(f"'{value}' is not ADDRESS, NETWORK/LENGTH, ADDRESS:PORT, [IPV6]:PORT or :PORT", param, ctx)
        return address, port


def _split(value: str) -> tuple[str, int]:
    found = re.fullmatch(r"\[([^\]]*)\](?::(\d{1,6}))?", value) or re.fullmatch(r"([^:]*):(\d{1,6})", value)
    return (found[1], int(found[2] or 0)) if found else (value, 0)


_ANY = ("", 0)


@click.command()
@click.option("--client", type=End(), default=_ANY, help="Those of this client or network, or from this port.")
@click.option("--virtual", type=End(), default=_ANY, help="Those to this virtual address or port.")
@click.option("--server", type=End(), default=_ANY, help="Those at this real server.")
@click.option("--tcp", "protocol", flag_value="TCP", help="TCP alone.")
@click.option("--udp", "protocol", flag_value="UDP", help="UDP alone.")
@click.option("--state", default="", metavar="STATE", help="Those in this state, as the list shows it.")
@click.option("--templates/--no-templates", default=None, help="Persistence templates alone, or without them [default: both].")
@click.option("--limit", default=10_000, show_default=True, help="At most so many lines; 0 for all.")
@click.option("--count", is_flag=True, help="Only their number.")
@click.option("--end", "ends", is_flag=True, help="End them: the next packet of each is met as if it were none's.")
@click.option("--all", "everything", is_flag=True, help="With --end and no filter: really all of them.")
@click.option("-j", "--json", "as_json", is_flag=True, help="As JSON.")
@run_dir_option
def connections(
    client: tuple[str, int],
    virtual: tuple[str, int],
    server: tuple[str, int],
    protocol: str | None,
    state: str,
    templates: bool | None,
    limit: int,
    count: bool,
    ends: bool,
    everything: bool,
    as_json: bool,
    run_dir: str | None,
) -> None:
    """List the connections of the data plane that fit every option given, or end them.

    A persistence template is shown as a connection from port 0.
    """
    meant = {
        "client": client[0],
        "client_port": client[1],
        "virtual": virtual[0],
        "virtual_port": virtual[1],
        "server": server[0],
        "server_port": server[1],
        "state": state.upper(),
        "protocol": protocol,
        "templates": templates,
    }
    if ends and not everything and not any(value not in ("", 0, None) for value in meant.values()):
        raise click.UsageError("--end without a filter would end every connection: add --all if that is meant")
    asked = {"meant": meant, "limit": 1 if count else max(0, limit), "ends": ends}
    answer = msgspec.json.decode(ask_daemon(run_dir, "connections", asked, CALL_S), type=Answer)
    if ends:
        click.echo(msgspec.json.encode({"ended": answer.total}) if as_json else f"{answer.total} ended")
    elif count:
        click.echo(msgspec.json.encode({"total": answer.total}) if as_json else answer.total)
    elif as_json:
        click.echo(msgspec.json.encode({"total": answer.total, "connections": answer.connections}))
    else:
        for line in listing(answer.connections):
            click.echo(line)
        if answer.total > len(answer.connections):
            click.echo(f"{answer.total - len(answer.connections)} more: --limit 0 shows all", err=True)
    sys.stdout.flush()


def listing(found: list[Connection]) -> list[str]:
    """Return the lines of the table, columns as wide as they need to be."""
    rows = [_TITLES, *map(_row, found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_TITLES))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(connection: Connection) -> tuple[str, ...]:
    left = "-" if connection.expires_s is None else f"{int(connection.expires_s) // 60}:{int(connection.expires_s) % 60:02}"
    protocol, virtual = connection.protocol.value, str(connection.virtual)
    if connection.mark:
        protocol, virtual = "-", f"mark {connection.mark}"
    return (protocol, left, connection.state, str(connection.client), virtual, str(connection.server))
