"""State machines without I/O.

Every machine has the same interface: ``receive(input, now) -> list[Effect]``, ``deadline() -> float | None`` and
``expire(now) -> list[Effect]``, and one transition table. The diagrams, the completeness report and the property
tests are generated from the table. A (state, input) pair that it does not list raises ``ImpossibleTransition``. ``now`` is in
seconds of a monotonic clock of the caller's choice.
"""
