"""Queries to name servers, and the heads of their answers (RFC 1035 §4.1).

A check needs no more than that: whether a server answers, and without an error. The records are for others.
"""

from __future__ import annotations

import struct
from typing import Final

_HEADER: Final = struct.Struct("!HHHHHH")
_RECURSION_DESIRED: Final = 0x0100
_RESPONSE: Final = 0x8000
_INTERNET: Final = 1
MAX_LABEL: Final = 63
MAX_NAME: Final = 255
"""Longest name in bytes, with the lengths of its labels."""

TYPES: Final = {
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "MX": 15, "TXT": 16, "AAAA": 28, "RRSIG": 46, "DNSKEY": 48,
}  # fmt: skip
"""Types of records that keepalived knows, by name."""
RESPONSE_CODES: Final = {1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


def query(identifier: int, name: str, kind: int) -> bytes:
    """Return the query for records of type ``kind`` of a name; ``ValueError`` if that is none."""
    return _HEADER.pack(identifier, _RECURSION_DESIRED, 1, 0, 0, 0) + encode_name(name) + struct.pack("!HH", kind, _INTERNET)


def encode_name(name: str) -> bytes:
    """Return a name in labels; ``ValueError`` if one is empty or too long, or the whole is. ``.`` is the root."""
    labels = name.removesuffix(".").encode().split(b".") if name.rstrip(".") else []
    if not labels and name != ".":
        raise ValueError(f"'{name}' is no name")
    if any(not 0 < len(label) <= MAX_LABEL for label in labels):
        raise ValueError(f"a label of '{name}' is empty or has more than {MAX_LABEL} bytes")
    encoded = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(encoded) > MAX_NAME:
        raise ValueError(f"'{name}' has more than {MAX_NAME} bytes")
    return encoded


def response_code(data: bytes, identifier: int) -> int | None:
    """Return the code of the answer to a query; ``None`` if ``data`` is none."""
    if len(data) < _HEADER.size:
        return None
    found, flags, *_ = _HEADER.unpack_from(data)
    if found != identifier or not flags & _RESPONSE:
        return None
    return int(flags & 0x000F)
