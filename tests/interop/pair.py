"""Two directors on a LAN, each of them Relevo or keepalived, and a client."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from relevo.config import compile_text
from relevo.errors import ControlError
from relevo.lab.cluster import Cluster
from relevo.lab.stages import Namespaces
from relevo.lab.topology import Host, Topology

VIP = "192.168.6.240"
VIPS6 = ("fe80::240", "2001:db8:6::240")
OWN6 = "2001:db8:6::{}"

CONF = """
vrrp_instance VI_1 {{
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority {priority}
    version {version}
    advert_int {interval}
    {more}
    virtual_ipaddress {{
        {addresses}
    }}
}}
"""
AH = "authentication {\n        auth_type AH\n        auth_pass example\n    }"
NODAD, TENTATIVE, LINK = 0x02, 0x40, 253
PASS = "authentication {\n        auth_type PASS\n        auth_pass example\n    }"


@dataclass
class Node:
    """One director: its machine and which program it runs."""

    host: Host
    program: str
    conf: str


class Pair:
    """A lab with two directors. ``nodes[0]`` is the one that should be master."""

    def __init__(
        self,
        programs: tuple[str, str],
        *,
        version: int,
        interval: float,
        more: str = "",
        unicast: bool = False,
        ipv6: bool = False,
        keepalived: str = "",
    ) -> None:
        hosts = [Host("director-1", "192.168.6.251"), Host("director-2", "192.168.6.252")]
        self.client = Host("client", "192.168.6.250")
        topology = Topology(IPv4Network("192.168.6.0/24"), hosts, [], self.client)
        self.cluster = Cluster(topology, Namespaces())
        self.keepalived = keepalived
        self.addresses = VIPS6 if ipv6 else (VIP,)
        own = {host.name: OWN6.format(host.address.rpartition(".")[2]) if ipv6 else host.address for host in hosts}
        self.starts = 0
        self.nodes = []
        for host, name, priority in zip(hosts, programs, (150, 100), strict=True):
            lines = more
            if unicast:
                peer = next(own[h.name] for h in hosts if h is not host)
                lines += f"\n    unicast_src_ip {own[host.name]}\n    unicast_peer {{\n        {peer}\n    }}"
            addresses = "\n        ".join(self.addresses)
            text = CONF.format(priority=priority, version=version, interval=interval, more=lines, addresses=addresses)
            host.file = str(self.cluster.folder / f"{host.name}.in.conf")
            Path(host.file).write_text(text)
            host.configuration = compile_text(text, host.file).configuration
            self.nodes.append(Node(host, name, host.file))
            if ipv6:
                self._give_ipv6(host, own[host.name])

    def _give_ipv6(self, host: Host, address: str) -> None:
        """Give a director an address, and wait until its link-local one has been looked at for duplicates."""
        import pyroute2

        with self.cluster.stage.inside(host), pyroute2.IPRoute() as ip:
            index = ip.link_lookup(ifname="eth0")[0]
            ip.addr("add", index=index, address=address, prefixlen=64, flags=NODAD)
            ends = time.monotonic() + 20
            while not any(m["scope"] == LINK and not m["flags"] & TENTATIVE for m in ip.get_addr(family=10, index=index)):
                assert time.monotonic() < ends, f"{host.name} has no link-local address: {ip.get_addr(family=10, index=index)}"
                time.sleep(0.05)

    def start(self, node: Node) -> None:
        if node.program == "relevo":
            self.cluster.start_director(node.host)
            return
        self.starts += 1  # a killed keepalived leaves its PID files, and does not start while they exist
        name = f"{self.cluster.folder}/{node.host.name}-{self.starts}"
        argv = [self.keepalived, "-n", "-l", "-D", "-P", "-f", node.conf]
        argv += ["-p", f"{name}.pid", "-r", f"{name}.vrrp.pid"]
        self.cluster.run_in(node.host, node.host.name, argv, self.cluster.log_file(node.host))

    def crash(self, node: Node) -> None:
        self.cluster.crash_director(node.host)

    def revive(self, node: Node) -> None:
        self.clear(node)
        self.cluster.stage.set_link(node.host, True)
        self.start(node)

    def clear(self, node: Node) -> None:
        """Remove the virtual addresses, as a reboot does."""
        import pyroute2

        with self.cluster.stage.inside(node.host), pyroute2.IPRoute() as ip:
            for address in self.addresses:
                with contextlib.suppress(pyroute2.NetlinkError):
                    length = 128 if ":" in address else 32
                    ip.addr("del", index=ip.link_lookup(ifname="eth0")[0], address=address, prefixlen=length)

    def stop(self, node: Node) -> None:
        self.cluster.stop_director(node.host)

    def has_address(self, node: Node) -> bool:
        import pyroute2

        with self.cluster.stage.inside(node.host), pyroute2.IPRoute() as ip:
            present = {m.get_attr("IFA_LOCAL") or m.get_attr("IFA_ADDRESS") for m in ip.get_addr()}
        return present.issuperset(self.addresses)

    def wait_for_master(self, node: Node, limit_s: float = 12.0, *others: Node) -> float:
        """Wait until ``node`` alone holds the address."""
        begun = time.monotonic()
        while time.monotonic() - begun < limit_s:
            if self.has_address(node) and not any(self.has_address(other) for other in others):
                return time.monotonic() - begun
            time.sleep(0.01)
        raise AssertionError(f"{node.host.name} ({node.program}) is not the only master within {limit_s} s:\n{self.logs()}")

    def logs(self) -> str:
        return "\n".join(f"--- {n.host.name} {n.program}\n{self.cluster.log_text(n.host)}" for n in self.nodes)

    def refused(self, node: Node) -> dict[str, int]:
        with contextlib.suppress(ControlError):
            return dict(self.cluster.snapshot(node.host).director.instances[0].refused)
        return {}

    def close(self) -> None:
        self.cluster.close()
