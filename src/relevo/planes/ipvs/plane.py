"""The kernel's IPVS behind the port: it forwards packets without this process, and other programs may use its table too."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

from relevo.errors import PlaneError
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
from relevo.planes.ipvs import convert, sync
from relevo.planes.ipvs.kernel import PROC, Kernel
from relevo.planes.port import Capabilities, PlaneEvent, Refused
from relevo.wire import ipvs_netlink as wire
from relevo.wire.ipvs_netlink import Command, Destination, Method, Timeouts
from relevo.wire.ipvs_proc import read_connections
from relevo.wire.netlink import Malformed

SCHEDULERS: Final = frozenset(["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf", "twos"])
"""The kernel's schedulers; where a kernel lacks a scheduler's module, the service gets ``FALLBACK``."""
FALLBACK: Final = "wlc"
SYSCTLS: Final = Path("/proc/sys/net/ipv4/vs")
TIME_WAIT_S: Final = 120.0
TEMPLATE_AGAIN_S: Final = 60.0
"""A template that expires while it controls connections is prolonged by this, whatever its time-out (ip_vs_conn_expire)."""
MAX_WEIGHT: Final = 65_535
"""ipvsadm's limit; the kernel would take 2³¹ - 1 and overflow in its products."""
_SERVICE_REASONS: Final = {
    errno.EEXIST: "service already exists",
    errno.ESRCH: "no such service",
    errno.EPERM: "the kernel requires CAP_NET_ADMIN in the initial user namespace",
}
_SERVER_REASONS: Final = {
    errno.EEXIST: "destination already exists",
    errno.ENOENT: "no such destination",
    errno.ESRCH: "service not defined",
    errno.EINVAL: "the kernel refuses this destination (address not unicast, or not of the service's family)",
    errno.ERANGE: "the lower threshold is above the upper one",
}
_NO_SUCH_DESTINATION: Final = "no such destination"

Result = TypeVar("Result")


