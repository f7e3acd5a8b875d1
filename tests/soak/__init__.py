"""Chaos as a habit: a cluster in namespaces, faults drawn from a seed, and what must hold after each round of them.

``python -m tests.soak --seeds 1,2 --minutes 30`` (``make soak``) runs it; ``--rounds 17-19`` runs some rounds of a seed again.

``plan`` draws the rounds, ``faults`` does what they say, ``rig`` is the cluster, ``wire`` its bad cables, ``invariants`` what
must hold. ``breakages`` are faults that are put into the program on purpose: each must be found.
"""
