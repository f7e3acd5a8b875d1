"""``relevo lab``: the cluster of configuration files on this machine."""

from __future__ import annotations

import gc
import signal
import sys
import time
from types import FrameType
from typing import Any, NoReturn

import click
import msgspec
from rich.console import Console
from rich.table import Table

from relevo.config import Severity, render
from relevo.daemon.configuration import compile_file
from relevo.lab.cluster import Cluster
from relevo.lab.drill import Drill, Outcome
from relevo.lab.servers import nginx
from relevo.lab.stages import choose_stage
from relevo.lab.topology import plan


class _DefaultUp(click.Group):
    """``relevo lab FILES`` means ``relevo lab up FILES``."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            args = ["up", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_DefaultUp, no_args_is_help=True)
def lab() -> None:
    """Build the cluster of FILES (one director each) with its servers and a client. Nothing is left behind."""
    gc.enable()


_files = click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
_stage = click.option(
    "--stage",
    type=click.Choice(["auto", "namespaces", "loopback"]),
    default="auto",
    show_default=True,
    help="What the machines are made of.",
)
_speed_up = click.option(
    "--speed-up", type=click.FloatRange(1, 100), default=1.0, help="Divide delay_loop and persistence_timeout by this."
)


_config_ids = click.option(
    "-i", "--config-id", "config_ids", multiple=True, metavar="ID", help="For @ID lines: once for each file, in their order."
)


def _make(files: tuple[str, ...], config_ids: tuple[str, ...], stage: str, speed_up: float, console: Console) -> Cluster:
    ids: list[str | None] = [*config_ids, *[None] * len(files)][: len(files)]
    compiled = [(file, compile_file(file, config_id)) for file, config_id in zip(files, ids, strict=True)]
    for _, found in compiled:
        for finding in found.findings.in_order():
            if finding.severity not in (Severity.NOTE, Severity.WARNING):
                console.print(render(finding, found.sources), style="red", markup=False, highlight=False)
    chosen = choose_stage(stage)
    console.print(f"Stage: {chosen.description}.", highlight=False)
    if nginx() is None:
        console.print("nginx is not installed: the web servers are Relevo's own small one.", highlight=False)
    if speed_up != 1.0:
        console.print(f"Sped up: check intervals and persistence are divided by {speed_up:g}.", highlight=False)
    topology = plan([(file, found.configuration) for file, found in compiled])
    for director, config_id in zip(topology.directors, ids, strict=True):
        director.config_id = config_id
    return Cluster(topology, chosen, speed_up=speed_up)


def _end_on_signals() -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C, so that the lab is removed."""

    def unwind(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, unwind)


@lab.command()
@_files
@_stage
@_speed_up
@_config_ids
def up(files: tuple[str, ...], stage: str, speed_up: float, config_ids: tuple[str, ...]) -> None:
    """Start the cluster and keep it running until Ctrl-C."""
    console = Console(stderr=True, soft_wrap=True)
    _end_on_signals()
    try:
        with _make(files, config_ids, stage, speed_up, console) as cluster:
            cluster.start_servers()
            for director in cluster.topology.directors:
                cluster.start_director(director)
            for host in cluster.topology.hosts():
                services = " ".join(f"{s.kind}:{s.port}" for s in host.services)
                click.echo(f"{host.name:<14} {host.address:<16} {services}")
            for director in cluster.topology.directors:
                click.echo(f"relevo status --run-dir {cluster.run_dir(director)}")
            console.print("Ctrl-C removes it.")
            while True:
                signal.pause()
    except KeyboardInterrupt:
        console.print("Removed.")


@lab.command()
@_files
@_stage
@_speed_up
@click.option("-j", "--json", "as_json", is_flag=True, help="Outcomes as JSON.")
@click.option("--details", is_flag=True, help="Also show the table of services and the subjects of the mails.")
@click.option("--keep-logs", type=click.Path(file_okay=False), help="Copy the directors' logs to this folder.")
@_config_ids
def drill(
    files: tuple[str, ...],
    stage: str,
    speed_up: float,
    as_json: bool,
    details: bool,
    keep_logs: str | None,
    config_ids: tuple[str, ...],
) -> None:
    """Run an administrator's checks on the cluster; exit 1 when one of them fails."""
    console = Console(stderr=True, soft_wrap=True)
    _end_on_signals()
    begun = time.monotonic()
    outcomes: list[Outcome] = []
    try:
        with _make(files, config_ids, stage, speed_up, console) as cluster:
            _drill(cluster, console, outcomes)
            if keep_logs:
                _keep_logs(cluster, keep_logs)
    except KeyboardInterrupt:
        console.print("Interrupted; the lab is removed.")
        sys.exit(130)
    passed = sum(outcome.passed for outcome in outcomes)
    if as_json:
        click.echo(msgspec.json.encode([_plain(outcome) for outcome in outcomes]))
    else:
        _show(outcomes, details)
        click.echo(f"{passed} of {len(outcomes)} steps passed in {time.monotonic() - begun:.0f} s")
    sys.exit(0 if passed == len(outcomes) else 1)


def _drill(cluster: Cluster, console: Console, outcomes: list[Outcome]) -> None:
    """Run the steps and show progress: a live line on a terminal, a line for each step elsewhere."""
    status = console.status("") if console.is_terminal else None

    def report(text: str) -> None:
        if status is not None:
            status.update(text)

    if status is not None:
        status.start()
    try:
        for outcome in Drill(cluster, report).run():
            outcomes.append(outcome)
            mark = "[green]ok[/]    " if outcome.passed else "[red]FAILED[/]"
            console.print(f"{mark} {outcome.seconds:6.1f} s  {outcome.name}", highlight=False)
            console.print(f"                 {outcome.measured}", style="dim", highlight=False, markup=False)
    finally:
        if status is not None:
            status.stop()


def _keep_logs(cluster: Cluster, folder: str) -> None:
    from pathlib import Path

    Path(folder).mkdir(parents=True, exist_ok=True)
    for director in cluster.topology.directors:
        (Path(folder) / f"{director.name}.log").write_text(cluster.log_text(director), encoding="utf-8")


def _show(outcomes: list[Outcome], details: bool) -> None:
    table = Table("", "step", "measured", "s", box=None, pad_edge=False, header_style="bold")
    for outcome in outcomes:
        mark = "[green]ok[/]" if outcome.passed else "[red]FAILED[/]"
        table.add_row(mark, outcome.name, outcome.measured.replace("[", "\\["), f"{outcome.seconds:.1f}")
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table)
    for outcome in outcomes:
        if details and outcome.detail:
            click.echo(f"\n{outcome.name}:\n{outcome.detail}")


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {
        "step": outcome.name,
        "passed": outcome.passed,
        "measured": outcome.measured,
        "seconds": round(outcome.seconds, 3),
        "detail": outcome.detail,
    }
