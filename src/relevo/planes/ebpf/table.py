"""Services and servers in memory shared with the programs.

Every change is visible to packets by a single store: a server list or hash table is written to a free range and then
referenced by one 64-bit word; a weight is one 32-bit word. A new daemon adopts the table of the previous one.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, ip_address
from math import gcd
from typing import Final

from relevo.model import Endpoint, Forwarding, ServiceKey, TunnelChecksum
from relevo.model.table import (
    AddServer,
    AddService,
    DeleteServer,
    DeleteService,
    EditServer,
    EditService,
    Operation,
    ServerEntry,
    ServerState,
    ServiceEntry,
    ServiceState,
    Traffic,
)
from relevo.planes.ebpf.allocator import Allocator, Numbers
from relevo.planes.ebpf.entries import (
    COUNTER_NAMES,
    FORWARDINGS,
    PROTOCOLS,
    TABLED,
    TUNNELS,
    AddressFilter,
    Server,
    Service,
    counter_value,
    family_of,
    key_bytes,
    known_scheduler,
    mask_bytes,
    server_entry,
    service_entry,
    traffic_of,
)
from relevo.planes.ebpf.instance import Instance
from relevo.planes.ebpf.layout import (
    BUCKET_SLOTS,
    MAX_SERVERS,
    NOWHERE,
    Bucket,
    Counters,
    SchedulerNumber,
    ServerValue,
    ServiceFlag,
    ServiceValue,
    SettingFlag,
    address_text,
    jiffies_of,
    packed,
    port_to,
)
from relevo.planes.port import Refused
from relevo.schedulers import destination_hash, maglev, source_hash
from relevo.schedulers.base import fold

OuterSource = Callable[[str], str]
"""Returns the local source address of packets to an address."""

FEW_LISTS: Final = 4096
"""Entries of server lists and hash tables that are mapped at first."""


class Table:
    """The services of an instance. ``adopt`` reads the tables that a previous daemon left."""

    def __init__(
        self, instance: Instance, outer_source: OuterSource, *, maglev_size: int = maglev.DEFAULT_SIZE, adopt: bool = True
    ) -> None:
        self._instance = instance
        self._outer_source = outer_source
        self._maglev_size = maglev_size
        self._services_memory, self._servers_memory, self._snat_memory = (
            instance.maps[name].mapped() for name in ("services", "servers", "snat_addresses")
        )
        self._server_lists = instance.maps["server_lists"].mapped(FEW_LISTS)
        self._allocator = Allocator(instance.maps["server_lists"].max_entries)
        self._free_services = Numbers(0, instance.maps["services"].max_entries, ())
        self._free_servers = Numbers(1, instance.maps["servers"].max_entries, ())
        self._virtual = AddressFilter(instance.settings.virtual_filter)
        self._real = AddressFilter(instance.settings.server_filter)
        self._closed: frozenset[str] | None = None
        self._left: dict[tuple[ServiceKey, Endpoint], int] = {}  # removed servers → their slots, which nobody has taken since
        self._last_in: dict[int, tuple[ServiceKey, Endpoint]] = {}  # the same by slot
        self.services: dict[ServiceKey, Service] = {}
        if adopt:
            self._adopt()

    # -- memory ------------------------------------------------------------------------------------------------

    def _service_value(self, number: int) -> ServiceValue:
        return ServiceValue.from_buffer(self._services_memory, number * ctypes.sizeof(ServiceValue))

    def _server_value(self, number: int) -> ServerValue:
        return ServerValue.from_buffer(self._servers_memory, number * ctypes.sizeof(ServerValue))

    def _server_list(self, span: int) -> list[int]:
        first, count = span >> 32, span & 0xFFFFFFFF
        return list(memoryview(self._lists_up_to(first + count))[first * 8 : (first + count) * 8].cast("Q"))

    def _lists_up_to(self, end: int) -> mmap.mmap:
        """Return the memory of server lists and hash tables with at least ``end`` entries."""
        if end * 8 > len(self._server_lists):
            self._server_lists = self._instance.maps["server_lists"].mapped(1 << end.bit_length())
        return self._server_lists

    def _store(self, numbers: Sequence[int]) -> int | None:
        """Write server indices to a free range; return the word that references it, or ``None`` without room."""
        if not numbers:
            return 0
        first = self._allocator.allocate(len(numbers))
        if first is None:
            return None
        end = first + len(numbers)
        self._lists_up_to(end)[first * 8 : end * 8] = b"".join(n.to_bytes(8, "little") for n in numbers)
        return first << 32 | len(numbers)

    def _drop(self, span: int) -> None:
        self._allocator.free(span >> 32, span & 0xFFFFFFFF)

    # -- adoption ----------------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Read the services and servers of a previous daemon."""
        used: set[int] = set()
        numbers: set[int] = set()
        for number in range(self._instance.maps["services"].max_entries):
            value = self._service_value(number)
            if not value.flags & ServiceFlag.USED:
                continue
            numbers.add(number)
            service = Service(service_entry(value, self._instance.settings.hz), number, value)
            self.services[service.entry.key] = service
            self._note_key(service.entry.key)
            for span in (value.server_list, value.table):
                if span:
                    self._allocator.reserve(span >> 32, span & 0xFFFFFFFF)
            service.written = self._server_list(value.server_list)
            used.update(service.written)
            for server in service.written:
                held = self._server_value(server)
                entry = server_entry(held, self._local_addresses(held))
                service.servers.append(Server(entry, server, held, held.weight or 1))
                self._real.add(service.servers[-1].entry.endpoint.address)
        self._free_services = Numbers(0, self._instance.maps["services"].max_entries, numbers)
        self._free_servers = Numbers(1, self._instance.maps["servers"].max_entries, used)

    # -- operations --------------------------------------------------------------------------------------------

    def apply(self, operations: Sequence[Operation]) -> list[Refused]:
        """Apply operations in order; return those that were refused, with reasons. A refused operation changes nothing."""
        self._allocator.reclaim()
        refused = []
        for operation in operations:
            reason = self._apply(operation)
            if reason:
                refused.append(Refused(operation, reason))
        for service in self.services.values():
            if service.dirty:
                self._flush(service)
        return refused

    def _apply(self, operation: Operation) -> str:
        match operation:
            case AddService(service=entry):
                return self._add_service(entry)
            case EditService(service=entry):
                return self._edit_service(entry)
            case DeleteService(key=key):
                return self._delete_service(key)
            case AddServer(key=key, server=server):
                return self._add_server(key, server)
            case EditServer(key=key, server=server):
                return self._edit_server(key, server)
            case DeleteServer(key=key, endpoint=endpoint):
                return self._delete_server(key, endpoint)

    def _add_service(self, entry: ServiceEntry) -> str:
        if entry.key in self.services:
            return "service already exists"
        if not (entry.key.endpoint.port or entry.key.mark or entry.persistence_timeout_s):
            return "a service of every port needs persistence"
        if not self._free_services:
            return f"no room for more than {self._instance.maps['services'].max_entries} services: restart to resize the table"
        number = self._free_services.take()
        value = self._service_value(number)
        ctypes.memset(ctypes.byref(value), 0, ctypes.sizeof(value))
        service = Service(entry, number, value)
        self._describe(service)
        self.services[entry.key] = service
        self._note_key(entry.key)
        self._instance.maps["service_index"].update(key_bytes(entry.key), number.to_bytes(4, "little"))
        return ""

    def _note_key(self, key: ServiceKey) -> None:
        """Make the programs look at packets to the service's address, or at all packets if it has a firewall mark."""
        if key.mark:
            self._instance.set_flag(SettingFlag.MARKS, True)
        else:
            self._virtual.add(key.endpoint.address)

    def _drop_key(self, key: ServiceKey) -> None:
        if not key.mark:
            self._virtual.discard(key.endpoint.address)
        elif not self.has_marks:
            self._instance.set_flag(SettingFlag.MARKS, False)

    @property
    def has_marks(self) -> bool:
        """Whether any service has a firewall mark."""
        return any(key.mark for key in self.services)

    def families(self) -> set[int]:
        """Return the address families (4, 6) of the servers."""
        addresses = (server.entry.endpoint.address for service in self.services.values() for server in service.servers)
        return {6 if ":" in address else 4 for address in addresses}

    def _edit_service(self, entry: ServiceEntry) -> str:
        service = self.services.get(entry.key)
        if service is None:
            return "no such service"
        former, service.entry = service.entry, entry
        rescheduled = (former.scheduler, former.scheduler_flags) != (entry.scheduler, entry.scheduler_flags)
        if rescheduled:
            service.value.cursor = service.value.threshold = 0
        forgets = not entry.persistence_timeout_s or former.persistence_granularity != entry.persistence_granularity
        self._describe(service)
        if rescheduled:
            self._changed(service)
        if forgets and former.persistence_timeout_s:
            self._forget_clients(service)
        return ""

    def _describe(self, service: Service) -> None:
        """Write a service's value, except its server list, which ``_flush`` writes."""
        entry, value = service.entry, service.value
        key = entry.key
        flags = ServiceFlag.USED
        if {"sh-fallback", "mh-fallback"} & set(entry.scheduler_flags):
            flags |= ServiceFlag.FALLBACK
        if {"sh-port", "mh-port"} & set(entry.scheduler_flags):
            flags |= ServiceFlag.HASH_PORT
        if not (key.endpoint.port or key.mark):
            flags |= ServiceFlag.ANY_PORT
        if entry.one_packet:
            flags |= ServiceFlag.ONE_PACKET
        if entry.refuses_by_reset:
            flags |= ServiceFlag.RESET
        if self._is_closed(key.endpoint.address):
            flags |= ServiceFlag.CLOSED
        # Templates have a firewall mark as an address, as in IPVS and its sync protocol: 0.0.0.7 for 7.
        value.address.bytes[:] = packed(str(IPv4Address(key.mark)) if key.mark else key.endpoint.address)
        value.mask.bytes[:] = mask_bytes(entry.persistence_granularity, key.is_ipv6)
        value.port = port_to(key.endpoint.port)
        value.protocol = 0 if key.mark else PROTOCOLS[key.protocol]
        value.family = family_of(key)
        value.scheduler = known_scheduler(entry.scheduler)
        value.persistence = jiffies_of(entry.persistence_timeout_s, self._instance.settings.hz)
        value.flags = flags

    def _delete_service(self, key: ServiceKey) -> str:
        service = self.services.pop(key, None)
        if service is None:
            return "no such service"
        self._instance.maps["service_index"].delete(key_bytes(key))
        service.value.flags = 0
        self._drop_key(key)
        for server in service.servers:
            self._on_delete(service, server)
        self._drop(service.value.server_list)
        self._drop(service.value.table)
        service.value.server_list = service.value.table = 0
        self._free_services.give(service.number)
        return ""

    def _find(self, key: ServiceKey, endpoint: Endpoint) -> tuple[Service, Server] | None:
        service = self.services.get(key)
        server = service.find(endpoint) if service else None
        return (service, server) if service is not None and server is not None else None

    def _add_server(self, key: ServiceKey, entry: ServerEntry) -> str:
        service = self.services.get(key)
        if service is None:
            return "service not defined"
        if service.find(entry.endpoint) is not None:
            return "destination already exists"
        if len(service.servers) >= MAX_SERVERS:
            return f"a service has at most {MAX_SERVERS} servers on the ebpf plane"
        if not self._free_servers:
            return f"no room for more than {self._instance.maps['servers'].max_entries} servers: restart to resize the table"
        reason = self._cannot_carry(entry)
        if reason:
            return reason
        number, value = self._take_slot(key, entry)
        value.service = service.number
        self._instance.maps["traffic"].update(number.to_bytes(4, "little"), bytes(ctypes.sizeof(Counters)))
        server = Server(entry, number, value, entry.weight)
        self._describe_server(server)
        self._real.add(entry.endpoint.address)
        service.servers.insert(0, server)
        self._changed(service)
        return ""

    def _take_slot(self, key: ServiceKey, entry: ServerEntry) -> tuple[int, ServerValue]:
        """Return the slot for a server, empty but for its generation.

        A server that returns has its former slot and generation, if nobody had the slot since: its connections go on, and are
        still counted. A check that fails for a moment then ends those only whose packets came meanwhile (IPVS is alike).
        """
        number = self._left.get((key, entry.endpoint), 0)
        value = self._server_value(number)
        if number and value.forwarding == FORWARDINGS[entry.forwarding]:
            self._free_servers.take_again(number)
            del self._left[self._last_in.pop(number)]
            kept = {name: getattr(value, name) for name in ("active", "inactive", "templates")}
            generation = value.generation - 1
        else:
            number = self._free_servers.take()
            value = self._server_value(number)
            former = self._last_in.pop(number, None)
            if former is not None:
                del self._left[former]
            if value.forwarding == FORWARDINGS[Forwarding.FULLNAT]:
                self._release_ports(number, value)
            kept = {}
            generation = value.generation + 2 if value.generation & 1 == 0 else value.generation + 1
        ctypes.memset(ctypes.byref(value), 0, ctypes.sizeof(value))
        value.generation = generation
        for name, count in kept.items():
            setattr(value, name, count)
        return number, value

    def _describe_server(self, server: Server) -> None:
        entry, value = server.entry, server.value
        value.address.bytes[:] = packed(entry.endpoint.address)
        value.port = port_to(entry.endpoint.port)
        value.forwarding = FORWARDINGS[entry.forwarding]
        value.upper, value.lower = entry.upper_threshold, entry.lower_threshold
        value.weight = entry.weight
        value.is_local = self._outer_source(entry.endpoint.address) == entry.endpoint.address
        if entry.forwarding is Forwarding.TUN:
            value.outer_source.bytes[:] = packed(self._outer_source(entry.endpoint.address))
            value.tunnel, value.tunnel_port = TUNNELS[entry.tunnel.kind], port_to(entry.tunnel.port)
        if entry.forwarding is Forwarding.FULLNAT:
            addresses = entry.local_addresses or (self._outer_source(entry.endpoint.address),)
            value.snat_first, value.snat_count = self._snat_addresses(addresses) or 0, len(addresses)
        held = value.active + value.inactive
        if not entry.upper_threshold:
            value.overloaded = 0
        elif held >= entry.upper_threshold:
            value.overloaded = 1
        elif held < (entry.lower_threshold or entry.upper_threshold - entry.upper_threshold // 4):
            value.overloaded = 0

    def _snat_addresses(self, addresses: Sequence[str]) -> int | None:
        """Return the index in ``snat_addresses`` of these addresses in a row, added if they are new; ``None`` without room."""
        wanted = b"".join(map(packed, addresses))
        memory = bytes(self._snat_memory)
        at = memory.find(wanted)
        while at % 16 and at >= 0:
            at = memory.find(wanted, at + 1)
        if at >= 0:
            return at // 16
        used = len(memory.rstrip(b"\0")) + 15 >> 4
        if (used + len(addresses)) * 16 > len(memory):
            return None
        self._snat_memory[used * 16 : used * 16 + len(wanted)] = wanted
        return used

    def _local_addresses(self, value: ServerValue) -> tuple[str, ...]:
        """Return a server's SNAT addresses; none if it has only the default one, the director's own."""
        if value.forwarding != FORWARDINGS[Forwarding.FULLNAT]:
            return ()
        first = value.snat_first
        data = [bytes(self._snat_memory[i * 16 : i * 16 + 16]) for i in range(first, first + value.snat_count)]
        found = tuple(map(address_text, data))
        return () if found == (self._outer_source(address_text(bytes(value.address.bytes))),) else found

    def _cannot_carry(self, entry: ServerEntry) -> str:
        """Return why the plane cannot forward to a server as declared, or an empty string."""
        if entry.forwarding is Forwarding.TUN:
            if entry.tunnel.kind not in TUNNELS:
                return f"no tunnels of type {entry.tunnel.kind} on the ebpf plane"
            if entry.tunnel.checksum is not TunnelChecksum.NONE:
                return "no checksums in tunnels on the ebpf plane"
        if entry.forwarding is Forwarding.FULLNAT and self._snat_addresses(entry.local_addresses) is None:
            return f"no room for more than {self._instance.maps['snat_addresses'].max_entries} local addresses"
        return ""

    def _edit_server(self, key: ServiceKey, entry: ServerEntry) -> str:
        found = self._find(key, entry.endpoint)
        if found is None:
            return "no such destination"
        service, server = found
        reason = self._cannot_carry(entry)
        if reason:
            return reason
        server.entry = entry
        server.last_weight = entry.weight or server.last_weight
        self._describe_server(server)
        self._changed(service)
        return ""

    def _delete_server(self, key: ServiceKey, endpoint: Endpoint) -> str:
        found = self._find(key, endpoint)
        if found is None:
            return "no such destination"
        service, server = found
        service.servers.remove(server)
        self._changed(service)
        self._flush(service)  # no scheduler picks it from here on …
        self._on_delete(service, server)  # … before its connections end
        return ""

    def _on_delete(self, service: Service, server: Server) -> None:
        """Free a removed server's slot: its connections become orphans, its traffic is added to the service's."""
        traffic = self._traffic(server.number)
        former = service.value.former
        for name in COUNTER_NAMES:
            setattr(former, name, getattr(former, name) + getattr(traffic, name))
        server.value.generation += 1
        server.value.weight = 0
        self._real.discard(server.entry.endpoint.address)
        self._free_servers.give(server.number)
        who = (service.entry.key, server.entry.endpoint)
        self._last_in.pop(self._left.get(who, 0), None)  # it left another slot before, with another forwarding method
        self._left[who] = server.number
        self._last_in[server.number] = who

    def _release_ports(self, number: int, value: ServerValue) -> None:
        """Free the local ports of a slot's former server: another one will have the slot when its connections end."""
        translations, buckets = self._instance.maps["translations"], self._instance.maps["buckets"]
        remote = bytes(value.address.bytes)
        for key in list(translations.keys()):
            place = int.from_bytes(translations.lookup(key) or NOWHERE.to_bytes(4, "little"), "little")
            if key[: len(remote)] != remote or place == NOWHERE:
                continue
            data = buckets.lookup((place // BUCKET_SLOTS).to_bytes(4, "little"))
            if data and Bucket.from_buffer_copy(data).slot[place % BUCKET_SLOTS].server == number:
                translations.delete(key)

    def _forget_clients(self, service: Service) -> None:
        for server in service.servers:
            server.value.templates = 0
        template = 1
        for first, bucket in self._instance.buckets():
            for slot, tag in enumerate(bucket.tag):
                entry = bucket.slot[slot]
                same = bytes(entry.virtual.bytes) == bytes(service.value.address.bytes)
                same = same and entry.virtual_port == service.value.port and entry.protocol == service.value.protocol
                if tag and entry.flags & template and same:
                    self._instance.delete(first * 8 + slot, 0)
        for server in service.servers:
            server.value.templates = 0

    # -- lists -------------------------------------------------------------------------------------------------

    def _flush(self, service: Service) -> None:
        """Write the server list and the hash table; the cursor stays at the last pick. ``MemoryError`` without room."""
        service.dirty = False
        numbers = [server.number for server in service.servers]
        value, former = service.value, service.value.server_list
        if numbers != service.written:
            span = self._store(numbers)
            if span is None:
                raise MemoryError("no room for server lists")
            cursor = _moved(service.written, value.cursor, numbers)
            value.server_list = span
            value.cursor = cursor
            self._drop(former)
            service.written = numbers
        if value.scheduler in TABLED or value.table:
            self._write_table(service)

    @staticmethod
    def _changed(service: Service) -> None:
        """Mark a service whose servers changed. Lists are written once, after the last operation; the state of wrr is reset
        for every operation, as in the kernel: the walk restarts at the head, the threshold stays if it is still valid.
        """
        service.dirty = True
        if service.value.scheduler != SchedulerNumber.WRR:
            return
        weights = [server.entry.weight for server in service.servers if server.entry.weight]
        value = service.value
        step = gcd(*weights) or 1
        ceiling = max(weights, default=0) - (step - 1)
        threshold = value.threshold
        if threshold > ceiling or threshold == 0:
            threshold = max(0, ceiling)
        elif step > 1:
            threshold = threshold // step * step + 1
        value.cursor, value.step, value.ceiling, value.threshold = 0, step, max(0, ceiling), threshold

    def _write_table(self, service: Service) -> None:
        former = service.value.table
        span = self._store(self._hash_table(service))
        if span is None:
            raise MemoryError("no room for hash tables")
        if self._server_list(span) == self._server_list(former) and former:
            self._drop(span)
            return
        service.value.table = span
        self._drop(former)

    def _hash_table(self, service: Service) -> list[int]:
        numbers = [server.number for server in service.servers]
        match service.value.scheduler:
            case SchedulerNumber.SH:
                return [numbers[i] for i in source_hash.fill([server.entry.weight for server in service.servers])]
            case SchedulerNumber.DH:
                return destination_hash.fill(numbers)
            case SchedulerNumber.MH:
                places = [(fold(int(ip_address(s.entry.endpoint.address))), s.entry.endpoint.port) for s in service.servers]
                table = maglev.fill(places, [server.last_weight for server in service.servers], self._maglev_size)
                return [numbers[i] if i >= 0 else 0 for i in table]
        return []

    # -- addresses ---------------------------------------------------------------------------------------------

    def _is_closed(self, address: str) -> bool:
        return self._closed is not None and address in self._closed

    def close_addresses(self, closed: frozenset[str]) -> None:
        """Do not balance packets to the addresses in ``closed``, which another node has now."""
        if closed == self._closed:
            return
        self._closed = closed
        for service in self.services.values():
            self._describe(service)

    # -- observation -------------------------------------------------------------------------------------------

    def _traffic(self, number: int) -> Counters:
        total = Counters()
        for data in self._instance.maps["traffic"].per_cpu(number.to_bytes(4, "little")):
            cpu = Counters.from_buffer_copy(data)
            for name in COUNTER_NAMES:
                setattr(total, name, getattr(total, name) + getattr(cpu, name))
        return total

    def observe(self) -> list[ServiceState]:
        """Return the whole table; servers in the order in which they were added, oldest first."""
        return [self._service_state(service) for service in self.services.values()]

    def _service_state(self, service: Service) -> ServiceState:
        traffic = [self._traffic(server.number) for server in service.servers]
        servers = [
            ServerState(
                server=server.entry,
                active=counter_value(server.value.active),
                inactive=counter_value(server.value.inactive),
                persistent=counter_value(server.value.templates),
                overloaded=bool(server.value.overloaded),
                traffic=traffic_of(counted),
            )
            for server, counted in zip(service.servers, traffic, strict=True)
        ]
        total = [*traffic, service.value.former]
        refused = int(service.value.refused)
        return ServiceState(
            service=service.entry,
            servers=tuple(reversed(servers)),
            traffic=Traffic(
                connections=sum(t.connections for t in total),
                packets_in=sum(t.packets_in for t in total),
                packets_out=sum(t.packets_out for t in total),
                bytes_in=sum(t.bytes_in for t in total),
                bytes_out=sum(t.bytes_out for t in total),
            ),
            refused={"no_destination": refused} if refused else {},
        )

    def server_numbers(self) -> dict[int, tuple[ServiceKey, ServerEntry, int]]:
        """Return service key, entry and generation of each server, by index."""
        return {
            server.number: (key, server.entry, int(server.value.generation))
            for key, service in self.services.items()
            for server in service.servers
        }


def _moved(former: Sequence[int], cursor: int, numbers: Sequence[int]) -> int:
    """Return the cursor in the new list: after the last pick or, if that was removed, after its nearest predecessor."""
    for number in reversed(former[:cursor]):
        if number in numbers:
            return numbers.index(number) + 1
    return 0
