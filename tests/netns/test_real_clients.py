"""Real clients for a few seconds each, by the ebpf and the proxy plane to real servers, in both families.

What is not installed is skipped by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

import pytest

from relevo.model import Endpoint, ServiceKey
from relevo.model import Protocol as Transport
from relevo.model.table import AddServer, AddService, Operation, ServerEntry, ServiceEntry
from relevo.planes.port import Refused
from tests.conftest import program
from tests.ebpf.rig import VIRTUAL, VIRTUAL_6, Network, running
from tests.netns.conftest import wait_until
from tests.unit.proxy.rig import Process

pytestmark = [pytest.mark.slow, pytest.mark.namespaces, pytest.mark.usefixtures("namespaces")]

families = pytest.mark.parametrize("family", [4, 6], ids=lambda family: f"IPv{family}")
SERVICE: Final = {4: VIRTUAL, 6: VIRTUAL_6}
SERVERS: Final = {4: ("10.2.0.11", "10.2.0.12"), 6: ("fd00:2::11", "fd00:2::12")}
WEB, TLS, DNS, IPERF = 80, 443, 53, 5201
PORTS: Final = {WEB: 8080, TLS: 8443, DNS: 5353, IPERF: 5201}
"""What clients ask for, and where servers are."""
NAME: Final = "www.example.org"
LARGE: Final = 32 << 20
SMALL: Final = 300
QUERIES: Final = 40
FIRST_CLIENT: Final = 20_000
"""Source port of the first query."""
LIMIT_S: Final = 60
"""Of one client: it takes two seconds, and ten on a busy machine."""

NGINX = """
{user} daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; default_type text/plain; keepalive_requests 1000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  ssl_certificate {folder}/certificate.pem; ssl_certificate_key {folder}/key.pem;
  server {{
    {listen}
    root {folder}/files;
    location /who {{ return 200 "$server_addr $request_uri\\n"; }}
    location /files/ {{ alias {folder}/files/; }}
  }}
}}
"""


class Table(Protocol):
    """A plane, as far as it matters here."""

    def apply(self, *operations: Operation) -> list[Refused]:
        """Change the table."""
        ...


def url(scheme: str, family: int, path: str) -> str:
    host = f"[{SERVICE[family]}]" if family == 6 else SERVICE[family]
    return f"{scheme}://{host}{path}"


class Clients:
    """The client's machine."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def run(self, name: str, *words: str, given: str = "") -> str:
        """Run an installed program; return what it says. It fails with what it reports."""
        command = [program(name), *words]
        with self._network.inside("client"):
            done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def curl(self, *words: str) -> str:
        return self.run("curl", "-sS", "--fail", "--noproxy", "*", *words)


@pytest.fixture(scope="module")
def network(namespace_refusal: str) -> Iterator[Network]:
    if namespace_refusal or os.geteuid() != 0:
        pytest.skip(namespace_refusal or "not root")
    made = Network()
    yield made
    made.close()


