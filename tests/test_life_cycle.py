"""The drawing in BOOTING.md is what the transition function does."""

from tests import life_cycle


def test_booting_shows_the_life_that_the_transition_function_gives():
    assert life_cycle.drawing() == life_cycle.in_booting()
