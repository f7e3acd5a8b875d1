"""The tables that ipvsadm works on: the kernel's, or that of a running daemon's plane."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from relevo.api import schema
from relevo.api.client import SOCKET_NAME, ask
from relevo.api.schema import ANSWER_S, TableView
from relevo.errors import ControlError, HostError, PlaneError
from relevo.host.files import runtime_directory
from relevo.model import Endpoint, PlaneTimeouts, ServiceKey
from relevo.model.table import (
    AddServer,
    AddService,
    DeleteServer,
    DeleteService,
    EditServer,
    EditService,
    Operation,
    ServiceState,
    SyncRole,
    Traffic,
)
from relevo.planes.catalogue import is_kernel_table
from relevo.planes.ipvs import convert
from relevo.planes.ipvs.kernel import PROC, Kernel
from relevo.wire import ipvs_netlink as wire
from relevo.wire.ipvs_netlink import (
    Command,
    Counters,
    Daemon,
    DaemonState,
    Destination,
    Identity,
    Info,
    Service,
    Timeouts,
)
from relevo.wire.ipvs_proc import ConnectionLine, read_connections

IPVS_VERSION: Final = 0x010201
"""1.2.1, the version of every kernel since 2005."""
MEASURE_S: Final = 1.0
BATCH: Final = 200
"""Operations in a request, whose size is limited."""
_ROLES: Final = {SyncRole.MASTER: DaemonState.MASTER, SyncRole.BACKUP: DaemonState.BACKUP}
_NUMBERS: Final = {
    "service already exists": errno.EEXIST,
    "no such service": errno.ESRCH,
    "destination already exists": errno.EEXIST,
    "no such destination": errno.ENOENT,
    "service not defined": errno.ESRCH,
}
"""The kernel's error numbers for the reasons of planes."""


A = TypeVar("A")


class Table(Protocol):
    """A table of virtual services. A method that fails raises ``OSError`` with the kernel's error number."""

    def info(self) -> Info:
        """Return version and table size."""
        ...

    def services(self) -> list[Service]:
        """Return every service."""
        ...

    def service(self, identity: Identity) -> Service:
        """Return a service; ``OSError`` ESRCH when there is none."""
        ...

    def destinations(self, identity: Identity) -> list[Destination]:
        """Return a service's servers, newest first."""
        ...

    def change_service(self, command: Command, service: Service) -> None:
        """Add (NEW_SERVICE), edit (SET_SERVICE) or delete (DEL_SERVICE) a service."""
        ...

    def change_destination(self, command: Command, identity: Identity, destination: Destination) -> None:
        """Add (NEW_DEST), edit (SET_DEST) or delete (DEL_DEST) a server."""
        ...

    def connections(self) -> Iterable[ConnectionLine]:
        """Return connections and templates."""
        ...

    def timeouts(self) -> Timeouts:
        """Return the three time-outs."""
        ...

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """Change time-outs; 0 leaves one as it is."""
        ...

    def daemons(self) -> list[Daemon]:
        """Return the synchronisation daemons that run."""
        ...

    def start_daemon(self, daemon: Daemon) -> None:
        """Start a synchronisation daemon."""
        ...

    def stop_daemon(self, daemon: Daemon) -> None:
        """Stop the synchronisation daemon of the same role."""
        ...

    def zero(self, identity: Identity | None) -> None:
        """Zero the counters of a service, or of all."""
        ...

    def flush(self) -> None:
        """Remove every service."""
        ...

    def measure(self) -> None:
        """Make the counters returned from now on include rates."""
        ...


