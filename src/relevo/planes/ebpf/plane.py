"""The eBPF plane behind the port: packets never see this process, which may die and come back."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from relevo.errors import PlaneError
from relevo.host import privileges
from relevo.model import Configuration, Endpoint, Forwarding, PlaneTimeouts, Protocol, Sysctl
from relevo.model.table import (
    AddServer,
    AddService,
    Connection,
    ConnectionFilter,
    Operation,
    PlaneSettings,
    ServiceState,
    SyncState,
    SyncTask,
)
from relevo.planes.ebpf import forwarding, syscall
from relevo.planes.ebpf.attach import Attacher, devices, no_xdp
from relevo.planes.ebpf.instance import ROOT, Instance, Sizes, ensure_bpf_fs, fingerprint, open_instance, remove_pins
from relevo.planes.ebpf.layout import (
    BUCKET_SLOTS,
    ConnectionFlag,
    SettingFlag,
    TcpState,
    address_text,
    jiffies_of,
    port_from,
)
from relevo.planes.ebpf.layout import Connection as Entry
from relevo.planes.ebpf.libbpf import library
from relevo.planes.ebpf.reasons import Reason
from relevo.planes.ebpf.synchroniser import Synchroniser
from relevo.planes.ebpf.table import NUMBERS, PROTOCOL_OF, TUNNELS, Table
from relevo.planes.port import Capabilities, PlaneEvent, Refused
from relevo.schedulers import maglev

REPORT_EVERY_S: Final = 60.0
LOSSES: Final = {
    Reason.DROP_TABLE_FULL: "new connections dropped, the table is full: raise connection_table_size",
    Reason.DROP_NO_LOCAL_PORT: "new connections dropped, no local port is left: give lb_kind FULLNAT a local_address_group",
    Reason.DROP_FORWARDING_OFF: "packets dropped, neither their interface nor lo may forward: set net.ipv4.ip_forward",
    Reason.DROP_NO_ROUTE: "packets dropped, there is no route to their server or client",
    Reason.COUNT_SYNC_LOST: "announcements to other directors late or lost, they came faster than they could be sent",
    Reason.COUNT_TEMPLATE_FULL: "clients not remembered, the table is full: raise connection_table_size",
}
"""What a packet's end means to whoever can change it."""
SYSCTL_FLAGS: Final = {
    "sloppy_tcp": SettingFlag.SLOPPY_TCP,
    "secure_tcp": SettingFlag.SECURE_TCP,
    "expire_nodest_conn": SettingFlag.KEEP_ORPHANS,
    "expire_quiescent_template": SettingFlag.EXPIRE_QUIESCENT,
    "sync_persist_mode": SettingFlag.SYNC_TEMPLATES_ONLY,
}
"""What is off here unless it is written, whatever IPVS does (``expire_nodest_conn``: orphans are reset)."""
SET_BY_0: Final = frozenset(("expire_nodest_conn",))
SYNC_SYSCTLS: Final = ("sync_ports", "sync_refresh_period", "sync_retries", "sync_threshold")  # the first is the task's
SYNC_THRESHOLD: Final = (3, 50)
"""IPVS's: a connection is announced at its client's third packet, and every fifty later."""
NEEDS: Final = "it needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"


def capabilities_of_ebpf() -> Capabilities:
    """What this plane can do."""
    return Capabilities(
        name="ebpf",
        transports=frozenset((Protocol.TCP, Protocol.UDP)),
        schedulers=frozenset(NUMBERS),
        forwarding=frozenset(Forwarding),
        survives_daemon=True,
        any_port=True,
        marks=True,
        one_packet=True,
        tunnels=frozenset(TUNNELS),
        keeps_connections=True,
        sysctls=frozenset((*SYSCTL_FLAGS, *SYNC_SYSCTLS)),
    )


@cache
def unavailable_reason() -> str:
    """Return why this system cannot have the plane, or nothing. Tried, because version numbers do not tell.

    Loading the programs would tell for certain; it takes a second. What fails in practice is tried: permission, the ring
    buffer (Linux 5.8), the library, the file system, the objects.
    """
    try:
        if not privileges.may_load_programs():  # a ring buffer alone may be anybody's
            return NEEDS
        library()
        fingerprint()
        syscall.try_ring_buffer()
        ensure_bpf_fs()
    except PlaneError as error:
        return str(error)
    except OSError as error:
        return f"{error.strerror}: {NEEDS}" if error.errno == errno.EPERM else str(error)
    return ""


