"""Tables stay bounded: what is past its retention goes, whoever of several apps does it."""

from __future__ import annotations

import pytest

from tests.acceptance.world import World, until, working
from yeondong import Event, Transaction, Yeondong
from yeondong.app.declared import Marking

SOON_DAYS = 0.2 / 86_400


class Placed(Event, channel="orders", key="customer"):
    customer: str
    number: int


def bounded(world: World) -> None:
    world.set(
        janitor_seconds=0.2,
        outbox_retention_days=SOON_DAYS,
        inbox_retention_days=SOON_DAYS,
        broker_retention_days=SOON_DAYS,
    )


@pytest.mark.parametrize("marking", ["status", "position"])
def test_what_is_done_is_swept_from_outbox_inbox_and_log(world: World, marking: Marking) -> None:
    bounded(world)
    app = Yeondong("orders")
    outbox = app.outbox(marking=marking)

    @app.subscribe(Placed, group="search")
    def index(placed: Placed, tx: Transaction) -> None:
        tx.execute("INSERT INTO effects VALUES (:number)", placed)

    with app.transaction() as tx:
        tx.execute("CREATE TABLE effects (number)")
        outbox.add(tx, *(Placed("kim", number) for number in range(20)))

    with working(app):
        until(lambda: world.count("effects") == 20, "all handled")
        tables = ("yeondong_outbox", "yeondong_inbox", "yeondong_broker_log")
        until(lambda: [world.count(table) for table in tables] == [0, 0, 0], "all swept")
    assert world.count("effects") == 20


def test_another_apps_worker_does_not_keep_the_outbox_from_being_swept(world: World) -> None:
    bounded(world)
    first = Yeondong("orders", store="sqlite:///orders.db")
    outbox = first.outbox(marking="position")
    first.sends(Placed)
    second = Yeondong("search", store="sqlite:///orders.db")

    @second.subscribe(Placed, group="search")
    def index(placed: Placed) -> None:
        """Only receive."""

    with working(second), working(first):
        with first.transaction() as tx:
            outbox.add(tx, *(Placed("kim", number) for number in range(20)))
        until(lambda: world.count("yeondong_positions", "position = '20'") == 1, "sent")
        until(lambda: world.count("yeondong_outbox") == 0, "swept")
