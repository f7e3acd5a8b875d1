"""The kernel's IPVS behind the port: it forwards packets whether this process lives or not, and its table is everybody's."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Final, TypeVar

from relevo.errors import PlaneError
from relevo.host.sync_port import SyncSender
from relevo.model import Endpoint, Forwarding, PlaneTimeouts, Protocol, ServiceKey, Sysctl, TunnelChecksum, TunnelKind, sysctls
from relevo.model.table import (
    AddServer,
    AddService,
    Connection,
    ConnectionFilter,
    DeleteServer,
    DeleteService,
    EditServer,
    EditService,
    Operation,
    PlaneSettings,
    ServerEntry,
    ServiceEntry,
    ServiceState,
    SyncRole,
    SyncState,
    SyncTask,
)
from relevo.planes.ipvs import convert
from relevo.planes.ipvs.kernel import PROC, Kernel
from relevo.planes.port import Capabilities, PlaneEvent, Refused
from relevo.wire import ipvs_netlink as wire
from relevo.wire import ipvs_sync
from relevo.wire.ipvs_netlink import Command, Daemon, DaemonState, Destination, Method, Timeouts
from relevo.wire.ipvs_proc import ConnectionLine, read_connections, read_origins
from relevo.wire.netlink import Malformed

SCHEDULERS: Final = frozenset(["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf", "twos"])
"""What kernels have; one without a scheduler's module is served by ``FALLBACK``."""
FALLBACK: Final = "wlc"
SYSCTLS: Final = Path("/proc/sys/net/ipv4/vs")
TIME_WAIT_S: Final = 120.0
TEMPLATE_AGAIN_S: Final = 60.0
"""A template whose time is over while connections are left gets so much more, whatever its time was (ip_vs_conn_expire)."""
MAX_WEIGHT: Final = 65_535
"""ipvsadm's limit; the kernel would take 2³¹ - 1 and overflow in its products."""
_SERVICE_REASONS: Final = {
    errno.EEXIST: "service already exists",
    errno.ESRCH: "no such service",
    errno.EPERM: "the kernel wants CAP_NET_ADMIN in the first user namespace",
}
_SERVER_REASONS: Final = {
    errno.EEXIST: "destination already exists",
    errno.ENOENT: "no such destination",
    errno.ESRCH: "service not defined",
    errno.EINVAL: "the kernel takes no such destination (address not unicast, or not of the service's family)",
    errno.ERANGE: "the lower threshold is above the upper one",
}
_NO_SUCH_DESTINATION: Final = "no such destination"

_NUMBERS: Final = {"TCP": wire.TCP, "UDP": wire.UDP}
_STATES: Final = {
    "TCP": {"ESTABLISHED": 1, "FIN_WAIT": 4, "TIME_WAIT": 5, "CLOSE": 6, "CLOSE_WAIT": 7},
    "UDP": {"UDP": 0},
}
"""States that are handed over, as numbers of the protocol."""
_TEMPLATE_STATES: Final = {"NONE": 0, "ASSURED": 1}
_INVALID_PORT: Final = 65_535
"""Of a template whose server is gone."""
_ROLES: Final[dict[int, SyncRole]] = {DaemonState.MASTER: SyncRole.MASTER, DaemonState.BACKUP: SyncRole.BACKUP}

Result = TypeVar("Result")


def capabilities_of_ipvs() -> Capabilities:
    """What this plane can do."""
    return Capabilities(
        name="ipvs",
        transports=frozenset((Protocol.TCP, Protocol.UDP)),
        schedulers=SCHEDULERS,
        forwarding=frozenset((Forwarding.NAT, Forwarding.DR, Forwarding.TUN)),
        survives_daemon=True,
        any_port=True,
        marks=True,
        one_packet=True,
        tunnels=frozenset(TunnelKind),
        tunnel_checksums=frozenset(TunnelChecksum),
        keeps_connections=True,
        sysctls=frozenset(sysctls.RANGES),
        template_lag_s=TIME_WAIT_S + TEMPLATE_AGAIN_S,
        shared=True,
    )


@cache
def unavailable_reason() -> str:
    """Return why this system cannot have the plane, or nothing. Tried: the kernel is asked, and its module asked for."""
    try:
        kernel = Kernel()
    except PlaneError as error:
        return str(error)
    try:
        kernel.info()
    except OSError as error:
        return _SERVICE_REASONS.get(error.errno or 0, str(error))
    finally:
        kernel.close()
    return ""