def try_load() -> float:
    """Load every program for trial, without attaching; return the seconds it took. ``PlaneError`` with the verifier's reason."""
    path = ROOT / "relevo" / f"trial-{os.getpid()}"
    begun = time.monotonic()
    try:
        open_instance(path, Sizes(connections=64, services=1, servers=2, server_lists=2, snat_addresses=1)).close()
    finally:
        remove_pins(path)
    return time.monotonic() - begun


def survey() -> list[tuple[str, bool, str]]:
    """Return each Ethernet interface of this namespace, whether the plane can use it, and how."""
    found = []
    for device in devices():
        text = f"TC; {no_xdp(device)}" if no_xdp(device) else "TC, and XDP if the driver has it"
        found.append((device.name, True, text))
    return found


def local_address_towards(address: str) -> str:
    """Return the address that this node's packets to ``address`` carry; the unspecified one when there is no route."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:
            return "::" if ":" in address else "0.0.0.0"  # noqa: S104 - nothing listens: it means none
        return str(probe.getsockname()[0])


def sizes_for(configuration: Configuration) -> Sizes:
    """Return room for what a configuration declares, and for as much again: what a reload adds must fit what is there."""
    services = [(service, len(service.keys)) for service in configuration.virtual_servers]
    slots = {"mh": configuration.global_defs.mh_table_size, "sh": 256, "dh": 256}
    entries = sum(count * (len(s.real_servers) + 1 + slots.get(s.scheduler, 0)) for s, count in services)
    usual = Sizes()
    return Sizes(
        connections=configuration.global_defs.connection_table_size,
        services=max(usual.services, 2 * sum(count for _, count in services)),
        servers=max(usual.servers, 2 * sum(count * (len(s.real_servers) + 1) for s, count in services)),
        server_lists=max(usual.server_lists, 2 * entries),
        snat_addresses=max(usual.snat_addresses, 2 * sum(len(s.local_addresses) + 1 for s, _ in services)),
    )


class EbpfPlane:
    """The programs and maps under ``path``, opened at the first use, on every Ethernet interface of this namespace."""

    def __init__(
        self,
        path: Path,
        sizes: Sizes | None = None,
        *,
        hooks: str = "auto",
        maglev_size: int = maglev.DEFAULT_SIZE,
        timeouts: PlaneTimeouts | None = None,
        attach: bool = True,
    ) -> None:
        self._timeouts = timeouts or PlaneTimeouts()
        self._path, self._sizes = path, sizes or Sizes()
        self._maglev_size = maglev_size
        self._busy = asyncio.Lock()
        self._hooks, self._attach = hooks, attach
        self._notices: list[PlaneEvent] = []
        self._forwarding_notices: list[PlaneEvent] = []
        self._losses: dict[Reason, int] = {}
        self._reported_at = -math.inf
        self._instance: Instance | None = None
        self._table: Table | None = None
        self._attacher: Attacher | None = None
        self._synchroniser: Synchroniser | None = None

    def open(self) -> tuple[Instance, Table]:
        """Load or adopt; ``PlaneError`` with the reason when the system refuses."""
        if self._instance is None or self._table is None:
            try:
                self._instance = open_instance(self._path, self._sizes)
            except OSError as error:
                raise syscall.as_plane_error("ebpf plane", error) from error
            self._instance.forget_timeouts()
            self._instance.set_timeouts(self._timeouts)
            _set_sysctls(self._instance, {})
            self._table = Table(self._instance, local_address_towards, maglev_size=self._maglev_size)
            self._attacher = Attacher(self._instance, self._hooks)
        return self._instance, self._table

    def capabilities(self) -> Capabilities:
        """What this plane can do."""
        return capabilities_of_ebpf()

    async def observe(self) -> list[ServiceState]:
        """Return the table; entries whose time is over are taken out first, so that the counters are exact."""
        instance, table = self.open()
        async with self._busy:
            if self._attach and self._attacher is not None:
                audit = partial(self._attacher.audit, behind_filters=table.has_marks)
                self._notices += map(PlaneEvent, await asyncio.to_thread(audit))  # the netlink library wants a loop of its own
                self._allow_look_ups(table)
            self._note_losses(instance, time.monotonic())
            await asyncio.to_thread(instance.sweep)
            return await asyncio.to_thread(table.observe)

    async def apply(self, operations: Sequence[Operation]) -> list[Refused]:
        """Change the table. Filling a hash table takes a tenth of a second: others have their turn meanwhile."""
        _, table = self.open()
        try:
            async with self._busy:
                refused = await asyncio.to_thread(table.apply, operations)
                if self._attach:
                    self._allow_look_ups(table)
            if self._synchroniser is not None and any(isinstance(each, AddService | AddServer) for each in operations):
                self._synchroniser.table_changed()
            return refused
        except (OSError, MemoryError) as error:
            raise PlaneError(f"ebpf plane: {error}") from error

    def _allow_look_ups(self, table: Table) -> None:
        """Let the programs find routes to servers, forwarding or not; say once what is in the way."""
        found = forwarding.allow_look_ups(table.families())
        self._notices += [notice for notice in found if notice not in self._forwarding_notices]
        self._forwarding_notices = found

    async def set_local(self, local: frozenset[str], floating: frozenset[str]) -> None:
        """Serve, of the addresses that VRRP moves, only those held; addresses that nobody moves are always served."""
        _, table = self.open()
        async with self._busy:
            table.close_addresses(floating - local)

    def _note_losses(self, instance: Instance, now: float) -> None:
        """Say what was dropped that an administrator can do something about; not more than once a minute."""
        counts = instance.reasons()
        if not self._losses:  # what happened before we came has been told
            self._losses = {reason: counts[reason] for reason in LOSSES}
        grown = {reason: counts[reason] - former for reason, former in self._losses.items() if counts[reason] > former}
        if grown and now - self._reported_at >= REPORT_EVERY_S:
            self._reported_at = now
            self._losses |= {reason: counts[reason] for reason in grown}
            self._notices += [PlaneEvent(f"ebpf: {count} {LOSSES[reason]}", True) for reason, count in grown.items()]

    async def synchronise(self, task: SyncTask | None, in_sync: Callable[[bool], None]) -> str:
        """Announce connections and take in those of others as ``task`` says."""
        if task is None:
            self._end_synchronisation()
            return ""
        if self._synchroniser is None:
            instance, table = self.open()
            self._synchroniser = Synchroniser(instance, table, task, in_sync)
        return self._synchroniser.match(task)

    def _end_synchronisation(self) -> None:
        if self._synchroniser is not None:
            self._synchroniser.close()
            self._synchroniser = None
        elif self._instance is not None:  # a worker that died may have left it on
            self._instance.set_flag(SettingFlag.SYNC, False)

    async def complete_sync(self) -> int:
        """Tell the peers of every connection, half-open ones too: whoever takes over has to answer their next segment."""
        return await self._synchroniser.complete() if self._synchroniser is not None else 0

    async def sync_state(self, *, counted: bool) -> SyncState | None:
        """Return how it goes."""
        if self._synchroniser is None:
            return None
        local = received = None
        if counted:
            async with self._busy:
                flags = await asyncio.to_thread(self._connection_flags)
            received = sum(1 for each in flags if each & ConnectionFlag.FOREIGN)
            local = len(flags) - received
        return self._synchroniser.state(local, received)

    def _connection_flags(self) -> list[int]:
        """The flags of every entry whose time is not over."""
        instance, _ = self.open()
        now = instance.jiffies() & 0xFFFFFFFF
        return [
            bucket.slot[slot].flags
            for _, bucket in instance.buckets()
            for slot in range(BUCKET_SLOTS)
            if bucket.tag[slot] and _signed(bucket.slot[slot].expires - now) > 0
        ]

    async def settings(self) -> PlaneSettings:
        """Return buckets and time-outs."""
        instance, _ = self.open()
        chosen = (TcpState.ESTABLISHED, TcpState.FIN_WAIT, TcpState.UDP)
        seconds = (instance.settings.timeout[state] // instance.settings.hz for state in chosen)
        return PlaneSettings(instance.maps["buckets"].max_entries, PlaneTimeouts(*seconds))

    async def set_timeouts(self, wanted: PlaneTimeouts) -> str:
        """Change time-outs; connections meet them at the next packet."""
        instance, _ = self.open()
        instance.set_timeouts(wanted)
        return ""

    async def set_sysctls(self, wanted: Sequence[Sysctl]) -> list[str]:
        """Set those that this plane has, and the others as it has them by itself; packets meet them at once."""
        instance, _ = self.open()
        values = {sysctl.name: sysctl.values for sysctl in wanted}
        refused = []
        if values.get("secure_tcp") in ((1,), (2,)):
            del values["secure_tcp"]
            refused.append("secure_tcp 1 and 2 depend on a lack of memory, which this plane does not have: write 0 or 3")
        _set_sysctls(instance, values)
        return refused

    def events(self) -> list[PlaneEvent]:
        """Return what was attached and detached since the last call."""
        found, self._notices = self._notices, []
        return found

    async def connections(self) -> list[Connection]:
        """Return connections and templates whose server is still there."""
        async with self._busy:
            return [connection for _, _, connection in await asyncio.to_thread(self._entries)]

    async def drop(self, wanted: ConnectionFilter) -> int:
        """Take connections and templates out of the table."""
        instance, _ = self.open()
        matches = wanted.test()
        async with self._busy:
            entries = await asyncio.to_thread(self._entries)
            return sum(instance.delete(place, port) for place, port, connection in entries if matches(connection))

    def _entries(self) -> list[tuple[int, int, Connection]]:
        """Place and client port, as the table has them, of every entry in use. Slow: for a thread of its own."""
        instance, table = self.open()
        servers = table.server_numbers()
        now, hz = instance.jiffies() & 0xFFFFFFFF, instance.settings.hz
        found = []
        for first, bucket in instance.buckets():
            for slot in range(BUCKET_SLOTS):
                entry = bucket.slot[slot]
                known = servers.get(entry.server)
                if not bucket.tag[slot] or known is None or known[2] != entry.generation:
                    continue
                left = _signed(entry.expires - now)
                if left > 0 or (entry.flags & ConnectionFlag.TEMPLATE and entry.master):
                    shown = _connection(entry, known[1].endpoint, max(0, left) / hz)
                    found.append((first * BUCKET_SLOTS + slot, entry.client_port, shown))
        return found

    def attachments(self) -> tuple[str, ...]:
        """Return what is attached to each interface, and why it is not more."""
        if self._attacher is None:
            return ()
        return tuple(str(attachment) for _, attachment in sorted(self._attacher.attachments.items()))

    def drop_counters(self) -> dict[str, int]:
        """Return how often each reason was met; ``pass_not_…`` are what the programs let by as none of theirs."""
        instance, _ = self.open()
        return {Reason(number).name.lower(): count for number, count in enumerate(instance.reasons()) if count}

    async def close(self) -> None:
        """Let go; everything stays in the kernel."""
        self._end_synchronisation()
        if self._instance is not None:
            self._instance.close()
            self._instance = self._table = self._attacher = None

    async def remove(self, *, keep_connections: bool = False) -> None:
        """Take the programs off the interfaces, and the maps out of the kernel unless connections are to be kept in them."""
        self._end_synchronisation()
        instance, _ = self.open()
        if self._attacher is not None:
            await asyncio.to_thread(self._attacher.detach)
        if self._attach:
            forwarding.restore()
        if keep_connections:
            instance.close()
        else:
            instance.remove()
        self._instance = self._table = self._attacher = None


def _set_sysctls(instance: Instance, values: Mapping[str, tuple[int, ...]]) -> None:
    settings = instance.settings
    settings.sync_threshold, settings.sync_period = values.get("sync_threshold", SYNC_THRESHOLD)
    (refresh,) = values.get("sync_refresh_period", (0,))
    settings.sync_refresh = jiffies_of(refresh, settings.hz)
    (settings.sync_retries,) = values.get("sync_retries", (0,))
    for name, flag in SYSCTL_FLAGS.items():
        instance.set_flag(flag, name in values and bool(values[name][0]) is not (name in SET_BY_0))


def _signed(number: int) -> int:
    number &= 0xFFFFFFFF
    return number - (1 << 32) if number >> 31 else number


def _connection(entry: Entry, server: Endpoint, left_s: float) -> Connection:
    template = bool(entry.flags & ConnectionFlag.TEMPLATE)
    protocol = PROTOCOL_OF.get(entry.protocol, Protocol.TCP)
    virtual = Endpoint(address_text(bytes(entry.virtual.bytes)), port_from(entry.virtual_port))
    if template:
        state = "ASSURED" if entry.flags & ConnectionFlag.ASSURED else "NONE"
    else:
        state = TcpState(entry.state).name if entry.state in TcpState._value2member_map_ else str(entry.state)
    port = server.port if server.port and not entry.flags & ConnectionFlag.KEEP_PORT else virtual.port
    return Connection(
        protocol=protocol,
        client=Endpoint(address_text(bytes(entry.client.bytes)), port_from(entry.client_port)),
        virtual=virtual,
        mark=int(IPv4Address(virtual.address)) if template and not entry.protocol else 0,
        server=Endpoint(server.address, port),
        state=state,
        expires_s=left_s,
        template=template,
    )
