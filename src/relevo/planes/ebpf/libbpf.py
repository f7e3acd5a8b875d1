"""Loads objects with the distribution's ``libbpf.so.1`` through ctypes: the machine that runs them compiles nothing."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from relevo.errors import PlaneError

LOG_SIZE: Final = 1 << 20
ANY_ALIGNMENT: Final = 1 << 1
"""BPF_F_ANY_ALIGNMENT: allow unaligned packet access, whatever the kernel was configured for."""
READS_ANYWHERE: Final = frozenset(("x86_64", "aarch64"))
"""Processors with unaligned access; user-mode Linux on one of them is configured without it."""
SHOWN_LINES: Final = 20
"""Lines of the verifier's log that are shown: the last ones give the reason."""

_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_POINTER = ctypes.c_void_p
_SIGNATURES: Final = {
    "bpf_object__open_file": (_POINTER, [ctypes.c_char_p, _POINTER]),
    "bpf_object__load": (ctypes.c_int, [_POINTER]),
    "bpf_object__close": (None, [_POINTER]),
    "bpf_object__next_program": (_POINTER, [_POINTER, _POINTER]),
    "bpf_object__next_map": (_POINTER, [_POINTER, _POINTER]),
    "bpf_object__find_map_by_name": (_POINTER, [_POINTER, ctypes.c_char_p]),
    "bpf_program__name": (ctypes.c_char_p, [_POINTER]),
    "bpf_program__flags": (ctypes.c_uint32, [_POINTER]),
    "bpf_program__set_flags": (ctypes.c_int, [_POINTER, ctypes.c_uint32]),
    "bpf_program__fd": (ctypes.c_int, [_POINTER]),
    "bpf_program__set_log_buf": (ctypes.c_int, [_POINTER, ctypes.c_char_p, ctypes.c_size_t]),
    "bpf_program__set_log_level": (ctypes.c_int, [_POINTER, ctypes.c_uint32]),
    "bpf_map__name": (ctypes.c_char_p, [_POINTER]),
    "bpf_map__fd": (ctypes.c_int, [_POINTER]),
    "bpf_map__set_max_entries": (ctypes.c_int, [_POINTER, ctypes.c_uint32]),
    "bpf_map__reuse_fd": (ctypes.c_int, [_POINTER, ctypes.c_int]),
}


@cache
def library() -> ctypes.CDLL:
    """Return libbpf, ready to call; ``PlaneError`` when it is not installed."""
    try:
        found = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise PlaneError("the ebpf plane needs libbpf.so.1", hint="Debian: apt-get install libbpf1") from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    found.libbpf_set_print(_PRINT())
    return found


class Object:
    """An open object file; ``size`` and ``reuse`` configure its maps before ``load``."""

    def __init__(self, path: Path) -> None:
        self._library = library()
        self._path = path
        self._handle = self._library.bpf_object__open_file(os.fsencode(path), None)
        if not self._handle or self._handle > (1 << 64) - 4096:
            raise PlaneError(f"cannot read {path}: {os.strerror(ctypes.get_errno())}", hint="make bpf builds it")
        self._logs: dict[str, ctypes.Array[ctypes.c_char]] = {}

    def _each(self, following: str, name: str) -> dict[str, int]:
        found: dict[str, int] = {}
        item = None
        while item := getattr(self._library, following)(self._handle, item):
            found[getattr(self._library, name)(item).decode()] = item
        return found

    def _programs(self) -> dict[str, int]:
        return self._each("bpf_object__next_program", "bpf_program__name")

    def _maps(self) -> dict[str, int]:
        return self._each("bpf_object__next_map", "bpf_map__name")

    def size(self, sizes: Mapping[str, int]) -> None:
        """Set the number of entries of maps, by name."""
        maps = self._maps()
        for name, entries in sizes.items():
            if name in maps:
                self._library.bpf_map__set_max_entries(maps[name], entries)

    def reuse(self, descriptors: Mapping[str, int]) -> None:
        """Use existing maps, by name and descriptor, instead of new ones."""
        for name, handle in self._maps().items():
            if name in descriptors and self._library.bpf_map__reuse_fd(handle, descriptors[name]):
                raise PlaneError(f"cannot reuse map {name}: {os.strerror(ctypes.get_errno())}")

    def load(self) -> None:
        """Create maps and load programs; ``PlaneError`` with the end of the verifier's log when the kernel rejects one."""
        for name, handle in self._programs().items():
            log = self._logs[name] = ctypes.create_string_buffer(LOG_SIZE)
            self._library.bpf_program__set_log_buf(handle, ctypes.cast(log, ctypes.c_char_p), LOG_SIZE)
            self._library.bpf_program__set_log_level(handle, 4)
            if platform.machine() in READS_ANYWHERE:
                self._library.bpf_program__set_flags(handle, self._library.bpf_program__flags(handle) | ANY_ALIGNMENT)
        result = self._library.bpf_object__load(self._handle)
        if result:
            raise self._load_error(-result)

    def _load_error(self, number: int) -> PlaneError:
        lines = []
        for name, log in self._logs.items():
            text = log.value.decode(errors="replace").strip().splitlines()
            if text and not text[-1].startswith("processed"):
                lines += [f"  {name}: {line}" for line in text[-SHOWN_LINES:]]
            elif text:
                lines += [f"  {name}: {line}" for line in text[-SHOWN_LINES:] if "processed" not in line]
        message = f"{self._path.name}: the kernel ({platform.release()}) rejected it: {os.strerror(number)}"
        hint = "the ebpf plane needs CAP_BPF, CAP_NET_ADMIN and Linux 5.10 or newer"
        return PlaneError("\n".join([message, *lines[-SHOWN_LINES:]]), hint=hint)

    def program_descriptors(self) -> dict[str, int]:
        """Return duplicates of the loaded programs' descriptors by name; the caller closes them."""
        return {name: os.dup(self._library.bpf_program__fd(handle)) for name, handle in self._programs().items()}

    def map_descriptors(self) -> dict[str, int]:
        """Return duplicates of the maps' descriptors by name; the caller closes them."""
        return {name: os.dup(self._library.bpf_map__fd(handle)) for name, handle in self._maps().items()}

    def close(self) -> None:
        """Free the object; pinned objects and duplicated descriptors stay."""
        self._library.bpf_object__close(self._handle)
