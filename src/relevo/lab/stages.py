"""Where the lab's machines are: in network namespaces, or on the loopback network of this one.

``choose_stage`` takes namespaces where the system allows them. They have no names and belong to processes that die with the
lab, so that a crash leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from relevo.errors import LabError
from relevo.lab.namespaces import (
    NetworkNamespaces,
    await_carrier,
    become_root_of_a_user_namespace,
    bring_up,
    index_of,
    netlink,
    own_bpf_file_system,
    unavailable_reason,
)
from relevo.lab.rewrite import Changes
from relevo.lab.topology import CLIENTS, Host, Topology, prepare_for_packets
from relevo.planes import catalogue

VRRP_PORT = 3112
"""UDP port of adverts on the loopback stage."""
PORT_SHIFT = 8000
"""Added to ports below 1024 where the lab may not bind those."""

LOOPBACK = "lo"
UNUSED_PEER = "127.0.6.255"
"""Unicast peer of a director that is alone: ``unicast_peer`` needs an address. No machine has this one."""


class Stage(ABC):
    """Provides machines for a topology."""

    name: str
    description: str

    @abstractmethod
    def build(self, topology: Topology) -> Topology:
        """Make the machines; return the topology with the addresses and ports of this stage."""

    @abstractmethod
    def changes(self, topology: Topology, director: Host) -> Changes:
        """Return how a director's file must be adapted to this stage."""

    @abstractmethod
    def inside(self, host: Host) -> contextlib.AbstractContextManager[None]:
        """Let this thread make sockets and processes on ``host`` while the context lasts."""

    @abstractmethod
    def set_link(self, host: Host, connected: bool) -> None:
        """Connect a machine to the LAN, or disconnect it."""

    @abstractmethod
    def client_address(self, number: int) -> str:
        """Source address of the client numbered ``number`` (from 0)."""

    @abstractmethod
    def close(self) -> None:
        """Remove the machines."""


class Loopback(Stage):
    """All machines are addresses of 127.0.6.0/24; adverts travel in UDP. Works in any container."""

    name = "loopback"

    def __init__(self, reason: str) -> None:
        self.description = f"loopback addresses ({reason}); VRRP over UDP, ports below 1024 shifted by {PORT_SHIFT}"
        self._map: dict[str, str] = {}

    def build(self, topology: Topology) -> Topology:
        """Give every machine an address in 127.0.6.0/24, keeping the last number where it is free."""
        for host in topology.hosts():
            host.address = self._address(host.address)
            host.interface = LOOPBACK
            for index, service in enumerate(host.services):
                host.services[index] = type(service)(service.kind, self._port(service.port))
        return topology

    def _address(self, address: str) -> str:
        if address.startswith("127."):
            return address
        if address not in self._map:
            taken = set(self._map.values())
            wanted = f"127.0.6.{address.rpartition('.')[2]}"
            spare = (f"127.0.6.{n}" for n in range(1, 255))
            self._map[address] = wanted if wanted not in taken else next(a for a in spare if a not in taken)
        return self._map[address]

    @staticmethod
    def _port(port: int) -> int:
        return port + PORT_SHIFT if port < 1024 else port

    def changes(self, topology: Topology, director: Host) -> Changes:
        """Move addresses and ports; carry adverts in UDP between the directors."""
        peers = [d.address for d in topology.directors if d is not director] or [UNUSED_PEER]
        lines = [f"vrrp_transport udp {VRRP_PORT}", f"unicast_src_ip {director.address}"]
        lines += ["unicast_peer {", *(f"    {peer}" for peer in peers), "}"]
        inbox = next((s for s in director.services if s.kind == "inbox"), None)
        mail_server = f"{director.address} {inbox.port}" if inbox else ""
        return Changes(address=self._known, port=self._port, instance=tuple(lines), mail_server=mail_server, interface=LOOPBACK)

    def _known(self, address: str) -> str:
        if address.startswith(("127.", "255.", "0.", "224.")):
            return address
        return self._address(address)

    @contextlib.contextmanager
    def inside(self, host: Host) -> Iterator[None]:
        """Do nothing: every machine is this one."""
        yield

    def set_link(self, host: Host, connected: bool) -> None:
        """Do nothing: loopback addresses have no links. A crash is only the end of the processes."""

    def client_address(self, number: int) -> str:
        """Clients are 127.7.0.1 and up."""
        return f"127.7.{(number + 1) // 256}.{(number + 1) % 256}"

    def close(self) -> None:
        """Do nothing: no machines were made."""