class IpvsPlane:
    """IPVS of this network namespace, connected to at the first use."""

    def __init__(self, timeouts: PlaneTimeouts | None = None) -> None:
        self._timeouts = timeouts or PlaneTimeouts()
        self._kernel: Kernel | None = None
        self._busy = asyncio.Lock()
        self._notices: list[PlaneEvent] = []
        self._declared: dict[ServiceKey, ServiceEntry] = {}
        self._servers: dict[tuple[ServiceKey, Endpoint], ServerEntry] = {}
        self._task: SyncTask | None = None
        self._sync_problem = ""
        self._found_sysctls: dict[str, Sysctl] = {}

    def capabilities(self) -> Capabilities:
        """What this plane can do."""
        return capabilities_of_ipvs()

    # -- the table ---------------------------------------------------------------------------------------------

    async def observe(self) -> list[ServiceState]:
        """Return the services of the kernel that a configuration can declare, whoever made them."""
        return await self._with_kernel(self._observe)

    def _observe(self, kernel: Kernel) -> list[ServiceState]:
        found = []
        for service in kernel.services():
            key = convert.key_of(service.identity)
            if key is None:
                continue
            entry = convert.entry_of(service, key)
            declared = self._declared.get(key)
            if declared is not None and _holds(declared, entry):
                entry = declared
            servers = tuple(
                convert.server_state(destination, self._server_entry(key, destination))
                for destination in reversed(kernel.destinations(service.identity))
            )
            found.append(convert.service_state(service, entry, servers))
        return found

    def _server_entry(self, key: ServiceKey, found: Destination) -> ServerEntry:
        """Return what was declared, if the kernel holds that; what it does not hold (PROXY protocol) is in there too."""
        entry = convert.server_of(found)
        declared = self._servers.get((key, entry.endpoint))
        if declared is None:
            return entry
        wanted = convert.server_of(convert.destination_of(declared))
        alike = entry == wanted or (found.method == Method.LOCAL and _without_method(entry) == _without_method(wanted))
        return declared if alike else entry

    async def apply(self, operations: Sequence[Operation]) -> list[Refused]:
        """Change the table, many operations at a time."""
        return await self._with_kernel(lambda kernel: self._apply(kernel, operations))

    def _apply(self, kernel: Kernel, operations: Sequence[Operation]) -> list[Refused]:
        refused = {number: reason for number, operation in enumerate(operations) if (reason := unfit(operation))}
        sent = [number for number in range(len(operations)) if number not in refused]
        errors = dict(zip(sent, kernel.change([_command(operations[number]) for number in sent]), strict=True))
        self._fall_back(kernel, operations, errors)
        for number, error in errors.items():
            if error:
                refused[number] = _reason(operations[number], error)
            else:
                self._note(operations[number])
        return [Refused(operations[number], refused[number]) for number in sorted(refused)]

    def _fall_back(self, kernel: Kernel, operations: Sequence[Operation], errors: dict[int, int]) -> None:
        """Give services whose scheduler the kernel has not another one, and what depends on them a second try."""
        served: set[ServiceKey] = set()
        for number, error in errors.items():
            operation = operations[number]
            if error == errno.ENOENT and isinstance(operation, AddService | EditService):
                entry = operation.service
                command, _ = _command(operation)
                (errors[number],) = kernel.change([(command, wire.tell_service(convert.service_of(_with_fallback(entry))))])
                served.add(entry.key)
                text = f"the kernel has no scheduler '{entry.scheduler}': {entry.key} is served by {FALLBACK}"
                self._notices.append(PlaneEvent(text, grave=True))
            elif error == errno.ESRCH and isinstance(operation, AddServer) and operation.key in served:
                (errors[number],) = kernel.change([_command(operation)])

    def _note(self, operation: Operation) -> None:
        """Remember what was declared."""
        match operation:
            case AddService(service=entry) | EditService(service=entry):
                self._declared[entry.key] = entry
            case DeleteService(key=key):
                self._declared.pop(key, None)
                self._servers = {place: entry for place, entry in self._servers.items() if place[0] != key}
            case AddServer(key=key, server=server) | EditServer(key=key, server=server):
                self._servers[key, server.endpoint] = server
            case DeleteServer(key=key, endpoint=endpoint):
                self._servers.pop((key, endpoint), None)

    def _set_timeouts(self, kernel: Kernel) -> None:
        wanted = Timeouts(self._timeouts.tcp_s, self._timeouts.tcp_fin_s, self._timeouts.udp_s)
        if wanted != Timeouts():
            kernel.set_timeouts(wanted)

    # -- connections -------------------------------------------------------------------------------------------

    async def connections(self) -> list[Connection]:
        """Return what ``/proc/net/ip_vs_conn`` lists."""
        return await self._with_kernel(lambda kernel: list(_listed()))

    async def drop(self, wanted: ConnectionFilter) -> int:
        """IPVS has no command for it."""
        raise PlaneError(
            "the kernel's IPVS cannot end connections",
            hint="give their server weight 0, or set net.ipv4.vs.expire_nodest_conn and remove it",
        )

    # -- synchronisation ---------------------------------------------------------------------------------------

    async def synchronise(self, task: SyncTask | None, in_sync: Callable[[bool], None]) -> str:
        """Let the kernel's daemons run that a task wants, and no other; without ever having had a task leave them alone."""
        if task is not None or self._task is not None:
            self._task = task
            self._sync_problem = await self._with_kernel(lambda kernel: _match_daemons(kernel, task))
        return self._sync_problem

    async def complete_sync(self) -> int:
        """Tell the peers what the kernel lists, in the kernel's own protocol: its daemon keeps news for two seconds, and to
        itself what it has not seen three packets of.
        """
        task = self._task
        if task is None or SyncRole.MASTER not in task.roles:
            return 0
        return await self._with_kernel(lambda kernel: _announce(kernel, task))

    async def sync_state(self, *, counted: bool) -> SyncState | None:
        """Return what the kernel tells: its daemons, and which connections came by one."""
        return await self._with_kernel(lambda kernel: self._sync_state(kernel, counted))

    def _sync_state(self, kernel: Kernel, counted: bool) -> SyncState | None:
        running = sorted(kernel.daemons(), key=lambda daemon: daemon.state)
        if not running and self._task is None:
            return None
        origins: dict[str, int] = {}
        if counted:
            with open(PROC / "ip_vs_conn_sync", encoding="ascii", errors="replace") as file:
                origins = {"LOCAL": 0, "SYNC": 0} | Counter(read_origins(file))
        first = running[0] if running else None
        return SyncState(
            roles=tuple(_ROLES[daemon.state] for daemon in running),
            interface=first.interface if first else self._task.interface if self._task else "",
            sync_id=first.sync_id if first else self._task.sync_id if self._task else 0,
            group=first.group if first else "",
            port=first.port if first else 0,
            local=origins.get("LOCAL"),
            received=origins.get("SYNC"),
            problem=self._sync_problem,
        )

    # -- the rest ----------------------------------------------------------------------------------------------

    async def set_local(self, local: frozenset[str], floating: frozenset[str]) -> None:
        """The kernel serves what is delivered to this node: addresses come and go by VRRP alone."""

    async def settings(self) -> PlaneSettings:
        """Return what the kernel says."""
        return await self._with_kernel(_settings)

    async def set_timeouts(self, wanted: PlaneTimeouts) -> str:
        """Change time-outs, for everybody who uses the table."""
        self._timeouts = wanted
        await self._with_kernel(self._set_timeouts)
        return ""

    async def set_sysctls(self, wanted: Sequence[Sysctl]) -> list[str]:
        """Write those that differ into ``/proc/sys/net/ipv4/vs``; what is wanted no more gets the value that it had before us."""
        return await self._with_kernel(lambda kernel: self._set_sysctls(wanted))

    def _set_sysctls(self, wanted: Sequence[Sysctl]) -> list[str]:
        named = {sysctl.name for sysctl in wanted}
        again = [self._found_sysctls.pop(name) for name in list(self._found_sysctls) if name not in named]
        refused = []
        for sysctl in (*again, *wanted):
            former, reason = _set_sysctl(sysctl)
            if reason:
                refused.append(reason)
            elif former is not None and sysctl.name in named:
                self._found_sysctls.setdefault(sysctl.name, former)
        return refused

    def events(self) -> list[PlaneEvent]:
        """Return what happened since the last call."""
        found, self._notices = self._notices, []
        return found

    def attachments(self) -> tuple[str, ...]:
        """Nothing to add: it is at work everywhere."""
        return ()

    def drop_counters(self) -> dict[str, int]:
        """The kernel does not tell what became of packets."""
        return {}

    async def close(self) -> None:
        """Let go; the table stays."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    async def remove(self, *, keep_connections: bool = False) -> None:
        """Remove the services that were declared here; those of others stay, and so do connections, in the kernel's own table."""
        mine = [DeleteService(key) for key in self._declared]
        if mine:
            await self.apply(mine)
        await self.close()

    async def _with_kernel(self, work: Callable[[Kernel], Result]) -> Result:
        """Do work in a thread of its own: ten thousand servers take a tenth of a second."""
        async with self._busy:
            try:
                if self._kernel is None:
                    self._kernel = await asyncio.to_thread(Kernel)
                    await asyncio.to_thread(self._set_timeouts, self._kernel)
                return await asyncio.to_thread(work, self._kernel)
            except Malformed as error:
                raise PlaneError(f"ipvs: the kernel's answer cannot be read: {error}") from error
            except OSError as error:
                await self.close()
                raise PlaneError(f"ipvs: {error.strerror or error}") from error


