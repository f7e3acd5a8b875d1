"""Virtual servers and the real servers behind them."""

from __future__ import annotations

import enum

import msgspec

from relevo.model.checks import Check
from relevo.model.endpoint import Endpoint, Protocol
from relevo.model.script import Script


class Forwarding(enum.StrEnum):
    """How a packet reaches the real server (``lb_kind``)."""

    NAT = "NAT"
    DR = "DR"
    TUN = "TUN"
    FULLNAT = "FULLNAT"
    """As NAT, with the client's address replaced too: servers answer whoever stands for it, wherever the client is."""


class RealServer(msgspec.Struct, frozen=True, kw_only=True):
    """One server of a pool. It is up when all of ``checks`` are up; without checks it is always up."""

    endpoint: Endpoint
    weight: int = 1
    forwarding: Forwarding = Forwarding.NAT
    inhibit_on_failure: bool = False
    upper_threshold: int = 0
    lower_threshold: int = 0
    proxy_protocol: int = 0
    smtp_alert: bool = True
    notify_up: Script | None = None
    notify_down: Script | None = None
    checks: tuple[Check, ...] = ()


class VirtualServer(msgspec.Struct, frozen=True, kw_only=True):
    """A virtual service: what clients connect to, and the pool that answers.

    ``persistence_timeout_s`` 0 means off; ``persistence_granularity`` is a prefix length (32 or 128: one client).
    """

    endpoint: Endpoint
    protocol: Protocol
    scheduler: str = "wlc"
    scheduler_flags: tuple[str, ...] = ()
    forwarding: Forwarding = Forwarding.NAT
    persistence_timeout_s: int = 0
    persistence_granularity: int = 32
    delay_loop_s: float = 60.0
    alpha: bool = False
    omega: bool = False
    quorum: int = 1
    hysteresis: int = 0
    quorum_up: Script | None = None
    quorum_down: Script | None = None
    sorry_server: Endpoint | None = None
    sorry_server_inhibit: bool = False
    smtp_alert: bool = False
    real_servers: tuple[RealServer, ...] = ()

    @property
    def name(self) -> str:
        """The service as keepalived spells it in logs and mails."""
        return self.endpoint.spelled(self.protocol)