def capabilities_of_ipvs() -> Capabilities:
    """Return what the kernel's IPVS can do."""
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
    """Return why this system cannot have the plane, or an empty string. Loads the kernel's module where it is missing."""
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
    """IPVS of this network namespace. The netlink socket is opened at the first use."""

    def __init__(self, timeouts: PlaneTimeouts | None = None) -> None:
        self._timeouts = timeouts or PlaneTimeouts()
        self._kernel: Kernel | None = None
        self._busy = asyncio.Lock()
        self._events: list[PlaneEvent] = []
        self._declared: dict[ServiceKey, ServiceEntry] = {}
        self._servers: dict[tuple[ServiceKey, Endpoint], ServerEntry] = {}
        self._task: SyncTask | None = None
        self._sync_problem = ""
        self._former_sysctls: dict[str, Sysctl] = {}

    def capabilities(self) -> Capabilities:
        return capabilities_of_ipvs()

    # -- the table ---------------------------------------------------------------------------------------------

    async def observe(self) -> list[ServiceState]:
        """Return the kernel's services of the kinds that a configuration can declare, those of other programs included."""
        return await self._with_kernel(self._observe)

    def _observe(self, kernel: Kernel) -> list[ServiceState]:
        found = []
        for service in kernel.services():
            key = convert.key_of(service.identity)
            if key is None:
                continue
            entry = convert.entry_of(service, key)
            declared = self._declared.get(key)
            if declared is not None and _matches(declared, entry):
                entry = declared
            servers = tuple(
                convert.server_state(destination, self._server_entry(key, destination))
                for destination in reversed(kernel.destinations(service.identity))
            )
            found.append(convert.service_state(service, entry, servers))
        return found

    def _server_entry(self, key: ServiceKey, found: Destination) -> ServerEntry:
        """Return the declared entry if the kernel's server matches it: it includes what the kernel does not store."""
        entry = convert.server_of(found)
        declared = self._servers.get((key, entry.endpoint))
        if declared is None:
            return entry
        wanted = convert.server_of(convert.destination_of(declared))
        alike = entry == wanted or (found.method == Method.LOCAL and _without_method(entry) == _without_method(wanted))
        return declared if alike else entry

    async def apply(self, operations: Sequence[Operation]) -> list[Refused]:
        """Change the table, in batches of netlink messages."""
        return await self._with_kernel(lambda kernel: self._apply(kernel, operations))

    def _apply(self, kernel: Kernel, operations: Sequence[Operation]) -> list[Refused]:
        refused = {number: reason for number, operation in enumerate(operations) if (reason := unfit(operation))}
        sent = [number for number in range(len(operations)) if number not in refused]
        errors = dict(zip(sent, kernel.change([_command(operations[number]) for number in sent]), strict=True))
        self._apply_fallback(kernel, operations, errors)
        for number, error in errors.items():
            if error:
                refused[number] = _reason(operations[number], error)
            else:
                self._remember(operations[number])
        return [Refused(operations[number], refused[number]) for number in sorted(refused)]

    def _apply_fallback(self, kernel: Kernel, operations: Sequence[Operation], errors: dict[int, int]) -> None:
        """Give services whose scheduler the kernel lacks ``FALLBACK``, then add their servers again."""
        served: set[ServiceKey] = set()
        for number, error in errors.items():
            operation = operations[number]
            if error == errno.ENOENT and isinstance(operation, AddService | EditService):
                entry = operation.service
                command, _ = _command(operation)
                (errors[number],) = kernel.change([(command, wire.encode_service(convert.service_of(_with_fallback(entry))))])
                served.add(entry.key)
                text = f"the kernel has no scheduler '{entry.scheduler}': {entry.key} is served by {FALLBACK}"
                self._events.append(PlaneEvent(text, grave=True))
            elif error == errno.ESRCH and isinstance(operation, AddServer) and operation.key in served:
                (errors[number],) = kernel.change([_command(operation)])

    def _remember(self, operation: Operation) -> None:
        """Keep the declared entry of an operation that succeeded."""
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
        """Return the connections and templates of ``/proc/net/ip_vs_conn``."""
        return await self._with_kernel(lambda kernel: list(_listed()))

    async def drop(self, wanted: ConnectionFilter) -> int:
        """Raise ``PlaneError``: IPVS has no such command."""
        raise PlaneError(
            "the kernel's IPVS cannot drop connections",
            hint="give their server weight 0, or set net.ipv4.vs.expire_nodest_conn and remove it",
        )

    # -- synchronisation ---------------------------------------------------------------------------------------

    async def synchronise(self, task: SyncTask | None, in_sync: Callable[[bool], None]) -> str:
        """Run the kernel's sync daemons that the task wants, and no other. Before the first task they are left alone."""
        if task is not None or self._task is not None:
            self._task = task
            self._sync_problem = await self._with_kernel(lambda kernel: sync.match_daemons(kernel, task))
        return self._sync_problem

    async def complete_sync(self) -> int:
        """Send the kernel's connections to the peers in the kernel's protocol.

        The kernel's daemon alone would miss some: it buffers messages for two seconds, and sends a connection after its third
        packet.
        """
        task = self._task
        if task is None or SyncRole.MASTER not in task.roles:
            return 0
        return await self._with_kernel(lambda kernel: sync.send_connections(task))

    async def sync_state(self, *, counted: bool) -> SyncState | None:
        """Return the state of the kernel's daemons, and how many connections came by synchronisation."""
        return await self._with_kernel(lambda kernel: sync.state(kernel, self._task, self._sync_problem, counted=counted))

    # -- the rest ----------------------------------------------------------------------------------------------

    async def set_local(self, local: frozenset[str], floating: frozenset[str]) -> None:
        """Do nothing: the kernel serves the packets that reach this node."""

    async def settings(self) -> PlaneSettings:
        """Return the size of the kernel's connection table, and its time-outs."""
        return await self._with_kernel(_settings)

    async def set_timeouts(self, wanted: PlaneTimeouts) -> str:
        """Change the time-outs, which hold for every service of the table, those of other programs included."""
        self._timeouts = wanted
        await self._with_kernel(self._set_timeouts)
        return ""

    async def set_sysctls(self, wanted: Sequence[Sysctl]) -> list[str]:
        """Write those that differ to ``/proc/sys/net/ipv4/vs``; restore the former value of those no longer wanted."""
        return await self._with_kernel(lambda kernel: self._set_sysctls(wanted))

    def _set_sysctls(self, wanted: Sequence[Sysctl]) -> list[str]:
        named = {sysctl.name for sysctl in wanted}
        restored = [self._former_sysctls.pop(name) for name in list(self._former_sysctls) if name not in named]
        refused = []
        for sysctl in (*restored, *wanted):
            former, reason = _set_sysctl(sysctl)
            if reason:
                refused.append(reason)
            elif former is not None and sysctl.name in named:
                self._former_sysctls.setdefault(sysctl.name, former)
        return refused

    def events(self) -> list[PlaneEvent]:
        found, self._events = self._events, []
        return found

    def attachments(self) -> tuple[str, ...]:
        """Return nothing: IPVS works on every interface."""
        return ()

    def drop_counters(self) -> dict[str, int]:
        """Return nothing: the kernel has no such counters."""
        return {}

    async def close(self) -> None:
        """Close the netlink socket; the table stays."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    async def remove(self, *, keep_connections: bool = False) -> None:
        """Remove the services declared here. Those of other programs stay, and connections stay in the kernel's table."""
        declared = [DeleteService(key) for key in self._declared]
        if declared:
            await self.apply(declared)
        await self.close()

    async def _with_kernel(self, work: Callable[[Kernel], Result]) -> Result:
        """Run ``work`` in a thread: ten thousand servers take 0.1 s. ``PlaneError`` with the kernel's reason."""
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
    """Set one, if it differs; return its former value if it did, and why it could not be set or an empty string."""
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
    """Return the reason that an error number stands for in this operation."""
    if isinstance(operation, EditServer | DeleteServer) and error == errno.ESRCH:
        return _NO_SUCH_DESTINATION
    reasons = _SERVER_REASONS if isinstance(operation, AddServer | EditServer | DeleteServer) else _SERVICE_REASONS
    return reasons.get(error, os.strerror(error))


