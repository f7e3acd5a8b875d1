"""``relevo failover``: a planned hand-over that synchronises connections first."""

from __future__ import annotations

import click

from relevo.api import schema
from relevo.cli.status import ask_daemon, run_dir_option


@click.command()
@click.argument("instance")
@click.option("--back", is_flag=True, help="End the hand-over: the higher priority takes over again.")
@run_dir_option
def failover(instance: str, back: bool, run_dir: str | None) -> None:
    """Hand INSTANCE over to another node: send it every connection, then let it take the addresses.

    Afterwards this node ignores its higher priority. It takes over again when no other node is master, or with --back. Exit 1
    when no node takes over; this one then stays master.
    """
    ask_daemon(run_dir, schema.Failover(instance, back=back))
    click.echo(f"priorities decide about {instance} again" if back else f"{instance} is handed over")
