"""Decisions over time, without I/O.

Every machine has one shape: ``receive(input, now) -> list[Effect]``, ``deadline() -> float | None`` and
``expire(now) -> list[Effect]``, and one transition table from which the diagrams, the completeness report and the property
tests are made. A pair that the table does not have raises ``ImpossibleTransition``. ``now`` is seconds on any monotonic
scale that the caller keeps to.
"""
