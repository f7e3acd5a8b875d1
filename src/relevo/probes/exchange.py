"""What a probe says to a server, without sockets: an exchange is told what happens, and answers with what to do.

The engine opens the socket that ``opening`` describes and calls ``opened``, ``received``, ``closed`` or ``expired``. Each returns
bytes to send (none is a wait for more), a ``Result``, or the next exchange, which has a connection and a time limit of its own.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, TypeVar, Union

from relevo.machines.check import Failure, Result
from relevo.model.checks import NetworkCheck

READ_SIZE: Final = 4096
"""Bytes of a stream that an exchange is given at once: a body in chunks of one byte takes long to parse, and meanwhile nothing
else is done."""

C = TypeVar("C", bound=NetworkCheck)


class Transport(enum.Enum):
    """The kinds of sockets."""

    STREAM = "TCP"
    DATAGRAM = "UDP"
    ECHO = "ICMP echo"
    """Echo requests and their answers. The kernel sets the identifier and the checksum, and needs no privilege (icmp(7))."""


@dataclass(frozen=True, slots=True)
class Opening:
    """The socket that an exchange needs. With ``tls`` it is encrypted; ``server_name`` is sent in the handshake unless empty."""

    transport: Transport = Transport.STREAM
    tls: bool = False
    server_name: str = ""


class Exchange(Generic[C]):
    """An exchange for ``check``. By itself it passes when the socket is open."""

    plain: ClassVar[Opening] = Opening()

    def __init__(self, check: C) -> None:
        self.check = check

    @property
    def opening(self) -> Opening:
        """Return the socket that this exchange needs."""
        return self.plain

    def opened(self) -> Step:
        """Begin: the connection is open, and the handshake done."""
        return Result()

    def received(self, data: bytes) -> Step:
        """Take what the server has sent, a datagram or a part of the stream."""
        return b""

    def closed(self) -> Step:
        """The server has closed the stream."""
        return Result(Failure.RESET, "the server closed the connection")

    def expired(self) -> Result:
        """The time is over."""
        return Result(Failure.TIMEOUT, f"no answer within {self.check.connect_timeout_s:g} s")


Step = Union[bytes, Result, "Exchange[Any]"]

_EXCHANGES: dict[type, Callable[[Any], Exchange[Any]]] = {}

E = TypeVar("E", bound=Callable[[Any], Exchange[Any]])


def exchange_for(kind: type) -> Callable[[E], E]:
    """Return a decorator that registers an exchange for checks of ``kind``."""

    def register(made: E) -> E:
        _EXCHANGES[kind] = made
        return made

    return register


def begin(check: NetworkCheck) -> Exchange[Any]:
    """Return the exchange, or the first of several, that runs ``check`` once."""
    return _EXCHANGES[type(check)](check)


def kinds() -> frozenset[type]:
    """Return the types of the checks that have an exchange."""
    return frozenset(_EXCHANGES)
