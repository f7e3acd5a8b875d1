"""Sockets for adverts (IP protocol 112 on one interface, or UDP unicast) and for gratuitous ARP."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from relevo.errors import HostError
from relevo.host.socket_filter import SO_DETACH_FILTER, accept_senders, attach_filter
from relevo.node.effects import PortSpec
from relevo.node.flood import SAMPLE
from relevo.node.observation import Link
from relevo.wire import arp, ndp
from relevo.wire.ip import decode_ipv4
from relevo.wire.vrrp import PROTOCOL, TOS, TTL, Envelope

MAX_PACKET = 2048
"""Receive buffer in bytes: more than an advert with 255 addresses and the IP header."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A received packet; ``envelope`` is ``None`` if the IP header is broken."""

    payload: bytes
    envelope: Envelope | None


class RawPort:
    """Protocol 112 on the link of ``spec``; needs CAP_NET_RAW. Without a group, adverts are unicast."""

    def __init__(self, spec: PortSpec, link: Link) -> None:
        self._receiver = _raw_socket(link)
        self._sender = _raw_socket(link)
        try:
            if spec.group:
                membership = struct.pack("=4s4si", socket.inet_aton(spec.group), b"\0" * 4, link.index)
                self._receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
                self._sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, membership)
            self._sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, TTL)
            self._sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, spec.ttl or 1)
            self._sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
            self._sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, TOS)
            self._sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # it never reads
            self._sender.bind((spec.source, 0))
        except OSError as error:
            self.close()
            raise HostError(f"cannot open a VRRP socket on {link.name} for {spec.source}: {error.strerror}") from error

    def fileno(self) -> int:
        """Descriptor to poll for packets."""
        return self._receiver.fileno()

    def send(self, packet: bytes, destination: str) -> str:
        """Send one packet; return an empty string or the error."""
        try:
            self._sender.sendto(packet, (destination, 0))
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def receive(self) -> Arrived | None:
        """Return one packet, ``None`` if none is pending."""
        try:
            data = self._receiver.recv(MAX_PACKET)
        except OSError:
            return None
        packet = decode_ipv4(data)
        if packet is None:
            return Arrived(data, None)
        return Arrived(
            packet.payload,
            Envelope(packet.source, packet.destination, packet.ttl if _checked(packet.destination) else None),
        )

    def limit(self, senders: Sequence[str] | None) -> str:
        """Receive from ``senders`` and a sample of others, or from everybody; return an empty string or the error."""
        return _limit(self._receiver, senders)

    def close(self) -> None:
        """Close both sockets."""
        self._receiver.close()
        self._sender.close()


def _checked(destination: str) -> bool:
    """Whether the TTL is checked: multicast adverts must not have crossed a router; unicast ones may."""
    return 224 <= int(destination.partition(".")[0]) < 240


def _limit(sock: socket.socket, senders: Sequence[str] | None) -> str:
    try:
        if senders is None:
            sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        else:
            attach_filter(sock, accept_senders(senders, SAMPLE))
    except OSError as error:
        if senders is None and error.errno == errno.ENOENT:
            return ""  # there was no filter
        return error.strerror or str(error)
    return ""


def _raw_socket(link: Link) -> socket.socket:
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, PROTOCOL)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.name.encode())
    except PermissionError as error:
        hint = "run as root or with CAP_NET_RAW, or use vrrp_transport udp"
        raise HostError("cannot open a raw socket for VRRP: not permitted", hint=hint) from error
    except OSError as error:
        raise HostError(f"cannot open a raw socket on {link.name}: {error.strerror}") from error
    return sock


class UdpPort:
    """Adverts over UDP unicast, for networks that drop protocol 112; shared by the routers with the same ``source``."""

    def __init__(self, source: str, port: int) -> None:
        self.source = source
        self._port = port
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, TOS)
            self._socket.bind((self.source, self._port))
        except OSError as error:
            self._socket.close()
            raise HostError(f"cannot bind UDP {self.source}:{self._port} for VRRP: {error.strerror}") from error

    def fileno(self) -> int:
        """Descriptor to poll for packets."""
        return self._socket.fileno()

    def send(self, packet: bytes, destination: str) -> str:
        """Send one packet; return an empty string or the error."""
        try:
            self._socket.sendto(packet, (destination, self._port))
        except OSError as error:
            # ECONNREFUSED reports an earlier packet to a peer that is down: the next advert repeats this one
            return "" if error.errno == errno.ECONNREFUSED else error.strerror or str(error)
        return ""

    def receive(self) -> Arrived | None:
        """Return one packet, ``None`` if none is pending."""
        try:
            data, (source, _) = self._socket.recvfrom(MAX_PACKET)
        except OSError:
            return None
        return Arrived(data, Envelope(source, self.source))

    def limit(self, senders: Sequence[str] | None) -> str:
        """Receive from ``senders`` and a sample of others, or from everybody; return an empty string or the error."""
        return _limit(self._socket, senders)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class NeighbourSender:
    """Announces addresses by gratuitous ARP and unsolicited neighbour advertisements; needs CAP_NET_RAW."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def send(self, link: Link, address: str) -> str:
        """Announce ``address`` on ``link``; return an empty string or the error."""
        ipv6 = ":" in address
        build = ndp.neighbour_advertisement if ipv6 else arp.gratuitous_arp
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            frame = build(link.hardware_address, address)
            self._socket.sendto(frame, (link.name, ndp.ETHERTYPE if ipv6 else arp.ETHERTYPE))
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()


def open_port(spec: PortSpec) -> RawPort | UdpPort:
    """Open the socket that ``spec`` describes; ``HostError`` on failure."""
    if spec.udp_port:
        return UdpPort(spec.source, spec.udp_port)
    assert spec.link is not None, "only UDP needs no link"
    return RawPort(spec, spec.link)