def _set_sysctl(sysctl: Sysctl) -> tuple[Sysctl | None, str]:
    """Set one, if it is not so already; return what it was if that was something else, and why it could not be set."""
    path = SYSCTLS / sysctl.name
    try:
        former = Sysctl(sysctl.name, tuple(map(int, path.read_text().split())))
        if former == sysctl:
            return None, ""
        path.write_text(" ".join(map(str, sysctl.values)))
    except FileNotFoundError:
        return None, f"this kernel has no net.ipv4.vs.{sysctl.name}"
    except OSError as error:
        return None, f"net.ipv4.vs.{sysctl}: {error.strerror}"
    return former, ""


def _settings(kernel: Kernel) -> PlaneSettings:
    timeouts = kernel.timeouts()
    return PlaneSettings(kernel.info().table_size, PlaneTimeouts(timeouts.tcp_s, timeouts.tcp_fin_s, timeouts.udp_s))


def _reason(operation: Operation, error: int) -> str:
    """Return what an error number means to who asked for the operation."""
    if isinstance(operation, EditServer | DeleteServer) and error == errno.ESRCH:
        return _NO_SUCH_DESTINATION
    reasons = _SERVER_REASONS if isinstance(operation, AddServer | EditServer | DeleteServer) else _SERVICE_REASONS
    return reasons.get(error, os.strerror(error))


