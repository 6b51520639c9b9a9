"""Old and new workers run side by side: what the old one does not know waits by name for the new one."""

from __future__ import annotations

import pytest

from tests.acceptance.world import World, until
from yeondong import Event, Transaction, Yeondong
from yeondong.core.store import FailureFilter


class OrderPlaced(Event, channel="orders", key="customer"):
    customer: str
    number: int


class OrderReturned(Event, channel="orders", key="customer"):
    customer: str
    number: int


CUSTOMERS = [f"c{number:02}" for number in range(6)]


def old() -> Yeondong:
    app = Yeondong("orders")
    app.outbox()

    @app.subscribe(OrderPlaced, group="search")
    def index(order: OrderPlaced, tx: Transaction) -> None:
        tx.execute("INSERT INTO effects VALUES (:customer, :number, 'placed')", order)

    return app


def new() -> Yeondong:
    app = old()

    @app.subscribe(OrderReturned, group="search")
    def remove(order: OrderReturned, tx: Transaction) -> None:
        tx.execute("INSERT INTO effects VALUES (:customer, :number, 'returned')", order)

    return app


@pytest.fixture
def app(world: World) -> Yeondong:
    app = new()
    app.store.prepare()
    with app.transaction() as tx:
        tx.execute("CREATE TABLE effects (customer TEXT, number INTEGER, what TEXT)")
    return app


def effects(world: World, customer: str) -> list[tuple[int, str]]:
    return world.rows("SELECT number, what FROM effects WHERE customer = ? ORDER BY rowid", customer)


def failed(world: World) -> int:
    return world.count("yeondong_held", "status = 'FAILED'")


def test_an_unknown_type_waits_by_name_until_the_new_worker_can_handle_it(world: World, app: Yeondong) -> None:
    assert app.relay is not None
    first = world.start("all", factory="tests.acceptance.test_old_and_new:old").ready()
    with app.transaction() as tx:
        for customer in CUSTOMERS:
            app.relay.add(tx, OrderPlaced(customer, 1))
        # Every other customer returns something, and then orders again.
        for customer in CUSTOMERS[::2]:
            app.relay.add(tx, OrderReturned(customer, 2))
        for customer in CUSTOMERS:
            app.relay.add(tx, OrderPlaced(customer, 3))

    until(lambda: failed(world) == 3, "what the old worker does not know is parked")
    until(lambda: effects(world, "c01") == [(1, "placed"), (3, "placed")], "other keys go on")
    until(lambda: world.count("yeondong_held") == 6, "what comes later of the same keys waits behind it")
    assert effects(world, "c00") == [(1, "placed")]

    session = app.store.connect()
    failures = session.failures.find(FailureFilter(type="OrderReturned"), 10)
    assert {failure.error for failure in failures} == {
        "no handler for type 'OrderReturned'; this worker handles: OrderPlaced"
    }
    assert [failure.behind for failure in failures] == [1, 1, 1]

    second = world.start("all", factory="tests.acceptance.test_old_and_new:new").ready()
    assert first.stop() == 0
    until(lambda: world.holds(second, "orders/search"), "the new worker has taken over")
    assert session.failures.retry([failure.id for failure in failures], by="test") == 3
    session.close()
    for customer in CUSTOMERS[::2]:
        expected = [(1, "placed"), (2, "returned"), (3, "placed")]
        until(lambda: effects(world, customer) == expected, f"{customer} has everything, in order")  # noqa: B023
    until(lambda: world.count("yeondong_held") == 0, "nothing waits any more")
    world.stop()


def test_a_retry_while_the_old_worker_still_runs_loses_nothing(world: World, app: Yeondong) -> None:
    assert app.relay is not None
    world.start("all", factory="tests.acceptance.test_old_and_new:old").ready()
    with app.transaction() as tx:
        app.relay.add(tx, OrderReturned("c00", 1), OrderPlaced("c00", 2))

    until(lambda: failed(world) == 1, "it is parked")
    session = app.store.connect()
    (failure,) = session.failures.find(FailureFilter(), 10)
    assert session.failures.retry([failure.id], by="test") == 1
    until(lambda: failed(world) == 1, "it is parked again")
    assert world.count("yeondong_held") == 2
    assert effects(world, "c00") == []

    world.processes[0].stop()
    world.start("all", factory="tests.acceptance.test_old_and_new:new")
    (failure,) = session.failures.find(FailureFilter(), 10)
    assert session.failures.retry([failure.id], by="test") == 1
    session.close()
    until(lambda: effects(world, "c00") == [(1, "returned"), (2, "placed")], "it is handled, in order")
    world.stop()
