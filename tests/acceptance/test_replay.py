"""A replay handles again what a group has handled, each message once, and touches no other group."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from tests.acceptance import orders
from tests.acceptance.checker import ordered
from tests.acceptance.orders import OrderPlaced
from tests.acceptance.world import World, until, until_none, working
from yeondong import Yeondong
from yeondong.core.store import Session

CUSTOMERS = [f"c{number:02}" for number in range(10)]
EACH = 4


@pytest.fixture
def app(world: World) -> Yeondong:
    app = orders.make()
    orders.prepare(app)
    return app


def place(app: Yeondong, *numbers: int) -> None:
    for number in numbers:
        orders.place(app, [OrderPlaced(customer, number) for customer in CUSTOMERS])


def ask(app: Yeondong, start: str) -> None:
    session: Session = app.store.connect()
    session.flows.ask_replay("orders/search", start)
    session.close()


def generation(world: World) -> int:
    return sum(number for (number,) in world.rows("SELECT generation FROM yeondong_flows WHERE flow = 'orders/search'"))


def effects(world: World) -> dict[str, int]:
    return dict(world.rows("SELECT receiver, count(*) FROM effects GROUP BY 1"))


def wrong(world: World, replayed: int, first: int = 0) -> list[str]:
    """Say what is wrong after so many replays of the orders from ``first`` on."""
    found = []
    for customer in CUSTOMERS:
        for number in range(EACH):
            count = world.count("effects", "receiver = 'search' AND customer = ? AND number = ?", customer, number)
            expected = 1 + (replayed if number >= first else 0)
            if count != expected:
                found.append(f"{customer}/{number} was handled {count} times, not {expected}")
    once = effects(world).get("statistics", 0)
    if once != EACH * len(CUSTOMERS):
        found.append(f"statistics has {once} effects")
    return found


def in_order(world: World, passes: int, first: int = 0) -> None:
    """See that each pass handled each key in order."""
    rows = world.rows("SELECT customer, number FROM effects WHERE receiver = 'search' ORDER BY id")
    for customer in CUSTOMERS:
        of_key = [row for row in rows if row[0] == customer]
        again = of_key[EACH:]
        each = EACH - first
        assert ordered(of_key[:EACH])
        for start in range(0, passes * each, each):
            assert ordered(again[start : start + each])


def test_from_the_start(world: World, app: Yeondong) -> None:
    place(app, *range(EACH))
    with working(app):
        until_none(lambda: wrong(world, 0))
        for replays in (1, 2):
            ask(app, "start")
            until_none(lambda times=replays: wrong(world, times))  # type: ignore[misc]
            assert generation(world) == replays
    in_order(world, 2)
    # What the handler adds are new messages each time: only effects of its own are repeated by a replay.
    assert effects(world)["points"] == 3 * EACH * len(CUSTOMERS)


def test_from_a_time(world: World, app: Yeondong) -> None:
    place(app, 0, 1)
    with working(app):
        until(lambda: effects(world).get("search") == 2 * len(CUSTOMERS), "the first are handled")
        sent = world.one("SELECT max(stored_at) FROM yeondong_broker_log WHERE channel = 'orders'") / 1e6
        until(lambda: time.time() > sent + 0.01, "later ones can be told from these")
        since = datetime.now(UTC).isoformat()
        place(app, 2, 3)
        until_none(lambda: wrong(world, 0))
        ask(app, since)
        until_none(lambda: wrong(world, 1, first=2))
    in_order(world, 1, first=2)


def test_while_new_messages_come_and_the_worker_is_killed(world: World, app: Yeondong) -> None:
    place(app, 0, 1)
    killed = world.start("handlers")
    world.start("relay")
    until(lambda: effects(world).get("search") == 2 * len(CUSTOMERS), "the first are handled")
    ask(app, "start")
    until(lambda: generation(world) == 1, "the replay has begun")
    place(app, 2, 3)
    until(lambda: effects(world)["search"] > 2 * len(CUSTOMERS), "it handles again")
    killed.kill()
    world.start("handlers")

    until(lambda: wrong_in_part(world) == [], "everything was handled, the first ones again")
    world.stop()
    assert wrong_in_part(world) == []


def wrong_in_part(world: World) -> list[str]:
    """As ``wrong``: what came while the replay was carried out was repeated or not, but handled."""
    found = []
    for number in range(EACH):
        for customer in CUSTOMERS:
            count = world.count("effects", "receiver = 'search' AND customer = ? AND number = ?", customer, number)
            if count not in ((2,) if number < 2 else (1, 2)):
                found.append(f"{customer}/{number} was handled {count} times")
    if effects(world).get("statistics", 0) != EACH * len(CUSTOMERS):
        found.append("statistics has other effects than it should")
    return found
