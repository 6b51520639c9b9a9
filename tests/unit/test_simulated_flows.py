"""A part of the simulation, quick enough for every run; tests/simulation has the whole of it."""

from __future__ import annotations

from tests.simulation.checker import problems
from tests.simulation.history import run
from tests.simulation.scenario import scenario


def test_two_hundred_histories_break_no_promise() -> None:
    # Other seeds than those of tests/simulation.
    assert {seed: found for seed in range(10_000, 10_200) if (found := problems(run(scenario(seed))))} == {}
