"""``relevo connections``: list or drop connections of the data plane."""

from __future__ import annotations

import re
import sys
from typing import Any

import click
import msgspec

from relevo.api import schema
from relevo.cli.status import ask_daemon, run_dir_option
from relevo.model import Protocol
from relevo.model.table import Connection, ConnectionFilter

_TITLES = ("Pro", "Expires", "State", "Client", "Virtual", "Server")


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
@click.option("--client", type=End(), default=_ANY, help="From this client address, network or port.")
@click.option("--virtual", type=End(), default=_ANY, help="To this virtual address or port.")
@click.option("--server", type=End(), default=_ANY, help="Forwarded to this real server.")
@click.option("--tcp", "protocol", flag_value="TCP", help="Only TCP.")
@click.option("--udp", "protocol", flag_value="UDP", help="Only UDP.")
@click.option("--state", default="", metavar="STATE", help="In this state, as the list shows it.")
@click.option("--templates/--no-templates", default=None, help="Only persistence templates, or none of them [default: both].")
@click.option("--limit", default=10_000, show_default=True, help="Maximum number of lines; 0 for all.")
@click.option("--count", is_flag=True, help="Print only the number of connections.")
@click.option("--drop", "--end", "drop", is_flag=True, help="Drop them: later packets match no connection.")
@click.option("--all", "everything", is_flag=True, help="With --drop and no filter: drop every connection.")
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
    drop: bool,
    everything: bool,
    as_json: bool,
    run_dir: str | None,
) -> None:
    """List the connections of the data plane that match every option given, or drop them.

    A persistence template is shown as a connection from port 0.
    """
    wanted = ConnectionFilter(
        protocol=None if protocol is None else Protocol(protocol),
        client=client[0],
        client_port=client[1],
        virtual=virtual[0],
        virtual_port=virtual[1],
        server=server[0],
        server_port=server[1],
        state=state.upper(),
        templates=templates,
    )
    if drop and not everything and wanted == ConnectionFilter():
        raise click.UsageError("--drop without a filter would drop every connection: add --all if that is meant")
    request = schema.Connections(wanted, limit=1 if count else max(0, limit), drop=drop)
    answer = ask_daemon(run_dir, request)
    if drop:
        click.echo(msgspec.json.encode({"dropped": answer.total}) if as_json else f"{answer.total} dropped")
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
    """Format connections as a table, a line each after the titles."""
    rows = [_TITLES, *map(_row, found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_TITLES))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(connection: Connection) -> tuple[str, ...]:
    left = "-" if connection.expires_s is None else f"{int(connection.expires_s) // 60}:{int(connection.expires_s) % 60:02}"
    protocol, virtual = connection.protocol.value, str(connection.virtual)
    if connection.mark:
        protocol, virtual = "-", f"mark {connection.mark}"
    return (protocol, left, connection.state, str(connection.client), virtual, str(connection.server))