class Namespaces(Stage):
    """A network namespace for each machine, connected by a bridge."""

    name = "namespaces"

    def __init__(self) -> None:
        how = "as root" if os.geteuid() == 0 else "in an unprivileged user namespace"
        self.description = f"network namespaces {how}, a bridge as the LAN, real VRRP"
        own_bpf_file_system()
        self._namespaces = NetworkNamespaces()
        self._topology: Topology | None = None

    def build(self, topology: Topology) -> Topology:
        """Make a namespace for each machine, with a veth pair to the bridge."""
        self._topology = topology
        self._namespaces.make("lan")
        with self._namespaces.inside("lan"), netlink() as ip:
            bring_up(ip, "lo")
            ip.link("add", ifname="br0", kind="bridge", br_mcast_snooping=0)
            bring_up(ip, "br0")
        for number, host in enumerate(topology.hosts()):
            self._namespaces.make(host.name)
            self._connect(host, number, topology)
        self._client_network(topology)
        for host in topology.hosts():
            self._await_carrier(host)
        return topology

    def _connect(self, host: Host, number: int, topology: Topology) -> None:
        port = f"p{number}"
        with self._namespaces.inside("lan"), netlink() as ip:
            peer = {"ifname": host.interface, "net_ns_pid": self._namespaces.holder(host.name)}
            ip.link("add", ifname=port, kind="veth", peer=peer)
            ip.link("set", index=index_of(ip, port), master=index_of(ip, "br0"))
            bring_up(ip, port)
        with self._namespaces.inside(host.name), netlink() as ip:
            bring_up(ip, "lo")
            index = index_of(ip, host.interface)
            ip.addr("add", index=index, address=host.address, prefixlen=topology.lan.prefixlen)
            bring_up(ip, host.interface)

    def _client_network(self, topology: Topology) -> None:
        """Give the client a whole network of addresses, with a route to it on every machine.

        With NAT, a server sees the client's address, and its answers must return through the director: its gateway to the
        clients is the virtual address, as in LVS-NAT.
        """
        if any(
            d.configuration and not catalogue.needs_process(catalogue.choose(d.configuration).name) for d in topology.directors
        ):
            prepare_for_packets(topology)
        for host in topology.hosts():
            with self._namespaces.inside(host.name), netlink() as ip:
                if host is topology.client:
                    ip.route("add", dst=str(CLIENTS), type="local", table=255, oif=index_of(ip, "lo"), scope="host")
                else:
                    ip.route("add", dst=str(CLIENTS), gateway=host.return_gateway or topology.client.address)
                if host in topology.directors:
                    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
        for host in topology.servers:
            if host.virtual:
                self._own_virtual_addresses(host)
        gateways = sorted({host.return_gateway for host in topology.servers if host.return_gateway})
        if gateways:
            self.description += f"; servers route to clients through {' and '.join(gateways)}, as NAT needs it"

    def _own_virtual_addresses(self, host: Host) -> None:
        """Add the virtual addresses to a server's loopback, without answering ARP for them, as DR needs it."""
        with self._namespaces.inside(host.name), netlink() as ip:
            for name, value in (("arp_ignore", "1"), ("arp_announce", "2")):
                Path(f"/proc/sys/net/ipv4/conf/all/{name}").write_text(value, encoding="ascii")
            for address in host.virtual:
                ip.addr("add", index=index_of(ip, "lo"), address=address, prefixlen=32)

    def changes(self, topology: Topology, director: Host) -> Changes:
        """Return no changes: the file runs as it is."""
        return Changes()

    def inside(self, host: Host) -> contextlib.AbstractContextManager[None]:
        """Enter the machine's namespace."""
        return self._namespaces.inside(host.name)

    def set_link(self, host: Host, connected: bool) -> None:
        """Set the bridge's end of the link up or down. After connecting, wait for the carrier."""
        assert self._topology is not None
        port = f"p{self._topology.hosts().index(host)}"
        with self._namespaces.inside("lan"), netlink() as ip:
            ip.link("set", index=index_of(ip, port), state="up" if connected else "down")
        if connected:
            self._await_carrier(host)

    def _await_carrier(self, host: Host) -> None:
        with self.inside(host), netlink() as ip:
            await_carrier(ip, host.interface)

    def client_address(self, number: int) -> str:
        """Clients are 10.77.0.1 and up."""
        return str(CLIENTS[number + 1])

    def close(self) -> None:
        """Remove the namespaces."""
        self._namespaces.close()


def choose_stage(wanted: str) -> Stage:
    """Return the stage named ``wanted``; for ``auto``, namespaces where possible, else loopback. ``LabError`` without it."""
    if wanted == "loopback":
        return Loopback("as asked")
    reason = unavailable_reason()
    if reason and wanted == "namespaces":
        raise LabError(f"no network namespaces here: {reason}", hint="--stage loopback works everywhere")
    if reason:
        return Loopback(f"no network namespaces here: {reason}")
    stage = Namespaces if os.geteuid() == 0 else _in_user_namespace
    return stage()


def _in_user_namespace() -> Namespaces:
    become_root_of_a_user_namespace()
    stage = Namespaces()
    stage.description = "network namespaces in an unprivileged user namespace, a bridge as the LAN, real VRRP"
    return stage
