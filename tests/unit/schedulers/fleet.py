"""Servers for the schedulers' tests, named A, B, C … in the order in which they are added."""

from dataclasses import dataclass

from relevo.schedulers import SCHEDULERS


@dataclass(eq=False)
class Backend:
    name: str
    weight: int = 1
    active: int = 0
    inactive: int = 0
    overloaded: bool = False

    @property
    def place(self):
        return ord(self.name), 80


class Fleet:
    """A scheduler and its servers, newest first. ``add`` updates the scheduler, as a plane does."""

    def __init__(self, scheduler, *weights, flags=()):
        self.scheduler = SCHEDULERS[scheduler](flags)
        self.servers = []
        for name, weight in zip("ABCDEFGH", weights, strict=False):
            self.add(name, weight)

    def __getitem__(self, name):
        return next(server for server in self.servers if server.name == name)

    def add(self, name, weight=1):
        self.servers.insert(0, Backend(name, weight))
        self.scheduler.changed(self.servers)

    def edit(self, name, weight):
        self[name].weight = weight
        self.scheduler.changed(self.servers)

    def remove(self, name):
        self.scheduler.changed(self.servers, removed=self[name])
        self.servers.remove(self[name])

    def pick(self, client=0, port=0):
        """Name of the server picked, ``-`` for none."""
        picked = self.scheduler.pick(self.servers, client, port)
        return picked.name if picked else "-"

    def picks(self, number):
        return "".join(self.pick() for _ in range(number))

    def connections(self, number, counter="active"):
        """Open connections that stay open, and name who got them."""
        names = ""
        for _ in range(number):
            names += self.pick()
            setattr(self[names[-1]], counter, getattr(self[names[-1]], counter) + 1)
        return names
