"""The conformance suite on the kernel's IPVS, where the kernel has it; ``tests/uml`` runs it in a kernel of its own."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from relevo.errors import PlaneError
from relevo.model import Endpoint, PlaneTimeouts, Sysctl
from relevo.model.table import Connection, ConnectionFilter, DeleteService, Operation, ServiceState
from relevo.planes.ipvs import IpvsPlane, unavailable_reason
from relevo.planes.ipvs.convert import METHODS, PROTOCOLS
from relevo.planes.port import Refused
from relevo.wire import ipvs_sync
from relevo.wire.ipvs_netlink import Daemon, DaemonState
from tests.conformance.packet_links import PacketAdapter
from tests.conformance.selftest import SelftestSuite, Stage
from tests.conformance.suite import Lack, PlaneSuite
from tests.ebpf.rig import Network, Servers

if unavailable_reason():
    pytest.skip(unavailable_reason(), allow_module_level=True)

Result = TypeVar("Result")
STATES = {"ESTABLISHED": 1, "FIN_WAIT": 4, "TIME_WAIT": 5, "CLOSE": 6, "CLOSE_WAIT": 7}


class IpvsAdapter(PacketAdapter):
    """IPVS of the director's namespace."""

    lacks: ClassVar[dict[Lack, str]] = {
        Lack.REFUSAL_COUNTS: "the kernel does not count them",
        Lack.OVERLOAD_FLAG: "the kernel checks thresholds when connections begin and end, and does not report overload",
        Lack.BRIEF_TEMPLATES: "a template whose connections live gets another minute",
        Lack.FORGETTING: "templates live until their time is over",
    }

    def __init__(self, network: Network, plane: IpvsPlane, servers: Servers) -> None:
        super().__init__(network, servers)
        self.plane = plane

    def _run(self, call: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        with self.network.inside("director"):
            return asyncio.run(call())

    def apply(self, *operations: Operation) -> list[Refused]:
        return self._run(lambda: self.plane.apply(operations))

    def observe(self) -> list[ServiceState]:
        return self._run(self.plane.observe)

    def connections(self) -> list[Connection]:
        return self._run(self.plane.connections)

    def settle(self) -> None:
        time.sleep(2.2)  # the kernel brings its counters up to date every two seconds, or later if it is busy
        before = None
        while before != (before := self.observe()):
            time.sleep(2.2)

    def forget(self, client: Endpoint) -> None:
        self.expel(lambda connection: connection.client == client)

    def expel(self, matches: Callable[[Connection], bool]) -> None:
        """Make connections expire, again if a late packet has restarted their time-out."""
        for _ in range(5):
            left = [connection for connection in self.connections() if matches(connection)]
            if not left:
                return
            self.let_expire(left)
            time.sleep(1.2)
        raise AssertionError(f"not expired: {left}")

    def let_expire(self, ended: list[Connection]) -> None:
        """Send the kernel's backup daemon connections with one second left: there is no other way to drop one."""
        entries = [ipvs_sync.encode(_expiring(connection)) for connection in ended]
        with self.network.inside("servers"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.2.0.11"))
            for message in ipvs_sync.assemble(1, entries):
                sender.sendto(message, (ipvs_sync.GROUP, ipvs_sync.PORT))


def _expiring(connection: Connection) -> ipvs_sync.Entry:
    return ipvs_sync.Entry(
        protocol=PROTOCOLS[connection.protocol],
        client=ip_address(connection.client.address).packed,
        client_port=connection.client.port,
        virtual=ip_address(connection.virtual.address).packed,
        virtual_port=connection.virtual.port,
        server=ip_address(connection.server.address).packed,
        server_port=connection.server.port,
        state=0 if connection.template or connection.protocol == "UDP" else STATES.get(connection.state, 6),
        flags=ipvs_sync.INACTIVE | (ipvs_sync.TEMPLATE if connection.template else 0) | METHODS["NAT"],  # type: ignore[index]
        seconds=1,
    )


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    made = Network()
    yield made
    made.close()


@pytest.fixture(scope="module")
def servers(network: Network) -> Iterator[Servers]:
    made = Servers(network)
    yield made
    made.close()


@pytest.fixture(scope="module")
def kernel(network: Network) -> Iterator[IpvsPlane]:
    plane = IpvsPlane()
    with network.inside("director"):
        asyncio.run(plane.observe())
        assert plane._kernel is not None
        plane._kernel.start_daemon(Daemon(state=DaemonState.BACKUP, interface="inside", sync_id=1))
        Path("/proc/sys/net/ipv4/vs/expire_nodest_conn").write_text("1")
    yield plane
    with network.inside("director"):
        plane._kernel.stop_daemon(DaemonState.BACKUP)
        asyncio.run(plane.close())


class TestIpvsPlane(PlaneSuite):
    """The suite on the kernel's own table."""

    @pytest.fixture
    def plane(self, network: Network, kernel: IpvsPlane, servers: Servers) -> Iterator[IpvsAdapter]:
        adapter = IpvsAdapter(network, kernel, servers)
        yield adapter
        for link in adapter.links:
            link.socket.close()
        servers.release()
        adapter.apply(*(DeleteService(state.service.key) for state in adapter.observe()))
        adapter.expel(lambda connection: True)

    def test_dropping_connections_is_a_plane_error(self, plane: IpvsAdapter) -> None:
        with pytest.raises(PlaneError, match="cannot drop connections"):
            plane._run(lambda: plane.plane.drop(ConnectionFilter()))

    def test_sysctls_are_written_where_this_kernel_has_them(self, plane: IpvsAdapter) -> None:
        file = Path("/proc/sys/net/ipv4/vs/sync_threshold")
        wanted = [Sysctl("sync_threshold", (2, 90)), Sysctl("no_such", (1,))]
        held = []
        for sysctls in (wanted, [Sysctl("sync_threshold", (4, 90))], []):
            refused = plane._run(lambda sysctls=sysctls: plane.plane.set_sysctls(sysctls))
            with plane.network.inside("director"):
                held.append((file.read_text().split(), refused))
        assert held == [
            (["2", "90"], ["this kernel has no net.ipv4.vs.no_such"]),
            (["4", "90"], []),
            (["3", "50"], []),
        ], "a sysctl that is no longer wanted has its former value"

    def test_time_outs_are_changed_one_at_a_time(self, plane: IpvsAdapter) -> None:
        before = plane._run(plane.plane.settings)
        plane._run(lambda: plane.plane.set_timeouts(PlaneTimeouts(udp_s=77)))
        after = plane._run(plane.plane.settings)
        plane._run(lambda: plane.plane.set_timeouts(before.timeouts))
        assert (after.timeouts.tcp_s, after.timeouts.tcp_fin_s, after.timeouts.udp_s) == (900, 120, 77)
        assert after.table_size == before.table_size > 0


class TestIpvsSelftest(SelftestSuite):
    """The scenarios on the kernel's own table."""

    nat_needs_forwarding = True

    @pytest.fixture
    def apply(self, stage: Stage) -> Iterator[Callable[..., list[Refused]]]:
        plane = IpvsPlane()

        def change(*operations: Operation) -> list[Refused]:
            with stage.inside("director"):
                return asyncio.run(plane.apply(operations))

        yield change
        with stage.inside("director"):
            asyncio.run(plane.close())
