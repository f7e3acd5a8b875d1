"""The bpf(2) commands that the plane needs without libbpf: pins, map values, test runs, links."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import threading
from collections.abc import Iterator
from typing import Final

from relevo.errors import PlaneError

_NUMBER: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_libc = ctypes.CDLL(None, use_errno=True)

_MAP_CREATE, _RING_BUFFER = 0, 27
_MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT = 1, 2, 3, 4
_OBJ_PIN, _OBJ_GET = 6, 7
_TEST_RUN = 10
_INFO = 15
_LOOKUP_BATCH = 24
_LINK_CREATE, _LINK_UPDATE = 28, 29

PERCPU_TYPES: Final = frozenset((5, 6, 10))
"""Per-CPU hash, array and LRU hash: a look-up returns one value for every possible CPU."""


class _Attr(ctypes.Structure):
    """``union bpf_attr``, as the fields of its largest use here; every command overlays its own."""

    _fields_ = [("raw", ctypes.c_uint8 * 128)]


def _call(command: int, payload: bytes, what: str) -> int:
    return _call_attr(command, payload, what)[0]


def _call_attr(command: int, payload: bytes, what: str) -> tuple[int, bytes]:
    """Return a command's result, and the attributes as the kernel left them. ``OSError`` when it fails."""
    attr = _Attr()
    ctypes.memmove(attr.raw, payload, len(payload))
    result: int = _libc.syscall(_NUMBER[platform.machine()], command, ctypes.byref(attr), 128)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"bpf {what}: {os.strerror(number)}")
    return result, bytes(attr.raw)


def _u32(*numbers: int) -> bytes:
    return b"".join((number & 0xFFFFFFFF).to_bytes(4, "little") for number in numbers)


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "little")


def pin(descriptor: int, path: str) -> None:
    """Pin an object at ``path`` in a BPF file system."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    _call(_OBJ_PIN, _u64(ctypes.addressof(name)) + _u32(descriptor, 0), f"pin {path}")


def get(path: str) -> int:
    """Open a pinned object; return its descriptor."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return _call(_OBJ_GET, _u64(ctypes.addressof(name)) + _u32(0, 0), f"open {path}")


def possible_cpus() -> int:
    """Return the number of CPUs for which a per-CPU value has room."""
    with open("/sys/devices/system/cpu/possible") as file:
        last = file.read().strip().split(",")[-1].split("-")[-1]
    return int(last) + 1


