"""The root of the model: one value for one configuration file and what it includes."""

from __future__ import annotations

import msgspec

from relevo.model.endpoint import Endpoint
from relevo.model.services import VirtualServer
from relevo.model.vrrp import SyncGroup, VrrpInstance


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """Where alerts go and by which server. ``security`` is ``none``, ``starttls`` or ``tls``."""

    recipients: tuple[str, ...] = ()
    sender: str = ""
    server: Endpoint | None = None
    connect_timeout_s: float = 30.0
    helo_name: str = ""
    security: str = "none"
    user: str = ""
    password_file: str = ""


class SyncDaemon(msgspec.Struct, frozen=True, kw_only=True):
    """Connection synchronisation: by ``interface``, in the role of VRRP ``instance`` (empty: both roles)."""

    interface: str
    instance: str = ""
    sync_id: int | None = None


class GlobalDefs(msgspec.Struct, frozen=True, kw_only=True):
    """``global_defs``: identity, alerts, limits and choices that hold for the whole daemon."""

    router_id: str = ""
    mail: Mail = Mail()
    no_email_faults: bool = False
    no_checker_emails: bool = False
    script_user: str = ""
    script_group: str = ""
    script_timeout_s: float = 60.0
    enable_script_security: bool = False
    plane: str = "auto"
    connection_table_size: int = 524_288
    ebpf_hooks: str = "auto"
    mh_table_size: int = 65_537
    lvs_sync_daemon: SyncDaemon | None = None
    vrrp_realtime_priority: int | None = None


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was declared."""

    global_defs: GlobalDefs = GlobalDefs()
    vrrp_instances: tuple[VrrpInstance, ...] = ()
    sync_groups: tuple[SyncGroup, ...] = ()
    virtual_servers: tuple[VirtualServer, ...] = ()
