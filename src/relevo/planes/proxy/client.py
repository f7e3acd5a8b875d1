"""The port to the proxy plane: requests of the balancer to the proxy's process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from relevo.errors import PlaneError
from relevo.model.table import Connection, ConnectionFilter, Operation, ServiceState
from relevo.planes.port import Capabilities, PlaneEvent, Refused
from relevo.planes.proxy.messages import (
    Apply,
    DropConnections,
    ListConnections,
    Observe,
    Reply,
    Request,
    SetLocal,
    decode_reply,
    pack,
)
from relevo.planes.table import capabilities_of_user_space
from relevo.planes.user_space import UserSpace
from relevo.wire.framing import LENGTH_SIZE, body_size

TIMEOUT_S = 5.0
"""A process that does not answer for this long counts as dead; the next call connects again."""


class ProxyPlane(UserSpace):
    """The proxy's process behind the Unix socket at ``path``. Every call raises ``PlaneError`` when it does not answer."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()

    def stay_in_folder(self) -> None:
        """Find the socket also when the folders above its own cannot be entered any more; ``PlaneError`` if there is none."""
        folder, name = os.path.split(self._path)
        try:
            descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise PlaneError(f"{folder}: {error.strerror}") from error
        self._path = f"/proc/self/fd/{descriptor}/{name}"

    def capabilities(self) -> Capabilities:
        return capabilities_of_user_space("proxy")

    async def observe(self) -> list[ServiceState]:
        return (await self._ask(Observe())).services

    async def apply(self, operations: Sequence[Operation]) -> list[Refused]:
        return (await self._ask(Apply(tuple(operations)))).refused

    async def connections(self) -> list[Connection]:
        """Return open connections, datagram sessions and templates."""
        return (await self._ask(ListConnections())).connections

    async def drop(self, wanted: ConnectionFilter) -> int:
        """Reset connections, drop sessions and templates that match; return how many."""
        return (await self._ask(DropConnections(wanted))).dropped

    async def set_local(self, local: frozenset[str], floating: frozenset[str]) -> None:
        """Send the process the virtual addresses that are on this node."""
        await self._ask(SetLocal(local))

    def events(self) -> list[PlaneEvent]:
        """Return nothing: the process has no events."""
        return []

    async def close(self) -> None:
        """Close the connection; the process goes on."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def remove(self, *, keep_connections: bool = False) -> None:
        """Close the connection; the supervisor stops the process."""
        await self.close()

    async def _ask(self, request: Request) -> Reply:
        async with self._lock:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    return await self._exchange(request)
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                await self.close()
                raise PlaneError(f"the proxy plane does not answer: {str(error) or 'no answer in time'}") from error
            except asyncio.CancelledError:
                await self.close()  # the reply is still to come, and must not be read as that of the next request
                raise

    async def _exchange(self, request: Request) -> Reply:
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(self._path)
        reader, writer = self._streams
        writer.write(pack(request))
        await writer.drain()
        size = body_size(await reader.readexactly(LENGTH_SIZE))
        reply: Reply = decode_reply(await reader.readexactly(size))
        return reply
