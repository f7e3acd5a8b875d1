"""client — director — two nginx, each pair of neighbours on a separate network; VIP 10.1.0.240 on the director."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from relevo.lab.namespaces import NetworkNamespaces, await_carrier, bring_up, index_of, netlink

VIP = "10.1.0.240"
SERVERS = ("10.2.1.11", "10.2.2.11")
DIRECT = 8081
"""Second port of the servers, for the paths that bypass the balancer: it must not translate their answers."""
THIRD = 8082
BIG = 1_000_000_000


def program(name: str) -> str | None:
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


class Rig:
    """Four network namespaces, and the programs that run in them."""

    def __init__(self, big: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="relevo-bench-"))
        self._namespaces = NetworkNamespaces()
        self.inside = self._namespaces.inside
        self._running: list[subprocess.Popen[bytes]] = []
        for name in ("client", "director", "server-1", "server-2"):
            self._namespaces.make(name)
        self._join("client", "director", "10.1.0.2", "10.1.0.1", "c0")
        with self.inside("director"), netlink() as ip:
            ip.addr("add", index=index_of(ip, "c0d"), address=VIP, prefixlen=32)
        for number, address in enumerate(SERVERS, 1):
            self._join(f"server-{number}", "director", address, f"10.2.{number}.1", f"s{number}")
        if big:
            with open(self.folder / "big", "wb") as file:
                block = os.urandom(1_000_000)
                for _ in range(BIG // len(block)):
                    file.write(block)

    def _join(self, host: str, router: str, address: str, gateway: str, name: str) -> None:
        with self.inside(router), netlink() as ip:
            bring_up(ip, "lo")
            ip.link("add", ifname=f"{name}d", kind="veth", peer={"ifname": name, "net_ns_pid": self._namespaces.holder(host)})
            ip.addr("add", index=index_of(ip, f"{name}d"), address=gateway, prefixlen=24)
            bring_up(ip, f"{name}d")
        with self.inside(host), netlink() as ip:
            bring_up(ip, "lo")
            ip.addr("add", index=index_of(ip, name), address=address, prefixlen=24)
            bring_up(ip, name)
            await_carrier(ip, name)
            ip.route("add", dst="0.0.0.0/0", gateway=gateway)

    def start(self, where: str, argv: list[str]) -> subprocess.Popen[bytes]:
        with self.inside(where):
            process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        self._running.append(process)
        return process

    def ask(self, where: str, argv: list[str], timeout: float = 120.0) -> str:
        with self.inside(where):
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return process.communicate(timeout=timeout)[0]

    def end(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._running.remove(process)

    def start_nginx(self) -> None:
        for number, address in enumerate(SERVERS, 1):
            folder = self.folder / f"nginx-{number}"
            folder.mkdir()
            (self.folder / "index.html").write_text("hello\n")
            listens = " ".join(f"listen {address}:{port} backlog=4096;" for port in (80, DIRECT, THIRD))
            user = "user root;" if os.geteuid() == 0 else ""
            (folder / "nginx.conf").write_text(
                f"{user} worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error crit;\n"
                "worker_rlimit_nofile 60000;\n"
                "events { worker_connections 30000; }\n"
                "http { access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 600s;\n"
                f"client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;\n"
                f"uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
                f"server {{ {listens} root {self.folder}; }} }}\n"
            )
            nginx = program("nginx")
            assert nginx is not None
            self.start(f"server-{number}", [nginx, "-e", str(folder / "error"), "-c", str(folder / "nginx.conf")])
        time.sleep(0.3)

    def close(self) -> None:
        for process in list(self._running):
            self.end(process)
        self._namespaces.close()
        shutil.rmtree(self.folder, ignore_errors=True)
