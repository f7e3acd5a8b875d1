"""Messages between supervisor and workers: the same messages in the same order for any split of the stream."""

from __future__ import annotations

import asyncio
import socket
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relevo.daemon.channel import (
    AsyncChannel,
    DirectorChannel,
    Unpacker,
    decode_from_worker,
    decode_to_worker,
    pack,
)
from relevo.daemon.messages import (
    FromWorker,
    GroupEvent,
    InstanceEvent,
    LocalAddresses,
    LocalAddressesEvent,
    LogLine,
    PlaneRestarted,
    QuorumEvent,
    Ready,
    Reload,
    ServerEvent,
    ShutdownNotice,
    Stop,
    TakeSnapshot,
    ToWorker,
)
from relevo.model import Configuration, GlobalDefs
from relevo.severity import Severity
from relevo.wire.framing import Unreadable, frame

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
FROM_WORKER = st.one_of(
    st.just(Ready()),
    st.builds(LogLine, TEXT, st.sampled_from(Severity)),
    st.builds(InstanceEvent, TEXT, TEXT, st.integers(0, 255), TEXT),
    st.builds(GroupEvent, TEXT, TEXT),
    st.builds(LocalAddressesEvent, st.frozensets(TEXT, max_size=5)),
    st.builds(ServerEvent, TEXT, TEXT, st.booleans(), st.booleans(), TEXT, TEXT),
    st.builds(QuorumEvent, TEXT, st.booleans(), st.integers(0, 1 << 40)),
    st.builds(ShutdownNotice, st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)),
)
TO_WORKER = st.one_of(
    st.sampled_from([TakeSnapshot(), Stop(), PlaneRestarted()]),
    st.builds(LocalAddresses, st.frozensets(TEXT, max_size=5)),
    st.builds(lambda label: Reload(Configuration(global_defs=GlobalDefs(router_id=label))), TEXT),
)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    return [stream[begin:end] for begin, end in pairwise(places)]


@given(st.lists(FROM_WORKER, max_size=8), st.lists(st.integers(0, 10_000), max_size=30))
def test_a_stream_cut_anywhere_gives_the_messages_in_order(messages: list[FromWorker], cuts: list[int]) -> None:
    unpacker: Unpacker[FromWorker] = Unpacker(decode_from_worker)
    stream = b"".join(map(pack, messages))
    assert [m for piece in pieces(stream, cuts) for m in unpacker.feed(piece)] == messages
    assert unpacker.feed(b"") == []


@given(st.lists(TO_WORKER, max_size=8))
def test_a_message_is_complete_with_its_last_byte(messages: list[ToWorker]) -> None:
    unpacker: Unpacker[ToWorker] = Unpacker(decode_to_worker)
    for message in messages:
        *front, last = pack(message)
        assert not any(unpacker.feed(bytes([byte])) for byte in front)
        assert unpacker.feed(bytes([last])) == [message]


@given(st.lists(TO_WORKER, min_size=1, max_size=5), st.integers(1, 20))
def test_the_beginning_of_a_message_waits_for_its_end(messages: list[ToWorker], missing: int) -> None:
    unpacker: Unpacker[ToWorker] = Unpacker(decode_to_worker)
    stream = b"".join(map(pack, messages))
    last = pack(messages[-1])
    cut = len(stream) - min(missing, len(last))
    assert unpacker.feed(stream[:cut]) == messages[:-1]
    assert unpacker.feed(stream[cut:]) == messages[-1:]


NESTED = b"\x83\xa4type\xa7LogLine\xa4text\xa1a\xa5other" + b"\x91" * 100_000 + b"\x90"
"""A line for the log with a field that nobody reads, nested so deeply that reading past it exhausts the stack."""


@pytest.mark.parametrize(
    "stream",
    [
        frame(b""),
        frame(b"\xc1"),
        frame(b"\x80"),
        frame(b"\x81\xa4type\xa5Other"),
        frame(NESTED),
        b"\xff\xff\xff\xff",
        frame(NESTED[:40]),
    ],
    ids=["empty", "reserved", "untyped", "unknown", "nested", "endless", "cut off"],
)
def test_what_is_no_message_is_refused_with_one_error(stream: bytes) -> None:
    with pytest.raises(Unreadable):
        Unpacker(decode_from_worker).feed(stream)


def test_the_director_never_waits_for_a_supervisor_that_does_not_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = DirectorChannel(ours)
        lines = [LogLine(f"{n} " + "x" * 5000) for n in range(400)]
        for line in lines:
            channel.send(line)
        assert channel.unsent
        unpacker: Unpacker[FromWorker] = Unpacker(decode_from_worker)
        received: list[FromWorker] = []
        theirs.settimeout(5.0)
        while len(received) < len(lines):
            received += unpacker.feed(theirs.recv(1 << 20))
            channel.flush()
        assert received == lines
        assert not channel.unsent


def test_the_director_sees_what_came_and_then_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        channel = DirectorChannel(ours)
        assert channel.receive() == []
        theirs.sendall(pack(TakeSnapshot()) + pack(Stop())[:-1])
        assert channel.receive() == [TakeSnapshot()]
        theirs.sendall(pack(Stop())[-1:])
        assert channel.receive() == [Stop()]
        theirs.close()
        assert channel.receive() is None
        channel.send(Ready())  # the other side has ended
        channel.flush()
        assert not channel.unsent


def test_a_last_message_is_seen_though_its_sender_is_gone_already() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        channel: AsyncChannel[FromWorker] = AsyncChannel(ours, decode_from_worker)
        theirs.sendall(pack(LogLine("farewell")) + pack(Ready())[:3])
        theirs.close()

        async def read() -> list[FromWorker]:
            await channel.open()
            return [message async for message in channel.messages()]

        assert asyncio.run(read()) == [LogLine("farewell")]


def test_two_ends_talk_and_what_was_sent_before_the_loop_is_not_lost() -> None:
    ours, theirs = socket.socketpair()

    async def talk() -> None:
        here: AsyncChannel[FromWorker] = AsyncChannel(ours, decode_from_worker)
        there: AsyncChannel[ToWorker] = AsyncChannel(theirs, decode_to_worker)
        there.send(Ready())
        there.send(LogLine("early"))
        await there.open()
        await here.open()
        messages = here.messages()
        assert [await anext(messages), await anext(messages)] == [Ready(), LogLine("early")]
        big = Reload(Configuration(global_defs=GlobalDefs(router_id="x" * 3_000_000)))
        here.send(big)
        back = there.messages()
        assert await anext(back) == big
        there.close()
        assert [m async for m in messages] == []
        here.send(Stop())  # without an error: its end was reported
        here.close()

    asyncio.run(talk())
