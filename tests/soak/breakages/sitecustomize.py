"""Faults that are put into the program on purpose. Python imports this module at its start if ``PYTHONPATH`` has its folder."""

import os
from itertools import count


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
    """Each result of a check leaves memory behind."""
    from relevo.machines.check import CheckMachine

    left = []
    receive = CheckMachine.receive

    def leaking(self, *given):
        left.append(os.urandom(20_000))
        return receive(self, *given)

    CheckMachine.receive = leaking


def loses_notifications():
    """Every third script is not run."""
    from relevo.alerts.notify import Notifier

    numbers = count()
    run = Notifier.run

    def losing(self, script, *arguments):
        if script is not None and next(numbers) % 3:
            run(self, script, *arguments)

    Notifier.run = losing


_name = os.environ.get("RELEVO_BREAKAGE", "")
if _name:
    try:
        globals()[_name]()
    except BaseException as error:  # Python would go on without it
        os.write(2, f"breakage {_name}: {error!r}\n".encode())
        os._exit(3)
