"""Messages between directors that share a key: authenticated ones are read, all others are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.wire import ipvs_sync, sync_messages
from relevo.wire.sync_messages import (
    MAGIC,
    MAX_SEEN,
    OVERHEAD,
    TAG_BYTES,
    Entries,
    Hello,
    Message,
    MessageRefusal,
    ResyncEnd,
    ResyncRequest,
    authenticate,
    verify,
)
from tests.unit.wire.test_ipvs_sync import CAPTURED

KEY = b"the shared key"
SESSION = bytes(range(8))
NUMBERS = st.integers(0, 2**64 - 1)
SESSIONS = st.binary(min_size=8, max_size=8)
BODIES = st.one_of(
    st.builds(Hello, st.booleans(), NUMBERS, st.lists(st.tuples(SESSIONS, NUMBERS), max_size=MAX_SEEN).map(tuple), st.booleans()),
    st.builds(Entries, NUMBERS, st.binary(max_size=1472)),
    st.builds(ResyncRequest, SESSIONS),
    st.builds(ResyncEnd, NUMBERS, NUMBERS, st.booleans()),
)
MESSAGES = st.builds(Message, SESSIONS, st.integers(0, 255), NUMBERS, BODIES)
MESSAGE = Message(SESSION, 51, 7, Entries(3, CAPTURED))
GOLDEN_KEY = b"a key for golden messages"
GOLDEN = [
    (
        Hello(True, 7, ((b"themselv", 5),), True),
        "524c56310133000000010203040506070102030405060708"
        + "030100000000000000077468656d73656c760000000000000005"
        + "f635988cb2681f9998df92a0b3c78e08",
    ),
    (
        Hello(False, 0),
        "524c56310133000000010203040506070102030405060708" + "00000000000000000000" + "81a592bbc09156a05f01259c08b1d535",
    ),
    (
        Hello(True, 2**40),
        "524c56310133000000010203040506070102030405060708" + "01000000010000000000" + "ec50e78dc6db1170b95194de0f510b30",
    ),
    (
        Entries(3, CAPTURED),
        "524c56310233000000010203040506070102030405060708"
        + "0000000000000003"
        + CAPTURED.hex()
        + "3c3a3d3dd1d2aaa3d56d8b347970261c",
    ),
    (
        ResyncRequest(b"themselv"),
        "524c56310333000000010203040506070102030405060708" + "7468656d73656c76" + "032f63c5be6ab4bd94efa200e3e36bff",
    ),
    (
        ResyncEnd(2, 9),
        "524c56310433000000010203040506070102030405060708"
        + "0000000000000002000000000000000901"
        + "d8f196d626083e400bae1f2e0bcf5ca9",
    ),
    (
        ResyncEnd(5, 4, False),
        "524c56310433000000010203040506070102030405060708"
        + "0000000000000005000000000000000400"
        + "2d7d07ea7af4eb9381a15fdb5bf142e1",
    ),
]
"""Bodies, and the bytes of their messages: header, body, tag. Session 0001020304050607, sync id 51, sequence 0102030405060708."""


@pytest.mark.parametrize(("body", "expected"), GOLDEN, ids=lambda value: type(value).__name__)
def test_the_wire_format_does_not_change(body, expected):
    message = Message(SESSION, 51, 0x0102030405060708, body)
    assert authenticate(message, GOLDEN_KEY).hex() == expected
    assert verify(bytes.fromhex(expected), GOLDEN_KEY) == message


@given(MESSAGES)
def test_an_authenticated_message_is_read(message):
    assert verify(authenticate(message, KEY), KEY) == message


def test_overhead_is_the_number_of_bytes_added_to_an_ipvs_message():
    assert len(authenticate(MESSAGE, KEY)) == len(CAPTURED) + OVERHEAD


@given(MESSAGES, st.data())
def test_a_changed_byte_fails_verification(message, data):
    changed = bytearray(authenticate(message, KEY))
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    expected = MessageRefusal.UNAUTHENTICATED if place < len(MAGIC) else MessageRefusal.TAG
    assert verify(bytes(changed), KEY) is expected


@given(MESSAGES, st.data())
def test_a_truncated_message_is_refused(message, data):
    whole = authenticate(message, KEY)
    assert isinstance(verify(whole[: data.draw(st.integers(0, len(whole) - 1))], KEY), MessageRefusal)


def test_a_message_under_another_key_is_refused():
    assert verify(authenticate(MESSAGE, b"another"), KEY) is MessageRefusal.TAG


def test_a_kernel_s_message_is_unauthenticated_and_a_kernel_drops_our_messages():
    assert verify(CAPTURED, KEY) is MessageRefusal.UNAUTHENTICATED
    assert ipvs_sync.decode(authenticate(MESSAGE, KEY)).entries == []


def malformed(kind, body):
    """Return a message with a valid tag whose kind and body are as given."""
    whole = authenticate(Message(SESSION, 1, 1, ResyncRequest(SESSION)), KEY)
    text = whole[:4] + bytes((kind,)) + whole[5:24] + body
    return text + sync_messages._tag(text, KEY)


@pytest.mark.parametrize(
    ("kind", "body", "refusal"),
    [
        (0, b"", MessageRefusal.KIND),
        (5, b"", MessageRefusal.KIND),
        (1, b"", MessageRefusal.BODY),
        (1, bytes((0, 1)) + bytes(8), MessageRefusal.BODY),
        (1, bytes((0, MAX_SEEN + 1)) + bytes(8 + 16 * (MAX_SEEN + 1)), MessageRefusal.BODY),
        (2, bytes(7), MessageRefusal.BODY),
        (3, bytes(7), MessageRefusal.BODY),
        (4, bytes(16), MessageRefusal.BODY),
    ],
)
def test_a_malformed_body_is_refused_although_its_tag_verifies(kind, body, refusal):
    assert verify(malformed(kind, body), KEY) is refusal


def test_the_tag_has_128_bits():
    assert TAG_BYTES * 8 == 128
