"""``relevo fmt`` lays a configuration file out."""

from __future__ import annotations

import sys

import click

from relevo.cli.options import config_id_option, exit_unreadable
from relevo.config import Surroundings, compile_text
from relevo.config.formatting import formatted
from relevo.errors import ConfigurationError
from relevo.host.configuration_file import DEFAULT_CONFIGURATION, read_configuration
from relevo.host.files import replace_configuration
from relevo.host.includes import read_included, surroundings
from relevo.model import Configuration


@click.command()
@click.argument("file", default=DEFAULT_CONFIGURATION)
@click.option("-w", "--write", is_flag=True, help="Replace FILE instead of printing it.")
@click.option("--check", is_flag=True, help="Print nothing; exit 1 when FILE is laid out differently.")
@config_id_option
def fmt(file: str, write: bool, check: bool, config_id: str | None) -> None:
    """Print FILE with four blanks for each open block and one blank between words. Comments and the order of lines stay.

    Included files are not touched. Exit 4 when FILE cannot be read or written.
    """
    try:
        text = read_configuration(file, undecodable="surrogateescape")
        laid_out = formatted(text)
        around = surroundings(file, config_id)
        if _meaning(text, file, around) != _meaning(laid_out, file, around):
            raise ConfigurationError(f"{file}: the layout would change its meaning: nothing is written")
        if check:
            sys.exit(0 if laid_out == text else 1)
        if not write:
            click.echo(laid_out.encode("utf-8", "surrogateescape"), nl=False)
        elif laid_out != text:
            replace_configuration(file, laid_out)
    except ConfigurationError as error:
        exit_unreadable(error)


def _meaning(text: str, file: str, around: Surroundings) -> Configuration:
    return compile_text(text, file, read_included, surroundings=around).configuration
