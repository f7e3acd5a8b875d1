"""The listings of ipvsadm 1.31, equal byte for byte, trailing blanks included. Sorting is numerical, as the original intends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from relevo.compat.ipvsadm.grammar import Request
from relevo.planes.ipvs.convert import FULLNAT
from relevo.wire import ipvs_netlink as wire
from relevo.wire.ipvs_netlink import (
    Counters,
    Daemon,
    DaemonState,
    Destination,
    Identity,
    Info,
    Method,
    Service,
    Timeouts,
    TunnelType,
)
from relevo.wire.ipvs_proc import ConnectionLine

_PROTOCOLS = {wire.TCP: "TCP", wire.UDP: "UDP", wire.SCTP: "SCTP"}
_SWITCHES = {wire.TCP: "-t", wire.UDP: "-u", wire.SCTP: "--sctp-service"}
_METHODS: dict[int, str] = {
    Method.MASQUERADE: "Masq",
    Method.LOCAL: "Local",
    Method.TUNNEL: "Tunnel",
    Method.ROUTE: "Route",
    Method.BYPASS: "Bypass",
    FULLNAT: "FullNat",
}
_METHOD_SWITCHES: dict[int, str] = {Method.TUNNEL: "-i", Method.ROUTE: "-g"}
_FLAG_NAMES = {"sh": ("sh-fallback", "sh-port"), "mh": ("mh-fallback", "mh-port")}
_OTHER_FLAGS = ("flag-1", "flag-2", "flag-3")
_SERVICE_WIDTH, _SERVER_WIDTH = 33, 28
_SERVER_TITLE = "  -> RemoteAddress:Port"
_PLAIN_TITLE = "Prot LocalAddress:Port Scheduler Flags"

Table = list[tuple[Service, list[Destination]]]


@dataclass(frozen=True)
class Naming:
    """How addresses and ports are printed: as numbers, or by the names that the functions return."""

    host: Callable[[str], str] | None = None
    port: Callable[[int, str], str] | None = None

    def place(self, address: str, port: int, protocol: str, width: int = 0) -> str:
        """Return ``address:port``; an IPv4 name longer than ``width`` is cut there."""
        host = self.host(address) if self.host else address
        service = self.port(port, protocol) if self.port else str(port)
        if ":" in address:
            return f"[{host}]:{service}"
        return f"{host}:{service}"[: width or None]


# -- services ---------------------------------------------------------------------------------------------------------


def header(info: Info) -> str:
    """Return the first line of a whole listing."""
    version = ".".join(str(info.version >> shift & 0xFF) for shift in (16, 8, 0))
    return f"IP Virtual Server version {version} (size={info.table_size})\n"


def services(table: Table, request: Request, naming: Naming) -> str:
    """Return services with their servers, in the layout requested."""
    layout = _LAYOUTS[request.format](request.has("exact"))
    lines = [layout.title]
    for service, servers in in_order(table, request):
        lines.append(layout.service(service, naming))
        lines += [layout.server(server, service.identity, naming) for server in servers]
    return "".join(f"{line}\n" for line in lines)


def in_order(table: Table, request: Request) -> Table:
    """Sort services and servers, unless ``--nosort`` is given."""
    if request.has("nosort"):
        return table
    by_server = [(service, sorted(servers, key=lambda s: (int(ip_address(s.address)), s.port))) for service, servers in table]
    return sorted(by_server, key=lambda item: _sort_key(item[0].identity))


def _sort_key(identity: Identity) -> tuple[int, int, int, int, int]:
    address = int(ip_address(identity.address)) if identity.address else 0
    return (identity.mark, identity.family, identity.protocol, address, identity.port)


class _Plain:
    """The plain layout: forwarding method, weight and connections. The others change its title and columns."""

    title = f"{_PLAIN_TITLE}\n{_SERVER_TITLE}           Forward Weight ActiveConn InActConn"

    def __init__(self, exact: bool) -> None:
        self._number = _exact if exact else _scaled

    def service(self, service: Service, naming: Naming) -> str:
        return f"{_service_name(service.identity, naming)} {_schedule(service)}"

    def server(self, server: Destination, of: Identity, naming: Naming) -> str:
        return f"{_server_name(server, of, naming)} {self.cells(server)}"

    def cells(self, server: Destination) -> str:
        return f"{_method(server):<7} {server.weight:<6} {server.active:<10} {server.inactive:<10}"


class _Thresholds(_Plain):
    title = (
        f"{'Prot LocalAddress:Port':<33} {'Uthreshold':<10} {'Lthreshold':<10} {'ActiveConn':<10} {'InActConn':<10}"
        f"\n{_SERVER_TITLE}"
    )

    def cells(self, server: Destination) -> str:
        return f"{server.upper_threshold:<10} {server.lower_threshold:<10} {server.active:<10} {server.inactive:<10}"


class _Persistent(_Plain):
    title = (
        f"{'Prot LocalAddress:Port':<33} {'Weight':<9} {'PersistConn':<11} {'ActiveConn':<10} {'InActConn':<10}\n{_SERVER_TITLE}"
    )

    def cells(self, server: Destination) -> str:
        return f"{server.weight:<9} {server.persistent:<11} {server.active:<10} {server.inactive:<10}"


class _Tunnel(_Plain):
    title = f"{_PLAIN_TITLE}\n{_SERVER_TITLE}           Forward TunnelInfo    Weight ActiveConn InActConn"

    def cells(self, server: Destination) -> str:
        return f"{_method(server):<7} {_tunnel_info(server):<13} {server.weight:<6} {server.active:<10} {server.inactive:<10}"


class _Stats(_Plain):
    names: tuple[str, ...] = ("Conns", "InPkts", "OutPkts", "InBytes", "OutBytes")

    @property
    def title(self) -> str:  # type: ignore[override]
        return f"{'Prot LocalAddress:Port':<33}{''.join(f' {name:>8}' for name in self.names)}\n{_SERVER_TITLE}"

    def service(self, service: Service, naming: Naming) -> str:
        return f"{_service_name(service.identity, naming):<33}{self._numbers(service.counters)}"

    def server(self, server: Destination, of: Identity, naming: Naming) -> str:
        return _server_name(server, of, naming) + self._numbers(server.counters)

    def _numbers(self, found: Counters) -> str:
        numbers = (found.connections, found.packets_in, found.packets_out, found.bytes_in, found.bytes_out)
        return "".join(map(self._number, numbers))


class _Rate(_Stats):
    names = ("CPS", "InPPS", "OutPPS", "InBPS", "OutBPS")

    def _numbers(self, found: Counters) -> str:
        numbers = (
            found.connections_rate,
            found.packets_in_rate,
            found.packets_out_rate,
            found.bytes_in_rate,
            found.bytes_out_rate,
        )
        return "".join(map(self._number, numbers))


_LAYOUTS: dict[str, type[_Plain]] = {
    "": _Plain,
    "stats": _Stats,
    "rate": _Rate,
    "thresholds": _Thresholds,
    "persistent-conn": _Persistent,
    "tun-info": _Tunnel,
}


def _scaled(number: int) -> str:
    for limit, divisor, unit in ((10**8, 1, ""), (10**9, 10**3, "K"), (10**11, 10**6, "M"), (10**14, 10**9, "G")):
        if number < limit:
            return f"{number // divisor:>8}{unit}" if unit else f"{number:>9}"
    return f"{number // 10**12:>8}T"


def _exact(number: int) -> str:
    return f"{number:>9}" if number < 10**8 else f" {number}"


def _service_name(identity: Identity, naming: Naming) -> str:
    if identity.mark:
        return f"FWM  {identity.mark}{' IPv6' if identity.family == wire.AF_INET6 else ''}"
    protocol = _PROTOCOLS.get(identity.protocol, "?")
    place = naming.place(identity.address, identity.port, protocol.lower(), _SERVICE_WIDTH)
    return f"{protocol:<4} {place}"


def _server_name(server: Destination, of: Identity, naming: Naming) -> str:
    protocol = _PROTOCOLS.get(of.protocol, "tcp").lower()
    return f"  -> {naming.place(server.address, server.port, protocol, _SERVER_WIDTH):<28}"


def _method(server: Destination) -> str:
    return _METHODS.get(server.method, str(server.method))


def _schedule(service: Service) -> str:
    line = service.scheduler
    flags = _flag_names(service)
    if flags is not None:
        line += f" ({flags})"
    if service.flags & wire.PERSISTENT:
        line += f" persistent {service.timeout_s}"
        mask = _mask(service)
        if mask:
            line += f" mask {mask}"
    if service.engine:
        line += f" pe {service.engine}"
    if service.flags & wire.ONE_PACKET:
        line += " ops"
    return line


def _flag_names(service: Service) -> str | None:
    if not service.flags & sum(wire.SCHEDULER_FLAGS):
        return None
    names = _FLAG_NAMES.get(service.scheduler, _OTHER_FLAGS)
    return ",".join(name for name, bit in zip(names, wire.SCHEDULER_FLAGS, strict=False) if service.flags & bit)


def _mask(service: Service) -> str:
    """Return the mask of persistence, or an empty string where it covers one address."""
    if service.identity.family == wire.AF_INET6:
        return "" if service.netmask == 128 else str(service.netmask)
    return "" if service.netmask == 0xFFFFFFFF else str(IPv4Address(service.netmask))


def _tunnel_info(server: Destination) -> str:
    if server.method != Method.TUNNEL:
        return "n/a"
    if server.tunnel_type == TunnelType.IPIP:
        return "ipip"
    checksum = {wire.TUNNEL_CHECKSUM: "+c", wire.TUNNEL_REMOTE_CHECKSUM: "r+c"}.get(server.tunnel_flags, "-c")
    if server.tunnel_type == TunnelType.GUE:
        return f"gue:{server.tunnel_port}:{checksum}"
    return f"gre:{checksum}"


# -- saving -----------------------------------------------------------------------------------------------------------


def save(table: Table, request: Request, naming: Naming) -> str:
    """Return the command lines that make the table, thresholds included (the original omits them)."""
    lines = []
    for service, servers in in_order(table, request):
        name = _switches(service.identity, naming)
        line = f"-A {name} -s {service.scheduler}"
        if service.flags & wire.PERSISTENT:
            line += f" -p {service.timeout_s}"
            mask = _mask(service)
            line += f" -M {mask}" if mask else ""
        line += f" --pe {service.engine}" if service.engine else ""
        line += " -o" if service.flags & wire.ONE_PACKET else ""
        flags = _flag_names(service)
        line += f" -b {flags}" if flags else ""
        lines.append(line)
        lines += [f"-a {name} {_server_switches(server, service.identity, naming)}" for server in servers]
    return "".join(f"{line}\n" for line in lines)


def _switches(identity: Identity, naming: Naming) -> str:
    if identity.mark:
        return f"-f {identity.mark}{' -6' if identity.family == wire.AF_INET6 else ''}"
    protocol = _PROTOCOLS.get(identity.protocol, "?").lower()
    return f"{_SWITCHES.get(identity.protocol, '-t')} {naming.place(identity.address, identity.port, protocol)}"


def _server_switches(server: Destination, of: Identity, naming: Naming) -> str:
    place = naming.place(server.address, server.port, _PROTOCOLS.get(of.protocol, "tcp").lower())
    line = f"-r {place} {_METHOD_SWITCHES.get(server.method, '-m')} -w {server.weight}"
    line += f" -x {server.upper_threshold}" if server.upper_threshold else ""
    line += f" -y {server.lower_threshold}" if server.lower_threshold else ""
    return line + _tunnel_switches(server)


def _tunnel_switches(server: Destination) -> str:
    if server.method != Method.TUNNEL:
        return ""
    if server.tunnel_type == TunnelType.IPIP:
        return " --tun-type ipip"
    names = {wire.TUNNEL_CHECKSUM: "--tun-csum", wire.TUNNEL_REMOTE_CHECKSUM: "--tun-remcsum"}
    checksum = names.get(server.tunnel_flags, "--tun-nocsum")
    if server.tunnel_type == TunnelType.GUE:
        return f" --tun-type gue --tun-port {server.tunnel_port} {checksum}"
    return f" --tun-type gre {checksum}"


# -- the rest ---------------------------------------------------------------------------------------------------------


def connections(found: Iterable[ConnectionLine], *, engines: bool, naming: Naming) -> Iterable[str]:
    """Return the lines of connections, in the order given."""
    yield "IPVS connection entries\n"
    title = f"pro expire {'state':<11} {'source':<18} {'virtual':<18} "
    yield f"{title}{'destination':<18} {'pe name':<16} pe_data\n" if engines else f"{title}destination\n"
    for line in found:
        protocol = line.protocol.lower()
        source, virtual, server = (
            naming.place(address, port, protocol)
            for address, port in (
                (line.client, line.client_port),
                (line.virtual, line.virtual_port),
                (line.server, line.server_port),
            )
        )
        left = f"{line.expires_s // 60:02}:{line.expires_s % 60:02}"
        text = f"{line.protocol:<3} {left:<6} {line.state:<11} {source:<18} {virtual:<18} "
        if engines and line.engine:
            yield f"{text}{server:<16} {line.engine:<18} {line.engine_data}\n"
        else:
            yield f"{text}{server}\n"


def timeouts(found: Timeouts) -> str:
    """Return the line of time-outs."""
    return f"Timeout (tcp tcpfin udp): {found.tcp_s} {found.tcp_fin_s} {found.udp_s}\n"


def daemons(found: Iterable[Daemon]) -> str:
    """Return a line for each synchronisation daemon, the master first."""
    lines = []
    for daemon in sorted(found, key=lambda each: each.state):
        role = "master" if daemon.state == DaemonState.MASTER else "backup"
        fields = [f"mcast={daemon.interface}", f"syncid={daemon.sync_id}"]
        fields += [f"maxlen={daemon.max_length}"] if daemon.max_length else []
        fields += [f"group={daemon.group}"] if daemon.group else []
        fields += [f"port={daemon.port}"] if daemon.port else []
        fields += [f"ttl={daemon.ttl}"] if daemon.ttl else []
        lines.append(f"{role} sync daemon ({', '.join(fields)})\n")
    return "".join(lines)
