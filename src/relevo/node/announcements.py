"""Which addresses are announced, on which links, and when: at takeovers, and when an address or its link changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from relevo.node.announcer import Announcer
from relevo.node.effects import Announce, Effect
from relevo.node.network import virtual_addresses
from relevo.node.observation import SetAddress, World
from relevo.node.router import Router


class Announcements:
    """The announcements of all routers. A router that announces everything in a step needs no further ones in it."""

    def __init__(self) -> None:
        self._announcer = Announcer()
        self._announced: set[str] = set()

    def deadline(self) -> float | None:
        """Return when the next announcement is due."""
        return self._announcer.deadline()

    def all(self, router: Router, count: int, now: float) -> None:
        """Announce every address of a router ``count`` times."""
        self._announced.add(router.instance.name)
        self._queue(router, [address.address for address in virtual_addresses(router.instance)], count, now)

    def link_changed(self, router: Router, former: World, world: World, now: float) -> None:
        """Announce the addresses of links that got another hardware address, or their carrier back."""
        if not router.machine.has_addresses:
            return
        for address in virtual_addresses(router.instance):
            name = address.device or router.instance.interface
            before, link = former.links.get(name), world.links.get(name)
            if link is not None and link.up and before is not None and before != link:
                self._queue(router, [address.address], router.instance.garp.repeat, now)

    def added(self, address: SetAddress, active: Iterable[Router], now: float) -> list[Router]:
        """Announce an address that a master gets without a takeover; return the routers that have it."""
        found = []
        for router in active:
            name, garp = router.instance.name, router.instance.garp
            if name in self._announced or all(a.address != address.address for a in virtual_addresses(router.instance)):
                continue
            self._queue(router, [address.address], garp.repeat, now)
            if garp.delay_s:
                self._queue(router, [address.address], garp.repeat, now + garp.delay_s)
            found.append(router)
        return found

    def settle(self, routers: Mapping[str, Router]) -> None:
        """End the step: drop the announcements of routers that no longer have their addresses."""
        self._announced.clear()
        self._announcer.drop(lambda name: name in routers and routers[name].machine.has_addresses)

    def due(self, routers: Mapping[str, Router], world: World, now: float) -> list[Effect]:
        """Return the announcements that are due."""
        found: list[Effect] = []
        for queued in self._announcer.due(now):
            router = routers[queued.router]
            for address in virtual_addresses(router.instance):
                link = world.links.get(address.device or router.instance.interface)
                if address.address == queued.address and link is not None and link.up and link.neighbours:
                    found.append(Announce(link, address.address))
        return found

    def _queue(self, router: Router, addresses: list[str], count: int, at: float) -> None:
        garp = router.instance.garp
        for ipv6, interval_s in ((False, garp.interval_s), (True, garp.gna_interval_s)):
            listed = [address for address in addresses if (":" in address) is ipv6]
            self._announcer.add(router.instance.name, listed, count, interval_s, at)
