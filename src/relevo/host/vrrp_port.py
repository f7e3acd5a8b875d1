"""Sockets for adverts (IP protocol 112 on one interface, or UDP unicast) and for gratuitous ARP."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from relevo.errors import HostError
from relevo.host.socket_filter import SO_DETACH_FILTER, accept_senders, attach_filter
from relevo.node.effects import PortSpec
from relevo.node.flood import SAMPLE
from relevo.node.observation import Link
from relevo.wire import ah, arp, ndp
from relevo.wire.ip import decode_ipv4
from relevo.wire.vrrp import PROTOCOL, TOS, TTL, Envelope, is_multicast

MAX_PACKET = 2048
"""Receive buffer in bytes: more than an advert with 255 IPv4 addresses and the IP header, or with 90 IPv6 ones."""
_ANCILLARY: Final = 256
"""Room for what comes beside a packet: its destination and its hop limit."""
_IN6_ADDRESS: Final = 16
_INTEGER: Final = struct.Struct("@i")


@dataclass(frozen=True, slots=True)
class Arrived:
    """A received packet; ``envelope`` is ``None`` if the IP header is broken."""

    payload: bytes
    envelope: Envelope | None


class RawPort:
    """Protocol 112, or AH, on the link of ``spec``; needs CAP_NET_RAW. Without a group, adverts are unicast."""

    def __init__(self, spec: PortSpec, link: Link) -> None:
        self._index = link.index
        self._ipv6 = ":" in spec.source
        family, protocol = socket.AF_INET6 if self._ipv6 else socket.AF_INET, ah.PROTOCOL if spec.ah else PROTOCOL
        self._receive = _receive6 if self._ipv6 else _receive_ah if spec.ah else _receive4
        self._receiver = _raw_socket(family, protocol, link)
        self._sender = _raw_socket(family, protocol, link)
        try:
            prepare = _prepare6 if self._ipv6 else _prepare4
            prepare(spec, link, self._receiver, self._sender)
            self._sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # it never reads
            self._sender.bind(self._named(spec.source))
        except OSError as error:
            self.close()
            raise HostError(f"cannot open a VRRP socket on {link.name} for {spec.source}: {error.strerror}") from error

    def _named(self, address: str) -> tuple[str, int] | tuple[str, int, int, int]:
        """Return the address of a socket. The index says of which link a link-local address is."""
        return (address, 0, 0, self._index) if self._ipv6 else (address, 0)

    def fileno(self) -> int:
        """Descriptor to poll for packets."""
        return self._receiver.fileno()

    def send(self, packet: bytes, destination: str) -> str:
        """Send one packet; return an empty string or the error."""
        try:
            self._sender.sendto(packet, self._named(destination))
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def receive(self) -> Arrived | None:
        """Return one packet, ``None`` if none is pending."""
        try:
            return self._receive(self._receiver)
        except OSError:
            return None

    def limit(self, senders: Sequence[str] | None) -> str:
        """Receive from ``senders`` and a sample of others, or from everybody; return an empty string or the error."""
        return _limit(self._receiver, senders, ipv6=self._ipv6)

    def close(self) -> None:
        """Close both sockets."""
        self._receiver.close()
        self._sender.close()


def _prepare4(spec: PortSpec, link: Link, receiver: socket.socket, sender: socket.socket) -> None:
    if spec.group:
        membership = struct.pack("=4s4si", socket.inet_aton(spec.group), b"\0" * 4, link.index)
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, membership)
    if spec.ah:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, TTL)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, spec.ttl or 1)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, TOS)


def _prepare6(spec: PortSpec, link: Link, receiver: socket.socket, sender: socket.socket) -> None:
    if spec.group:
        membership = socket.inet_pton(socket.AF_INET6, spec.group) + struct.pack("@I", link.index)
        receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
    receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, link.index)
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, TTL)
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, spec.ttl or 1)
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, TOS)


def _receive4(sock: socket.socket) -> Arrived:
    data = sock.recv(MAX_PACKET)
    packet = decode_ipv4(data)
    if packet is None:
        return Arrived(data, None)
    ttl = packet.ttl if is_multicast(packet.destination) else None
    return Arrived(packet.payload, Envelope(packet.source, packet.destination, ttl))


def _receive_ah(sock: socket.socket) -> Arrived:
    data = sock.recv(MAX_PACKET)
    found = ah.unwrap(data)
    return Arrived(data, None) if found is None else Arrived(*found)


def _receive6(sock: socket.socket) -> Arrived:
    """Read a packet. It comes without its header; the kernel says addresses and hop limit beside it (RFC 3542 §6)."""
    data, ancillary, _, sender = sock.recvmsg(MAX_PACKET, _ANCILLARY)
    destination, hop_limit = "", None
    for level, kind, value in ancillary:
        if level != socket.IPPROTO_IPV6:
            continue
        if kind == socket.IPV6_PKTINFO and len(value) >= _IN6_ADDRESS:
            destination = socket.inet_ntop(socket.AF_INET6, value[:_IN6_ADDRESS])
        elif kind == socket.IPV6_HOPLIMIT and len(value) == _INTEGER.size:
            (hop_limit,) = _INTEGER.unpack(value)
    if not destination or hop_limit is None:
        return Arrived(data, None)
    source = str(sender[0]).partition("%")[0]
    return Arrived(data, Envelope(source, destination, hop_limit if is_multicast(destination) else None))


def _limit(sock: socket.socket, senders: Sequence[str] | None, *, ipv6: bool) -> str:
    try:
        if senders is None:
            sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        else:
            attach_filter(sock, accept_senders(senders, SAMPLE, ipv6=ipv6))
    except OSError as error:
        if senders is None and error.errno == errno.ENOENT:
            return ""  # there was no filter
        return error.strerror or str(error)
    return ""


def _raw_socket(family: socket.AddressFamily, protocol: int, link: Link) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
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
        self._ipv6 = ":" in source
        family = socket.AF_INET6 if self._ipv6 else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if self._ipv6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, TOS)
            else:
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
            data, (source, *_) = self._socket.recvfrom(MAX_PACKET)
        except OSError:
            return None
        return Arrived(data, Envelope(source, self.source))

    def limit(self, senders: Sequence[str] | None) -> str:
        """Receive from ``senders`` and a sample of others, or from everybody; return an empty string or the error."""
        return _limit(self._socket, senders, ipv6=self._ipv6)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class NeighbourSender:
    """Announces addresses by gratuitous ARP and unsolicited neighbour advertisements; needs CAP_NET_RAW."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def send(self, link: Link, address: str, *, router: bool = False) -> str:
        """Announce ``address`` on ``link``, of a ``router`` if that is IPv6; return an empty string or the error."""
        ipv6 = ":" in address
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            hardware = link.hardware_address
            frame = (
                ndp.neighbour_advertisement(hardware, address, router=router) if ipv6 else arp.gratuitous_arp(hardware, address)
            )
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