def _match_daemons(kernel: Kernel, task: SyncTask | None) -> str:
    """Stop daemons that are not wanted as they are, start those that are missing; return what stands against it, or nothing."""
    if task is not None and task.peers:
        return "the kernel's daemons speak to a multicast group alone: leave out 'peer'"
    if task is not None and task.key_file:
        return "the kernel's daemons cannot seal what they say: leave out lvs_sync_key"
    wanted = {} if task is None else {state: _daemon(task, state) for state, role in _ROLES.items() if role in task.roles}
    running = {daemon.state: daemon for daemon in kernel.daemons()}
    for state, daemon in running.items():
        if state not in wanted or not _alike(daemon, wanted[state]):
            kernel.stop_daemon(state)
    for state, daemon in wanted.items():
        if state in running and _alike(running[state], daemon):
            continue
        try:
            kernel.start_daemon(daemon)
        except OSError as error:
            return f"the kernel's {_ROLES[state]} daemon on {daemon.interface} does not start: {error.strerror or error}"
    return ""


def _announce(kernel: Kernel, task: SyncTask) -> int:
    """Send every connection that can be handed over; return their number."""
    with open(PROC / "ip_vs_conn", encoding="ascii", errors="replace") as file:
        entries = [entry for line in read_connections(file) if (entry := _sync_entry(line)) is not None]
    with SyncSender(task.interface, task.group, task.port, task.ttl) as sender:
        length = task.max_length or ipvs_sync.MAX_LENGTH
        for message in ipvs_sync.assemble(task.sync_id, map(ipvs_sync.encode, entries), length):
            sender.send(message)
    return len(entries)


