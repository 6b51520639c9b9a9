"""Thousands of histories, each from its seed: none may break a promise."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.simulation.checker import problems
from tests.simulation.history import run
from tests.simulation.scenario import scenario

HISTORIES = 2_000
CHUNK = 250


def wrong(seeds: range, *, assigned: bool = False) -> list[str]:
    """Tell the first broken promise of each history, with the command that tells its story."""
    return [
        f"{found[0]}; see: python -m tests.simulation --seed {seed}{' --assigned' if assigned else ''}"
        for seed in seeds
        if (found := problems(run(scenario(seed, assigned=assigned))))
    ]


@pytest.mark.parametrize("first", range(0, HISTORIES, CHUNK))
def test_no_history_breaks_a_promise(first: int) -> None:
    assert wrong(range(first, first + CHUNK)) == []


@pytest.mark.parametrize("first", range(0, HISTORIES // 4, CHUNK))
def test_no_history_of_a_shared_group_breaks_a_promise(first: int) -> None:
    assert wrong(range(first, first + CHUNK), assigned=True) == []


def test_two_thousand_histories_take_less_than_a_minute() -> None:
    began = time.process_time()
    wrong(range(100))

    assert (time.process_time() - began) * HISTORIES / 100 < 60


def test_every_history_is_large_and_most_have_faults() -> None:
    drawn = [scenario(seed) for seed in range(HISTORIES)]
    disturbed = [run(scenario(seed)).disturbances > 0 for seed in range(200)]

    assert all(one.messages >= 100 and one.keys >= 10 and one.partitions >= 2 for one in drawn)
    assert sum(disturbed) > 0.6 * len(disturbed)


def test_a_seed_reproduces_its_history() -> None:
    def told(seed: int, hash_seed: str) -> bytes:
        command = [sys.executable, "-m", "tests.simulation", "--seed", str(seed)]
        return subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, check=True
        ).stdout

    for seed in (3, 8, 17):
        story = told(seed, "1")
        assert len(story.splitlines()) > 100
        assert story == told(seed, "2")
