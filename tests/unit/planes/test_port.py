import pytest

from relevo.model import (
    Configuration,
    Endpoint,
    Forwarding,
    GlobalDefs,
    Protocol,
    RealServer,
    SyncDaemon,
    Tunnel,
    TunnelChecksum,
    TunnelKind,
    VirtualServer,
)
from relevo.planes.ebpf import capabilities_of_ebpf
from relevo.planes.port import Capabilities, shortcomings
from relevo.planes.table import capabilities_of_user_space

PLANE = capabilities_of_user_space("proxy")
NAME = "[192.0.2.1]:tcp:80"


def configuration(*, port=80, protocol=Protocol.TCP, forwarding=(), daemon=None, **changes):
    servers = tuple(
        RealServer(endpoint=Endpoint(f"10.0.0.{number}", 80), forwarding=kind) for number, kind in enumerate(forwarding)
    )
    service = VirtualServer(endpoint=Endpoint("192.0.2.1", port), protocol=protocol, real_servers=servers, **changes)
    return Configuration(global_defs=GlobalDefs(lvs_sync_daemon=daemon), virtual_servers=(service,))


@pytest.mark.parametrize("scheduler", ["rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "sh", "mh"])
def test_a_supported_configuration_has_no_shortcomings(scheduler):
    for protocol in (Protocol.TCP, Protocol.UDP):
        assert shortcomings(configuration(scheduler=scheduler, protocol=protocol, forwarding=(Forwarding.NAT,)), PLANE) == []


def test_an_empty_configuration_has_no_shortcomings():
    assert shortcomings(Configuration(), PLANE) == []


@pytest.mark.parametrize(
    ("changes", "keyword", "messages"),
    [
        ({"scheduler": "dh"}, "lb_algo", [f"{NAME}: data plane 'proxy' has no scheduler 'dh'"]),
        ({"port": 0}, "virtual_server", ["[192.0.2.1]:tcp:0: data plane 'proxy' cannot serve every port"]),
        (
            {"forwarding": (Forwarding.TUN, Forwarding.DR, Forwarding.DR, Forwarding.NAT)},
            "lb_kind",
            [f"{NAME}: data plane 'proxy' cannot forward by DR", f"{NAME}: data plane 'proxy' cannot forward by TUN"],
        ),
        ({"mark": 4}, "virtual_server", ["FWM 4: data plane 'proxy' does not see firewall marks"]),
        ({"one_packet": True}, "ops", [f"{NAME}: data plane 'proxy' keeps a session for every client: ops has no effect"]),
        ({"daemon": SyncDaemon(interface="eth0")}, "lvs_sync_daemon", ["connection synchronisation has no effect"]),
    ],
)
def test_each_shortcoming_is_reported_once_with_its_keyword_and_a_hint(changes, keyword, messages):
    found = shortcomings(configuration(**changes), PLANE)
    assert [item.keyword for item in found] == [keyword] * len(messages)
    assert all(item.message.startswith(message) and item.hint for item, message in zip(found, messages, strict=True))


def test_a_transport_that_a_plane_does_not_carry_is_named():
    able = Capabilities(
        name="tiny",
        transports=frozenset({Protocol.TCP}),
        schedulers=frozenset({"wlc"}),
        forwarding=frozenset({Forwarding.NAT}),
        survives_daemon=True,
        any_port=True,
        marks=True,
        one_packet=True,
        tunnels=frozenset(TunnelKind),
        keeps_connections=True,
    )
    asked = configuration(protocol=Protocol.UDP, port=0, daemon=SyncDaemon(interface="eth0"))
    [found] = shortcomings(asked, able)
    assert (found.keyword, found.message) == ("protocol", "[192.0.2.1]:udp:0: data plane 'tiny' does not carry UDP")


@pytest.mark.parametrize(
    ("tunnel", "formatted"),
    [
        (Tunnel(), ""),
        (Tunnel(TunnelKind.GUE, 6080), ""),
        (Tunnel(TunnelKind.GUE, 6080, TunnelChecksum.REMOTE), "gue with remcsum"),
        (Tunnel(TunnelKind.GRE), "gre"),
    ],
)
def test_a_tunnel_that_a_plane_lacks_is_named(tunnel, formatted):
    server = RealServer(endpoint=Endpoint("10.0.0.1", 80), forwarding=Forwarding.TUN, tunnel=tunnel)
    service = VirtualServer(endpoint=Endpoint("192.0.2.1", 80), protocol=Protocol.TCP, real_servers=(server,))
    expected = [f"{NAME}: data plane 'ebpf' has no tunnel of type {formatted}: its servers are left out"] if formatted else []
    assert [each.message for each in shortcomings(Configuration(virtual_servers=(service,)), capabilities_of_ebpf())] == expected
