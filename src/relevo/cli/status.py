"""``relevo status``, ``reload`` and ``stop``: short requests to a running daemon."""

from __future__ import annotations

import sys
from typing import TypeVar

import click
import msgspec

from relevo.api import schema
from relevo.api.client import ask
from relevo.errors import ControlError
from relevo.host.files import runtime_directory
from relevo.model.process import PlaneAtStop
from relevo.observe.plan import line_of
from relevo.observe.snapshot import (
    BalancerSnapshot,
    CheckSnapshot,
    InstanceSnapshot,
    ServerSnapshot,
    ServiceSnapshot,
    Snapshot,
    TrackerSnapshot,
)

A = TypeVar("A")

run_dir_option = click.option("--run-dir", help="Folder of the control socket [default: /run/relevo, or the user's].")

LATE_S = 0.1
"""Lateness of checks that is worth a line."""


def ask_daemon(run_dir: str | None, request: schema._Request[A]) -> A:
    """Send a request to the daemon; return its answer. ``ControlError`` when it refuses or does not run."""
    return ask(runtime_directory(run_dir), request)


@click.command()
@click.option("-j", "--json", "as_json", is_flag=True, help="The whole snapshot as JSON.")
@click.option("-L", "--listing", is_flag=True, help="The table of services as ipvsadm -L -n prints it.")
@run_dir_option
def status(as_json: bool, listing: bool, run_dir: str | None) -> None:
    """Show every VRRP instance with its state, and every service with its servers."""
    if listing:
        from relevo.compat.ipvsadm.program import listing_of

        click.echo(listing_of(runtime_directory(run_dir)), nl=False)
        return
    snapshot = ask_daemon(run_dir, schema.Status())
    if as_json:
        click.echo(msgspec.json.encode(snapshot))
        return
    for line in _lines(snapshot):
        click.echo(line)


@click.command()
@click.option("-j", "--json", "as_json", is_flag=True, help="What was done as JSON.")
@run_dir_option
def reload(as_json: bool, run_dir: str | None) -> None:
    """Reload the configuration file, and print what that did. The daemon refuses a bad file and changes nothing.

    Exit 1 when it refuses. ``relevo plan`` says beforehand what a reload would do.
    """
    done = ask_daemon(run_dir, schema.Reload())
    if as_json:
        click.echo(msgspec.json.encode(done))
        return
    for step in done.steps:
        click.echo(line_of(step))
    if not done.steps:
        click.echo("nothing to do", err=True)
    for problem in done.problems:
        click.echo(f"relevo: {problem}", err=True)


@click.command()
@click.option("--keep-plane", is_flag=True, help="Leave the data plane running; the next daemon adopts it.")
@click.option("--for-restart", is_flag=True, help="Keep connections for the next daemon, as SIGTERM does.")
@run_dir_option
def stop(keep_plane: bool, for_restart: bool, run_dir: str | None) -> None:
    """Stop the daemon gracefully: a peer takes over before the addresses are removed.

    Without an option, the data plane is removed. SIGTERM, which service managers send, also takes the plane out of service, but
    keeps its connections for the next daemon, so that they survive an upgrade or a restart. When no daemon is running, this
    command removes the connections that were kept.
    """
    wanted = PlaneAtStop
    at_stop = wanted.KEEP if keep_plane else wanted.KEEP_CONNECTIONS if for_restart else wanted.REMOVE
    try:
        ask_daemon(run_dir, schema.Stop(at_stop))
    except ControlError:
        from relevo.planes.catalogue import pin_folder
        from relevo.planes.ebpf import remove_pins

        kept = pin_folder(runtime_directory(run_dir))
        if at_stop is not wanted.REMOVE or not kept.exists():
            raise
        remove_pins(kept)
        click.echo("no daemon is running; removed the connections that the last one had kept", err=True)


# -- text -------------------------------------------------------------------------------------------------------------


def _plane_lines(balancer: BalancerSnapshot) -> list[str]:
    out = ["", f"data plane {balancer.plane} ({balancer.plane_reason})"]
    if balancer.plane_error:
        out.append(f"  {balancer.plane_error}")
    if balancer.check_lateness_s > LATE_S:
        out.append(f"  checks begin late, up to {balancer.check_lateness_s:.1f} s: this machine has too much to do")
    out += [f"  {attachment}" for attachment in balancer.plane_attachments]
    drops = {name: count for name, count in balancer.packets.items() if not name.startswith("pass_")}
    if drops:
        out.append("  " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in drops.items()))
    return out


def _lines(snapshot: Snapshot) -> list[str]:
    now = snapshot.taken_at
    out = [
        f"Relevo {snapshot.version} [{snapshot.router_id}] pid {snapshot.pid}, "
        f"up {_span(now - snapshot.started_at)}, {snapshot.file}"
    ]
    if snapshot.reload_error:
        out.append(f"  last reload refused: {snapshot.reload_error}")
    for worker in snapshot.workers:
        if not worker.answered:
            out.append(f"  {worker.role} worker {worker.pid} does not answer")
        elif worker.restarts:
            out.append(f"  {worker.role} worker was restarted {worker.restarts} times, last {_span(now - worker.since_at)} ago")
    if snapshot.mail.waiting or snapshot.mail.last_error:
        out.append(f"  {snapshot.mail.waiting} mails waiting: {snapshot.mail.last_error}")
    for instance in snapshot.director.instances:
        out += ["", *_instance_lines(instance, now)]
    for group in snapshot.director.groups:
        out.append(f"group {group.name}: {_state(group.state)} ({' '.join(group.members)})")
    if snapshot.balancer.services:
        out += _plane_lines(snapshot.balancer)
    for service in snapshot.balancer.services:
        out += ["", *_service_lines(service, now)]
    return out