class Map:
    """A map by descriptor, which it owns. Keys and values are bytes. Thread-safe."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        info = ctypes.create_string_buffer(80)
        _call(_INFO, _u32(descriptor, len(info)) + _u64(ctypes.addressof(info)), "map info")
        kind, _, key, value, entries, flags = (int.from_bytes(info.raw[i : i + 4], "little") for i in range(0, 24, 4))
        self.kind, self.key_size, self.value_size, self.max_entries, self.flags = kind, key, value, entries, flags
        self._cpus = possible_cpus() if kind in PERCPU_TYPES else 1
        self._stride = (value + 7) // 8 * 8 if kind in PERCPU_TYPES else value
        self._key = ctypes.create_string_buffer(max(1, key))
        self._value = ctypes.create_string_buffer(self._stride * self._cpus)
        self._lock = threading.Lock()  # of the two buffers

    @classmethod
    def open(cls, path: str) -> Map:
        """Open a pinned map."""
        return cls(get(path))

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)

    def _address(self, command: int, flags: int, what: str) -> None:
        payload = _u32(self.descriptor, 0) + _u64(ctypes.addressof(self._key)) + _u64(ctypes.addressof(self._value)) + _u64(flags)
        _call(command, payload, what)

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value at ``key``, or ``None``. A per-CPU value is the values of all CPUs in a row."""
        with self._lock:
            self._key.raw = key.ljust(len(self._key), b"\0")
            try:
                self._address(_MAP_LOOKUP, 0, "look-up")
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return None
                raise
            return self._value.raw

    def per_cpu(self, key: bytes) -> list[bytes]:
        """Return each CPU's value at ``key``."""
        raw = self.lookup(key) or bytes(self._stride * self._cpus)
        return [raw[i * self._stride : i * self._stride + self.value_size] for i in range(self._cpus)]

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set the value at ``key``; of a per-CPU map, every CPU's."""
        with self._lock:
            self._key.raw = key.ljust(len(self._key), b"\0")
            self._value.raw = value.ljust(self._stride, b"\0") * self._cpus
            self._address(_MAP_UPDATE, flags, "update")

    def delete(self, key: bytes) -> bool:
        """Remove ``key``; False when it was not there."""
        with self._lock:
            self._key.raw = key.ljust(len(self._key), b"\0")
            try:
                _call(_MAP_DELETE, _u32(self.descriptor, 0) + _u64(ctypes.addressof(self._key)), "delete")
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return False
                raise
            return True

    def keys(self) -> Iterator[bytes]:
        """Yield the keys of a hash map."""
        key: bytes | None = None
        following = ctypes.create_string_buffer(self.key_size)
        while True:
            former = ctypes.create_string_buffer(key, self.key_size) if key is not None else None
            payload = _u32(self.descriptor, 0) + _u64(ctypes.addressof(former) if former else 0)
            try:
                _call(_MAP_NEXT, payload + _u64(ctypes.addressof(following)), "next key")
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            key = following.raw
            yield key

    def chunks(self, entries: int) -> Iterator[tuple[int, memoryview]]:
        """Yield an array's values in chunks of up to ``entries``: index of the first, and the bytes."""
        values = ctypes.create_string_buffer(self.value_size * entries)
        keys = ctypes.create_string_buffer(4 * entries)
        before, after = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
        first, began = 0, False
        while first < self.max_entries:
            payload = (
                _u64(ctypes.addressof(before) if began else 0)
                + _u64(ctypes.addressof(after))
                + _u64(ctypes.addressof(keys))
                + _u64(ctypes.addressof(values))
                + _u32(entries, self.descriptor)
                + _u64(0)
                + _u64(0)
            )
            try:
                _call(_LOOKUP_BATCH, payload, "batch look-up")
            except OSError as error:
                if error.errno != errno.ENOENT:  # ENOENT: the last chunk
                    raise
            count = min(entries, self.max_entries - first)
            yield first, memoryview(values)[: count * self.value_size]
            first, began = first + count, True
            ctypes.memmove(before, after, 8)

    def mapped(self, entries: int | None = None) -> mmap.mmap:
        """Return the values of a mappable array, or the first ``entries`` of them, as memory shared with the programs.

        Every mapped page counts as memory of the process, also those that nothing touches.
        """
        length = (self.value_size + 7) // 8 * 8 * (self.max_entries if entries is None else min(entries, self.max_entries))
        size = (length + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
        return mmap.mmap(self.descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


class TestRun:
    """A program's return value and the packet afterwards. ``duration_ns`` is the mean of all repeats."""

    __slots__ = ("data", "duration_ns", "value")

    def __init__(self, value: int, data: bytes, duration_ns: int) -> None:
        self.value, self.data, self.duration_ns = value, data, duration_ns


def test_run(program: int, data: bytes, *, repeat: int = 1, room: int = 512, context: bytes = b"") -> TestRun:
    """Run a program on a packet in the kernel; a run that a signal interrupts is repeated.

    ``context`` is a leading part of the program's context (``struct __sk_buff`` or ``struct xdp_md``).
    """
    given = ctypes.create_string_buffer(data, len(data))
    out = ctypes.create_string_buffer(len(data) + room)
    ctx = ctypes.create_string_buffer(context, len(context)) if context else None
    payload = (
        _u32(program, 0, len(data), len(out))
        + _u64(ctypes.addressof(given))
        + _u64(ctypes.addressof(out))
        + _u32(repeat, 0, len(context), 0)
        + _u64(ctypes.addressof(ctx) if ctx else 0)
        + _u64(0)
    )
    while True:
        try:
            _, attr = _call_attr(_TEST_RUN, payload, "test run")
            break
        except InterruptedError:
            continue
    value, _, size = (int.from_bytes(attr[i : i + 4], "little") for i in (4, 8, 12))
    duration = int.from_bytes(attr[36:40], "little")
    return TestRun(value, out.raw[:size], duration)


def link_create(program: int, interface: int, attach_type: int, flags: int = 0) -> int:
    """Attach a program to an interface; the attachment lives as long as the returned descriptor or a pin of it."""
    return _call(_LINK_CREATE, _u32(program, interface, attach_type, flags), "link")


def link_update(link: int, program: int) -> None:
    """Replace a link's program atomically."""
    _call(_LINK_UPDATE, _u32(link, program, 0, 0), "link update")


def try_ring_buffer() -> None:
    """Create a ring buffer and close it; ``OSError`` without permission for BPF, or on kernels before 5.8."""
    os.close(_call(_MAP_CREATE, _u32(_RING_BUFFER, 0, 0, mmap.PAGESIZE), "map of a ring buffer"))


def as_plane_error(what: str, error: OSError) -> PlaneError:
    """Return ``error`` as a ``PlaneError``, with a hint if a capability is missing."""
    if error.errno in (errno.EPERM, errno.EACCES):
        return PlaneError(f"{what}: {error.strerror}", hint="the ebpf plane needs CAP_BPF and CAP_NET_ADMIN (root has them)")
    return PlaneError(f"{what}: {error.strerror or error}")
