"""A message that kills its process becomes a failure, by itself; all others are handled."""

from __future__ import annotations

from functools import partial

from tests.acceptance import orders
from tests.acceptance.checker import findings
from tests.acceptance.orders import OrderPlaced
from tests.acceptance.world import Process, World, until, until_none
from yeondong import Yeondong
from yeondong.core.store import FailureFilter

CUSTOMERS = [f"c{number:02}" for number in range(10)]
DEADLY = ("c04", 1)
# The first end is not expected, so its attempt was not written.
MOST_ENDS = orders.ATTEMPTS + 1


def test_a_message_that_kills_its_process(world: World) -> None:
    app = orders.make()
    orders.prepare(app)
    place(app, "deadly")
    world.start("relay")

    ends = restarted_until_it_stays(world)
    assert ends <= MOST_ENDS
    parked_alone(world, app)


def test_a_message_that_kills_its_process_when_it_is_tried_again(world: World) -> None:
    world.set(memory_wait_seconds=0.01)
    app = orders.make()
    orders.prepare(app)
    place(app, "deadly later")
    world.start("relay")

    ends = restarted_until_it_stays(world)
    assert ends <= MOST_ENDS
    parked_alone(world, app)


def test_what_another_flow_had_in_work_at_each_end_is_not_blamed(world: World) -> None:
    app = orders.make()
    orders.prepare(app)
    world.start("relay").ready()
    first = world.start("handlers").ready()
    until(lambda: first.log().count("flow.running") == 4, "all flows are open, so that each knows of the unclean end")
    # The group without a transaction has this one in hand whenever the deadly one ends their process.
    orders.place(app, [OrderPlaced("c04", 0, "slow to write")])
    place(app, "deadly", first=1)
    assert first.killed_itself()

    restarted_until_it_stays(world)
    parked_alone(world, app)


def place(app: Yeondong, trouble: str, first: int = 0) -> None:
    for number in range(first, 3):
        orders.place(app, [OrderPlaced(c, number, trouble if (c, number) == DEADLY else "") for c in CUSTOMERS])


def restarted_until_it_stays(world: World) -> int:
    """Start the worker as often as it ends, as a supervisor would; return how often it ended."""
    ends = 0
    while True:
        worker = world.start("handlers")
        until(partial(ended_or_parked, world, worker), "it ended, or gave up a message")
        if worker.alive():
            return ends
        assert worker.killed_itself(), worker.log()
        ends += 1
        assert ends <= 2 * MOST_ENDS, "it ends again and again"


def ended_or_parked(world: World, worker: Process) -> bool:
    return not worker.alive() or len(failures(world)) > 0


def failures(world: World) -> list[tuple[str, str]]:
    return world.rows("SELECT flow, key FROM yeondong_held WHERE status = 'FAILED'")


def parked_alone(world: World, app: Yeondong) -> None:
    placed = world.count("placed")
    behind = world.count("placed", "customer = ? AND number >= ?", *DEADLY)
    until(lambda: world.count("effects", "receiver = 'search'") == placed - behind, "the others are applied")
    until(lambda: world.count("effects", "receiver = 'statistics'") == placed, "the other group has all")
    assert failures(world) == [("orders/search", "c04")]

    session = app.store.connect()
    (failure,) = session.failures.find(FailureFilter(), 10)
    assert "the process ended" in failure.error
    assert f"{failure.attempts} times" in failure.error
    assert failure.behind == behind - 1
    orders.REPAIRED.touch()
    assert session.failures.retry([failure.id], by="test") == 1
    session.close()
    until_none(lambda: findings(world.database, letters=orders.LETTERS))
    world.stop()
