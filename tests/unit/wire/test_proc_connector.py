import struct

from hypothesis import given
from hypothesis import strategies as st

from relevo.wire.proc_connector import Kind, ProcessEvent, decode_events, listen_request


def datagram(what, data, index=1):
    """A message as the kernel sends it (linux/cn_proc.h), with room for the largest event."""
    event = struct.pack("=IIQ", what, 0, 0) + data.ljust(24, b"\0")
    body = struct.pack("=IIIIHH", index, 1, 7, 0, len(event), 0) + event
    return struct.pack("=IHHII", 16 + len(body), 3, 0, 0, 0) + body


def test_the_request_is_a_connector_message_with_one_number():
    request = listen_request()
    assert struct.unpack("=IHHII", request[:16]) == (40, 3, 0, 0, 0)
    assert struct.unpack("=IIIIHHI", request[16:]) == (1, 1, 0, 0, 4, 0, 1)


def test_events():
    fork = datagram(1, struct.pack("=IIII", 10, 10, 11, 11))
    execute = datagram(2, struct.pack("=II", 11, 11))
    end = datagram(0x80000000, struct.pack("=IIII", 11, 11, 0, 17))
    assert list(decode_events(datagram(0, b"") + fork + execute + end)) == [
        ProcessEvent(Kind.ACKNOWLEDGED),
        ProcessEvent(Kind.FORK, 11, 10),
        ProcessEvent(Kind.EXEC, 11),
        ProcessEvent(Kind.EXIT, 11),
    ]


def test_threads_and_other_events_are_left_out():
    thread = datagram(1, struct.pack("=IIII", 10, 10, 12, 10))
    assert (
        list(decode_events(thread + datagram(4, b"") + datagram(2, struct.pack("=II", 12, 10)) + datagram(1, b"", index=9))) == []
    )


@given(st.binary(max_size=200))
def test_garbage_raises_nothing(data):
    list(decode_events(data))