class KernelTable:
    """IPVS of this network namespace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.info, self.services, self.service = kernel.info, kernel.services, kernel.service
        self.destinations, self.timeouts, self.daemons = kernel.destinations, kernel.timeouts, kernel.daemons
        self.set_timeouts, self.start_daemon = kernel.set_timeouts, kernel.start_daemon
        self.zero, self.flush = kernel.zero, kernel.flush

    def change_service(self, command: Command, service: Service) -> None:
        names_only = command == Command.DEL_SERVICE
        self._kernel.command(command, wire.encode_service_key(service.identity) if names_only else wire.encode_service(service))

    def change_destination(self, command: Command, identity: Identity, destination: Destination) -> None:
        if command == Command.DEL_DEST:
            body = wire.encode_destination_key(identity, destination.address, destination.port)
        else:
            body = wire.encode_destination(identity, destination)
        self._kernel.command(command, body)

    def connections(self) -> Iterable[ConnectionLine]:
        """Read ``/proc/net/ip_vs_conn``."""
        with open(PROC / "ip_vs_conn", encoding="ascii", errors="replace") as file:
            yield from read_connections(file)

    def stop_daemon(self, daemon: Daemon) -> None:
        self._kernel.stop_daemon(daemon.state)

    def measure(self) -> None:
        """Do nothing: the kernel always has rates."""


class DaemonTable:
    """The table of a running daemon's plane, through its control socket."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._view: TableView | None = None
        self._former: tuple[float, TableView] | None = None

    # -- requests ----------------------------------------------------------------------------------------------

    def _ask(self, request: schema.Table) -> schema.TableAnswer:
        """Send a request and keep the table of its answer; ``OSError`` when the daemon refuses."""
        answer = self._answer(request)
        if answer.problem:
            raise OSError(errno.EOPNOTSUPP, answer.problem)
        self._view = answer.table
        return answer

    def _answer(self, request: schema._Request[A]) -> A:
        try:
            return ask(self._run_dir, request)
        except ControlError as error:
            raise OSError(errno.EOPNOTSUPP, str(error)) from error

    def _table(self) -> TableView:
        if self._view is None:
            self._ask(schema.Table())
        assert self._view is not None
        return self._view

    def _change(self, operation: Operation) -> None:
        (reason,) = self._ask(schema.Table(operations=[operation], show=False)).refused
        if reason:
            raise OSError(_NUMBERS.get(reason, errno.EINVAL), reason)

    # -- reading -----------------------------------------------------------------------------------------------

    def info(self) -> Info:
        """Return IPVS's version, and the size of the plane's connection table."""
        return Info(IPVS_VERSION, self._table().settings.table_size)

    def measure(self) -> None:
        """Read the table twice, a second apart; rates are the differences."""
        self._former = time.monotonic(), self._table()
        time.sleep(MEASURE_S)
        self._ask(schema.Table())

    def services(self) -> list[Service]:
        return [self._to_service(state) for state in self._table().services]

    def service(self, identity: Identity) -> Service:
        return self._to_service(self._state(identity))

    def destinations(self, identity: Identity) -> list[Destination]:
        state = self._state(identity)
        former = self._before(state)
        servers = {} if former is None else {server.server.endpoint: server.traffic for server in former.servers}
        return [
            msgspec.structs.replace(
                convert.destination_of(server.server),
                active=server.active,
                inactive=server.inactive,
                persistent=server.persistent,
                counters=self._counters(server.traffic, servers.get(server.server.endpoint)),
            )
            for server in reversed(state.servers)
        ]

    def _state(self, identity: Identity) -> ServiceState:
        found = next((s for s in self._table().services if convert.identity_of(s.service.key) == identity), None)
        if found is None:
            raise OSError(errno.ESRCH, "no such service")
        return found

    def _to_service(self, state: ServiceState) -> Service:
        former = self._before(state)
        counters = self._counters(state.traffic, former.traffic if former else None)
        return msgspec.structs.replace(convert.service_of(state.service), counters=counters)

    def _before(self, state: ServiceState) -> ServiceState | None:
        """Return the service as ``measure`` read it first."""
        if self._former is None:
            return None
        return next((s for s in self._former[1].services if s.service.key == state.service.key), None)

    def _counters(self, now: Traffic, before: Traffic | None) -> Counters:
        values = {name: getattr(now, name) for name in Traffic.__struct_fields__}
        if before is not None and self._former is not None:
            passed = time.monotonic() - self._former[0]
            values |= {f"{name}_rate": max(0, round((value - getattr(before, name)) / passed)) for name, value in values.items()}
        return Counters(**values)

    def connections(self) -> Iterable[ConnectionLine]:
        for found in self._answer(schema.Connections()).connections:
            virtual = str(IPv4Address(found.mark)) if found.mark else found.virtual.address
            yield ConnectionLine(
                "IP" if found.mark else found.protocol.value,
                found.client.address,
                found.client.port,
                virtual,
                found.virtual.port,
                found.server.address,
                found.server.port,
                found.state,
                int(found.expires_s or 0),
            )

    def timeouts(self) -> Timeouts:
        found = self._table().settings.timeouts
        return Timeouts(found.tcp_s, found.tcp_fin_s, found.udp_s)

    def daemons(self) -> list[Daemon]:
        """Return a daemon for each role of this node in synchronisation."""
        state = self._answer(schema.Sync()).state
        if state is None:
            return []
        return [Daemon(state=_ROLES[role], interface=state.interface, sync_id=state.sync_id) for role in state.roles]

    # -- changing ----------------------------------------------------------------------------------------------

    def change_service(self, command: Command, service: Service) -> None:
        """Add, edit or delete a service. Reconciling with the configuration leaves services added so alone."""
        key = self._key(service.identity)
        if command == Command.DEL_SERVICE:
            self._change(DeleteService(key))
            return
        entry = convert.entry_of(service, key)
        self._change(AddService(entry) if command == Command.NEW_SERVICE else EditService(entry))

    def change_destination(self, command: Command, identity: Identity, destination: Destination) -> None:
        key = self._key(identity)
        if command == Command.DEL_DEST:
            self._change(DeleteServer(key, Endpoint(destination.address, destination.port)))
            return
        entry = convert.server_of(destination)
        self._change(AddServer(key, entry) if command == Command.NEW_DEST else EditServer(key, entry))

    @staticmethod
    def _key(identity: Identity) -> ServiceKey:
        key = convert.key_of(identity)
        if key is None:
            raise OSError(errno.EPROTONOSUPPORT, "no SCTP here")
        return key

    def set_timeouts(self, timeouts: Timeouts) -> None:
        wanted = PlaneTimeouts(timeouts.tcp_s, timeouts.tcp_fin_s, timeouts.udp_s)
        self._ask(schema.Table(timeouts=wanted, show=False))

    def zero(self, identity: Identity | None) -> None:
        if identity is None:
            self._ask(schema.Table(zero_all=True))
            return
        self._state(identity)
        self._ask(schema.Table(zero=self._key(identity)))

    def flush(self) -> None:
        """Remove every service. The daemon adds those of the configuration again."""
        keys = [state.service.key for state in self._table().services]
        for first in range(0, len(keys), BATCH):
            removals: list[Operation] = [DeleteService(key) for key in keys[first : first + BATCH]]
            self._ask(schema.Table(operations=removals, show=False))

    def start_daemon(self, daemon: Daemon) -> None:
        """Refuse: the configuration starts and stops it."""
        raise OSError(errno.EOPNOTSUPP, "write lvs_sync_daemon into the configuration")

    def stop_daemon(self, daemon: Daemon) -> None:
        """Refuse: the configuration starts and stops it."""
        raise OSError(errno.EOPNOTSUPP, "remove lvs_sync_daemon from the configuration")


def table_in_charge() -> Table:
    """Return the table in use on this machine: that of a running daemon's plane, or the kernel's.

    ``PlaneError`` when a daemon runs and does not answer which plane it uses: a table that is not in use must not be changed.
    """
    try:
        run_dir = runtime_directory(os.environ.get("RELEVO_RUN_DIR"))
    except HostError:
        return KernelTable(Kernel())  # another user's daemon
    if not listens(run_dir / SOCKET_NAME):
        return KernelTable(Kernel())
    try:
        name = ask(run_dir, schema.Plane()).plane
    except (ControlError, msgspec.MsgspecError) as error:
        raise PlaneError(f"the daemon at {run_dir} does not answer which plane it uses: {error}") from error
    return KernelTable(Kernel()) if is_kernel_table(name) else DaemonTable(run_dir)


def listens(control: Path) -> bool:
    """Whether a daemon listens on a control socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ANSWER_S)
        return probe.connect_ex(str(control)) not in (errno.ENOENT, errno.ECONNREFUSED)
