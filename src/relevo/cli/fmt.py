"""``relevo fmt`` lays a configuration file out."""

from __future__ import annotations

import sys

import click

from relevo.config import compile_text
from relevo.config.formatting import formatted
from relevo.errors import ConfigurationError
from relevo.host.files import DEFAULT_CONFIGURATION, read_configuration, read_included, replace_configuration, surroundings
from relevo.model import Configuration

STATUS_UNREADABLE = 4


@click.command()
@click.argument("file", default=DEFAULT_CONFIGURATION)
@click.option("-w", "--write", is_flag=True, help="Replace FILE instead of printing it.")
@click.option("--check", is_flag=True, help="Print nothing; exit 1 when FILE is laid out differently.")
def fmt(file: str, write: bool, check: bool) -> None:
    """Print FILE with four blanks for each open block and one blank between words. Comments and the order of lines stay.

    Included files are not touched. Exit 4 when FILE cannot be read or written.
    """
    try:
        text = read_configuration(file, undecodable="surrogateescape")
        laid_out = formatted(text)
        if _meaning(text, file) != _meaning(laid_out, file):
            raise ConfigurationError(f"{file}: the layout would change its meaning: nothing is written")
        if check:
            sys.exit(0 if laid_out == text else 1)
        if not write:
            click.echo(laid_out.encode("utf-8", "surrogateescape"), nl=False)
        elif laid_out != text:
            replace_configuration(file, laid_out)
    except ConfigurationError as error:
        click.echo(f"relevo: {error}", err=True)
        sys.exit(STATUS_UNREADABLE)


def _meaning(text: str, file: str) -> Configuration:
    return compile_text(text, file, read_included, surroundings=surroundings(file)).configuration
