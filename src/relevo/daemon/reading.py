"""Reading a configuration in processes of its own: the *reader* opens files, the *compiler* has no privileges.

A configuration is input, of whoever may write the file or one that it includes. The compiler gets texts and returns a
``Reading``; it opens nothing. The reader opens what the compiler asks for, and parses nothing. Both end with the reading, and
take their memory along: the daemon never imports the compiler. A file that hangs, or that takes the compiler's memory or time,
costs a reload, not the daemon.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import resource
import socket
import time
from typing import Final

import msgspec

from relevo.daemon import confinement
from relevo.errors import ConfigurationError, RelevoError
from relevo.host.fork import fork, how_it_ended, kill
from relevo.model import Configuration
from relevo.wire.framing import MAX_BODY, Deframer, Unreadable, decoder, frame

READ_S: Final = 120.0
"""Seconds that a reading may take: ten times those of 100 000 real servers on a slow machine."""
MAX_MEMORY: Final = 4 << 30
"""Bytes of address space of the compiler: a file of the largest size takes less."""
_CHUNK: Final = 1 << 20


class Reading(msgspec.Struct, frozen=True):
    """A configuration file that was read.

    ``findings`` are a line each for the log, ``rendered`` the same with an excerpt of the text. ``blocking`` says why the file
    must not be used, and ``status`` is keepalived's exit status for it. ``error`` says why there is no configuration at all.
    """

    configuration: Configuration = Configuration()
    findings: tuple[str, ...] = ()
    rendered: tuple[str, ...] = ()
    blocking: str = ""
    status: int = 0
    error: str = ""
    hint: str = ""


class _Include(msgspec.Struct, frozen=True):
    """A question of the compiler: the files that ``pattern`` in ``including`` names. Paths are bytes, as the system's are."""

    pattern: bytes
    including: bytes


class _Included(msgspec.Struct, frozen=True, array_like=True):
    """One file of the answer, as ``relevo.config.Included``."""

    path: bytes
    text: str
    error: str
    missing: bool


class _Main(msgspec.Struct, frozen=True):
    """The file itself, or why it cannot be read."""

    text: str = ""
    error: str = ""
    hint: str = ""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_reading: Final = decoder(Reading)


def read_apart(file: str, config_id: str | None, *, strict: bool) -> Reading:
    """Read and compile ``file`` and wait for that."""
    pid, sock = begin(file, config_id, strict=strict)
    try:
        return result_of(to_end(sock, READ_S))
    except TimeoutError:
        return TOO_SLOW
    finally:
        end(pid, sock)


def to_end(sock: socket.socket, limit_s: float | None = None) -> bytearray:
    """Return everything that comes from a socket until its other side closes; ``TimeoutError`` after ``limit_s`` seconds."""
    deadline = None if limit_s is None else time.monotonic() + limit_s
    data = bytearray()
    while len(data) <= MAX_BODY:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
        chunk = sock.recv(_CHUNK)
        if not chunk:
            break
        data += chunk
    return data


TOO_SLOW: Final = Reading(error=f"reading the file took longer than {READ_S:g} s")


def result_of(data: bytearray) -> Reading:
    """Return the reading that came from the reader, whatever came."""
    if not data:
        return Reading(error="the process that reads the file ended without a result")
    try:
        reading: Reading = _decode_reading(data)
    except Unreadable as error:
        return Reading(error=f"the process that reads the file sent no configuration: {error}")
    return reading


def end(pid: int, sock: socket.socket) -> None:
    """End a reader, whether or not it is done."""
    sock.close()
    kill(pid)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


# -- the reader ------------------------------------------------------------------------------------------------------


def begin(file: str, config_id: str | None, *, strict: bool) -> tuple[int, socket.socket]:
    """Start a reader; return its process and the socket from which a ``Reading`` comes, to the end of the stream."""
    ours, theirs = socket.socketpair()
    pid = fork(lambda: _read(theirs, file, config_id, strict), "relevo-reader", [theirs.fileno()])
    theirs.close()
    return pid, ours


