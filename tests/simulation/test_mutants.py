"""A checker that never fails proves nothing: each rule that is left out is noticed."""

from __future__ import annotations

import pytest

from tests.simulation.checker import problems
from tests.simulation.history import run
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.scenario import scenario

WITHIN_HISTORIES = 600


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant: Mutant) -> None:
    with mutant.at_work():
        assert any(problems(run(scenario(seed, assigned=mutant.assigned))) for seed in range(WITHIN_HISTORIES))
