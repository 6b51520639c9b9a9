"""Two relays and two workers at once, killed at random under load: nothing is lost, nothing applied twice."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from tests.acceptance import orders
from tests.acceptance.checker import findings
from tests.acceptance.orders import OrderPlaced
from tests.acceptance.world import World, until, until_none

CUSTOMERS = [f"c{number:02}" for number in range(15)]
KILLS = 6
ROUNDS = 24


@pytest.mark.parametrize("seed", range(2))
def test_processes_that_are_killed_at_random(world: World, seed: int) -> None:
    random = Random(seed)
    app = orders.make()
    orders.prepare(app)
    running = [world.start(parts) for parts in ("relay", "relay", "handlers", "handlers")]
    kills = [*range(4), *random.choices(range(4), k=KILLS - 4)]  # each of them at least once
    random.shuffle(kills)
    when = sorted(random.sample(range(1, ROUNDS), KILLS))

    for number in range(ROUNDS):
        orders.place_and_fail(app, [OrderPlaced("phantom", number)])
        orders.place(app, [OrderPlaced(c, number, "flaky" if random.random() < 0.05 else "") for c in CUSTOMERS])
        if number in when:
            victim = kills.pop()
            progress = world.count("effects") + random.randrange(3 * len(CUSTOMERS))
            until(partial(reached, world, progress), "work goes on")
            running[victim].kill()
            running[victim] = world.start(running[victim].name.rpartition("-")[2])

    until_none(lambda: findings(world.database, letters=orders.LETTERS))
    assert world.count("effects") == 3 * ROUNDS * len(CUSTOMERS)
    world.stop()
    assert findings(world.database, letters=orders.LETTERS) == []


def reached(world: World, effects: int) -> bool:
    return world.count("effects") >= effects
