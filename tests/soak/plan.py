"""What a seed means: rounds of faults, drawn before anything runs, so that a seed replays whatever the machine's speed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

BLOCK: Final = 24
"""Rounds of a block. In every second block no process is ended from outside, so that one that grows is seen to grow."""
BOTH: Final = (0, 1)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    ``acts_on``: a round has one fault of those that act on the same; on ``process``, one a director. ``ends``: processes end by
    it, so that it is left out of the gentle blocks. ``moves``: an address may move. ``forgets``: a director loses its table of
    connections. ``kills``: servers end, and their connections with them. Without ``moves``, no router may change its state.
    """

    name: str
    acts_on: str
    share: int = 2
    longest_s: float = 3.0
    ends: bool = False
    moves: bool = False
    forgets: bool = False
    kills: bool = False


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("nothing", "nothing", 1),
        Kind("disorder", "cable", 3),
        Kind("reload", "file", 3),
        Kind("server", "servers", 2, kills=True),
        Kind("servers", "servers", 1, kills=True),
        Kind("loss", "cable", moves=True),
        Kind("silence", "cable", moves=True),
        Kind("deaf", "cable", moves=True),
        Kind("unplug", "link", moves=True),
        Kind("interface", "link", moves=True),
        Kind("flush", "link", moves=True),
        Kind("steal", "link", moves=True),
        Kind("priority", "file", moves=True),
        Kind("gate", "gate", moves=True),
        Kind("failover", "hand-over", moves=True),
        Kind("stall", "process", moves=True),
        Kind("stall-worker", "process", moves=True),
        Kind("worker", "process", ends=True, moves=True),
        Kind("kill", "process", ends=True, moves=True),
        Kind("stop", "process", ends=True, moves=True),
        Kind("power", "process", 3, 4.0, ends=True, moves=True, forgets=True),
    )
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault on a director (0 or 1): it begins ``at_s`` after the round's beginning and is mended ``lasts_s`` later.

    ``detail`` are the numbers that a kind needs, between 0 and 1: which worker, how much is lost.
    """

    kind: Kind
    director: int
    at_s: float
    lasts_s: float
    detail: tuple[float, float]

    def __str__(self) -> str:
        return f"{self.kind.name}({self.director + 1}) at {self.at_s:.1f} s for {self.lasts_s:.1f} s"


@dataclass(frozen=True, slots=True)
class Round:
    """Faults that may overlap."""

    number: int
    faults: tuple[Fault, ...] = ()

    @property
    def gentle(self) -> bool:
        """Whether it is in a block in which no process is ended."""
        return self.number // BLOCK % 2 == 1

    @property
    def moves(self) -> bool:
        """Whether a router may change its state."""
        return any(fault.kind.moves for fault in self.faults)

    @property
    def keeps(self) -> bool:
        """Whether every connection must live on, where connections are synchronised.

        A table may be lost where nothing else happens: the other director has every connection. Two such faults, or one while
        the directors do not hear each other, may lose some.
        """
        forgetting = [fault for fault in self.faults if fault.kind.forgets]
        return not forgetting or len(self.faults) == 1

    def __str__(self) -> str:
        return f"round {self.number}: {', '.join(map(str, self.faults))}"


def rounds(seed: int) -> Iterator[Round]:
    """Yield the rounds of a seed, without end."""
    chance = random.Random(seed)
    number = 0
    while True:
        gentle = Round(number).gentle
        kinds = [kind for kind in KINDS.values() if not (gentle and kind.ends)]
        shares = [kind.share for kind in kinds]
        count = chance.choices((1, 2, 3), (5, 3, 1))[0]
        faults = [_fault(chance, kind) for kind in chance.choices(kinds, shares, k=count)]
        yield Round(number, tuple(sorted(_compatible(faults), key=lambda each: each.at_s)))
        number += 1


def _fault(chance: random.Random, kind: Kind) -> Fault:
    director = chance.choice(BOTH)
    at_s, lasts_s = round(chance.uniform(0.0, 1.5), 2), round(chance.uniform(0.2, kind.longest_s), 2)
    return Fault(kind, director, at_s, lasts_s, (chance.random(), chance.random()))


def _compatible(faults: list[Fault]) -> list[Fault]:
    """Leave out faults that act on what another one of the round acts on."""
    found: dict[tuple[str, int], Fault] = {}
    for fault in faults:
        place = fault.kind.acts_on
        found.setdefault((place, fault.director if place == "process" else 0), fault)
    return list(found.values())
