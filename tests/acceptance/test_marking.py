"""Sent rows are known by their status, or by the last id sent: the same promises either way."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from tests.acceptance import orders
from tests.acceptance.checker import findings
from tests.acceptance.orders import OrderPlaced
from tests.acceptance.world import World, until, until_none, working
from yeondong import TransactionError, Yeondong
from yeondong.core import failpoint
from yeondong.core.store import FailureFilter

CUSTOMERS = [f"c{number:02}" for number in range(10)]
FACTORIES = {"status": "tests.acceptance.orders:make", "position": "tests.acceptance.orders:by_position"}
LARGE = """
UPDATE yeondong_outbox SET payload = CAST(json_set(payload, '$.text', hex(zeroblob(600000))) AS BLOB) WHERE key = ?
"""


@pytest.fixture(params=["status", "position"])
def marking(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def app(world: World, marking: str) -> Yeondong:
    app = orders.make() if marking == "status" else orders.by_position()
    orders.prepare(app)
    return app


def kept(world: World) -> list[str]:
    return findings(world.database, letters=orders.LETTERS)


# --- what the view tells ----------------------------------------------------------------------------------------------


def statuses(world: World) -> dict[str, int]:
    return dict(world.rows("SELECT status, count(*) FROM yeondong_outbox_status GROUP BY 1"))


def test_the_view_tells_what_became_of_each_row(world: World, app: Yeondong, marking: str) -> None:
    orders.place(app, [OrderPlaced(customer, 0) for customer in CUSTOMERS])
    assert statuses(world) == {"WAITING": 10}
    world.rows(LARGE, "c03")

    with working(app, "relay"):
        until(lambda: statuses(world) == {"DONE": 9, "FAILED": 1}, "the relay has been through them")
        (row,) = world.rows(
            "SELECT key, attempts, failed_at IS NOT NULL, processed_at, last_error FROM yeondong_outbox_status "
            "WHERE status = 'FAILED'"
        )
        assert row[:4] == ("c03", 1, 1, None)
        assert "is larger than the limit" in row[4]
        assert world.count("yeondong_outbox_status", "status = 'DONE' AND sent_before IS NULL") == 0
        assert world.count("yeondong_outbox_status", "status = 'DONE' AND attempts <> 1") == 0

        # Under marking by position the rows themselves never change.
        untouched = world.count("yeondong_outbox", "status = 'WAITING' AND fail_count = 0 AND processed_at IS NULL")
        assert untouched == (0 if marking == "status" else 10)
        discard(app)
        until(lambda: "FAILED" not in statuses(world), "nothing failed is left")


def discard(app: Yeondong) -> None:
    session = app.store.connect()
    (failure,) = session.failures.find(FailureFilter(flow="outbox"), 10)
    assert session.failures.discard([failure.id], by="test") == 1
    session.close()


def test_two_unclean_ends_of_the_relay_lose_nothing(world: World, app: Yeondong, marking: str) -> None:
    factory = FACTORIES[marking]
    world.start("handlers", factory=factory)
    for number, point in enumerate((failpoint.SENT, failpoint.SETTLING)):
        orders.place_and_fail(app, [OrderPlaced("phantom", number)])
        orders.place(app, [OrderPlaced(customer, number) for customer in CUSTOMERS])
        assert world.start("relay", "--kill", f"{point}:1", factory=factory).killed_itself()
    world.start("relay", factory=factory)

    until_none(lambda: kept(world))
    repeated = world.rows("SELECT message_id FROM yeondong_broker_log GROUP BY 1 HAVING count(*) > 1")
    assert len(repeated) >= len(CUSTOMERS), "both ends came after the sending and before the marking"
    world.stop()


def test_a_replay_sends_what_was_sent_again_under_its_ids(world: World, app: Yeondong, marking: str) -> None:
    orders.place(app, [OrderPlaced(customer, 0) for customer in CUSTOMERS])
    with working(app):
        until_none(lambda: kept(world))
        session = app.store.connect()
        session.flows.ask_replay("outbox", "start")
        placed = "SELECT count(*) FROM yeondong_broker_log WHERE channel = 'orders' GROUP BY message_id"
        until(lambda: world.rows(placed) == [(2,)] * len(CUSTOMERS), "each order is there twice")
        until(lambda: session.flows.control("outbox").replay is None, "the request is through")
        session.close()
        orders.place(app, [OrderPlaced(customer, 1) for customer in CUSTOMERS])
        until_none(lambda: kept(world))
    assert statuses(world).keys() == {"DONE"}


# --- whose transaction it may be --------------------------------------------------------------------------------------


@contextlib.contextmanager
def plain(world: World) -> Iterator[tuple[Any, Callable[[], None], Callable[[], None]]]:
    with contextlib.closing(sqlite3.connect(world.database)) as connection:
        yield connection, connection.commit, connection.rollback


@contextlib.contextmanager
def cursor(world: World) -> Iterator[tuple[Any, Callable[[], None], Callable[[], None]]]:
    with contextlib.closing(sqlite3.connect(world.database)) as connection:
        yield connection.cursor(), connection.commit, connection.rollback


@contextlib.contextmanager
def alchemy(world: World) -> Iterator[tuple[Any, Callable[[], None], Callable[[], None]]]:
    engine = sqlalchemy.create_engine(f"sqlite:///{world.database}")
    with engine.connect() as connection:
        yield connection, connection.commit, connection.rollback
    engine.dispose()


@contextlib.contextmanager
def alchemy_session(world: World) -> Iterator[tuple[Any, Callable[[], None], Callable[[], None]]]:
    engine = sqlalchemy.create_engine(f"sqlite:///{world.database}")
    with Session(engine) as session:
        yield session, session.commit, session.rollback
    engine.dispose()


def placed_in(tx: Any, app: Yeondong, order: OrderPlaced) -> None:
    """Change a row and add the message about it, in somebody's transaction."""
    statement = "INSERT INTO placed VALUES (:customer, :number)"
    values = {"customer": order.customer, "number": order.number}
    if isinstance(tx, sqlalchemy.Connection | Session):
        tx.execute(sqlalchemy.text(statement), values)
    else:
        tx.execute(statement, values)
    assert app.relay is not None
    app.relay.add(tx, order)


