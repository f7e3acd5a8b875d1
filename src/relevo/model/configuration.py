"""The root of the model: the value of one configuration file with its includes."""

from __future__ import annotations

import msgspec

from relevo.model.endpoint import Endpoint
from relevo.model.process import NotifyFifos, Processes, ReloadSettings
from relevo.model.services import VirtualServer
from relevo.model.sysctls import Sysctl
from relevo.model.trackers import Trackers
from relevo.model.vrrp import SyncGroup, VrrpInstance


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """Recipients of alerts, and the mail server. ``security`` is ``none``, ``starttls`` or ``tls``."""

    recipients: tuple[str, ...] = ()
    sender: str = ""
    server: Endpoint | None = None
    connect_timeout_s: float = 30.0
    helo_name: str = ""
    security: str = "none"
    user: str = ""
    password_file: str = ""


class SyncDaemon(msgspec.Struct, frozen=True, kw_only=True):
    """Connection synchronisation over ``interface``. VRRP ``instance`` decides the role; without one the node has both roles.

    ``sync_id`` ``None`` means the instance's virtual router id. ``max_length`` 0 fits an Ethernet frame. With ``peers``,
    messages go to those addresses instead of ``group``. The key in ``key_file`` authenticates messages; only Relevo's directors
    understand them.
    """

    interface: str
    instance: str = ""
    sync_id: int | None = None
    max_length: int = 0
    port: int = 8848
    ttl: int = 1
    group: str = "224.0.0.81"
    peers: tuple[str, ...] = ()
    key_file: str = ""


class PlaneTimeouts(msgspec.Struct, frozen=True):
    """Idle time-outs in seconds of TCP connections, of TCP after a FIN, and of UDP; 0 keeps the plane's default."""

    tcp_s: int = 0
    tcp_fin_s: int = 0
    udp_s: int = 0

    def in_place_of(self, former: PlaneTimeouts) -> PlaneTimeouts:
        """Return what to set after ``former``: a time-out that is no longer declared gets IPVS's default."""
        declared = zip(self.__struct_fields__, (900, 120, 300), strict=True)
        return PlaneTimeouts(*(getattr(self, name) or (own if getattr(former, name) else 0) for name, own in declared))


class Firewall(msgspec.Struct, frozen=True):
    """The nftables table of ``no_accept`` instances, its priority, and whether its rules count."""

    table: str = "relevo"
    priority: int = -1
    counters: bool = False


class GlobalDefs(msgspec.Struct, frozen=True, kw_only=True):
    """``global_defs``: identity, alerts, limits and choices of the whole daemon."""

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
    lvs_timeouts: PlaneTimeouts = PlaneTimeouts()
    lvs_sysctls: tuple[Sysctl, ...] = ()
    lvs_flush: bool = False
    lvs_flush_on_stop: bool = False
    processes: Processes = Processes()
    fifos: NotifyFifos = NotifyFifos()
    reload: ReloadSettings = ReloadSettings()
    rs_init_notifies: bool = False
    log_unknown_vrids: bool = False
    vrrp_startup_delay_s: float = 0.0
    vrrp_delay_after_boot_s: float = 0.0
    firewall: Firewall = Firewall()


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    global_defs: GlobalDefs = GlobalDefs()
    vrrp_instances: tuple[VrrpInstance, ...] = ()
    sync_groups: tuple[SyncGroup, ...] = ()
    trackers: Trackers = Trackers()
    virtual_servers: tuple[VirtualServer, ...] = ()

    def key_files(self) -> tuple[str, ...]:
        """Return the files in which keys are."""
        daemon = self.global_defs.lvs_sync_daemon
        return (daemon.key_file,) if daemon is not None and daemon.key_file else ()