def _sync_entry(line: ConnectionLine) -> ipvs_sync.Entry | None:
    """Return what to tell of a connection; ``None`` for one that no peer would take.

    The list does not say how packets are forwarded: the peer has its server's way, as it has for the kernel's own messages.
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
        mark=_mark(line),
    )


def _daemon(task: SyncTask, state: int) -> Daemon:
    return Daemon(
        state=state,
        interface=task.interface,
        sync_id=task.sync_id,
        max_length=task.max_length,
        group=task.group,
        port=task.port,
        ttl=task.ttl,
    )


def _alike(running: Daemon, wanted: Daemon) -> bool:
    """Whether a daemon is the wanted one. The kernel shows a length of its own choice where none was wanted."""
    fields = ("interface", "sync_id", "group", "port", "ttl", *(("max_length",) if wanted.max_length else ()))
    return all(getattr(running, field) == getattr(wanted, field) for field in fields)


def unfit(operation: Operation) -> str:
    """Return why an operation must not reach the kernel, which would take it blindly; or nothing."""
    match operation:
        case AddService(service=entry) | EditService(service=entry):
            if not (entry.key.mark or entry.key.endpoint.port or entry.persistence_timeout_s):
                return "a service of every port needs persistence"
        case AddServer(server=server) | EditServer(server=server):
            if server.forwarding not in convert.METHODS:
                return f"the kernel's IPVS cannot forward by {server.forwarding.value}"
            if not 0 <= server.weight <= MAX_WEIGHT:
                return f"weight {server.weight} is not between 0 and {MAX_WEIGHT}"
            if server.tunnel.kind is TunnelKind.GUE and not server.tunnel.port:
                return "a GUE tunnel needs a port"
    return ""


def _command(operation: Operation) -> tuple[Command, bytes]:
    match operation:
        case AddService(service=entry):
            return Command.NEW_SERVICE, wire.tell_service(convert.service_of(entry))
        case EditService(service=entry):
            return Command.SET_SERVICE, wire.tell_service(convert.service_of(entry))
        case DeleteService(key=key):
            return Command.DEL_SERVICE, wire.name_service(convert.identity_of(key))
        case AddServer(key=key, server=server):
            return Command.NEW_DEST, wire.tell_destination(convert.identity_of(key), convert.destination_of(server))
        case EditServer(key=key, server=server):
            return Command.SET_DEST, wire.tell_destination(convert.identity_of(key), convert.destination_of(server))
        case DeleteServer(key=key, endpoint=endpoint):
            return Command.DEL_DEST, wire.name_destination(convert.identity_of(key), endpoint.address, endpoint.port)


def _with_fallback(entry: ServiceEntry) -> ServiceEntry:
    """The service with the scheduler that every kernel with IPVS has a module of."""
    return ServiceEntry(
        key=entry.key,
        scheduler=FALLBACK,
        one_packet=entry.one_packet,
        persistence_timeout_s=entry.persistence_timeout_s,
        persistence_granularity=entry.persistence_granularity,
    )


def _holds(declared: ServiceEntry, found: ServiceEntry) -> bool:
    """Whether the kernel's service is the declared one: as it was told, or with the scheduler in the stead of a missing one."""
    return any(convert.entry_of(convert.service_of(entry), entry.key) == found for entry in (declared, _with_fallback(declared)))


def _without_method(entry: ServerEntry) -> tuple[object, ...]:
    return (entry.endpoint, entry.weight, entry.upper_threshold, entry.lower_threshold)


def _listed() -> Iterable[Connection]:
    with open(PROC / "ip_vs_conn", encoding="ascii", errors="replace") as file:
        for line in read_connections(file):
            connection = _connection(line)
            if connection is not None:
                yield connection


def _connection(line: ConnectionLine) -> Connection | None:
    try:
        protocol = Protocol.TCP if line.protocol == "IP" else Protocol(line.protocol)
    except ValueError:
        return None
    return Connection(
        protocol=protocol,
        client=Endpoint(line.client, line.client_port),
        virtual=Endpoint(line.virtual, line.virtual_port),
        server=Endpoint(line.server, line.server_port),
        mark=_mark(line),
        state=line.state,
        expires_s=float(line.expires_s),
        template=line.client_port == 0,
    )


def _mark(line: ConnectionLine) -> int:
    """Return the firewall mark that a template is for; it is listed as if it were an address."""
    return int(IPv4Address(line.virtual)) if line.protocol == "IP" and ":" not in line.virtual else 0
