"""What several commands share: options, and how they read a configuration."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from relevo.config import STATUS_UNREADABLE, Compiled, Places
from relevo.daemon.configuration import compile_file
from relevo.errors import ConfigurationError

config_id_option = click.option(
    "-i", "--config-id", metavar="ID", help="Lines that begin with @ID count [default: the host's name up to the first dot]."
)


def compiled_or_exit(
    file: str, config_id: str | None, places: Places | None = None, *, status: int = STATUS_UNREADABLE
) -> Compiled:
    """Compile a configuration file. One that cannot be read ends the command with ``status``."""
    try:
        return compile_file(file, config_id, places)
    except ConfigurationError as error:
        exit_unreadable(error, status)


def exit_unreadable(error: ConfigurationError, status: int = STATUS_UNREADABLE) -> NoReturn:
    """End the command because a file cannot be read or written."""
    click.echo(f"relevo: {error}", err=True)
    sys.exit(status)
