"""The plane with real traffic between namespaces: every forwarding method, both families, and what a client of the servers'
own network meets.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relevo.lab.namespaces import index_of, netlink
from relevo.model import Endpoint, Forwarding, Protocol, ServiceKey
from relevo.model.table import AddServer, AddService, ConnectionFilter, DeleteService, EditServer, ServerEntry, ServiceEntry
from relevo.wire.traffic_control import INGRESS
from tests.ebpf.rig import PORT, VIRTUAL, VIRTUAL_6, Network, Plane, Servers, marker, protocol_kind, running

pytestmark = pytest.mark.usefixtures("ebpf")


@pytest.fixture(scope="module")
def network(ebpf: None) -> Iterator[Network]:
    made = Network()
    yield made
    made.close()


@pytest.fixture(scope="module")
def servers(network: Network) -> Iterator[Servers]:
    made = Servers(network)
    made.serve("A", Endpoint("fd00:2::11", PORT))
    made.serve("B", Endpoint("fd00:2::12", PORT))
    yield made
    made.close()


@pytest.fixture(scope="module")
def loaded(network: Network) -> Iterator[Plane]:
    with running(network, "traffic") as plane:
        yield plane


@pytest.fixture
def plane(loaded: Plane) -> Iterator[Plane]:
    yield loaded
    loaded.apply(*(DeleteService(state.service.key) for state in loaded.observe()))
    loaded.drop(ConnectionFilter())


def serve(plane: Plane, key: ServiceKey, *servers: ServerEntry) -> None:
    assert plane.apply(AddService(ServiceEntry(key=key, scheduler="rr")), *(AddServer(key, server) for server in servers)) == []


def ask(network: Network, space: str, key: ServiceKey, size: int = 0) -> str:
    """Connect, exchange ``size`` bytes, and return what the server said: its name and the address it saw."""
    family = socket.AF_INET6 if ":" in key.endpoint.address else socket.AF_INET
    with network.socket(space, protocol_kind(key.protocol), family) as sock:
        sock.connect((key.endpoint.address, key.endpoint.port))
        if key.protocol is Protocol.UDP:
            sock.send(b"x" * size)
            return sock.recv(65_535).partition(b"\n")[0].decode()
        reader = sock.makefile("rb")
        said = reader.readline().decode().strip()
        sock.sendall(b"x" * size)
        assert reader.read(size) == b"x" * size
        return said


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
@pytest.mark.parametrize(
    ("virtual", "server", "client"),
    [(VIRTUAL, "10.2.0.11", "10.1.0.2"), (VIRTUAL_6, "fd00:2::11", "fd00:1::2")],
    ids=["v4", "v6"],
)
@pytest.mark.parametrize("forwarding", [Forwarding.NAT, Forwarding.FULLNAT])
def test_translated_connections_carry_bytes_and_show_the_client_or_the_director(
    network: Network,
    plane: Plane,
    servers: Servers,
    protocol: Protocol,
    virtual: str,
    server: str,
    client: str,
    forwarding: Forwarding,
) -> None:
    key = ServiceKey(protocol, Endpoint(virtual, 90))
    serve(plane, key, ServerEntry(endpoint=Endpoint(server, PORT), forwarding=forwarding))
    seen = client if forwarding is Forwarding.NAT else server.rsplit(".", 1)[0] + ".1" if "." in server else "fd00:2::1"
    for size in (1, 1000, 200_000 if protocol is Protocol.TCP else 1200):
        assert ask(network, "client", key, size) == f"A {seen}"


def test_direct_routing_reaches_a_server_that_has_the_virtual_address_itself(network: Network, plane: Plane) -> None:
    with network.inside("servers"), netlink() as ip:
        for name, value in (("arp_ignore", "1"), ("arp_announce", "2")):
            Path(f"/proc/sys/net/ipv4/conf/all/{name}").write_text(value)
        ip.addr("add", index=index_of(ip, "lo"), address=VIRTUAL, prefixlen=32)
        ip.route("add", dst="10.1.0.2/32", gateway="10.3.0.1")  # answers go straight to the client
    own = Servers(network, addresses={"D": VIRTUAL})
    try:
        for protocol in (Protocol.TCP, Protocol.UDP):
            key = ServiceKey(protocol, Endpoint(VIRTUAL, PORT))
            serve(plane, key, ServerEntry(endpoint=Endpoint("10.2.0.14", PORT), forwarding=Forwarding.DR))
            assert ask(network, "client", key, 1000) == "D 10.1.0.2"
    finally:
        own.close()
        with network.inside("servers"), netlink() as ip:
            ip.addr("del", index=index_of(ip, "lo"), address=VIRTUAL, prefixlen=32)
            ip.route("del", dst="10.1.0.2/32", gateway="10.3.0.1")


def test_a_client_on_the_servers_own_network_is_served_by_fullnat_and_not_by_nat(
    network: Network, plane: Plane, servers: Servers
) -> None:
    with network.inside("director"), netlink() as ip:
        ip.addr("add", index=index_of(ip, "inside"), address="10.2.0.240", prefixlen=32)
    virtual = Endpoint("10.2.0.240", 91)
    key = ServiceKey(Protocol.TCP, virtual)
    entry = ServerEntry(endpoint=Endpoint("10.2.0.11", PORT), forwarding=Forwarding.FULLNAT)
    try:
        serve(plane, key, entry)
        assert ask(network, "neighbour", key, 1000) == "A 10.2.0.1"
        assert plane.apply(EditServer(key, ServerEntry(endpoint=entry.endpoint, forwarding=Forwarding.NAT))) == []
        with network.socket("neighbour") as sock:
            sock.settimeout(1.0)
            with pytest.raises(TimeoutError):
                sock.connect((virtual.address, virtual.port))
    finally:
        with network.inside("director"), netlink() as ip:
            ip.addr("del", index=index_of(ip, "inside"), address="10.2.0.240", prefixlen=32)


def test_check_says_that_nat_fails_for_clients_of_the_servers_network(network: Network, tmp_path: Path) -> None:
    file = tmp_path / "relevo.conf"
    text = "virtual_server 10.2.0.240 80 {{\n protocol TCP\n lb_kind {kind}\n real_server 10.2.0.11 80 {{\n }}\n}}\n"
    found = {}
    for kind in ("NAT", "FULLNAT"):
        file.write_text(text.format(kind=kind))
        with network.inside("director"):
            done = subprocess.run(
                [sys.executable, "-m", "relevo", "check", "-j", str(file)],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        found[kind] = [f["message"] for f in json.loads(done.stdout)]
    assert any("on the virtual server's own network 10.2.0.0/24" in message for message in found["NAT"])
    assert not any("own network" in message for message in found["FULLNAT"])


def test_a_closed_plane_forwards_on_and_is_adopted_with_connections_and_counters(network: Network, servers: Servers) -> None:
    key = ServiceKey(Protocol.TCP, Endpoint(VIRTUAL, 92))
    with running(network, "survivor") as first:
        serve(
            first,
            key,
            ServerEntry(endpoint=Endpoint("10.2.0.11", PORT)),
            ServerEntry(endpoint=Endpoint("10.2.0.12", PORT), weight=3),
        )
        with network.socket("client") as sock:
            sock.connect((VIRTUAL, 92))
            assert sock.recv(100).startswith(b"B ")
            before = first.observe()
            first._run(first.plane.close)
            sock.sendall(b"while the daemon is down")
            assert sock.recv(100) == b"while the daemon is down"
            second = Plane(network, "survivor")
            after = second.observe()
            assert [s.service for s in after] == [s.service for s in before]
            assert [s.server for s in after[0].servers] == [s.server for s in before[0].servers]
            assert after[0].servers[1].active == 1
            assert after[0].traffic.bytes_in > before[0].traffic.bytes_in
            assert [c.state for c in second.connections()] == ["ESTABLISHED"]
            sock.sendall(b"and now")
            assert sock.recv(100) == b"and now"
        second._run(second.plane.close)


def test_pins_of_another_layout_are_replaced(network: Network) -> None:
    with running(network, "layout") as former:
        instance, _ = former.plane.open()
        instance.settings.version = 999
        former._run(former.plane.close)
        fresh = Plane(network, "layout")
        assert fresh.observe() == []
        assert not fresh.plane.open()[0].adopted


def test_without_privilege_the_reason_is_named() -> None:
    code = (
        "from relevo.host import libc; libc.keep_capabilities(frozenset());"
        "from relevo.planes.ebpf import unavailable_reason; print(unavailable_reason())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=dict(os.environ)
    )
    assert "CAP_BPF" in done.stdout


def test_a_mark_that_a_filter_set_finds_its_service(network: Network, servers: Servers) -> None:
    """With a firewall-mark service the program runs after other filters, whatever was attached before."""
    program = marker(5)
    try:
        with running(network, "marks") as plane:
            with network.inside("director"), netlink() as ip:
                outside = index_of(ip, "outside")
            before = attached(plane)
            anyone = ServiceKey.of_mark(5)
            serve(plane, anyone, ServerEntry(endpoint=Endpoint("10.2.0.11", PORT)))
            plane.observe()
            assert attached(plane) == {"tc"}
            with network.inside("director"), netlink() as ip:
                ip.tc(
                    "add-filter",
                    "bpf",
                    outside,
                    parent=INGRESS,
                    prio=1,
                    fd=program,
                    name="mark",
                    classid=1,
                    direct_action=True,
                )
            address = ServiceKey(Protocol.TCP, Endpoint("10.5.5.5", 99))
            assert ask(network, "client", address, 1000) == "A 10.1.0.2"
            assert before == ({"tcx"} if has_tcx() else {"tc"})
    finally:
        os.close(program)
        with network.inside("director"), netlink() as ip:
            ip.tc("del", "clsact", index_of(ip, "outside"))


@pytest.mark.parametrize(("virtual", "own"), [(VIRTUAL, "10.2.0.1"), (VIRTUAL_6, "fd00:2::1")], ids=["v4", "v6"])
def test_a_server_on_this_node_may_have_an_address_and_port_of_its_own(
    network: Network, plane: Plane, servers: Servers, virtual: str, own: str
) -> None:
    """As IPVS serves a local server by NAT; here the socket that listens there gets the client's first segment."""
    family = socket.AF_INET6 if ":" in own else socket.AF_INET
    key = ServiceKey(Protocol.TCP, Endpoint(virtual, 95))
    with network.socket("director", family=family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((own, 9000))
        listener.listen()
        plane.observe()  # without TCX, a plane of another test may have taken the filter's place
        serve(plane, key, ServerEntry(endpoint=Endpoint(own, 9000)))
        with network.socket("client", family=family) as client:
            client.connect((virtual, 95))
            accepted, peer = listener.accept()
            with accepted:
                assert peer[:2] == client.getsockname()[:2]
                client.sendall(b"question")
                assert accepted.recv(100) == b"question"
                accepted.sendall(b"x" * 100_000)
                with client.makefile("rb") as reader:
                    assert len(reader.read(100_000)) == 100_000
                (shown,) = plane.connections()
                assert (shown.state, shown.server) == ("ESTABLISHED", Endpoint(own, 9000))
                (state,) = plane.observe()
                assert (state.servers[0].active, state.servers[0].traffic.connections) == (1, 1)
                assert state.servers[0].traffic.bytes_in > 100
    serve_again = plane.connections()
    assert [each.state for each in serve_again] in (["FIN_WAIT"], ["TIME_WAIT"], ["CLOSE"])


def attached(plane: Plane) -> set[str]:
    """The TC hooks that are in use."""
    return {word for note in plane.plane.attachments() for word in note.split(": ")[1].split(" (")[0].split(" and ")} - {"xdp"}


def has_tcx() -> bool:
    return tuple(int(part) for part in platform.release().split(".")[:2]) >= (6, 6)
