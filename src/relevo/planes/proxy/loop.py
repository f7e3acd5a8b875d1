"""The event loop of the proxy plane: one thread, one epoll, handlers by descriptor, tasks at the end of a batch.

Within a batch of events file descriptors are only ever closed; whatever opens one (accepting, connecting anew) waits for the
end of the batch, so that a stale event cannot reach a recycled descriptor. What runs at which time is left to the subclass.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Final

EDGES: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
"""Events of a relayed socket, edge-triggered."""
BATCH: Final = 512
"""Events fetched at once."""


class Loop:
    """The loop. ``clock`` is monotonic seconds, and ``now`` its value when the current batch began."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.now = clock()
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._later: list[Callable[[], None]] = []
        self._stopped = False

    def watch(self, descriptor: int, mask: int, handler: Callable[[int], None]) -> None:
        """Call ``handler`` with the event mask whenever an event of ``mask`` occurs on ``descriptor``."""
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, mask)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching a descriptor that is about to be closed."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def later(self, task: Callable[[], None]) -> None:
        """Run ``task`` when the current batch of events is done."""
        self._later.append(task)

    def stop(self) -> None:
        """Leave ``run`` after the current batch."""
        self._stopped = True

    def run(self) -> None:
        """Serve until ``stop``, then close everything."""
        while not self._stopped:
            self.turn(None)
        self.close()

    def turn(self, limit_s: float | None) -> None:
        """Wait for events, at most ``limit_s``, and handle one batch."""
        events = self._epoll.poll(self._wait_s(limit_s), BATCH)
        self.now = self.clock()
        for descriptor, mask in events:
            handler = self._handlers.get(descriptor)
            if handler is not None:
                handler(mask)
        tasks, self._later = self._later, []
        for task in tasks:
            task()
        self._timers()

    def _wait_s(self, limit_s: float | None) -> float | None:
        """Return how long to wait for events: not at all when tasks are due, else until the next timer."""
        return 0.0 if self._later else limit_s

    def _timers(self) -> None:
        """Do what is due at ``now``; called after every batch."""

    def close(self) -> None:
        """Close the loop's own descriptor."""
        self._epoll.close()