def _read(owner: socket.socket, file: str, config_id: str | None, strict: bool) -> None:
    """Serve the compiler with files, and pass its result on."""
    from relevo.host.configuration_file import read_configuration
    from relevo.host.includes import read_included

    ours, theirs = socket.socketpair()
    pid = fork(lambda: _compile(theirs, file, config_id, strict), "relevo-compiler", [theirs.fileno()])
    theirs.close()
    try:
        main = _Main(read_configuration(file))
    except ConfigurationError as error:
        main = _Main(error=str(error), hint=error.hint)
    ours.sendall(frame(_encode(main)))
    frames = Deframer()
    decode = decoder(_Include)
    try:
        while True:
            body = _next_frame(ours, frames)
            if body is None:
                _, status = os.waitpid(pid, 0)
                why = how_it_ended(os.waitstatus_to_exitcode(status))
                body = _encode(Reading(error=f"the process that compiles the file {why}"))
                break
            if body[:1] == _RESULT:
                body = body[1:]
                break
            wanted = decode(body[1:])
            found = read_included(os.fsdecode(wanted.pattern), os.fsdecode(wanted.including))
            answer = [_Included(os.fsencode(each.path), each.text, each.error, each.missing) for each in found]
            ours.sendall(frame(_encode(answer)))
    except (OSError, Unreadable) as error:
        body = _encode(Reading(error=f"the process that compiles the file does not keep to the protocol: {error}"))
    owner.sendall(body)


_QUESTION: Final = b"?"
_RESULT: Final = b"="


def _next_frame(sock: socket.socket, frames: Deframer) -> bytes | None:
    while True:
        try:
            data = sock.recv(_CHUNK)
        except ConnectionResetError:  # it died before it read the last answer
            return None
        if not data:
            return None
        bodies = frames.feed(data)
        if bodies:
            return bodies[0]  # the other side waits for the answer before it goes on


# -- the compiler ----------------------------------------------------------------------------------------------------


def _compile(reader: socket.socket, file: str, config_id: str | None, strict: bool) -> None:
    from relevo.config import Included, compile_text, exit_status, render
    from relevo.daemon.configuration import blocking_problem
    from relevo.host.includes import surroundings

    around = surroundings(file, config_id)
    gc.disable()  # the process ends before it has garbage
    frames = Deframer()
    refused = _confine()

    def ask(body: bytes) -> bytes:
        if body:
            reader.sendall(frame(body))
        answer = _next_frame(reader, frames)
        if answer is None:
            os._exit(1)  # nobody waits for the result
        return answer

    decode = decoder(list[_Included])

    def read(pattern: str, including: str) -> list[Included]:
        answer = decode(ask(_QUESTION + _encode(_Include(os.fsencode(pattern), os.fsencode(including)))))
        return [Included(os.fsdecode(each.path), each.text, each.error, each.missing) for each in answer]

    main = decoder(_Main)(ask(b""))
    if main.error:
        reading = Reading(error=main.error, hint=main.hint)
    else:
        try:
            compiled = compile_text(main.text, file, read, surroundings=around)
            found = compiled.findings.in_order()
            reading = Reading(
                compiled.configuration,
                (*refused, *(_encodable(f"{each.place}: {each.severity.value}: {each.message}") for each in found)),
                (*refused, *(_encodable(render(each, compiled.sources)) for each in found)),
                _encodable(blocking_problem(compiled, strict=strict)),
                exit_status(compiled.findings),
            )
        except RelevoError as error:
            reading = Reading(error=_encodable(str(error)), hint=_encodable(error.hint))
    try:
        body = _encode(reading)
    except UnicodeEncodeError:
        body = _encode(Reading(error="a value of the configuration is no text in UTF-8"))
    reader.sendall(frame(_RESULT + body))


def _encodable(text: str) -> str:
    """Return ``text`` with what is no Unicode written out: bytes of file names are."""
    return text.encode("utf-8", "backslashreplace").decode()


def _confine() -> list[str]:
    """Give up what compiling does not need: privileges, files, processes, time and memory without end."""
    limits: tuple[tuple[int, int], ...] = (
        (resource.RLIMIT_AS, MAX_MEMORY),
        (resource.RLIMIT_CPU, math.ceil(READ_S)),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, limit in limits:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit, limit))
    return confinement.confine(confinement.COMPILER)