@pytest.mark.parametrize("transaction", [plain, cursor, alchemy, alchemy_session])
def test_a_message_shares_the_fate_of_the_change(world: World, app: Yeondong, transaction: Any) -> None:
    with transaction(world) as (tx, commit, rollback):
        placed_in(tx, app, OrderPlaced("c01", 0))
        rollback()
        placed_in(tx, app, OrderPlaced("c01", 1))
        placed_in(tx, app, OrderPlaced("c02", 1))
        commit()
        placed_in(tx, app, OrderPlaced("c01", 2))
        commit()
        placed_in(tx, app, OrderPlaced("c01", 3))
        rollback()
    assert world.count("yeondong_outbox") == 3

    with working(app):
        until_none(lambda: kept(world))
    assert world.rows("SELECT customer, number FROM effects WHERE receiver = 'search' AND customer = 'c01'") == [
        ("c01", 1),
        ("c01", 2),
    ]


def test_an_autocommit_connection_of_sqlalchemy_is_refused(world: World, app: Yeondong) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{world.database}", isolation_level="AUTOCOMMIT")
    assert app.relay is not None
    with engine.connect() as connection, pytest.raises(TransactionError, match="commits each statement by itself"):
        app.relay.add(connection, OrderPlaced("c01", 0))
    with Session(engine) as session, pytest.raises(TransactionError, match="commits each statement by itself"):
        app.relay.add(session, OrderPlaced("c01", 0))
    engine.dispose()
    assert world.count("yeondong_outbox") == 0


def test_what_a_handler_adds_shares_the_fate_of_its_effect(world: World, app: Yeondong) -> None:
    troubles = {"c02": "flaky", "c03": "flakier", "c04": "broken"}
    orders.place(app, [OrderPlaced(customer, 0, troubles.get(customer, "")) for customer in CUSTOMERS])

    with working(app):
        until(lambda: world.count("yeondong_held", "status = 'FAILED'") == 2, "one order fails in two groups")
        until(lambda: world.count("effects", "receiver = 'points'") == 9, "points follow from the others")
    # Whatever a failing attempt had added was undone with it.
    assert world.count("yeondong_outbox", "channel = 'points'") == 9
    assert world.count("yeondong_broker_log", "channel = 'points' AND key = 'c04'") == 0
