"""Hears who else says that he has a virtual address: ARP messages of others, on every interface."""

from __future__ import annotations

import socket
from collections.abc import Collection
from typing import Final

from relevo.errors import HostError
from relevo.host.socket_filter import accept_claims, attach_filter
from relevo.wire import arp

MAX_CLAIMS: Final = 16
"""Messages read at once. More of them say nothing new, and anybody on the LAN can send them by the thousand."""
PAUSE_S: Final = 0.1
"""Seconds between two readings; meanwhile the kernel keeps what comes, or drops it."""
_ROOM: Final = 64


class ClaimListener:
    """A packet socket that receives ARP messages whose sender has one of some addresses; needs CAP_NET_RAW."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(arp.ETHERTYPE))
        except OSError as error:
            raise HostError(f"cannot hear who else has the virtual addresses: {error.strerror}") from error
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor, which is readable when there is something to read."""
        return self._socket.fileno()

    def listen_for(self, addresses: Collection[str]) -> None:
        """Receive messages of senders with these IPv4 addresses from now on; ``HostError`` if the kernel refuses."""
        try:
            attach_filter(self._socket, accept_claims(sorted(addresses)))
        except OSError as error:
            raise HostError(f"cannot hear who else has the virtual addresses: {error.strerror}") from error

    def receive(self) -> list[tuple[str, arp.Claim]]:
        """Return the claims that have come, each with the name of its interface, ``MAX_CLAIMS`` at most."""
        found = []
        for _ in range(MAX_CLAIMS):
            try:
                body, sender = self._socket.recvfrom(_ROOM)
            except OSError:  # nothing left, or an interface is down
                break
            claim = arp.read_claim(body)
            if claim is not None:
                found.append((str(sender[0]), claim))
        return found

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
