"""One virtual router: its table (``states``), its inputs and effects (``events``), and the machine that executes it."""

from relevo.machines.vrrp.counters import Counters
from relevo.machines.vrrp.events import (
    AdvertReceived,
    Announce,
    AskGroup,
    Effect,
    HandOver,
    Input,
    Log,
    Order,
    Reconfigure,
    Restart,
    Restore,
    SendAdvert,
    SetFaults,
    SetPlaneReady,
    SetPriority,
    SetSynced,
    Start,
    Stop,
    Transition,
)
from relevo.machines.vrrp.machine import VrrpMachine
from relevo.machines.vrrp.states import TIMERS, TRANSITIONS, State, Symbol

__all__ = [
    "TIMERS",
    "TRANSITIONS",
    "AdvertReceived",
    "Announce",
    "AskGroup",
    "Counters",
    "Effect",
    "HandOver",
    "Input",
    "Log",
    "Order",
    "Reconfigure",
    "Restart",
    "Restore",
    "SendAdvert",
    "SetFaults",
    "SetPlaneReady",
    "SetPriority",
    "SetSynced",
    "Start",
    "State",
    "Stop",
    "Symbol",
    "Transition",
    "VrrpMachine",
]