def unfit(operation: Operation) -> str:
    """Return why an operation must not be sent to the kernel, which would accept it; or an empty string."""
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
            return Command.NEW_SERVICE, wire.encode_service(convert.service_of(entry))
        case EditService(service=entry):
            return Command.SET_SERVICE, wire.encode_service(convert.service_of(entry))
        case DeleteService(key=key):
            return Command.DEL_SERVICE, wire.encode_service_key(convert.identity_of(key))
        case AddServer(key=key, server=server):
            return Command.NEW_DEST, wire.encode_destination(convert.identity_of(key), convert.destination_of(server))
        case EditServer(key=key, server=server):
            return Command.SET_DEST, wire.encode_destination(convert.identity_of(key), convert.destination_of(server))
        case DeleteServer(key=key, endpoint=endpoint):
            return Command.DEL_DEST, wire.encode_destination_key(convert.identity_of(key), endpoint.address, endpoint.port)


def _with_fallback(entry: ServiceEntry) -> ServiceEntry:
    """Return the service with the fallback scheduler."""
    return ServiceEntry(
        key=entry.key,
        scheduler=FALLBACK,
        one_packet=entry.one_packet,
        persistence_timeout_s=entry.persistence_timeout_s,
        persistence_granularity=entry.persistence_granularity,
    )


def _matches(declared: ServiceEntry, found: ServiceEntry) -> bool:
    """Whether the kernel's service is the declared one, as declared or with the fallback scheduler."""
    return any(convert.entry_of(convert.service_of(entry), entry.key) == found for entry in (declared, _with_fallback(declared)))


def _without_method(entry: ServerEntry) -> tuple[object, ...]:
    return (entry.endpoint, entry.weight, entry.upper_threshold, entry.lower_threshold)


def _listed() -> Iterable[Connection]:
    with open(PROC / "ip_vs_conn", encoding="ascii", errors="replace") as file:
        for line in read_connections(file):
            connection = convert.connection_of(line)
            if connection is not None:
                yield connection
