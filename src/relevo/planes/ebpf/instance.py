"""An instance: maps and programs under one folder of a BPF file system, where they outlive the daemon.

``open_instance`` adopts what is pinned there if its layout is ours, else makes it. Programs are renewed when their objects
have changed, by updating the links in place, so that no packet meets an interface without one.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import secrets
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import Final

from relevo.errors import PlaneError
from relevo.host import libc
from relevo.model import PlaneTimeouts
from relevo.planes.ebpf import syscall
from relevo.planes.ebpf.layout import (
    BUCKET_SLOTS,
    INSERT_MAX,
    LAYOUT_VERSION,
    TIMEOUT_S,
    Bucket,
    DeleteRequest,
    InsertItem,
    InsertRequest,
    Outcome,
    SettingFlag,
    Settings,
    SweepRequest,
    SyncExport,
    SyncExportRequest,
    TcpState,
    jiffies_of,
)
from relevo.planes.ebpf.libbpf import Object
from relevo.planes.ebpf.objects import PROGRAMS, object_file
from relevo.planes.ebpf.syscall import Map

ROOT: Final = Path("/sys/fs/bpf")
BPF_FS_MAGIC: Final = 0xCAFE4A11
HERTZ: Final = (100, 250, 300, 1000)
"""What CONFIG_HZ can be."""
CLOCK_PAUSE_S: Final = 0.12
"""Between two readings of the kernel's clock: 30 or 36 ticks tell 250 Hz from 300."""
SWEEP_BUCKETS: Final = 64
CHUNK: Final = 1024
"""Buckets read by one system call: half a megabyte."""
_ANSWER: Final = Struct("<II")
"""Place and outcome, behind each connection of an ``EnterRequest``."""
_ANSWER_ROOM: Final = bytes(_ANSWER.size)
_ITEM: Final = ctypes.sizeof(InsertItem)
LOAD: Final = 0.5
"""How full the table is when it holds what it was made for: by simulation, one connection in 4 500 finds both of its buckets
full then (one in 700 at 0.6, one in 60 at 0.8), takes a half-open one's slot, or else is refused and counted."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much an instance has room for."""

    connections: int = 524_288
    services: int = 4096
    servers: int = 16_384
    server_lists: int = 1 << 20
    snat_addresses: int = 256
    sync_ring: int = 1 << 20
    """Octets of the ring, a power of two: about 22 000 connections of IPv4."""

    def entries(self) -> dict[str, int]:
        """Return the entries of every map that has a size."""
        return {
            "buckets": self.buckets(),
            "service_index": self.services,
            "services": self.services,
            "servers": self.servers,
            "traffic": self.servers,
            "server_lists": self.server_lists,
            "snat_addresses": self.snat_addresses,
            "sync_ring": self.sync_ring,
            "translations": self.connections,
        }

    def buckets(self) -> int:
        """Return the number of buckets: a power of two."""
        wanted = int(self.connections / BUCKET_SLOTS / LOAD)
        return max(16, 1 << max(1, wanted - 1).bit_length())


