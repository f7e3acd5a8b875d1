"""``relevo explain`` says what a keyword takes and means, and how soon a configuration reacts."""

from __future__ import annotations

import sys
from dataclasses import replace

import click
import msgspec

from relevo.cli.options import compiled_or_exit, config_id_option
from relevo.config.blocks.registry import Standing
from relevo.config.reference import Entry, similar
from relevo.config.reference import explain as entries_of
from relevo.observe.timers import timers


@click.command()
@click.argument("subject", metavar="KEYWORD|FILE")
@click.option("--timers", "show_timers", is_flag=True, help="For a FILE: how soon a crash is noticed, and a server removed.")
@click.option("-j", "--json", "as_json", is_flag=True, help="JSON on one line.")
@config_id_option
def explain(subject: str, show_timers: bool, as_json: bool, config_id: str | None) -> None:
    """Say what KEYWORD takes and means in each block that has it; with --timers, how soon FILE reacts.

    Exit 1 for an unknown keyword, 4 when FILE cannot be read.
    """
    if show_timers:
        _explain_timers(subject, as_json, config_id)
        return
    found = entries_of(subject)
    if not found:
        near = similar(subject)
        hint = f"did you mean {', '.join(near)}?" if near else "docs/reference/keywords.md lists them all"
        click.echo(f"relevo: there is no keyword '{subject}': {hint}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        alike: dict[Entry, list[Entry]] = {}
        for entry in found:
            alike.setdefault(replace(entry, block="", since=""), []).append(entry)
        click.echo("\n\n".join(_text(entries) for entries in alike.values()))


def _text(entries: list[Entry]) -> str:
    """Describe a keyword that takes and means the same in several blocks."""
    entry = entries[0]
    where = "in " + ", ".join(each.block for each in entries) if entry.block else "outside any block"
    since = "of Relevo" if entry.ours else f"keepalived {entry.since}" if entry.since else ""
    limits = f"{entry.limits} {entry.unit}".strip()
    rows = [
        ("where", where),
        ("means", entry.meaning),
        ("takes", limits),
        ("default", entry.default.replace("`", "")),
        ("since", since),
        ("instead", entry.instead and f"write {entry.instead}"),
    ]
    if entry.standing is not Standing.WORKS:
        rows.append(("standing", f"{entry.standing.value}{f': {entry.why}' if entry.why else ''}"))
    head = f"{entry.keyword} {entry.syntax}".rstrip()
    return "\n".join([head, *(f"  {name:<9} {text}" for name, text in rows if text)])


def _explain_timers(file: str, as_json: bool, config_id: str | None) -> None:
    found = timers(compiled_or_exit(file, config_id).configuration)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    width = max((len(timer.what) for each in found for timer in each.timers), default=0)
    for each in found:
        click.echo(each.name)
        for timer in each.timers:
            click.echo(f"  {timer.what:<{width}}  within {timer.after_s:7.2f} s = {timer.sum}")
