"""The Python mirrors of map values match the compiled C structures, and enumerations and constants match their sources."""

from __future__ import annotations

import ctypes
import enum
import re
import struct
from functools import cache

import pytest

from relevo.model import Configuration, Endpoint, GlobalDefs, Protocol, RealServer, VirtualServer
from relevo.planes.ebpf import layout, sizes_for, table
from relevo.planes.ebpf.instance import Sizes
from relevo.planes.ebpf.objects import SOURCES, object_file
from relevo.planes.ebpf.reasons import Reason

INT, POINTER, ARRAY, STRUCT, UNION, ENUM = 1, 2, 3, 4, 5, 6
TYPEDEF, VOLATILE, CONST, RESTRICT, FUNCTION_PROTOTYPE = 8, 9, 10, 11, 13
BYTES_AFTER = {INT: 4, ARRAY: 12, 14: 4, 17: 4}
BYTES_OF_MEMBER = {STRUCT: 12, UNION: 12, ENUM: 8, FUNCTION_PROTOTYPE: 8, 15: 12, 19: 12}


def section(data: bytes, wanted: bytes) -> bytes:
    """A section of a 64-bit little-endian ELF file."""
    (table_at,) = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<3H", data, 58)
    headers = [struct.unpack_from("<2I4Q", data, table_at + i * size) for i in range(count)]
    names_at = headers[names][4]
    for name, _, _, _, at, length in headers:
        if data[names_at + name : data.index(b"\0", names_at + name)] == wanted:
            return data[at : at + length]
    raise LookupError(wanted)


