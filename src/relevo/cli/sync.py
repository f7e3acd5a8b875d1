"""``relevo sync status``: role and progress of this node in connection synchronisation."""

from __future__ import annotations

import click
import msgspec

from relevo.api import schema
from relevo.cli.status import ask_daemon, run_dir_option
from relevo.errors import ControlError
from relevo.model.table import SyncRole, SyncState


@click.group()
def sync() -> None:
    """Connection synchronisation: established connections survive the director."""


@sync.command()
@click.option("-j", "--json", "as_json", is_flag=True, help="As JSON.")
@run_dir_option
def status(as_json: bool, run_dir: str | None) -> None:
    """Show roles, interface, peers and counters. Exit 1 when connections are not synchronised."""
    answer = ask_daemon(run_dir, schema.Sync())
    state = answer.state
    if as_json:
        click.echo(msgspec.json.encode(state))
    elif state is not None:
        for line in lines(state, answer.taken_at):
            click.echo(line)
    if state is None:
        raise ControlError(
            f"connections are not synchronised: the {answer.plane} plane does not do it",
            hint="add lvs_sync_daemon INTERFACE INSTANCE to global_defs; the proxy plane has no synchronisation",
        )
    if state.problem:
        raise ControlError(state.problem)


def lines(state: SyncState, now: float) -> list[str]:
    """Format the state, a fact a line. Facts that the plane does not know are left out."""
    roles = " and ".join(role.value for role in state.roles) or "no role yet"
    towards = " ".join(f"{address}:{state.port}" for address in state.peers or (state.group,))
    out = [f"{roles} on {state.interface}, sync id {state.sync_id}, {towards}"]
    if state.local is not None and state.received is not None:
        waiting = f", {state.waiting} wait for their server to be configured" if state.waiting else ""
        out.append(f"  connections: {state.local} of this node, {state.received} from another{waiting}")
    if state.entries_sent is not None and state.entries_received is not None:
        out.append(f"  entries: {state.entries_sent} sent, {state.entries_received} received")
    if state.in_sync is not None and SyncRole.MASTER not in state.roles:
        out.append("  in sync: every connection of the masters is here" if state.in_sync else "  not in sync")
    for director in state.directors:
        behind = f", {director.missing_here} messages behind" if director.missing_here else ""
        there = f", {director.missing_there} of our messages not acknowledged" if director.missing_there else ""
        out.append(f"  {director.address}: {director.state}; last message {now - director.heard_at:.1f} s ago{behind}{there}")
    for name, at in (("sent", state.last_sent_at), ("received", state.last_received_at)):
        if at is not None:
            out.append(f"  last message {name} {now - at:.1f} s ago")
    if state.refused:
        out.append("  dropped: " + ", ".join(f"{count} {reason}" for reason, count in state.refused.items()))
    return out
