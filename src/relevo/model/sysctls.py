"""Settings of IPVS (``net.ipv4.vs``): names and ranges."""

from __future__ import annotations

from typing import Final

import msgspec


class Sysctl(msgspec.Struct, frozen=True, order=True):
    """One setting; ``name`` is its name in ``net.ipv4.vs``."""

    name: str
    values: tuple[int, ...]

    def __str__(self) -> str:
        return " ".join((self.name, *map(str, self.values)))


RANGES: Final = {
    "backup_only": (0, 1),
    "cache_bypass": (0, 1),
    "conn_reuse_mode": (0, 3),
    "conntrack": (0, 1),
    "drop_entry": (0, 3),
    "drop_packet": (0, 3),
    "expire_nodest_conn": (0, 1),
    "expire_quiescent_template": (0, 1),
    "ignore_tunneled": (0, 1),
    "nat_icmp_send": (0, 1),
    "pmtu_disc": (0, 1),
    "schedule_icmp": (0, 1),
    "secure_tcp": (0, 3),
    "sloppy_sctp": (0, 1),
    "sloppy_tcp": (0, 1),
    "snat_reroute": (0, 1),
    "sync_persist_mode": (0, 1),
    "sync_ports": (1, 64),
    "sync_qlen_max": (1, 1 << 20),
    "sync_refresh_period": (0, 3600),
    "sync_retries": (0, 3),
    "sync_sock_size": (0, 1 << 24),
    "sync_threshold": (0, 65_535),
    "sync_version": (0, 1),
}
"""Lowest and highest value of each setting. ``sync_threshold`` takes two numbers: threshold and period."""


def fault(sysctl: Sysctl) -> tuple[str, str] | None:
    """Return what is wrong with a setting and a hint, or ``None``."""
    name, values = sysctl.name, sysctl.values
    if name not in RANGES:
        return f"IPVS has no setting '{name}'", f"it has {' '.join(RANGES)}"
    least, most = RANGES[name]
    pair = name == "sync_threshold"
    if len(values) != 1 + pair or not all(least <= value <= most for value in values):
        return (
            f"{name} takes {'two numbers' if pair else 'a number'} from {least} to {most}",
            f"such as {name} {'3 50' if pair else least}",
        )
    if pair and 0 < values[1] <= values[0]:
        return (
            "sync_threshold: the threshold must be below the period, or nothing is synced",
            "such as sync_threshold 3 50",
        )
    if name == "sync_ports" and values[0] & (values[0] - 1):
        return "sync_ports takes a power of two", "1, 2, 4, … 64"
    return None
