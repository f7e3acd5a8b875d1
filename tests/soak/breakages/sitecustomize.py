"""Faults that are put into the program on purpose. Python imports this module at its start if ``PYTHONPATH`` has its folder."""

import os


def keeps_the_address():
    """A backup does not remove the virtual address: two nodes own it."""
    from relevo.host.addresses import AddressTable

    AddressTable.remove = lambda self, address, survivors=(): None


def no_announcement():
    """A master does not announce its addresses: neighbours send to the former one."""
    from relevo.host.vrrp_port import NeighbourSender

    NeighbourSender.send = lambda self, link, address: ""


def forgets_connections():
    """Synchronised connections are received and not put into the table."""
    from relevo.host.sync_port import SyncReceiver

    receive = SyncReceiver.receive
    SyncReceiver.receive = lambda self, limit: ((message[:60], sender) for message, sender in receive(self, limit))


def leaks():
    """Each check leaves memory and a descriptor behind."""
    from relevo.machines.check import CheckMachine

    left = []
    receive = CheckMachine.receive

    def leaking(self, *given):
        left.append(bytearray(os.urandom(8_192)))
        return receive(self, *given)

    CheckMachine.receive = leaking


def loses_notifications():
    """Every third notification is not sent."""
    from relevo.alerts import notify

    count = iter(range(1_000_000_000))
    inner = notify.arguments
    notify.arguments = lambda *given: inner(*given) if next(count) % 3 else ["/bin/true"]


_name = os.environ.get("RELEVO_BREAKAGE", "")
if _name:
    globals()[_name]()
