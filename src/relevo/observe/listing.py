"""The table of services in the layout of ``ipvsadm -L -n``, which administrators and their scripts know by heart."""

from __future__ import annotations

from ipaddress import ip_address

from relevo.observe.snapshot import ServerSnapshot, ServiceSnapshot, ipvs_states

TABLE_SIZE = 4096
"""Size shown in the first line; the kernel's default, for scripts that expect the number."""
_METHODS = {"NAT": "Masq", "DR": "Route", "TUN": "Tunnel"}


def ipvs_listing(services: tuple[ServiceSnapshot, ...]) -> str:
    """Return the listing; destination lines end with padding, as the original's do."""
    lines = [
        f"IP Virtual Server version 1.2.1 (size={TABLE_SIZE})",
        "Prot LocalAddress:Port Scheduler Flags",
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn",
    ]
    for service in ipvs_states(services):
        lines.append(_service_line(service))
        servers = sorted(service.servers, key=lambda s: (":" in s.address, int(ip_address(s.address)), s.port))
        lines += [_server_line(server) for server in servers if server.in_plane]
    return "\n".join(lines) + "\n"


def _name(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _service_line(service: ServiceSnapshot) -> str:
    line = f"{service.protocol:<4} {_name(service.address, service.port)} {service.scheduler}"
    if service.mark:
        line = f"FWM  {service.mark}{' IPv6' if ':' in service.address else ''} {service.scheduler}"
    if service.scheduler_flags:
        line += f" ({','.join(service.scheduler_flags)})"
    if service.persistence_timeout_s:
        line += f" persistent {service.persistence_timeout_s}"
        if ":" in service.address and service.persistence_granularity != 128:
            line += f" mask {service.persistence_granularity}"
        elif ":" not in service.address and service.persistence_granularity != 32:
            line += f" mask {_netmask(service.persistence_granularity)}"
    if service.one_packet:
        line += " ops"
    return line


def _server_line(server: ServerSnapshot) -> str:
    name = _name(server.address, server.port)
    return f"  -> {name:<28} {_METHODS[server.forwarding]:<7} {server.weight:<6} {server.active:<10} {server.inactive:<10}"


def _netmask(length: int) -> str:
    mask = (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF
    return ".".join(str(mask >> shift & 0xFF) for shift in (24, 16, 8, 0))
