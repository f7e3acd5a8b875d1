"""Runs a topology on a stage: servers and directors are processes, and nothing of them is left at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import msgspec

from relevo.api import schema
from relevo.api.client import ask
from relevo.daemon.configuration import flat_text
from relevo.errors import ControlError, LabError
from relevo.host import libc
from relevo.lab import servers
from relevo.lab.rewrite import Changes, rewrite, switch_name
from relevo.lab.stages import Stage
from relevo.lab.topology import Host, Service, Topology
from relevo.observe.snapshot import Snapshot

START_S = 30.0
"""Seconds that a server or a daemon may take to start; on an emulated machine, loading the eBPF plane takes ten."""
END_S = 8.0


class Cluster:
    """The running lab. Use it as a context manager: leaving it ends every process and removes every file."""

    def __init__(self, topology: Topology, stage: Stage, *, speed_up: float = 1.0) -> None:
        self.stage = stage
        self.speed_up = speed_up
        self.folder = Path(tempfile.mkdtemp(prefix="relevo-lab-"))
        self.switches = Path(tempfile.mkdtemp(prefix="relevo-switches-"))
        self.switches.chmod(0o755)  # scripts may run as another user
        self.topology = stage.build(topology)
        self._processes: dict[str, int] = {}
        self._owner = os.getpid()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if os.getpid() == self._owner:
            self.close()

    def close(self) -> None:
        """Kill every process; remove the machines and the files."""
        for pid in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        for pid in self._processes.values():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        self._processes.clear()
        self.stage.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.switches, ignore_errors=True)

    # -- servers -----------------------------------------------------------------------------------------------

    def start_servers(self) -> None:
        """Start every server that is not a director."""
        for host in self.topology.hosts():
            for service in host.services:
                self.start_service(host, service)

    def start_service(self, host: Host, service: Service) -> None:
        """Start one server and wait until it listens."""
        folder = self._folder(host, service)
        folder.mkdir(parents=True, exist_ok=True)
        address = host.address if service.kind != "inbox" or host not in self.topology.directors else self._inbox_address(host)
        if host.virtual:
            address = "0.0.0.0"  # noqa: S104 - its namespace has only its own addresses, the virtual ones among them
        self._start(_key(host, service), host, lambda: servers.serve(service.kind, host.name, address, service.port, folder))
        if service.kind != "udp":
            self._wait_for_port(host, address, service)

    def _inbox_address(self, director: Host) -> str:
        """Address of the mail server that the director's file names, usually the director itself."""
        assert director.configuration is not None
        server = director.configuration.global_defs.mail.server
        return director.address if self.stage.name == "loopback" or server is None else server.address

    def stop_service(self, host: Host, service: Service) -> None:
        """Kill one server, as a crash would."""
        self._kill(_key(host, service), signal.SIGKILL)

    def inbox(self, director: Host) -> list[dict[str, Any]]:
        """Return the mails that the mail servers on ``director`` received."""
        return [r for s in director.services if s.kind == "inbox" for r in servers.inbox_records(self._folder(director, s))]

    def _folder(self, host: Host, service: Service) -> Path:
        return self.folder / f"{host.name}-{service.port}"

    def _wait_for_port(self, host: Host, address: str, service: Service) -> None:
        until = time.monotonic() + START_S
        while True:
            with self.stage.inside(host):
                probe = socket.socket()
            with probe:
                probe.settimeout(1.0)
                if probe.connect_ex((address, service.port)) == 0:
                    return
            if time.monotonic() > until:
                raise LabError(f"the {service.kind} server of {host.name} does not answer on port {service.port}")
            time.sleep(0.02)

    # -- directors ---------------------------------------------------------------------------------------------

    def start_director(self, director: Host) -> None:
        """Start the daemon of a director with its file, adapted to the stage."""
        changes = self.stage.changes(self.topology, director)
        if self.speed_up != 1.0:
            changes = replace(changes, speed_up=self.speed_up)
        scripts = director.configuration.trackers.scripts if director.configuration is not None else ()
        if scripts:
            changes = replace(changes, switches=str(self._switches(director)))
            for script in scripts:
                self.set_script(director, script.name, passes=True)
        file = director.file
        if changes != Changes():
            target = self.folder / f"{director.name}.conf"
            target.write_text(rewrite(flat_text(director.file, director.config_id), changes), encoding="utf-8")
            file = str(target)
        log = self.log_file(director)
        run_dir, state_dir = self.run_dir(director), self.folder / f"{director.name}-state"

        def become_daemon() -> NoReturn:
            libc.die_with_parent(signal.SIGTERM)
            _log_to(log)
            options = ["-f", file, "--run-dir", str(run_dir), "--state-dir", str(state_dir), "--log-console"]
            if director.config_id is not None:
                options += ["-i", director.config_id]
            os.execv(sys.executable, [sys.executable, "-m", "relevo", "run", *options])

        self._start(director.name, director, become_daemon)
        self._wait_for_daemon(director)

    def _switches(self, director: Host) -> Path:
        folder = self.switches / director.name
        folder.mkdir(mode=0o755, exist_ok=True)
        return folder

    def set_script(self, director: Host, name: str, *, passes: bool) -> None:
        """Have a ``vrrp_script`` of a director succeed or fail from now on."""
        file = self._switches(director) / switch_name(name)
        if passes:
            file.touch()
        else:
            file.unlink(missing_ok=True)

    def _wait_for_daemon(self, director: Host) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            with contextlib.suppress(ControlError, msgspec.MsgspecError):
                self.snapshot(director)  # its balancer answers once the plane is loaded
                return
            if not self.running(director.name):
                break
            time.sleep(0.02)
        raise LabError(f"{director.name} did not start:\n{self.log_text(director)[-2000:]}")

    def stop_director(self, director: Host) -> None:
        """Stop a daemon gracefully (SIGTERM) and wait for its end."""
        self._kill(director.name, signal.SIGTERM)

    def crash_director(self, director: Host) -> None:
        """Crash the machine of a director: freeze every process, cut the link, kill every process.

        The freeze comes first, because a director that sees its link go down mails that it is in FAULT.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._processes[director.name], signal.SIGSTOP)
        self.stage.set_link(director, False)
        self._kill(director.name, signal.SIGKILL)

    def revive_director(self, director: Host) -> None:
        """Connect a crashed machine again and start its daemon."""
        self.stage.set_link(director, True)
        self.start_director(director)

    def snapshot(self, director: Host) -> Snapshot:
        """Return a director's snapshot; ``ControlError`` when it does not answer."""
        return ask(self.run_dir(director), schema.Status(), 2.0)

    def worker_pid(self, director: Host, role: str) -> int:
        """Process id of the worker ``role``: director, balancer or proxy."""
        return next(w.pid for w in self.snapshot(director).workers if w.role == role)

    def run_dir(self, director: Host) -> Path:
        """Folder of a director's sockets."""
        return self.folder / f"{director.name}-run"

    def log_file(self, director: Host) -> Path:
        return self.folder / f"{director.name}.log"

    def log_text(self, director: Host) -> str:
        """Return what a director has logged so far."""
        try:
            return self.log_file(director).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    # -- processes ---------------------------------------------------------------------------------------------

    def run_in(self, host: Host, key: str, argv: list[str], log: Path) -> None:
        """Start any program on a machine; it dies with the lab. Its output goes to ``log``."""

        def become_program() -> NoReturn:
            libc.die_with_parent()
            _log_to(log)
            os.execv(argv[0], argv)

        self._start(key, host, become_program)

    def end(self, key: str, number: int = signal.SIGTERM) -> None:
        """End a process of the lab and wait for it; KILL goes to its whole group."""
        self._kill(key, number)

    def pid(self, key: str) -> int | None:
        """Process id of a process of the lab, which leads its group; ``None`` if it does not run."""
        return self._processes[key] if self.running(key) else None

    def running(self, key: str) -> bool:
        """Whether a process of the lab still runs."""
        pid = self._processes.get(key)
        if pid is None:
            return False
        if os.waitpid(pid, os.WNOHANG) == (0, 0):
            return True
        del self._processes[key]
        return False

    def _start(self, key: str, host: Host, work: Callable[[], NoReturn]) -> None:
        parent = os.getpid()
        with self.stage.inside(host):
            pid = os.fork()
            if pid == 0:  # the child never leaves the context, so it stays in the namespace
                _become(key, parent, work)
        self._processes[key] = pid

    def _kill(self, key: str, number: int) -> None:
        pid = self._processes.pop(key, None)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)
        until = time.monotonic() + END_S
        while time.monotonic() < until:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    time.sleep(0.005)
                    continue
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _log_to(file: Path) -> None:
    output = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _key(host: Host, service: Service) -> str:
    return f"{host.name}:{service.port}"


def _become(key: str, parent: int, work: Callable[[], NoReturn]) -> NoReturn:
    """Run ``work`` in a forked child, in a process group of its own."""
    try:
        os.setsid()
        if os.getppid() == parent:
            work()
    except BaseException as error:
        os.write(2, f"{key}: {error}\n".encode())
    finally:
        os._exit(1)
