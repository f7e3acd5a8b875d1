"""The configuration as frozen values.

The model has no files, no source positions and no running state. A unit is the last part of a name (``_s``: seconds).
"""

from relevo.model.checks import Check, HttpCheck, TcpCheck, Url
from relevo.model.configuration import Configuration, GlobalDefs, Mail, PlaneTimeouts, SyncDaemon
from relevo.model.endpoint import Endpoint, Protocol
from relevo.model.script import Script
from relevo.model.services import (
    Forwarding,
    RealServer,
    ServerMode,
    ServerOrder,
    ServiceKey,
    Tunnel,
    TunnelChecksum,
    TunnelKind,
    VirtualServer,
)
from relevo.model.sysctls import Sysctl
from relevo.model.trackers import ParameterMatch, Tracked, TrackerKind, Trackers, TrackFile, TrackProcess, VrrpScript
from relevo.model.vrrp import (
    Authentication,
    AuthenticationType,
    GarpPolicy,
    SyncGroup,
    VirtualAddress,
    VrrpInstance,
    VrrpNotify,
    VrrpTransport,
)

__all__ = [
    "Authentication",
    "AuthenticationType",
    "Check",
    "Configuration",
    "Endpoint",
    "Forwarding",
    "GarpPolicy",
    "GlobalDefs",
    "HttpCheck",
    "Mail",
    "ParameterMatch",
    "PlaneTimeouts",
    "Protocol",
    "RealServer",
    "Script",
    "ServerMode",
    "ServerOrder",
    "ServiceKey",
    "SyncDaemon",
    "SyncGroup",
    "Sysctl",
    "TcpCheck",
    "TrackFile",
    "TrackProcess",
    "Tracked",
    "TrackerKind",
    "Trackers",
    "Tunnel",
    "TunnelChecksum",
    "TunnelKind",
    "Url",
    "VirtualAddress",
    "VirtualServer",
    "VrrpInstance",
    "VrrpNotify",
    "VrrpScript",
    "VrrpTransport",
]
