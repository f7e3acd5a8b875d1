"""The eBPF plane, with real packets between namespaces, keeps the rules of every plane."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from relevo.model import Endpoint, Forwarding
from relevo.model.table import Connection, ConnectionFilter, DeleteService, Operation, ServiceState
from relevo.planes.ebpf import EbpfPlane, forwarding
from relevo.planes.ebpf.instance import ROOT, remove_pins
from relevo.planes.port import Refused
from tests.conformance.packet_links import PacketAdapter
from tests.conformance.selftest import DATA, SelftestSuite, Stage
from tests.conformance.suite import PlaneSuite
from tests.ebpf.rig import SMALL, Network, Plane, Servers, running
from tests.unit.proxy.rig import wait_until

Result = TypeVar("Result")


class EbpfAdapter(PacketAdapter):
    """The plane of ``tests.ebpf.rig``."""

    def __init__(self, network: Network, plane: Plane, servers: Servers) -> None:
        super().__init__(network, servers)
        self.plane = plane

    def apply(self, *operations: Operation) -> list[Refused]:
        return self.plane.apply(*operations)

    def observe(self) -> list[ServiceState]:
        return self.plane.observe()

    def connections(self) -> list[Connection]:
        return self.plane.connections()

    def forget(self, client: Endpoint) -> None:
        self.plane.drop(ConnectionFilter(client=client.address, client_port=client.port))


@pytest.fixture(scope="module")
def network(ebpf: None) -> Iterator[Network]:
    made = Network()
    yield made
    made.close()


@pytest.fixture(scope="module")
def servers(network: Network) -> Iterator[Servers]:
    made = Servers(network)
    yield made
    made.close()


@pytest.fixture(scope="module")
def loaded(network: Network) -> Iterator[Plane]:
    with running(network, "conformance") as plane:
        yield plane


class TestEbpfPlane(PlaneSuite):
    """The suite on the kernel's own packets."""

    @pytest.fixture
    def plane(self, network: Network, loaded: Plane, servers: Servers) -> Iterator[EbpfAdapter]:
        adapter = EbpfAdapter(network, loaded, servers)
        yield adapter
        for link in adapter.links:
            link.socket.close()
        servers.release()
        loaded.apply(*(DeleteService(state.service.key) for state in loaded.observe()))
        loaded.drop(ConnectionFilter())
        wait_until(lambda: not loaded.connections(), "the table is empty")


class Director:
    """A plane in the director of a stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        path = ROOT / "relevo" / f"selftest-{os.getpid()}"
        remove_pins(path)
        self.plane = EbpfPlane(path, SMALL)
        self.run(self.plane.observe)

    def run(self, call: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        with self._stage.inside("director"):
            return asyncio.run(call())

    def apply(self, *operations: Operation) -> list[Refused]:
        return self.run(lambda: self.plane.apply(operations))

    def lo_forwards(self) -> list[str]:
        """The switches of ``lo``, IPv4's first."""
        with self._stage.inside("director"):
            return [Path(f"/proc/sys/net/ipv{family}/conf/lo/forwarding").read_text().strip() for family in (4, 6)]

    def events(self) -> list[str]:
        """What has been told since the last call, if something is lost by it."""
        return [notice.text for notice in self.plane.events() if notice.grave]


@pytest.mark.usefixtures("ebpf")
class TestEbpfSelftest(SelftestSuite):
    """The kernel's scenarios; this plane needs no forwarding for any of them."""

    @pytest.fixture
    def director(self, stage: Stage) -> Iterator[Director]:
        made = Director(stage)
        yield made
        made.run(made.plane.remove)

    @pytest.fixture
    def apply(self, director: Director) -> Callable[..., list[Refused]]:
        return director.apply

    @pytest.mark.parametrize("forwarding", [0, 1])
    def test_lo_forwards_for_the_families_in_use_and_as_before_afterwards(
        self, stage: Stage, director: Director, forwarding: int
    ) -> None:
        before = [str(forwarding)] * 2
        stage.forward(forwarding)
        self.serve(director.apply, 4, Forwarding.NAT)
        assert director.lo_forwards() == ["1", before[1]]
        self.serve(director.apply, 6, Forwarding.NAT)
        assert director.lo_forwards() == ["1", "1"]
        director.run(director.plane.remove)
        assert director.lo_forwards() == before

    def test_forwarding_that_is_switched_off_later_is_noticed(self, stage: Stage, director: Director) -> None:
        stage.forward(1)
        stage.share_the_virtual_address()
        self.serve(director.apply, 4, Forwarding.DR)
        stage.forward(0)
        director.run(director.plane.observe)  # as the daemon does every few seconds
        assert stage.send(4) == DATA

    def test_a_route_that_a_router_advertised_is_not_given_up_for_it(self, stage: Stage, director: Director) -> None:
        """The kernel deletes such routes when anything at all begins to forward IPv6."""
        stage.forward(0)
        with stage.inside("director"):
            advertise("veth10", "fd00:a::9")
        self.serve(director.apply, 6, Forwarding.NAT)
        (notice,) = director.events()
        assert "would delete the routes that routers advertise on veth10" in notice
        assert director.lo_forwards() == ["0", "0"]
        director.run(director.plane.observe)
        assert director.events() == [], "it is told once"
        stage.switch("director", "ipv6/conf/veth10/accept_ra", 2)
        director.run(director.plane.observe)
        assert director.lo_forwards() == ["0", "1"]
        with stage.inside("director"):
            assert "veth10" in [line.split()[-1] for line in Path("/proc/thread-self/net/ipv6_route").read_text().splitlines()]
            assert forwarding.advertised_route() == ""


def advertise(interface: str, gateway: str) -> None:
    """Enter a default route as if a router had advertised it: netlink cannot say so, the older ioctl can."""
    add_route, up, by_gateway = 0x890B, 0x1, 0x2
    flags = up | by_gateway | forwarding.RTF_DEFAULT | forwarding.RTF_ADDRCONF
    request = struct.pack(
        "16s16s16sIHHIQIi",
        bytes(16),
        bytes(16),
        socket.inet_pton(socket.AF_INET6, gateway),
        0,
        0,
        0,
        1024,
        0,
        flags,
        socket.if_nametoindex(interface),
    )
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, add_route, request)
