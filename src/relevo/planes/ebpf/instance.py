"""An instance: maps and programs pinned under one folder of a BPF file system, where they outlive the daemon.

``open_instance`` adopts pinned maps of the same layout version, else it makes new ones. When the objects have changed, it loads
the new programs and updates the links in place, so that no packet passes an interface without a program.
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
"""The values of CONFIG_HZ."""
CLOCK_PAUSE_S: Final = 0.12
"""Between two readings of the kernel's clock: 30 ticks mean 250 Hz, 36 mean 300."""
SWEEP_BUCKETS: Final = 64
CHUNK: Final = 1024
"""Buckets read per system call: half a megabyte."""
_RESULT: Final = Struct("<II")
"""Slot and outcome, after each connection of an ``InsertRequest``."""
_RESULT_ROOM: Final = bytes(_RESULT.size)
_ITEM: Final = ctypes.sizeof(InsertItem)
LOAD: Final = 0.5
"""Load factor of the table when it holds the connections it was sized for. By simulation, one connection in 4 500 then finds
both of its buckets full (one in 700 at 0.6, one in 60 at 0.8). It takes the slot of a half-open connection, or is dropped and
counted."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The capacity of an instance."""

    connections: int = 524_288
    services: int = 4096
    servers: int = 16_384
    server_lists: int = 1 << 20
    snat_addresses: int = 256
    sync_ring: int = 1 << 20
    """Bytes of the ring, a power of two: about 22 000 IPv4 connections."""

    def entries(self) -> dict[str, int]:
        """Return the number of entries of each map that has a configured size."""
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
    """The open maps and programs of one folder."""

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
        """Delete expired entries; return how many."""
        buckets = self.maps["buckets"].max_entries
        runs = -(-buckets // SWEEP_BUCKETS)
        data = syscall.test_run(self.programs["relevo_sweep"], bytes(SweepRequest()), repeat=runs).data
        return int(SweepRequest.from_buffer_copy(data).deleted)

    def delete(self, place: int, client_port: int) -> bool:
        """Delete the entry in slot ``place`` if it still has ``client_port`` (network order); return whether it did."""
        request = DeleteRequest(place=place, client_port=client_port)
        data = syscall.test_run(self.programs["relevo_delete"], bytes(request)).data
        return bool(DeleteRequest.from_buffer_copy(data).done)

    def insert(self, connections: Sequence[bytes]) -> list[tuple[Outcome, int]]:
        """Insert or update connections that no packet opened (``Connection`` as bytes, ``expires`` in jiffies from now); return
        the outcome and slot of each.
        """
        results: list[tuple[Outcome, int]] = []
        size = ctypes.sizeof(InsertRequest)
        for first in range(0, len(connections), INSERT_MAX):
            batch = connections[first : first + INSERT_MAX]
            head = bytes(InsertRequest(count=len(batch)))[: InsertRequest.item.offset]
            request = (head + b"".join(each + _RESULT_ROOM for each in batch)).ljust(size, b"\0")
            data = syscall.test_run(self.programs["relevo_insert"], request).data
            for at in range(InsertRequest.item.offset, InsertRequest.item.offset + len(batch) * _ITEM, _ITEM):
                place, outcome = _RESULT.unpack_from(data, at + _ITEM - _RESULT.size)
                results.append((Outcome(outcome), place))
        return results

    def export_connections(self, first: int, limit: int, which: SyncExport) -> int | None:
        """Write the table's entries into the sync ring, from bucket ``first`` on, until about ``limit`` are exported (the run
        stops within 64 buckets after that). Return the bucket to continue with, or ``None`` at the end of the table.
        """
        buckets = self.maps["buckets"].max_entries
        request = SyncExportRequest(next=first, limit=limit, which=which)
        runs = -(-(buckets - first) // SWEEP_BUCKETS)
        data = syscall.test_run(self.programs["relevo_sync_export"], bytes(request), repeat=runs).data
        reached = int(SyncExportRequest.from_buffer_copy(data).next)
        return reached if reached < buckets else None

    def jiffies(self) -> int:
        """Return the kernel's clock in jiffies, 64 bits."""
        return jiffies(self.programs["relevo_clock"])

    def set_flag(self, flag: SettingFlag, on: bool) -> None:
        """Set or clear a flag, which takes effect with the next packet. Thread-safe."""
        with self._switching:
            self.settings.flags = self.settings.flags | flag if on else self.settings.flags & ~flag

    def forget_timeouts(self) -> None:
        """Reset all time-outs to IPVS's defaults: a previous daemon may have changed them."""
        for state, seconds in TIMEOUT_S.items():
            self.settings.timeout[state] = jiffies_of(seconds, self.settings.hz)

    def set_timeouts(self, wanted: PlaneTimeouts) -> None:
        """Set those of three time-outs that are not 0; a connection gets them at its next packet."""
        chosen = {TcpState.ESTABLISHED: wanted.tcp_s, TcpState.FIN_WAIT: wanted.tcp_fin_s, TcpState.UDP: wanted.udp_s}
        for state, seconds in chosen.items():
            if seconds > 0:
                self.settings.timeout[state] = jiffies_of(seconds, self.settings.hz)

    # -- connections -------------------------------------------------------------------------------------------

    def buckets(self) -> list[tuple[int, Bucket]]:
        """Return copies of the buckets that are not empty, with their indices."""
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
        """Return the count of every reason, summed over all CPUs."""
        table = self.maps["reasons"]
        return [
            sum(int.from_bytes(value, "little") for value in table.per_cpu(i.to_bytes(4, "little")))
            for i in range(table.max_entries)
        ]

    def close(self) -> None:
        """Close the descriptors; pinned objects stay."""
        for each in self.maps.values():
            each.close()
        for descriptor in self.programs.values():
            os.close(descriptor)
        self.maps, self.programs = {}, {}

    def remove(self) -> None:
        """Close and unpin everything: the kernel frees links, programs and maps with their last reference."""
        self.close()
        remove_pins(self.path)


def give_pins(path: Path, uid: int, gid: int) -> None:
    """Make an instance's folder, and the one that it is in, those of a user; ``OSError`` if the system refuses."""
    os.chown(path.parent, uid, gid)
    os.chown(path, uid, gid)
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.chown(os.path.join(folder, name), uid, gid)


def remove_pins(path: Path) -> None:
    """Remove an instance's folder."""
    shutil.rmtree(path, ignore_errors=True)


def jiffies(program: int) -> int:
    """Return the kernel's clock in jiffies, by a run of ``relevo_clock``."""
    data = syscall.test_run(program, bytes(24)).data
    return int.from_bytes(data[16:24], "little")


def ensure_bpf_fs(root: Path = ROOT) -> None:
    """Mount a BPF file system at ``root`` unless there is one; ``PlaneError`` when that fails."""
    try:
        if libc.file_system_type(str(root)) == BPF_FS_MAGIC:
            return
        root.mkdir(exist_ok=True)
        libc.mount("bpf", str(root), "bpf")
    except OSError as error:
        hint = "mount -t bpf bpf /sys/fs/bpf, as root"
        raise PlaneError(f"{root} is not a BPF file system: {error.strerror}", hint=hint) from error


def fingerprint() -> str:
    """Return a hash of the compiled objects, which names their build."""
    digest = hashlib.sha256()
    for name in PROGRAMS:
        try:
            digest.update(object_file(name).read_bytes())
        except OSError as error:
            raise PlaneError(f"cannot read the program {name}: {error.strerror}", hint="make builds the BPF objects") from error
    return digest.hexdigest()[:16]


def open_instance(path: Path, sizes: Sizes) -> Instance:
    """Adopt the instance at ``path``, or make it. ``PlaneError`` or ``OSError`` when the system refuses."""
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
    """Open the pinned maps if they have this layout version; remove them if not."""
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
    """Load all objects with shared maps, and pin maps and programs."""
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
                if map_name in descriptors or "." in map_name:  # each program has its own .rodata
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
    """Return the kernel's jiffies per second (CONFIG_HZ), measured against the monotonic clock."""
    begin, began = jiffies(program), time.monotonic()
    time.sleep(CLOCK_PAUSE_S)
    rate = (jiffies(program) - begin) / (time.monotonic() - began)
    return min(HERTZ, key=lambda known: abs(known - rate))


def _renew_links(path: Path, programs: Mapping[str, int]) -> None:
    """Update existing links to the current programs."""
    for file in (path / "links").glob("*"):
        kind = file.name.split("-")[0]
        with contextlib.suppress(OSError):
            link = syscall.get(str(file))
            try:
                syscall.link_update(link, programs[f"relevo_{kind}"])
            finally:
                os.close(link)