def _instance_lines(instance: InstanceSnapshot, now: float) -> list[str]:
    master = f"master is {instance.master_address} (priority {instance.master_priority})"
    if instance.state == "MASTER":
        master = f"own address {instance.own_address}"
    elif not instance.master_address:
        master = "no master known yet"
    out = [
        f"{instance.name}: {_state(instance.state)} for {_span(now - instance.since_at)}: {instance.reason}",
        f"  {instance.interface or '-'} vrid {instance.virtual_router_id} VRRPv{instance.version} priority {instance.priority}"
        f" every {instance.advert_interval_s:g} s; {master}",
        f"  addresses {' '.join(instance.addresses) or '-'}; "
        f"adverts sent {instance.adverts_sent}, received {instance.adverts_received}",
    ]
    if instance.trackers:
        out += _tracker_lines(instance)
    if instance.waiting:
        out.append(f"  does not take over yet: {_WAITING.get(instance.waiting, instance.waiting)}")
    if instance.refused:
        out.append("  adverts dropped: " + ", ".join(f"{count} {reason}" for reason, count in instance.refused.items()))
    return out


def _tracker_lines(instance: InstanceSnapshot) -> list[str]:
    """Format the effective priority as a sum, and each tracker."""
    parts = [f"{tracker.contribution:+d} {tracker.name}" for tracker in instance.trackers if tracker.contribution]
    out = [f"  priority {instance.priority} = {' '.join([str(instance.base_priority), *parts])}"] if parts else []
    for tracker in instance.trackers:
        weight = f" weight {tracker.weight}" if tracker.weight else ""
        reverse = " reverse" if tracker.reverse else ""
        state = _tracker_state(tracker) + (": FAULT" if tracker.fault else "")
        out.append(f"  track_{tracker.kind} {tracker.name}{weight}{reverse}: {state}")
    return out


def _tracker_state(tracker: TrackerSnapshot) -> str:
    if tracker.value is None:
        return "unknown, not counted"
    if tracker.kind == "file":
        return f"number {tracker.value}"
    return "up" if tracker.value else "down"


def _service_lines(service: ServiceSnapshot, now: float) -> list[str]:
    persistent = f" persistent {service.persistence_timeout_s} s" if service.persistence_timeout_s else ""
    name = f"mark {service.mark}" if service.mark else f"{service.protocol} {service.address}:{service.port}"
    group = f" [{service.group}]" if service.group else ""
    head = f"{name}{group} {service.scheduler}{persistent}: "
    state = "UP" if service.up else ("SORRY SERVER" if service.uses_sorry_server else "DOWN")
    head += f"{_state(state)} for {_span(now - service.since_at)}, weight {service.live_weight} of quorum {service.quorum}"
    out = [head]
    if service.listening:
        out.append(f"  not listening: {service.listening}")
    out.append(f"  {'server':<24} {'state':<6} {'weight':>6} {'active':>7} {'total':>9}  last check")
    return out + [_server_line(server, now) for server in service.servers]


def _server_line(server: ServerSnapshot, now: float) -> str:
    name = f"{server.address}:{server.port}"
    state = "SORRY" if server.sorry else ("UP" if server.up else "DOWN")
    if server.order in ("drain", "maint"):
        state = server.order.upper()
    padded = _state(state) + " " * (6 - len(state))
    checks = "; ".join(_check_text(check, now) for check in server.checks) or "none"
    if server.order:
        checks = f"relevo server says {server.order}, the file weight {server.declared_weight}; {checks}"
    return f"  {name:<24} {padded} {server.weight:>6} {server.active:>7} {server.connections:>9}  {checks}"


def _check_text(check: CheckSnapshot, now: float) -> str:
    if check.last_at is None:
        return f"{check.kind} not run yet"
    return f"{check.kind} {check.last_result}, {_span(now - check.last_at)} ago"


_WAITING = {
    "nopreempt": "nopreempt",
    "handed_over": "it was handed over; relevo failover --back ends that",
    "data_plane": "its data plane is not ready",
    "connections": "connections are not in sync with the master",
    "preempt_delay": "preempt_delay",
}

_COLOURS = {
    "MASTER": "green",
    "UP": "green",
    "BACKUP": "cyan",
    "FAULT": "red",
    "DOWN": "red",
    "SORRY": "yellow",
    "DRAIN": "yellow",
    "MAINT": "yellow",
    "SORRY SERVER": "yellow",
}


def _state(text: str) -> str:
    import os

    if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return click.style(text, fg=_COLOURS.get(text), bold=True)


def _span(seconds: float) -> str:
    """Format a duration in its two largest units."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    whole = int(seconds)
    parts: list[str] = []
    for name, size in units:
        if whole >= size or (parts and len(parts) < 2):
            parts.append(f"{whole // size} {name}")
            whole %= size
        if len(parts) == 2:
            break
    return " ".join(parts)
