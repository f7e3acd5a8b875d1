"""Derives the lab's machines from configuration files: directors, real servers, sorry servers, mail servers, a client."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, collapse_addresses, ip_address
from typing import Final

from relevo.errors import LabError
from relevo.model import Configuration, Endpoint, Forwarding, Protocol

SMTP_PORTS: Final = (25, 465, 587)
SHORTEST_LAN: Final = 16
"""Shortest prefix length of the lab's LAN: addresses further apart are hardly on one segment."""
CLIENTS: Final = IPv4Network("10.77.0.0/16")
"""The client's addresses: many, so that persistence sees many clients."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a server runs on a port: ``smtp``, ``udp`` (echo) or ``http``."""

    kind: str
    port: int


@dataclass(slots=True)
class Host:
    """A machine: its name, its address, what it runs; ``file``, ``config_id`` and ``configuration`` are a director's."""

    name: str
    address: str
    interface: str = "eth0"
    services: list[Service] = field(default_factory=list)
    file: str = ""
    config_id: str | None = None
    configuration: Configuration | None = None
    return_gateway: str = ""
    """Of a server with NAT: the virtual address that is its gateway to the clients."""
    virtual: list[str] = field(default_factory=list)
    """Of a server with DR: the virtual addresses that it must have itself, as packets reach it unchanged."""


@dataclass(slots=True)
class Topology:
    """All machines of the lab on one LAN."""

    lan: IPv4Network
    directors: list[Host]
    servers: list[Host]
    client: Host

    @property
    def model(self) -> Configuration:
        """The configuration of the first director. All directors have the same services."""
        assert self.directors[0].configuration is not None
        return self.directors[0].configuration

    def hosts(self) -> list[Host]:
        return [*self.directors, *self.servers, self.client]

    def server_at(self, address: str) -> Host:
        return next(host for host in self.servers if host.address == address)


def prepare_for_packets(topology: Topology) -> None:
    """Note what servers need behind a plane that forwards packets (all but the proxy plane).

    With NAT, the virtual address of a server's service is its gateway to the clients; with DR, the server has the address itself.
    A server has one gateway: if it serves virtual addresses on different directors, only FULLNAT works.
    """
    for service in (s for d in topology.directors if d.configuration for s in d.configuration.virtual_servers):
        sorry = [service.sorry_server] if service.sorry_server and service.forwarding is Forwarding.NAT else []
        translated = [server.endpoint for server in service.real_servers if server.forwarding is Forwarding.NAT]
        for endpoint in [*translated, *sorry]:
            host = topology.server_at(endpoint.address)
            host.return_gateway = host.return_gateway or service.endpoint.address
        for server in service.real_servers:
            host = topology.server_at(server.endpoint.address)
            if server.forwarding is Forwarding.DR and service.endpoint.address not in host.virtual:
                host.virtual.append(service.endpoint.address)


def kind_of(port: int, protocol: Protocol) -> str:
    """Kind of server on a port: ``udp``, ``smtp`` or ``http``. Ports of the loopback stage are higher by 8000."""
    if protocol is Protocol.UDP:
        return "udp"
    return "smtp" if port in SMTP_PORTS or port - 8000 in SMTP_PORTS else "http"


def plan(files: list[tuple[str, Configuration]]) -> Topology:
    """Return the machines of ``files`` (name and model, one director each). ``LabError`` when they do not fit on one IPv4 LAN."""
    if not files:
        raise LabError("the lab needs at least one configuration file")
    models = [model for _, model in files]
    servers = _servers(models)
    virtual = [a.address for m in models for i in m.vrrp_instances for a in (*i.addresses, *i.excluded_addresses)]
    sources = [i.source_address for m in models for i in m.vrrp_instances if i.source_address]
    used = {*virtual, *servers, *sources, *(s.endpoint.address for m in models for s in m.virtual_servers)}
    lan = _lan(used)
    spare = (str(a) for a in reversed(list(lan.hosts())[:-3]) if str(a) not in used)
    directors = [_director(number, file, model, spare) for number, (file, model) in enumerate(files, 1)]
    client = Host("client", next(spare))
    for director in directors:
        _add_mail_server(director, directors, servers)
    return Topology(lan, directors, list(servers.values()), client)


def _servers(models: list[Configuration]) -> dict[str, Host]:
    found: dict[str, Host] = {}
    for service in (s for m in models for s in m.virtual_servers):
        sorry = [service.sorry_server] if service.sorry_server else []
        for endpoint in [*(server.endpoint for server in service.real_servers), *sorry]:
            kind = Service(kind_of(endpoint.port, service.protocol), endpoint.port)
            host = found.setdefault(endpoint.address, Host("", endpoint.address))
            if kind not in host.services:
                host.services.append(kind)
            if endpoint in sorry:
                host.name = f"sorry-{endpoint.address.rpartition('.')[2]}"
    words = {"http": "web", "smtp": "mail", "udp": "udp"}
    for host in found.values():
        host.name = host.name or f"{words[host.services[0].kind]}-{host.address.rpartition('.')[2]}"
    return found


def _lan(addresses: Iterable[str]) -> IPv4Network:
    four = [ip_address(a) for a in addresses]
    if not four or any(a.version != 4 for a in four):
        raise LabError("the lab builds IPv4 clusters; this one has other addresses, or none")
    numbers = [int(a) for a in four]
    for length in range(24, SHORTEST_LAN - 1, -1):
        network = IPv4Network((numbers[0], length), strict=False)
        if all(IPv4Address(n) in network for n in numbers):
            return network
    listed = ", ".join(str(n) for n in collapse_addresses(IPv4Network((n, 24), strict=False) for n in numbers))
    raise LabError(f"the lab has one LAN, but the addresses are in {listed}")


def _director(number: int, file: str, model: Configuration, spare: Iterable[str]) -> Host:
    instance = model.vrrp_instances[0] if model.vrrp_instances else None
    address = instance.source_address if instance and instance.source_address else next(iter(spare))
    interface = instance.interface if instance and instance.interface else "eth0"
    return Host(f"director-{number}", address, interface=interface, file=file, configuration=model)


def _add_mail_server(director: Host, directors: list[Host], servers: dict[str, Host]) -> None:
    assert director.configuration is not None
    mail: Endpoint | None = director.configuration.global_defs.mail.server
    if mail is None:
        return
    inbox = Service("inbox", mail.port)
    try:
        own = ip_address(mail.address).is_loopback
    except ValueError:
        raise LabError(f"smtp_server {mail.address} is a name; the lab needs an address") from None
    host = director if own else next((d for d in directors if d.address == mail.address), None)
    if host is None:
        host = servers.setdefault(mail.address, Host(f"inbox-{mail.address.rpartition('.')[2]}", mail.address))
    if inbox not in host.services:
        host.services.append(inbox)