class Types:
    """The type information of an object."""

    def __init__(self, data: bytes) -> None:
        magic, _, _, header, types_at, types_length, strings_at, _ = struct.unpack_from("<HBBIIIII", data)
        assert magic == 0xEB9F
        self._strings = data[header + strings_at :]
        self._types: list[tuple[str, int, int, list[tuple[int, ...]]]] = [("void", 0, 0, [])]
        at = header + types_at
        while at < header + types_at + types_length:
            name, info, size = struct.unpack_from("<3I", data, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            at += 12
            each = BYTES_OF_MEMBER.get(kind, 0)
            members = [struct.unpack_from(f"<{each // 4}I", data, at + i * each) for i in range(count if each else 0)]
            if kind == ARRAY:
                members = [struct.unpack_from("<3I", data, at)]
            at += BYTES_AFTER.get(kind, 0) + each * count
            self._types.append((self._string(name), kind, size, members))

    def _string(self, at: int) -> str:
        return self._strings[at : self._strings.index(b"\0", at)].decode()

    def size(self, number: int) -> int:
        """Size of a type in bytes."""
        _, kind, size, members = self._types[number]
        if kind in (TYPEDEF, VOLATILE, CONST, RESTRICT):
            return self.size(size)
        if kind == POINTER:
            return 8
        if kind == ARRAY:
            element, _, length = members[0]
            return self.size(element) * length
        return size

    def structure(self, wanted: str) -> tuple[int, dict[str, tuple[int, int]]]:
        """Size of a structure, and offset and size of its fields."""
        for name, kind, size, members in self._types:
            if kind == STRUCT and name == wanted:
                return size, {self._string(each[0]): ((each[2] & 0xFFFFFF) // 8, self.size(each[1])) for each in members}
        raise LookupError(wanted)

    def enumeration(self, wanted: str) -> dict[str, int]:
        """Names and values of an enumeration."""
        for name, kind, _, members in self._types:
            if kind == ENUM and name == wanted:
                return {self._string(each[0]): each[1] for each in members}
        raise LookupError(wanted)


@cache
def types_of(program: str) -> Types:
    if not object_file(program).exists():
        pytest.skip(f"{program}.bpf.o is not built: make bpf")
    return Types(section(object_file(program).read_bytes(), b".BTF"))


MIRRORS = {
    "address": ("tc", layout.Address),
    "connection": ("tc", layout.Connection),
    "bucket": ("tc", layout.Bucket),
    "service_key": ("tc", layout.ServiceKeyValue),
    "counters": ("tc", layout.Counters),
    "service": ("tc", layout.ServiceValue),
    "server": ("tc", layout.ServerValue),
    "settings": ("tc", layout.Settings),
    "path_mtu": ("tc", layout.PathMtu),
}


@pytest.mark.parametrize("name", MIRRORS)
def test_a_structure_has_the_same_fields_at_the_same_places(name: str) -> None:
    program, mirror = MIRRORS[name]
    size, fields = types_of(program).structure(name)
    assert ctypes.sizeof(mirror) == size
    if mirror is layout.Address:
        return
    described = {each[0]: getattr(mirror, each[0]) for each in mirror._fields_}
    assert {field: (place.offset, place.size) for field, place in described.items()} == fields


def test_a_packed_connection_has_the_same_fields() -> None:
    values = [b"c" * 16, b"v" * 16, *range(1, 14)]
    packed = layout.Connection.from_buffer_copy(layout.CONNECTION.pack(*values))
    names = [name for name, *_ in layout.Connection._fields_]
    assert [bytes(getattr(packed, name).bytes) for name in names[:2]] == values[:2]
    assert [getattr(packed, name) for name in names[2:]] == values[2:]


REQUESTS = {
    "sweep_request": layout.SweepRequest,
    "delete_request": layout.DeleteRequest,
    "insert_item": layout.InsertItem,
    "insert_request": layout.InsertRequest,
    "sync_export_request": layout.SyncExportRequest,
}
C_TYPES = {"__u8": (1, 1), "__be16": (2, 2), "__u32": (4, 4), "struct connection": (ctypes.sizeof(layout.Connection), 8)}
C_TYPES["struct insert_item"] = (ctypes.sizeof(layout.InsertItem), 8)
COUNTS = {"": 1, "ETHERNET": layout.ETHERNET, "INSERT_MAX": layout.INSERT_MAX}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_to_a_program_has_the_same_fields_at_the_same_places(name: str) -> None:
    found = re.search(rf"struct {name} {{(.*?)}};", source("control.bpf.c"), re.DOTALL)
    assert found
    wanted, at = {}, 0
    for kind, field, count in re.findall(r"(struct \w+|\w+) (\w+)(?:\[(\w+)\])?;", found[1]):
        size, alignment = C_TYPES[kind]
        length = size * (int(count) if count.isdigit() else COUNTS[count])
        at = -(-at // alignment) * alignment
        wanted[field] = (at, length)
        at += length
    mirror = REQUESTS[name]
    described = {each[0]: getattr(mirror, each[0]) for each in mirror._fields_}
    assert {field: (place.offset, place.size) for field, place in described.items()} == wanted


@pytest.mark.parametrize("name", [name for name, (program, _) in MIRRORS.items() if program == "tc"])
@pytest.mark.parametrize("program", ["xdp", "control"])
def test_all_objects_agree_about_what_they_share(name: str, program: str) -> None:
    try:
        other = types_of(program).structure(name)
    except LookupError:
        pytest.skip(f"{program} knows no {name}")
    assert other == types_of("tc").structure(name)


def source(name: str) -> str:
    """A source file without its comments."""
    return re.sub(r"/\*.*?\*/", "", (SOURCES / name).read_text(), flags=re.DOTALL)


def enumerated(name: str, file: str = "layout.h") -> dict[str, int]:
    """An enumeration as a source file has it."""
    found = re.search(rf"enum {name} {{(.*?)}};", source(file), re.DOTALL)
    assert found, name
    values: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in found[1].split(","))):
        label, _, value = (part.strip() for part in item.partition("="))
        last = max(values.values(), default=-1)
        number, _, shift = value.partition("<<")
        values[label] = int(number) << int(shift) if shift else int(value or last + 1)
    return values


ENUMERATIONS: list[tuple[str, str, type[enum.IntEnum] | type[enum.IntFlag]]] = [
    ("connection_flag", "CONNECTION", layout.ConnectionFlag),
    ("service_flag", "SERVICE", layout.ServiceFlag),
    ("setting_flag", "SETTING", layout.SettingFlag),
    ("scheduler", "SCHEDULER", layout.SchedulerNumber),
    ("tcp_state", "STATE", layout.TcpState),
]


@pytest.mark.parametrize(("name", "prefix", "mirror"), ENUMERATIONS, ids=[name for name, *_ in ENUMERATIONS])
def test_an_enumeration_has_the_same_names_and_values(
    name: str, prefix: str, mirror: type[enum.IntEnum] | type[enum.IntFlag]
) -> None:
    wanted = {label: value for label, value in enumerated(name).items() if label != "STATES"}
    assert {f"{prefix}_{each.name}": int(each) for each in mirror} == wanted


@pytest.mark.parametrize(
    ("name", "prefix", "mirror"), [("sync_export_flag", "EXPORT_", layout.SyncExport), ("outcome", "", layout.Outcome)]
)
def test_requests_and_results_of_the_control_program_have_the_same_names_and_values(
    name: str, prefix: str, mirror: type[enum.IntEnum] | type[enum.IntFlag]
) -> None:
    assert {f"{prefix}{each.name}": int(each) for each in mirror} == enumerated(name, "control.bpf.c")


def test_reasons_have_the_same_names_and_values() -> None:
    described = {reason.name: int(reason) for reason in Reason}
    wanted = enumerated("reason", "reasons.h")
    assert wanted.pop("REASONS") == len(Reason)
    assert described == wanted


def test_the_compiled_reasons_are_those_of_the_source() -> None:
    assert types_of("tc").enumeration("reason") == enumerated("reason", "reasons.h")


def test_every_reason_is_explained_by_its_beginning() -> None:
    assert {reason.name.split("_")[0] for reason in Reason if reason > 1} == {"PASS", "REFUSED", "DROP", "AGAIN", "COUNT"}
    order = [reason.name.split("_")[0] for reason in Reason if reason > 1]
    assert sorted(order, key=("PASS", "REFUSED", "DROP", "AGAIN", "COUNT").index) == order


NUMBERS = {
    "LAYOUT_VERSION": ("layout.h", layout.LAYOUT_VERSION),
    "BUCKET_SLOTS": ("layout.h", layout.BUCKET_SLOTS),
    "FILTER_BITS": ("layout.h", layout.FILTER_BITS),
    "TIMEOUTS": ("layout.h", layout.TIMEOUTS),
    "ETHERNET": ("packet.h", layout.ETHERNET),
    "NOWHERE": ("packet.h", layout.NOWHERE),
    "MAX_SERVERS": ("schedule.h", layout.MAX_SERVERS),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_the_same_on_both_sides(name: str) -> None:
    file, value = NUMBERS[name]
    found = re.search(rf"#define {name} (\w+?)U?$", source(file).replace(" \n", "\n"), re.MULTILINE)
    assert found
    assert int(found[1].rstrip("U"), 0) == value


def test_forwarding_methods_have_the_same_numbers() -> None:
    assert {f"FORWARDING_{method.value}": number for method, number in table.FORWARDINGS.items()} == enumerated("forwarding")


def test_tunnels_have_the_same_numbers() -> None:
    assert {f"TUNNEL_{kind.value.upper()}": number for kind, number in table.TUNNELS.items()} == enumerated("tunnel")


def test_every_state_has_a_time_out() -> None:
    assert set(layout.TIMEOUT_S) == set(layout.TcpState)
    assert max(layout.TcpState) < layout.TIMEOUTS


def test_there_is_room_for_what_is_declared_and_as_much_again() -> None:
    usual = sizes_for(Configuration())
    assert usual == Sizes()
    servers = tuple(RealServer(endpoint=Endpoint(f"10.0.0.{i}", 80)) for i in range(9))
    services = tuple(
        VirtualServer(endpoint=Endpoint("192.0.2.1", port), protocol=Protocol.TCP, scheduler="mh", real_servers=servers)
        for port in range(1, 5001)
    )
    large = sizes_for(Configuration(global_defs=GlobalDefs(connection_table_size=9999), virtual_servers=services))
    assert (large.connections, large.services, large.servers) == (9999, 10_000, 100_000)
    assert large.server_lists == 2 * 5000 * (65_537 + 10)
