"""Letters between directors that share a key: what was sealed is read, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.wire import ipvs_sync
from relevo.wire.sync_letters import MAGIC, MAX_SEEN, OVERHEAD, SEAL, Ask, Done, Entries, Hello, Letter, Refusal, seal, unseal
from tests.unit.wire.test_ipvs_sync import CAPTURED

KEY = b"a key that nobody knows"
SESSION = bytes(range(8))
NUMBERS = st.integers(0, 2**64 - 1)
SESSIONS = st.binary(min_size=8, max_size=8)
BODIES = st.one_of(
    st.builds(Hello, st.booleans(), NUMBERS, st.lists(st.tuples(SESSIONS, NUMBERS), max_size=MAX_SEEN).map(tuple), st.booleans()),
    st.builds(Entries, NUMBERS, st.binary(max_size=1472)),
    st.builds(Ask, SESSIONS),
    st.builds(Done, NUMBERS, NUMBERS, st.booleans()),
)
LETTERS = st.builds(Letter, SESSIONS, st.integers(0, 255), NUMBERS, BODIES)
LETTER = Letter(SESSION, 51, 7, Entries(3, CAPTURED))


@given(LETTERS)
def test_what_is_sealed_is_read(letter):
    assert unseal(seal(letter, KEY), KEY) == letter


def test_a_letter_adds_what_it_says_to_a_message():
    assert len(seal(LETTER, KEY)) == len(CAPTURED) + OVERHEAD


@given(LETTERS, st.data())
def test_a_changed_octet_breaks_the_seal(letter, data):
    octets = bytearray(seal(letter, KEY))
    place = data.draw(st.integers(0, len(octets) - 1))
    octets[place] ^= data.draw(st.integers(1, 255))
    assert unseal(bytes(octets), KEY) is (Refusal.PLAIN if place < len(MAGIC) else Refusal.SEAL)


@given(LETTERS, st.data())
def test_a_letter_that_was_cut_is_none(letter, data):
    octets = seal(letter, KEY)
    assert isinstance(unseal(octets[: data.draw(st.integers(0, len(octets) - 1))], KEY), Refusal)


def test_another_key_is_a_broken_seal():
    assert unseal(seal(LETTER, b"another"), KEY) is Refusal.SEAL


def test_a_kernel_s_message_has_no_seal_and_a_kernel_drops_a_letter():
    assert unseal(CAPTURED, KEY) is Refusal.PLAIN
    assert ipvs_sync.decode(seal(LETTER, KEY)).entries == []


def forged(kind, body):
    """What somebody with the key writes who does not keep the form."""
    whole = seal(Letter(SESSION, 1, 1, Ask(SESSION)), KEY)
    text = whole[:4] + bytes((kind,)) + whole[5:24] + body
    from relevo.wire import sync_letters

    return text + sync_letters._tag(text, KEY)


@pytest.mark.parametrize(
    ("kind", "body", "refusal"),
    [
        (0, b"", Refusal.KIND),
        (5, b"", Refusal.KIND),
        (1, b"", Refusal.BODY),
        (1, bytes((0, 1)) + bytes(8), Refusal.BODY),
        (1, bytes((0, MAX_SEEN + 1)) + bytes(8 + 16 * (MAX_SEEN + 1)), Refusal.BODY),
        (2, bytes(7), Refusal.BODY),
        (3, bytes(7), Refusal.BODY),
        (4, bytes(16), Refusal.BODY),
    ],
)
def test_a_body_that_keeps_no_form_is_refused(kind, body, refusal):
    assert unseal(forged(kind, body), KEY) is refusal


def test_a_seal_is_of_128_bits():
    assert SEAL * 8 == 128
