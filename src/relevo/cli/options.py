"""Options that several commands share."""

from __future__ import annotations

import click

config_id_option = click.option(
    "-i", "--config-id", metavar="ID", help="Lines that begin with @ID count [default: the host's name up to the first dot]."
)
