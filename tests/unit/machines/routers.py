"""Virtual routers for the tests, in the states they need."""

from relevo.machines.faults import Fault, FaultKind
from relevo.machines.vrrp import AdvertReceived, HandOver, Log, SetFaults, Start, State, Stop, VrrpMachine
from relevo.model import GarpPolicy, VirtualAddress, VrrpInstance
from relevo.wire.vrrp import Advert

VIP = "192.168.6.240"
OWN = "192.168.6.5"
LOW, HIGH = "192.168.6.3", "192.168.6.9"
"""Peers whose addresses are below and above our own."""


def instance(**changes):
    values = {"name": "VI_1", "interface": "eth0", "virtual_router_id": 51, "addresses": (VirtualAddress(address=VIP),)}
    return VrrpInstance(**values | changes)


def router(*, grouped=False, **changes):
    return VrrpMachine(instance(**changes), OWN, grouped=grouped)


def heard(priority, source=HIGH, *, interval=1.0, addresses=(VIP,), version=2):
    return AdvertReceived(Advert(version, 51, priority, interval, addresses), source)


def failing(*causes):
    """The faults of these names, which are their texts too; without names, the end of all."""
    return SetFaults(tuple(Fault(FaultKind.SOCKET, cause) for cause in causes))


def backup(**changes):
    machine = router(**changes)
    machine.receive(Start(), 0.0)
    return machine


def master(**changes):
    """A router that took over at 0 s."""
    machine = router(**changes)
    machine.receive(Start(resume=True), 0.0)
    return machine


def fault(**changes):
    machine = backup(**changes)
    machine.receive(failing("eth0"), 0.0)
    return machine


def handing_over(**changes):
    """A router that hands over at 0."""
    machine = master(**changes)
    machine.receive(HandOver(), 0.0)
    return machine


def leaving(**changes):
    machine = master(**changes)
    machine.receive(Stop(), 0.0)
    return machine


REACH = {
    State.INIT: router,
    State.BACKUP: backup,
    State.MASTER: lambda: master(garp=GarpPolicy(refresh_s=30.0)),
    State.FAULT: fault,
    State.LEAVING: leaving,
    State.HANDING_OVER: handing_over,
}


def acts(effects):
    """The effects without the log lines."""
    return [effect for effect in effects if not isinstance(effect, Log)]


def logs(effects):
    return [effect.message for effect in effects if isinstance(effect, Log)]
