"""``relevo plan`` says what a reload would do."""

from __future__ import annotations

import os
import sys

import click
import msgspec

from relevo.api.schema import Plan, ReloadPlan
from relevo.cli.status import ask_daemon, run_dir_option
from relevo.observe.plan import line_of


@click.command()
@click.argument("file", default="")
@click.option("-j", "--json", "as_json", is_flag=True, help="The plan as JSON.")
@run_dir_option
def plan(file: str, as_json: bool, run_dir: str | None) -> None:
    """Say what a reload with FILE would do now, and what clients would lose by it. Nothing changes.

    Without FILE: with the file of the running daemon. First come the changes of the configuration, as ``relevo diff`` shows
    them, then the operations in order. The daemon carries them out on a copy of itself, so that is what ``relevo reload`` does.

    Exit 0 when the reload would work, 1 when it would be refused or no daemon runs.
    """
    found = ask_daemon(run_dir, Plan(os.path.abspath(file) if file else ""))
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        _show(found)
    sys.exit(1 if found.refused else 0)


def _show(found: ReloadPlan) -> None:
    if found.refused:
        click.echo(f"relevo: the reload would be refused: {found.refused}", err=True)
        return
    for change in found.changes:
        click.echo(str(change))
    if found.changes and found.steps:
        click.echo()
    for step in found.steps:
        click.echo(line_of(step))
    for problem in found.problems:
        click.echo(f"relevo: {problem}", err=True)
    broken = sum(bool(step.breaks) for step in found.steps)
    counts = f"{len(found.changes)} changes, {len(found.steps)} operations"
    click.echo(f"{counts}, {broken or 'none'} of which clients notice", err=True)
