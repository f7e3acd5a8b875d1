"""Connection synchronisation by the kernel's own daemons: which run, what they report, and a full sync in their protocol."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from typing import Final

from relevo.host.sync_port import SyncSender
from relevo.model.table import SyncRole, SyncState, SyncTask
from relevo.planes.ipvs import convert
from relevo.planes.ipvs.kernel import PROC, Kernel
from relevo.wire import ipvs_netlink as wire
from relevo.wire import ipvs_sync
from relevo.wire.ipvs_netlink import Daemon, DaemonState
from relevo.wire.ipvs_proc import ConnectionLine, read_connections, read_origins

_NUMBERS: Final = {"TCP": wire.TCP, "UDP": wire.UDP}
_STATES: Final = {
    "TCP": {"ESTABLISHED": 1, "FIN_WAIT": 4, "TIME_WAIT": 5, "CLOSE": 6, "CLOSE_WAIT": 7},
    "UDP": {"UDP": 0},
}
"""States that are synchronised, by their numbers in the protocol."""
_TEMPLATE_STATES: Final = {"NONE": 0, "ASSURED": 1}
_INVALID_PORT: Final = 65_535
"""The port of a template whose server was removed."""
_ROLES: Final[dict[int, SyncRole]] = {DaemonState.MASTER: SyncRole.MASTER, DaemonState.BACKUP: SyncRole.BACKUP}


def state(kernel: Kernel, task: SyncTask | None, problem: str, *, counted: bool) -> SyncState | None:
    """Return the state of the kernel's daemons; ``None`` where none runs and there is no task.

    With ``counted``, connections are counted by origin: made here, or received from a peer.
    """
    running = sorted(kernel.daemons(), key=lambda daemon: daemon.state)
    if not running and task is None:
        return None
    origins: dict[str, int] = {}
    if counted:
        with open(PROC / "ip_vs_conn_sync", encoding="ascii", errors="replace") as file:
            origins = {"LOCAL": 0, "SYNC": 0} | Counter(read_origins(file))
    first = running[0] if running else None
    return SyncState(
        roles=tuple(_ROLES[daemon.state] for daemon in running),
        interface=first.interface if first else task.interface if task else "",
        sync_id=first.sync_id if first else task.sync_id if task else 0,
        group=first.group if first else "",
        port=first.port if first else 0,
        local=origins.get("LOCAL"),
        received=origins.get("SYNC"),
        problem=problem,
    )


def match_daemons(kernel: Kernel, task: SyncTask | None) -> str:
    """Make the kernel's running daemons those of the task; return why that failed, or an empty string."""
    if task is not None and task.peers:
        return "the kernel's sync daemons send to a multicast group only: remove 'peer'"
    if task is not None and task.key_file:
        return "the kernel's sync daemons cannot authenticate messages: remove lvs_sync_key"
    wanted = {} if task is None else {number: _daemon(task, number) for number, role in _ROLES.items() if role in task.roles}
    running = {daemon.state: daemon for daemon in kernel.daemons()}
    for number, daemon in running.items():
        if number not in wanted or not _alike(daemon, wanted[number]):
            kernel.stop_daemon(number)
    for number, daemon in wanted.items():
        if number in running and _alike(running[number], daemon):
            continue
        try:
            kernel.start_daemon(daemon)
        except OSError as error:
            return f"the kernel's {_ROLES[number]} daemon on {daemon.interface} does not start: {error.strerror or error}"
    return ""


def send_connections(task: SyncTask) -> int:
    """Send every connection of the kernel that a peer can take over; return their number."""
    with open(PROC / "ip_vs_conn", encoding="ascii", errors="replace") as file:
        entries = [entry for line in read_connections(file) if (entry := _sync_entry(line)) is not None]
    with SyncSender(task.interface, task.group, task.port, task.ttl) as sender:
        length = task.max_length or ipvs_sync.MAX_LENGTH
        for message in ipvs_sync.assemble(task.sync_id, map(ipvs_sync.encode, entries), length):
            sender.send(message)
    return len(entries)


def _sync_entry(line: ConnectionLine) -> ipvs_sync.Entry | None:
    """Return the sync message of a connection; ``None`` for one that no peer would take.

    The list does not contain the forwarding method: the peer uses that of its own server, as with the kernel's own messages.
    """
    template = line.client_port == 0
    states = _TEMPLATE_STATES if template else _STATES.get(line.protocol, {})
    if line.state not in states or line.server_port == _INVALID_PORT:
        return None
    inactive = template or line.state != "ESTABLISHED"
    return ipvs_sync.Entry(
        protocol=_NUMBERS.get(line.protocol, 0),
        client=ip_address(line.client).packed,
        client_port=line.client_port,
        virtual=ip_address(line.virtual).packed,
        virtual_port=line.virtual_port,
        server=ip_address(line.server).packed,
        server_port=line.server_port,
        state=states[line.state],
        flags=(ipvs_sync.TEMPLATE if template else 0) | (ipvs_sync.INACTIVE if inactive else 0),
        seconds=max(1, line.expires_s) if template else 0,
        mark=convert.mark_of(line),
    )


def _daemon(task: SyncTask, number: int) -> Daemon:
    return Daemon(
        state=number,
        interface=task.interface,
        sync_id=task.sync_id,
        max_length=task.max_length,
        group=task.group,
        port=task.port,
        ttl=task.ttl,
    )


def _alike(running: Daemon, wanted: Daemon) -> bool:
    """Whether a daemon is the wanted one. Where no maximum length was wanted, the kernel shows one of its own choice."""
    fields = ("interface", "sync_id", "group", "port", "ttl", *(("max_length",) if wanted.max_length else ()))
    return all(getattr(running, field) == getattr(wanted, field) for field in fields)
