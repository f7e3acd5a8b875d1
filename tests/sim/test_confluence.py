"""Confluence: after any history, once the director has settled, its state is that of a fresh start.

A counterexample is a seed: ``RELEVO_SEED=n pytest tests/sim/test_confluence.py`` runs that history alone, and prints it.
``RELEVO_HISTORIES`` is their number.
"""

import os
import random

import pytest

from tests.sim.worlds import RETRIED_S, SETTLED_S, Run, configuration, format_story, step

HISTORIES = int(os.environ.get("RELEVO_HISTORIES", "12000"))
PARTS = 20
MAX_STEPS = 7


def differing(found, expected):
    """Name what differs."""
    return "; ".join(f"{key}: {found[key]} is not {expected[key]}" for key in found if found[key] != expected[key])


def history(seed):
    """Run one history; return what happened, or raise AssertionError with it."""
    draw = random.Random(seed)
    run = Run(configuration(draw))
    story = [(0.0, run.configuration)]
    run.wait(draw.choice((0.0, 0.5, 4.5)))
    try:
        for _ in range(draw.randrange(1, MAX_STEPS)):
            name, act = step(draw, run)
            story.append((run.simulation.now, name))
            former = run.configuration
            act(run)
            if run.configuration is not former:
                story.append((run.simulation.now, run.configuration))
            run.check_operations()
            assert run.own_addresses() == run.own, "an address that is not ours was taken along"
        run.firewall(False)
        run.plane(True)
        run.wait(RETRIED_S if run.firewalled else SETTLED_S)
        fresh = run.fresh()
        fresh.wait(SETTLED_S)
        assert run.outcome() == fresh.outcome(), differing(run.outcome(), fresh.outcome())
        run.check_events()
        fresh.check_events()
        run.idle_reload_does_nothing()
        run.host.stop()
        run.wait(2.0)
        assert run.outcome()["addresses"] == {
            a for a in fresh.outcome()["addresses"] if (a[0], a[1]) in run.own or a[0] == "away"
        }, "after the stop"
        assert run.own_addresses() == run.own, "an address that is not ours was taken along by the stop"
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}\n{format_story(story)}") from None
    return format_story(story)


if "RELEVO_SEED" in os.environ:

    def test_one_history(capsys):
        with capsys.disabled():
            print(history(int(os.environ["RELEVO_SEED"])))  # noqa: T201

else:

    @pytest.mark.parametrize("part", range(PARTS))
    def test_every_history_ends_where_a_fresh_start_would(part):
        for seed in range(part, HISTORIES, PARTS):
            history(seed)