@contextlib.contextmanager
def on_proxy(network: Network, folder: Path) -> Iterator[Table]:
    with network.inside("director"):
        process = Process(folder)
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="module", params=["ebpf", "proxy"])
def plane(request: pytest.FixtureRequest, network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    """A plane with the services, two servers each; iperf3, whose connections belong together, has one."""
    if request.param == "ebpf":
        request.getfixturevalue("ebpf")
        opened: contextlib.AbstractContextManager[Table] = running(network, f"clients-{os.getpid()}")
    else:
        opened = on_proxy(network, tmp_path_factory.mktemp("proxy"))
    with opened as made:
        for family, virtual in SERVICE.items():
            for transport, port in (
                (Transport.TCP, WEB),
                (Transport.TCP, TLS),
                (Transport.UDP, DNS),
                (Transport.TCP, IPERF),
                (Transport.UDP, IPERF),
            ):
                key = ServiceKey(transport, Endpoint(virtual, port))
                addresses = SERVERS[family][:1] if port == IPERF else SERVERS[family]
                entries = [ServerEntry(endpoint=Endpoint(address, PORTS[port])) for address in addresses]
                added = [AddServer(key, entry) for entry in entries]
                assert made.apply(AddService(ServiceEntry(key=key, scheduler="rr")), *added) == []
        yield made


@pytest.fixture
def clients(network: Network, plane: Table) -> Clients:
    return Clients(network)


@contextlib.contextmanager
def serving(network: Network, command: list[str], port: int) -> Iterator[None]:
    """Run a server, which listens on ``port`` of every server's address, for the time of the context."""
    with network.inside("servers"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    try:
        wait_until(lambda: listens(network, port), 15, f"{command[0]} listens")
        yield
    finally:
        process.terminate()
        process.wait(timeout=15)


@pytest.fixture(scope="module")
def site(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """nginx, plain and with TLS, on every server's address; its folder."""
    nginx, openssl = program("nginx"), program("openssl")
    folder = tmp_path_factory.mktemp("site")
    (folder / "files").mkdir()
    (folder / "files" / "large").write_bytes(random.Random(6).randbytes(LARGE))
    names = ",".join([f"DNS:{NAME}", *(f"IP:{virtual}" for virtual in SERVICE.values())])
    request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    request += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    request += ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName={names}"]
    subprocess.run([openssl, *request], check=True, capture_output=True)
    places = [f"[{a}]" if ":" in a else a for addresses in SERVERS.values() for a in addresses]
    listen = "\n    ".join(f"listen {place}:{PORTS[WEB]}; listen {place}:{PORTS[TLS]} ssl;" for place in places)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX.format(user=user, folder=folder, listen=listen))
    command = [nginx, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    with serving(network, command, PORTS[TLS]):
        yield folder
    shutil.rmtree(folder / "files")


def served(folder: Path) -> Counter[str]:
    """How many answers each server gave, of those that curl wrote into a folder: which must be one for each number."""
    found: Counter[str] = Counter()
    for number in range(1, SMALL + 1):
        server, path = (folder / str(number)).read_text().split()
        assert path == f"/who/{number}"
        found[server] += 1
    return found


@families
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_curl_gets_a_large_file_byte_by_byte(clients: Clients, site: Path, tmp_path: Path, scheme: str, family: int) -> None:
    certificate = str(site / "certificate.pem")
    clients.curl("--http1.1", "--cacert", certificate, "-o", str(tmp_path / "got"), url(scheme, family, "/files/large"))
    assert (tmp_path / "got").read_bytes() == (site / "files" / "large").read_bytes()


@families
def test_curl_has_every_small_answer_and_servers_take_turns(clients: Clients, site: Path, tmp_path: Path, family: int) -> None:
    wanted = url("http", family, f"/who/[1-{SMALL}]")
    clients.curl("-Z", "--parallel-max", "20", "-H", "Connection: close", "-o", f"{tmp_path}/#1", wanted)
    assert served(tmp_path) == dict.fromkeys(SERVERS[family], SMALL // 2)


@families
def test_curl_keeps_one_connection_to_one_server(clients: Clients, site: Path, tmp_path: Path, family: int) -> None:
    clients.curl("-o", f"{tmp_path}/#1", url("http", family, f"/who/[1-{SMALL}]"))
    assert list(served(tmp_path).values()) == [SMALL]


@families
def test_openssl_verifies_the_server_behind_the_service(clients: Clients, site: Path, family: int) -> None:
    host = f"[{SERVICE[family]}]" if family == 6 else SERVICE[family]
    trust = ["-CAfile", str(site / "certificate.pem"), "-verify_return_error", "-verify_hostname", NAME]
    request = f"GET /who/tls HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n"
    said = clients.run("openssl", "s_client", "-connect", f"{host}:{TLS}", "-ign_eof", *trust, given=request)
    assert "Verify return code: 0 (ok)" in said
    assert any(f"{server} /who/tls" in said for server in SERVERS[family])


def answer_queries(sock: socket.socket, address: str) -> None:
    """Be a name server on a socket: every name has the address of the server itself."""
    octets = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    kind = 28 if ":" in address else 1
    with contextlib.suppress(OSError):
        while True:
            query, client = sock.recvfrom(4096)
            question = query[12 : query.index(0, 12) + 5]
            head = query[:2] + b"\x84\x00\x00\x01\x00\x01\x00\x00\x00\x00"
            record = b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\x00\x01\x00\x00\x00\x3c" + len(octets).to_bytes(2, "big") + octets
            sock.sendto(head + question + record, client)


@pytest.fixture(scope="module")
def name_servers(network: Network) -> Iterator[None]:
    opened = []
    for family, addresses in SERVERS.items():
        for address in addresses:
            sock = network.socket("servers", socket.SOCK_DGRAM, socket.AF_INET6 if family == 6 else socket.AF_INET)
            sock.settimeout(None)
            sock.bind((address, PORTS[DNS]))
            threading.Thread(target=answer_queries, args=(sock, address), daemon=True).start()
            opened.append(sock)
    yield
    for sock in opened:
        sock.close()


@families
@pytest.mark.usefixtures("name_servers")
def test_dig_has_an_answer_to_every_query(clients: Clients, family: int) -> None:
    kind = "AAAA" if family == 6 else "A"
    options = ["+noall", "+answer", "+noedns", "+tries=1", "+time=10"]
    names = [f"name-{number}.example.org" for number in range(QUERIES)]
    rows = []
    for number, name in enumerate(names):
        # Each from a port of its own: dig takes one at random, and the same one again is the same client, which keeps its server.
        source = f"{'::' if family == 6 else '0.0.0.0'}#{FIRST_CLIENT + number}"
        rows += [
            line.split() for line in clients.run("dig", "-b", source, f"@{SERVICE[family]}", *options, name, kind).splitlines()
        ]
    assert [row[0].rstrip(".") for row in rows] == names
    assert Counter(row[4] for row in rows) == dict.fromkeys(SERVERS[family], QUERIES // 2)


@pytest.fixture
def iperf(network: Network, plane: Table, family: int) -> Iterator[Callable[..., dict[str, dict[str, float]]]]:
    """A run of iperf3: what it sums up at its end. Its server answers datagrams from any address, unless it is bound to one."""
    command = [program("iperf3"), "-s", "-B", SERVERS[family][0], "-p", str(PORTS[IPERF])]

    def run(*words: str) -> dict[str, dict[str, float]]:
        said = json.loads(Clients(network).run("iperf3", "-c", SERVICE[family], "-p", str(IPERF), "-J", *words))
        assert "error" not in said, said["error"]
        ended: dict[str, dict[str, float]] = said["end"]
        return ended

    with network.inside("servers"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(network, PORTS[IPERF]), 15, "iperf3 listens")
        yield run
    finally:
        process.terminate()
        process.wait(timeout=15)


def listens(network: Network, port: int) -> bool:
    """Whether a server listens, without connecting to it: iperf3 would take that for its client."""
    with network.inside("servers"):
        tables = [Path(f"/proc/thread-self/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


@families
def test_iperf3_gets_bytes_and_sends_them(iperf: Callable[..., dict[str, dict[str, float]]], family: int) -> None:
    ended = iperf("-n", "32M", "-R")
    assert ended["sum_received"]["bytes"] >= 32 << 20
    ended = iperf("-n", "32M")
    assert ended["sum_sent"]["bytes"] >= 32 << 20
    assert ended["sum_received"]["bytes"] > 8 << 20, "all but what is under way when the client has sent enough"


@families
def test_iperf3_has_nearly_all_of_its_datagrams(iperf: Callable[..., dict[str, dict[str, float]]], family: int) -> None:
    ended = iperf("-u", "-b", "5M", "-l", "1200", "-t", "1")
    assert ended["sum"]["packets"] > 100
    assert ended["sum"]["lost_percent"] < 20, "a busy machine loses some"
