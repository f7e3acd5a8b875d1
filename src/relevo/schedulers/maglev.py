"""mh: consistent hashing by Google's Maglev table (NSDI 2016), as the kernel fills and reads it.

When a server is removed, the clients of the others keep theirs, except for a fraction of a per cent. The kernel's hash is
SipHash-1-3 over four bytes, its low 32 bits, with two fixed keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Final

KEY_1: Final = 2654435761
KEY_2: Final = 2654446892
KERNEL_SIZE: Final = 4093
"""Slots of the kernel's table as distributions compile it."""
DEFAULT_SIZE: Final = 65_537
"""Ours: with 100 servers the load is even to 1 %, and removing one moves 0.5 % of the other clients (Maglev paper §5.3)."""
MAX_TURNS_BITS: Final = 6
_MASK: Final = (1 << 64) - 1


def siphash13(key0: int, key1: int, data: bytes) -> int:
    """Return SipHash-1-3, 64 bits."""
    v0, v1 = key0 ^ 0x736F6D6570736575, key1 ^ 0x646F72616E646F6D
    v2, v3 = key0 ^ 0x6C7967656E657261, key1 ^ 0x7465646279746573
    whole = len(data) // 8 * 8
    words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, whole, 8)]
    words.append(int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56)
    for word in words:
        v3 ^= word
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0 ^= word
    v2 ^= 0xFF
    for _ in range(3):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def _round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    v0 = (v0 + v1) & _MASK
    v1 = _rotated(v1, 13) ^ v0
    v0 = _rotated(v0, 32)
    v2 = (v2 + v3) & _MASK
    v3 = _rotated(v3, 16) ^ v2
    v0 = (v0 + v3) & _MASK
    v3 = _rotated(v3, 21) ^ v0
    v2 = (v2 + v1) & _MASK
    v1 = _rotated(v1, 17) ^ v2
    v2 = _rotated(v2, 32)
    return v0, v1, v2, v3


def hashed(key: int, value: int) -> int:
    """Return the kernel's hash of a 32-bit number."""
    return siphash13(key, key, (value & 0xFFFFFFFF).to_bytes(4, "little")) & 0xFFFFFFFF


def turns(weights: Sequence[int]) -> list[int]:
    """Return how many slots in a row each server claims: its weight over the greatest common divisor, at most 63.

    ``weights`` are the last ones that were not 0, so that a quiesced server keeps its slots and other clients keep theirs.
    """
    divisor = gcd(*weights) or 1
    heaviest = max(weights, default=0) // divisor
    shift = max(0, heaviest.bit_length() - MAX_TURNS_BITS)
    return [max(1, weight // divisor >> shift) if weight else 0 for weight in weights]


def fill(places: Sequence[tuple[int, int]], weights: Sequence[int], size: int = DEFAULT_SIZE) -> list[int]:
    """Return the table: for each of ``size`` (a prime) slots the index of a server, -1 everywhere when no server has a weight.

    ``places`` are each server's folded address and port, newest first.
    """
    table = [-1] * size
    claims = turns(weights)
    if not any(claims):
        return table
    walks = []
    for address, port in places:
        number = address + port
        walks.append([hashed(KEY_1, number) % size, hashed(KEY_2, number) % (size - 1) + 1])
    left = size
    while True:
        for index, walk in enumerate(walks):
            slot, skip = walk
            for _ in range(claims[index]):
                while table[slot] >= 0:
                    slot = (slot + skip) % size
                table[slot] = index
                left -= 1
                if not left:
                    return table
            walk[0] = slot
    raise AssertionError
