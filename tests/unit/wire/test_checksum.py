import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.wire.checksum import internet_checksum


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0xFFFF),
        (b"\x00\x00", 0xFFFF),
        (b"\xff\xff", 0x0000),
        (b"\x01", 0xFEFF),
        (bytes.fromhex("0001f203f4f5f6f7"), 0x220D),  # RFC 1071 §3
        (bytes.fromhex("45000073000040004011b861c0a80001c0a800c7"), 0x0000),
        (b"\xff\xff" * 70000, 0x0000),
    ],
)
def test_known_sums(data, expected):
    assert internet_checksum(data) == expected


@given(st.binary(max_size=64))
def test_data_with_its_checksum_sums_to_0(data):
    data += b"\0" * (len(data) % 2)
    assert internet_checksum(data + struct.pack("!H", internet_checksum(data))) == 0
