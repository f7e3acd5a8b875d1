"""What each kind of fault does, and how it is mended."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from relevo.lab.topology import Service
from tests.soak.plan import Fault
from tests.soak.rig import ROUTERS, SERVERS, Rig
from tests.soak.wire import GOOD, Quality

WEB: Final = Service("http", 80)


@dataclass(slots=True)
class Doing:
    """Does a fault, and later mends it. What it must remember between the two is here."""

    rig: Rig
    fault: Fault
    stopped: list[int] = field(default_factory=list)

    def begin(self) -> None:
        """Do it."""
        BEGIN[self.fault.kind.name](self)

    def mend(self) -> None:
        """Mend it."""
        MEND[self.fault.kind.name](self)

    @property
    def number(self) -> int:
        return self.fault.director

    # -- cables and addresses ------------------------------------------------------------------------------------------

    def _disorder(self) -> None:
        loss = Quality(duplicate=0.1 + 0.3 * self.fault.detail[0], delay_s=0.002, jitter_s=0.005 + 0.03 * self.fault.detail[1])
        self._quality(loss)

    def _loss(self) -> None:
        self._quality(Quality(loss=0.05 + 0.4 * self.fault.detail[0], jitter_s=0.002))

    def _quality(self, quality: Quality) -> None:
        self.rig.wires.set_quality(self.rig.directors[self.number], quality)

    def _good(self) -> None:
        self._quality(GOOD)

    def _plugged(self, connected: bool) -> None:
        self.rig.wires.set_link(self.rig.directors[self.number], connected)

    def _interface_down(self) -> None:
        with self.rig.link(self.number) as (ip, index):
            ip.link("set", index=index, state="down")

    def _flush(self) -> None:
        with self.rig.link(self.number) as (ip, index):
            ip.flush_addr(index=index)

    def _network(self) -> None:
        self.rig.restore_network(self.number)

    def _steal(self) -> None:
        address = list(ROUTERS.values())[self.fault.detail[0] < 0.5]
        with self.rig.link(self.number) as (ip, index), contextlib.suppress(Exception):  # it may not be here
            ip.addr("del", index=index, address=address, prefixlen=24)

    # -- files and commands --------------------------------------------------------------------------------------------

    def _reload(self, **changes: object) -> None:
        self.rig.write(self.number, **changes)
        self.rig.signal(self.number, signal.SIGHUP)

    def _other_servers(self) -> None:
        self._reload(weights=(1, 3), extra_server=self.fault.detail[0] < 0.5)

    def _other_priority(self) -> None:
        self._reload(priority=50 + int(200 * self.fault.detail[0]))

    def _gate(self, value: int) -> None:
        (self.rig.folder / f"gate-{self.number}").write_text(f"{value}\n")

    def _shut(self) -> None:
        self._gate(-80)

    def _open(self) -> None:
        self._gate(0)

    def _hand_over(self) -> None:
        self.rig.command(self.number, "failover", list(ROUTERS)[self.number])

    def _hand_back(self) -> None:
        self.rig.command(self.number, "failover", "--back", list(ROUTERS)[self.number])

    # -- servers -------------------------------------------------------------------------------------------------------

    def _servers(self) -> tuple[str, ...]:
        service = self.number
        chosen = SERVERS[2 * service : 2 * service + 2]
        return chosen if self.fault.kind.name == "servers" else (chosen[self.fault.detail[0] < 0.5],)

    def _servers_end(self) -> None:
        for address in self._servers():
            self.rig.cluster.stop_service(self.rig.server(address), WEB)

    def _servers_start(self) -> None:
        for address in self._servers():
            self.rig.cluster.start_service(self.rig.server(address), WEB)

    # -- processes -----------------------------------------------------------------------------------------------------

    def _stall(self) -> None:
        self.rig.signal_all(self.number, signal.SIGSTOP)

    def _continue(self) -> None:
        self.rig.signal_all(self.number, signal.SIGCONT)

    def _worker(self, what: int) -> None:
        pid = self.rig.worker(self.number, self.fault.detail[0])
        if pid is not None:
            self.stopped.append(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, what)

    def _stall_worker(self) -> None:
        self._worker(signal.SIGSTOP)

    def _continue_worker(self) -> None:
        for pid in self.stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _kill_worker(self) -> None:
        self._worker(signal.SIGKILL)

    def _kill(self) -> None:
        self.rig.signal(self.number, signal.SIGKILL)

    def _stop(self) -> None:
        self.rig.cluster.stop_director(self.rig.directors[self.number])

    def _start(self) -> None:
        self.rig.cluster.start_director(self.rig.directors[self.number])

    def _power_off(self) -> None:
        self.rig.switch_off(self.number)

    def _power_on(self) -> None:
        self.rig.switch_on(self.number)

    def _nothing(self) -> None:
        pass


Act = Callable[[Doing], None]
ACTS: Final[dict[str, tuple[Act, Act]]] = {
    "nothing": (Doing._nothing, Doing._nothing),
    "disorder": (Doing._disorder, Doing._good),
    "loss": (Doing._loss, Doing._good),
    "silence": (lambda doing: doing._quality(Quality(silent=True)), Doing._good),
    "deaf": (lambda doing: doing._quality(Quality(deaf=True)), Doing._good),
    "unplug": (lambda doing: doing._plugged(False), lambda doing: doing._plugged(True)),
    "interface": (Doing._interface_down, Doing._network),
    "flush": (Doing._flush, Doing._network),
    "steal": (Doing._steal, Doing._nothing),
    "reload": (Doing._other_servers, Doing._reload),
    "priority": (Doing._other_priority, Doing._reload),
    "gate": (Doing._shut, Doing._open),
    "failover": (Doing._hand_over, Doing._hand_back),
    "server": (Doing._servers_end, Doing._servers_start),
    "servers": (Doing._servers_end, Doing._servers_start),
    "stall": (Doing._stall, Doing._continue),
    "stall-worker": (Doing._stall_worker, Doing._continue_worker),
    "worker": (Doing._kill_worker, Doing._nothing),
    "kill": (Doing._kill, Doing._start),
    "stop": (Doing._stop, Doing._start),
    "power": (Doing._power_off, Doing._power_on),
}
BEGIN: Final = {name: begin for name, (begin, _) in ACTS.items()}
MEND: Final = {name: mend for name, (_, mend) in ACTS.items()}
