"""The drill's steps for directors: crash, graceful stop, planned hand-over, and return of the preferred master."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from relevo.api import schema
from relevo.api.client import ask
from relevo.errors import ControlError
from relevo.lab.client import Prober, still_alive
from relevo.lab.context import Context, Step, StepFailed
from relevo.lab.topology import Host
from relevo.machines.tracker import evaluate
from relevo.model import Endpoint, Protocol, VrrpScript
from relevo.model.table import SyncRole

PROBE_S = 0.005
SYNC_S = 2.5
"""After this time the peers have a new connection: the kernel's sync daemon holds messages back for up to two seconds."""
HELD = 20
"""Connections that each step holds open, to count how many are lost."""


class FailoverSteps:
    """Steps that take the mastery from one director to another, and measure the gap and the lost connections."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.cluster = context.cluster

    def steps(self) -> list[tuple[str, Step]]:
        """Return the steps by name; empty without a second director."""
        if len(self.context.directors) < 2 or not self.context.instances():
            return []
        return [
            ("the master crashes", self.master_crashes),
            ("it returns and takes over", self.master_returns),
            ("the master stops gracefully", self.master_stops),
            ("it returns and takes over again", self.master_returns),
            ("it hands over as planned", self.master_hands_over),
            ("it takes over again by its priority", self.master_takes_back),
            *self._script_steps(),
        ]

    def _script_steps(self) -> list[tuple[str, Step]]:
        """Return the steps for the first script whose failure makes the preferred master yield."""
        script = self._decisive_script()
        if script is None:
            return []
        return [
            (f"vrrp_script {script.name} fails on the master", partial(self.script_fails, script)),
            ("it succeeds again", partial(self.script_succeeds, script)),
        ]

    def _decisive_script(self) -> VrrpScript | None:
        preferred = self.context.preferred_master()
        assert preferred.configuration is not None
        others = [o.configuration for o in self.context.directors if o is not preferred and o.configuration is not None]
        rival = max((i.priority for other in others for i in other.vrrp_instances), default=0)
        for script in preferred.configuration.trackers.scripts:
            standings = [
                evaluate(i.priority, i.tracked, lambda each: int(each.name != script.name))  # noqa: B023 - used at once
                for i in preferred.configuration.vrrp_instances
            ]
            if standings and all(standing.faults or standing.priority < rival for standing in standings):
                return script
        return None

    def master_crashes(self) -> str:
        """Crash the master's machine."""
        master = self.context.require_master()
        text = self._measure_takeover(master, lambda: self.cluster.crash_director(master), self.context.takeover_bound_s())
        self._expect_new_master(master)
        return text

    def master_stops(self) -> str:
        """Stop the master gracefully: it sends priority 0, so that the backup need not wait for its timer."""
        master = self.context.require_master()
        text = self._measure_takeover(master, lambda: self.cluster.stop_director(master), self.context.shutdown_bound_s())
        self.context.expect_vrrp_mails(master, "STOP")
        self._expect_new_master(master)
        return text

    def master_hands_over(self) -> str:
        """Run ``relevo failover`` on the master; it must go on as backup."""
        master = self.context.require_master()
        text = self._measure_takeover(master, lambda: self._failover(master), self.context.shutdown_bound_s())
        self.context.expect_vrrp_mails(master, "BACKUP")
        self._expect_new_master(master)
        return text

    def master_takes_back(self) -> str:
        """Run ``relevo failover --back`` on the preferred master; it must take over by its priority."""
        preferred = self.context.preferred_master()
        bound = self.context.takeover_bound_s()
        text = self._measure_takeover(self.context.require_master(), lambda: self._failover(preferred, back=True), bound)
        self.context.expect_vrrp_mails(preferred, "MASTER")
        self._expect_others(preferred, "BACKUP")
        self.context.wait_for_first_checks()
        return text

    def master_returns(self) -> str:
        """Start the preferred master again; it must take over by its priority."""
        preferred = self.context.preferred_master()
        prober = Prober(self.context.client, self._probed_service(), PROBE_S)
        with prober.running() as probes:
            self.cluster.revive_director(preferred)
            bound = self.context.takeover_bound_s()
            took = self.context.wait(f"{preferred.name} is master", lambda: self.context.master() is preferred, bound)
            time.sleep(0.5)
        self.context.expect_vrrp_mails(preferred, "BACKUP")
        self.context.expect_vrrp_mails(preferred, "MASTER")
        self._expect_others(preferred, "BACKUP")
        self.context.wait_for_first_checks()
        return f"{preferred.name} is master after {took:.1f} s; gap {probes.longest_gap_s() * 1000:.0f} ms"

    def script_fails(self, script: VrrpScript) -> str:
        """Have a tracked script fail on the master; another director must take over."""
        master = self.context.require_master()
        noticed_s = script.interval_s * (script.fall + 1) + script.timeout_s
        bound = noticed_s + self.context.takeover_bound_s()
        text = self._measure_takeover(master, lambda: self.cluster.set_script(master, script.name, passes=False), bound)
        at_fault = any(instance.faults for instance in self.cluster.snapshot(master).director.instances)
        self.context.expect_vrrp_mails(master, "FAULT" if at_fault else "BACKUP")
        self._expect_new_master(master)
        return text

    def script_succeeds(self, script: VrrpScript) -> str:
        """Have the script succeed again; the preferred master must take over by its priority."""
        preferred = self.context.preferred_master()
        was_at_fault = any(instance.faults for instance in self.cluster.snapshot(preferred).director.instances)
        bound = script.interval_s * (script.rise + 1) + self.context.takeover_bound_s()
        present = self.context.require_master()
        text = self._measure_takeover(present, lambda: self.cluster.set_script(preferred, script.name, passes=True), bound)
        for state in ("BACKUP", "MASTER") if was_at_fault else ("MASTER",):
            self.context.expect_vrrp_mails(preferred, state)
        self._expect_others(preferred, "BACKUP")
        self.context.wait_for_first_checks()
        return text

    def _measure_takeover(self, master: Host, trigger: Callable[[], None], bound: float) -> str:
        """Call ``trigger`` while a client probes and holds connections; ``StepFailed`` when the gap exceeds ``bound`` seconds,
        or when connections are lost although they are synchronised.
        """
        service = self._probed_service()
        synchronised = self._is_synchronised(master)
        held = self.context.client.hold(service, HELD)
        prober = Prober(self.context.client, service, PROBE_S)
        with prober.running() as probes:
            time.sleep(SYNC_S if synchronised else 0.3)
            trigger()
            self.context.wait("another director is master", lambda: self.context.master() not in (None, master), bound)
            time.sleep(0.7)
        lost = sum(not still_alive(sock, service) for sock in held)
        for sock in held:
            sock.close()
        gap = probes.longest_gap_s()
        if gap > bound or len(probes.answers) < 10:
            raise StepFailed(f"no answer for {gap:.2f} s, at most {bound:.1f} s allowed")
        successor = self.context.require_master()
        if lost and synchronised:
            raise StepFailed(f"{lost} of {HELD} held connections lost, though connections are synchronised")
        return f"{successor.name} answers after a gap of {gap * 1000:.0f} ms; {lost} of {HELD} held connections lost"

    def _probed_service(self) -> Endpoint:
        service = next(s for s in self.context.services() if s.protocol is Protocol.TCP)
        return self.context.here(service.endpoint)

    def _is_synchronised(self, director: Host) -> bool:
        """Whether a director sends its connections to its peers."""
        state = self.cluster.snapshot(director).balancer.sync
        return state is not None and SyncRole.MASTER in state.roles and not state.problem

    def _failover(self, director: Host, *, back: bool = False) -> None:
        for instance in self.context.instances():
            try:
                ask(self.cluster.run_dir(director), schema.Failover(instance.name, back=back))
            except ControlError as error:
                raise StepFailed(str(error)) from error

    def _expect_new_master(self, former: Host) -> None:
        self._expect_others(former, "MASTER")

    def _expect_others(self, director: Host, state: str) -> None:
        for other in self.context.directors:
            if other is not director:
                self.context.expect_vrrp_mails(other, state)
