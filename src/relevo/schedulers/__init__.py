"""The scheduling algorithms: which server gets the next connection. One algorithm a file, each picks as the kernel's IPVS does.

A service's servers are in order newest first, because IPVS puts an added server at the head of its list, and every "first wins"
rule, walk and hash fill follows that order.
"""

from relevo.schedulers.base import Candidate, Scheduler
from relevo.schedulers.failover import Failover, Overflow
from relevo.schedulers.least_connection import LeastConnection, WeightedLeastConnection
from relevo.schedulers.maglev_hash import MaglevHash
from relevo.schedulers.round_robin import RoundRobin
from relevo.schedulers.shortest_delay import NeverQueue, ShortestExpectedDelay
from relevo.schedulers.source_hash import SourceHash
from relevo.schedulers.weighted_round_robin import WeightedRoundRobin

SCHEDULERS: dict[str, type[Scheduler]] = {
    "rr": RoundRobin,
    "wrr": WeightedRoundRobin,
    "lc": LeastConnection,
    "wlc": WeightedLeastConnection,
    "sed": ShortestExpectedDelay,
    "nq": NeverQueue,
    "fo": Failover,
    "ovf": Overflow,
    "sh": SourceHash,
    "mh": MaglevHash,
}
"""The algorithms of the planes that schedule in user space, by ``lb_algo``."""

__all__ = ["SCHEDULERS", "Candidate", "Scheduler"]