@dataclass(slots=True)
class Instance:
    """Open maps and programs of one folder."""

    path: Path
    maps: dict[str, Map]
    programs: dict[str, int]
    adopted: bool
    settings: Settings = field(init=False)
    _memory: object = field(init=False, default=None)
    _switching: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        memory = self.maps["settings"].mapped()
        self._memory = memory
        self.settings = Settings.from_buffer(memory)

    # -- what runs in the kernel -------------------------------------------------------------------------------

    def sweep(self) -> int:
        """Take out entries whose time is over; return how many."""
        buckets = self.maps["buckets"].max_entries
        runs = -(-buckets // SWEEP_BUCKETS)
        data = syscall.test_run(self.programs["relevo_sweep"], bytes(SweepRequest()), repeat=runs).data
        return int(SweepRequest.from_buffer_copy(data).deleted)

    def delete(self, place: int, client_port: int) -> bool:
        """Take out the entry at ``place`` if it is still the one of ``client_port`` (as the entry has it)."""
        request = DeleteRequest(place=place, client_port=client_port)
        data = syscall.test_run(self.programs["relevo_delete"], bytes(request)).data
        return bool(DeleteRequest.from_buffer_copy(data).done)

    def insert(self, connections: Sequence[bytes]) -> list[tuple[Outcome, int]]:
        """Enter connections (``Connection`` as octets, ``expires`` in jiffies from now) that no packet opened; return what became
        of each, and its place.
        """
        results: list[tuple[Outcome, int]] = []
        size = ctypes.sizeof(InsertRequest)
        for first in range(0, len(connections), INSERT_MAX):
            batch = connections[first : first + INSERT_MAX]
            head = bytes(InsertRequest(count=len(batch)))[: InsertRequest.item.offset]
            request = (head + b"".join(each + _ANSWER_ROOM for each in batch)).ljust(size, b"\0")
            data = syscall.test_run(self.programs["relevo_insert"], request).data
            for at in range(InsertRequest.item.offset, InsertRequest.item.offset + len(batch) * _ITEM, _ITEM):
                place, outcome = _ANSWER.unpack_from(data, at + _ITEM - _ANSWER.size)
                results.append((Outcome(outcome), place))
        return results

    def export_connections(self, first: int, limit: int, which: SyncExport) -> int | None:
        """Put what the table holds into the ring of announcements, from bucket ``first`` on, until there are about ``limit``
        (64 buckets more at most); return the bucket to go on with, ``None`` when that was all.
        """
        buckets = self.maps["buckets"].max_entries
        request = SyncExportRequest(next=first, limit=limit, which=which)
        runs = -(-(buckets - first) // SWEEP_BUCKETS)
        data = syscall.test_run(self.programs["relevo_sync_export"], bytes(request), repeat=runs).data
        reached = int(SyncExportRequest.from_buffer_copy(data).next)
        return reached if reached < buckets else None

    def jiffies(self) -> int:
        """Return the kernel's clock, 64 bits."""
        return jiffies(self.programs["relevo_clock"])

    def set_flag(self, flag: SettingFlag, on: bool) -> None:
        """Switch a setting; packets meet it at once. From any thread."""
        with self._switching:
            self.settings.flags = self.settings.flags | flag if on else self.settings.flags & ~flag

    def forget_timeouts(self) -> None:
        """Set IPVS's own: a former daemon's file may have said something else."""
        for state, seconds in TIMEOUT_S.items():
            self.settings.timeout[state] = jiffies_of(seconds, self.settings.hz)

    def set_timeouts(self, wanted: PlaneTimeouts) -> None:
        """Set three time-outs, or those of them that are not 0; connections meet them at the next packet."""
        chosen = {TcpState.ESTABLISHED: wanted.tcp_s, TcpState.FIN_WAIT: wanted.tcp_fin_s, TcpState.UDP: wanted.udp_s}
        for state, seconds in chosen.items():
            if seconds > 0:
                self.settings.timeout[state] = jiffies_of(seconds, self.settings.hz)

    # -- connections -------------------------------------------------------------------------------------------

    def buckets(self) -> list[tuple[int, Bucket]]:
        """Return the buckets that hold anything, copied, with their indices."""
        size = ctypes.sizeof(Bucket)
        tags = Bucket.tag.offset
        empty = bytes(BUCKET_SLOTS)
        found = []
        for first, memory in self.maps["buckets"].chunks(min(CHUNK, self.maps["buckets"].max_entries)):
            data = bytes(memory)
            for index in range(len(data) // size):
                at = index * size
                if data[at + tags : at + tags + BUCKET_SLOTS] != empty:
                    found.append((first + index, Bucket.from_buffer_copy(data, at)))
        return found

    def reasons(self) -> list[int]:
        """Return the count of every reason, summed over the CPUs."""
        table = self.maps["reasons"]
        return [
            sum(int.from_bytes(value, "little") for value in table.per_cpu(i.to_bytes(4, "little")))
            for i in range(table.max_entries)
        ]

    def close(self) -> None:
        """Let go of descriptors; what is pinned stays."""
        for each in self.maps.values():
            each.close()
        for descriptor in self.programs.values():
            os.close(descriptor)
        self.maps, self.programs = {}, {}

    def remove(self) -> None:
        """Unpin everything: links, and with them programs and maps, go when nobody holds them."""
        self.close()
        remove_pins(self.path)


def remove_pins(path: Path) -> None:
    """Remove an instance's folder."""
    shutil.rmtree(path, ignore_errors=True)


def jiffies(program: int) -> int:
    """Return the kernel's clock by a run of ``relevo_clock``."""
    data = syscall.test_run(program, bytes(24)).data
    return int.from_bytes(data[16:24], "little")


def ensure_bpf_fs(root: Path = ROOT) -> None:
    """See to it that ``root`` is a BPF file system; ``PlaneError`` when it cannot be made one."""
    try:
        if libc.file_system_type(str(root)) == BPF_FS_MAGIC:
            return
        root.mkdir(exist_ok=True)
        libc.mount("bpf", str(root), "bpf")
    except OSError as error:
        hint = "mount -t bpf bpf /sys/fs/bpf, as root"
        raise PlaneError(f"{root} is not a BPF file system: {error.strerror}", hint=hint) from error


def fingerprint() -> str:
    """Return what tells this build's objects from another's."""
    digest = hashlib.sha256()
    for name in PROGRAMS:
        try:
            digest.update(object_file(name).read_bytes())
        except OSError as error:
            raise PlaneError(f"cannot read the program {name}: {error.strerror}", hint="make builds the BPF objects") from error
    return digest.hexdigest()[:16]


def open_instance(path: Path, sizes: Sizes) -> Instance:
    """Adopt or make the instance at ``path``."""
    mark = fingerprint()
    ensure_bpf_fs(path.parent.parent if path.parent.parent != path.parent else ROOT)
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    pinned = _pinned_maps(path / "maps")
    adopted = bool(pinned)
    programs = _pinned_programs(path / f"programs-{mark}") if adopted else {}
    if not programs:
        _load(path, mark, sizes, {name: each.descriptor for name, each in pinned.items()})
        for each in pinned.values():
            each.close()
        pinned = _opened_maps(path / "maps")
        programs = _pinned_programs(path / f"programs-{mark}")
    instance = Instance(path, pinned, programs, adopted)
    if not adopted:
        _initialise(instance)
    _renew_links(path, programs)
    for former in path.glob("programs-*"):
        if former.name != f"programs-{mark}":
            shutil.rmtree(former, ignore_errors=True)
    return instance


def _opened_maps(folder: Path) -> dict[str, Map]:
    return {file.name: Map.open(str(file)) for file in folder.iterdir()}


def _pinned_maps(folder: Path) -> dict[str, Map]:
    """Open the maps of an instance whose layout is ours; another's is removed."""
    try:
        found = _opened_maps(folder)
    except OSError:
        return {}
    settings = found.get("settings")
    if settings is not None and settings.value_size == ctypes.sizeof(Settings):
        value = Settings.from_buffer_copy(settings.lookup(bytes(4)) or bytes(ctypes.sizeof(Settings)))
        if value.version == LAYOUT_VERSION:
            return found
    for each in found.values():
        each.close()
    shutil.rmtree(folder, ignore_errors=True)
    return {}


def _pinned_programs(folder: Path) -> dict[str, int]:
    try:
        return {file.name: syscall.get(str(file)) for file in folder.iterdir()}
    except OSError:
        return {}


def _load(path: Path, mark: str, sizes: Sizes, known: Mapping[str, int]) -> None:
    """Load all objects on the same maps, and pin both."""
    descriptors = dict(known)
    folder, programs = path / "maps", path / f"programs-{mark}"
    shutil.rmtree(programs, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    programs.mkdir()
    for name in ("control", "tc", "xdp"):
        opened = Object(object_file(name))
        try:
            opened.size(sizes.entries())
            opened.reuse(descriptors)
            opened.load()
            for map_name, descriptor in opened.map_descriptors().items():
                if map_name in descriptors or "." in map_name:  # a program keeps its own constants
                    os.close(descriptor)
                    continue
                descriptors[map_name] = descriptor
                syscall.pin(descriptor, str(folder / map_name))
            for program, descriptor in opened.program_descriptors().items():
                syscall.pin(descriptor, str(programs / program))
                os.close(descriptor)
        except OSError as error:
            raise syscall.as_plane_error(f"cannot set up {path}", error) from error
        finally:
            opened.close()
    for name, descriptor in descriptors.items():
        if name not in known:
            os.close(descriptor)


def _initialise(instance: Instance) -> None:
    settings = instance.settings
    settings.hz = hertz(instance.programs["relevo_clock"])
    settings.tick_shift = (settings.hz // 3).bit_length() - 1
    settings.key[0], settings.key[1] = secrets.randbits(64), secrets.randbits(64)
    settings.bucket_mask = instance.maps["buckets"].max_entries - 1
    settings.replies_per_second = 1000
    settings.local_port_first, settings.local_port_count = 1024, 31_744
    settings.version = LAYOUT_VERSION  # last: with it, the instance can be adopted


def hertz(program: int) -> int:
    """Return the kernel's jiffies a second, by watching its clock."""
    begin, began = jiffies(program), time.monotonic()
    time.sleep(CLOCK_PAUSE_S)
    rate = (jiffies(program) - begin) / (time.monotonic() - began)
    return min(HERTZ, key=lambda known: abs(known - rate))


def _renew_links(path: Path, programs: Mapping[str, int]) -> None:
    """Point existing links at the present programs."""
    for file in (path / "links").glob("*"):
        kind = file.name.split("-")[0]
        with contextlib.suppress(OSError):
            link = syscall.get(str(file))
            try:
                syscall.link_update(link, programs[f"relevo_{kind}"])
            finally:
                os.close(link)
