"""Addresses with ports, and transport protocols."""

from __future__ import annotations

import enum

import msgspec


class Protocol(enum.StrEnum):
    """Transport protocol of a virtual service."""

    TCP = "TCP"
    UDP = "UDP"


class Endpoint(msgspec.Struct, frozen=True, order=True):
    """An address and a port; ``address`` is in canonical text form, ``port`` 0 means any."""

    address: str
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    def formatted(self, protocol: Protocol) -> str:
        """Format the endpoint as keepalived's logs and mails do: ``[192.0.2.1]:tcp:80``."""
        return f"[{self.address}]:{protocol.lower()}:{self.port}"
