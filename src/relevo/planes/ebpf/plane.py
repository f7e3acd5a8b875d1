"""The ebpf plane: implements the port. Packets never pass through this process, so they flow on while it restarts."""

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
from relevo.planes.ebpf.entries import NUMBERS, PROTOCOL_OF, TUNNELS
from relevo.planes.ebpf.instance import ROOT, Instance, Sizes, ensure_bpf_fs, fingerprint, give_pins, open_instance, remove_pins
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
from relevo.planes.ebpf.table import Table
from relevo.planes.port import Capabilities, PlaneEvent, Refused
from relevo.schedulers import maglev

REPORT_EVERY_S: Final = 60.0
REPORTED_DROPS: Final = {
    Reason.DROP_TABLE_FULL: "new connections dropped, the table is full: raise connection_table_size",
    Reason.DROP_NO_LOCAL_PORT: "new connections dropped, no local port is left: give lb_kind FULLNAT a local_address_group",
    Reason.DROP_FORWARDING_OFF: "packets dropped, neither their interface nor lo may forward: set net.ipv4.ip_forward",
    Reason.DROP_NO_ROUTE: "packets dropped, there is no route to their server or client",
    Reason.COUNT_SYNC_LOST: "connections not synced or synced late, the sync ring was full",
    Reason.COUNT_TEMPLATE_FULL: "persistence templates not made, the table is full: raise connection_table_size",
}
"""Log texts of the drop counters that an administrator can act on."""
SYSCTL_FLAGS: Final = {
    "sloppy_tcp": SettingFlag.SLOPPY_TCP,
    "secure_tcp": SettingFlag.SECURE_TCP,
    "expire_nodest_conn": SettingFlag.KEEP_ORPHANS,
    "expire_quiescent_template": SettingFlag.EXPIRE_QUIESCENT,
    "sync_persist_mode": SettingFlag.SYNC_TEMPLATES_ONLY,
}
"""Sysctls that are off unless configured, whatever IPVS's default is (without ``expire_nodest_conn``, orphans are reset)."""
SET_BY_0: Final = frozenset(("expire_nodest_conn",))
SYNC_SYSCTLS: Final = ("sync_ports", "sync_refresh_period", "sync_retries", "sync_threshold")  # the sync task has the first
SYNC_THRESHOLD: Final = (3, 50)
"""IPVS's default: a connection is synced at its client's third packet, then at every fiftieth."""
NEEDS: Final = "it needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"


def capabilities_of_ebpf() -> Capabilities:
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
        sync_keys=True,
        sysctls=frozenset((*SYSCTL_FLAGS, *SYNC_SYSCTLS)),
    )


@cache
def unavailable_reason() -> str:
    """Return why this system cannot run the plane, or an empty string.

    It tries what fails in practice: permission, the ring buffer (Linux 5.8), libbpf, the BPF file system, the objects. Loading
    the programs would be certain, but takes a second.
    """
    try:
        if not privileges.may_load_programs():  # unprivileged processes may be allowed a ring buffer
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
    """Load every program without attaching it; return the seconds it took. ``PlaneError`` with the end of the verifier's log."""
    path = ROOT / "relevo" / f"trial-{os.getpid()}"
    begun = time.monotonic()
    try:
        open_instance(path, Sizes(connections=64, services=1, servers=2, server_lists=2, snat_addresses=1)).close()
    finally:
        remove_pins(path)
    return time.monotonic() - begun


def survey() -> list[tuple[str, bool, str]]:
    """Return name, usability and hooks of each Ethernet interface in this namespace."""
    found = []
    for device in devices():
        text = f"TC; {no_xdp(device)}" if no_xdp(device) else "TC, and XDP if the driver has it"
        found.append((device.name, True, text))
    return found


def local_address_towards(address: str) -> str:
    """Return the source address of this node's packets to ``address``; the unspecified address without a route."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:
            return "::" if ":" in address else "0.0.0.0"  # noqa: S104 - not a listening address
        return str(probe.getsockname()[0])


def sizes_for(configuration: Configuration) -> Sizes:
    """Return sizes for twice what a configuration declares: a reload can add to maps, but not resize them."""
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
    """The plane with its pins under ``path``, attached to every Ethernet interface of this namespace; opened at first use."""

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
        self._events: list[PlaneEvent] = []
        self._forwarding_events: list[PlaneEvent] = []
        self._reported: dict[Reason, int] = {}
        self._reported_at = -math.inf
        self._instance: Instance | None = None
        self._table: Table | None = None
        self._attacher: Attacher | None = None
        self._synchroniser: Synchroniser | None = None

    def open(self) -> tuple[Instance, Table]:
        """Load or adopt the instance; ``PlaneError`` with the reason when the system refuses."""
        if self._instance is None or self._table is None:
            try:
                self._instance = open_instance(self._path, self._sizes)
            except OSError as error:
                raise syscall.as_plane_error("ebpf plane", error) from error
            self._instance.forget_timeouts()
            self._instance.set_timeouts(self._timeouts)
            _set_sysctls(self._instance, {})
            self._table = Table(
                self._instance, local_address_towards, maglev_size=self._maglev_size, adopt=self._instance.adopted
            )
            self._attacher = Attacher(self._instance, self._hooks)
        return self._instance, self._table

    def open_for(self, uid: int, gid: int) -> None:
        """Load or adopt the instance, and make its pins those of another user, who shall own this process later."""
        self.open()
        try:
            give_pins(self._path, uid, gid)
        except OSError as error:
            raise syscall.as_plane_error("pins of the ebpf plane", error) from error

    def capabilities(self) -> Capabilities:
        return capabilities_of_ebpf()

    async def observe(self) -> list[ServiceState]:
        """Return the table; expired entries are deleted first, so that the counters are exact."""
        instance, table = self.open()
        async with self._busy:
            if self._attach and self._attacher is not None:
                audit = partial(self._attacher.audit, behind_filters=table.has_marks)
                self._events += map(PlaneEvent, await asyncio.to_thread(audit))
                self._allow_look_ups(table)
            self._report_drops(instance, time.monotonic())
            await asyncio.to_thread(instance.sweep)
            return await asyncio.to_thread(table.observe)

    async def apply(self, operations: Sequence[Operation]) -> list[Refused]:
        """Change the table, in a thread: filling a hash table takes a tenth of a second. ``PlaneError`` without room."""
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
        """Enable the programs' route look-ups where forwarding is off; report each new problem once."""
        found = forwarding.allow_look_ups(table.families())
        self._events += [event for event in found if event not in self._forwarding_events]
        self._forwarding_events = found

    async def set_local(self, local: frozenset[str], floating: frozenset[str]) -> None:
        """Balance only the local ones of the floating addresses, which VRRP moves; other addresses are always served."""
        _, table = self.open()
        async with self._busy:
            table.close_addresses(floating - local)

    def _report_drops(self, instance: Instance, now: float) -> None:
        """Log the drops that an administrator can act on, once a minute at most."""
        counts = instance.reasons()
        if not self._reported:  # earlier drops were reported by the previous daemon
            self._reported = {reason: counts[reason] for reason in REPORTED_DROPS}
        grown = {reason: counts[reason] - former for reason, former in self._reported.items() if counts[reason] > former}
        if grown and now - self._reported_at >= REPORT_EVERY_S:
            self._reported_at = now
            self._reported |= {reason: counts[reason] for reason in grown}
            self._events += [PlaneEvent(f"ebpf: {count} {REPORTED_DROPS[reason]}", True) for reason, count in grown.items()]

    async def synchronise(self, task: SyncTask | None, in_sync: Callable[[bool], None]) -> str:
        """Sync connections as ``task`` says, or stop; return the problem, or an empty string."""
        if task is None:
            self._stop_sync()
            return ""
        if self._synchroniser is None:
            instance, table = self.open()
            self._synchroniser = Synchroniser(instance, table, task, in_sync)
        return self._synchroniser.match(task)

    def _stop_sync(self) -> None:
        if self._synchroniser is not None:
            self._synchroniser.close()
            self._synchroniser = None
        elif self._instance is not None:  # a worker that crashed may have left it set
            self._instance.set_flag(SettingFlag.SYNC, False)

    async def complete_sync(self) -> int:
        """Send every connection to the peers, also half-open ones, before a hand-over; return how many were sent."""
        return await self._synchroniser.complete() if self._synchroniser is not None else 0

    async def sync_state(self, *, counted: bool) -> SyncState | None:
        """Return the state of sync, or ``None`` when it is off. ``counted``: count connections too, which is slow."""
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
        """Return the flags of every entry that has not expired."""
        instance, _ = self.open()
        now = instance.jiffies() & 0xFFFFFFFF
        return [
            bucket.slot[slot].flags
            for _, bucket in instance.buckets()
            for slot in range(BUCKET_SLOTS)
            if bucket.tag[slot] and _signed(bucket.slot[slot].expires - now) > 0
        ]

    async def settings(self) -> PlaneSettings:
        """Return the number of buckets, and the time-outs in seconds."""
        instance, _ = self.open()
        chosen = (TcpState.ESTABLISHED, TcpState.FIN_WAIT, TcpState.UDP)
        seconds = (instance.settings.timeout[state] // instance.settings.hz for state in chosen)
        return PlaneSettings(instance.maps["buckets"].max_entries, PlaneTimeouts(*seconds))

    async def set_timeouts(self, wanted: PlaneTimeouts) -> str:
        """Change time-outs; a connection gets them at its next packet."""
        instance, _ = self.open()
        instance.set_timeouts(wanted)
        return ""

    async def set_sysctls(self, wanted: Sequence[Sysctl]) -> list[str]:
        """Set the sysctls in ``wanted`` and reset the others to this plane's defaults; return what was refused."""
        instance, _ = self.open()
        values = {sysctl.name: sysctl.values for sysctl in wanted}
        refused = []
        if values.get("secure_tcp") in ((1,), (2,)):
            del values["secure_tcp"]
            refused.append("secure_tcp 1 and 2 depend on memory pressure, which the ebpf plane does not measure: write 0 or 3")
        _set_sysctls(instance, values)
        return refused

    def events(self) -> list[PlaneEvent]:
        """Return the events since the last call: interfaces attached or removed, drops, problems."""
        found, self._events = self._events, []
        return found

    async def connections(self) -> list[Connection]:
        """Return connections and templates, except those of removed servers."""
        async with self._busy:
            return [connection for _, _, connection in await asyncio.to_thread(self._entries)]

    async def drop(self, wanted: ConnectionFilter) -> int:
        """Delete matching connections and templates; return how many."""
        instance, _ = self.open()
        matches = wanted.test()
        async with self._busy:
            entries = await asyncio.to_thread(self._entries)
            return sum(instance.delete(place, port) for place, port, connection in entries if matches(connection))

    def _entries(self) -> list[tuple[int, int, Connection]]:
        """Return slot, client port (network order) and connection of every entry in use. Slow: run it in a thread."""
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
                    connection = _to_connection(entry, known[1].endpoint, max(0, left) / hz)
                    found.append((first * BUCKET_SLOTS + slot, entry.client_port, connection))
        return found

    def attachments(self) -> tuple[str, ...]:
        """Return the hooks of each interface, and why there are not more."""
        if self._attacher is None:
            return ()
        return tuple(str(attachment) for _, attachment in sorted(self._attacher.attachments.items()))

    def drop_counters(self) -> dict[str, int]:
        """Return the count of each reason, by name; ``pass_not_…`` counts packets that are not balanced."""
        instance, _ = self.open()
        return {Reason(number).name.lower(): count for number, count in enumerate(instance.reasons()) if count}

    async def close(self) -> None:
        """Close the descriptors; programs and maps stay in the kernel."""
        self._stop_sync()
        if self._instance is not None:
            self._instance.close()
            self._instance = self._table = self._attacher = None

    async def remove(self, *, keep_connections: bool = False) -> None:
        """Detach the programs, and remove the maps unless ``keep_connections``."""
        self._stop_sync()
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


def _to_connection(entry: Entry, server: Endpoint, left_s: float) -> Connection:
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
