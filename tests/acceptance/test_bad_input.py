"""What cannot work is told in a sentence of its own, where it is written, and loses nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.acceptance.world import World, until, working
from yeondong import Command, Event, Transaction, Yeondong
from yeondong.app.assembly import make_worker
from yeondong.core.store import FailureFilter
from yeondong.errors import (
    ClosedConnection,
    DeclarationError,
    ForeignConnection,
    MessageRefused,
    NotInTransaction,
    ReceiverError,
    SettingsError,
    UnknownChannel,
    UnknownEndpoint,
)

NAIVE = datetime(2026, 11, 20, 9, 30)  # noqa: DTZ001 - naive on purpose


class OrderPlaced(Event, channel="orders", key="number"):
    number: int
    text: str = ""


class OrderMoved(Event, channel="orders", key="to"):
    to: Any


class OrderTimed(Event, channel="orders"):
    at: datetime


class OrderForgotten(Event, channel="forgotten"):
    number: int


class GrantPoints(Command, channel="points"):
    number: int


@pytest.fixture
def app(world: World) -> Yeondong:
    app = Yeondong("orders")
    app.outbox()

    @app.subscribe(OrderPlaced, group="search")
    def index(order: OrderPlaced, tx: Transaction) -> None:
        tx.execute("INSERT INTO effects VALUES (:number)", order)

    app.sends(OrderMoved, OrderTimed)
    app.store.prepare()
    with app.transaction() as tx:
        tx.execute("CREATE TABLE effects (number INTEGER)")
    return app


@pytest.fixture
def connection(world: World, app: Yeondong) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(world.database)) as connection:
        yield connection


def add(app: Yeondong, tx: Any, *messages: Event | Command) -> None:
    assert app.relay is not None
    app.relay.add(tx, *messages)


def handled(world: World) -> list[int]:
    return [number for (number,) in world.rows("SELECT number FROM effects ORDER BY number")]


# --- messages that can never be sent ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "error", "sentence"),
    [
        (OrderForgotten(1), UnknownChannel, r"no channel named 'forgotten' in app 'orders'; known channels: orders"),
        (OrderPlaced(1, "x" * (2 << 20)), MessageRefused, r"OrderPlaced has \d+ bytes .* at most 1048576 are allowed"),
        (OrderMoved(1.5), MessageRefused, r"OrderMoved.to is 1.5, a float: a key is a str, an int or a UUID"),
        (
            OrderTimed(NAIVE),
            MessageRefused,
            r"OrderTimed.at is datetime.*, which has no time zone.*datetime.now\(UTC\)",
        ),
    ],
    ids=["unknown channel", "too large", "wrong key", "naive datetime"],
)
def test_a_message_that_can_never_be_sent_is_refused_in_the_callers_transaction(
    world: World, app: Yeondong, connection: sqlite3.Connection, message: Event, error: type[Exception], sentence: str
) -> None:
    connection.execute("INSERT INTO effects VALUES (0)")
    with pytest.raises(error, match=sentence):
        add(app, connection, OrderPlaced(1), message)
    add(app, connection, OrderPlaced(2))
    connection.commit()

    with working(app):
        until(lambda: handled(world) == [0, 2], "the change, and what was right, are there")
        with pytest.raises(error, match=sentence):
            app.publish(OrderPlaced(3), message)
        app.publish(OrderPlaced(4))
        until(lambda: handled(world) == [0, 2, 4], "what was right is there")
    assert world.count("yeondong_broker_log") == 2


def test_a_command_cannot_be_published_nor_an_event_sent(app: Yeondong) -> None:
    app.sends(GrantPoints)
    with pytest.raises(MessageRefused, match="GrantPoints is a command, not an event; commands are sent"):
        app.publish(GrantPoints(1))  # type: ignore[arg-type]
    with pytest.raises(MessageRefused, match="OrderPlaced is an event, not a command; events are published"):
        app.send(OrderPlaced(1))  # type: ignore[arg-type]


# --- transactions that cannot carry a message -------------------------------------------------------------------------


def closed(world: World) -> Any:
    connection = sqlite3.connect(world.database)
    connection.close()
    return connection


def autocommit(world: World) -> Any:
    return sqlite3.connect(world.database, isolation_level=None)


def elsewhere(world: World) -> Any:
    return sqlite3.connect(world.folder / "other.db")


def in_memory(world: World) -> Any:
    return sqlite3.connect(":memory:")


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (closed, ClosedConnection, "the connection is closed; add within the transaction"),
        (autocommit, NotInTransaction, "this connection commits each statement by itself.*run BEGIN first"),
        (elsewhere, ForeignConnection, "the connection is open on .*other.db, the store is .*orders.db"),
        (in_memory, ForeignConnection, "the connection is open on a database in memory"),
        (lambda _world: "orders.db", ForeignConnection, "builtins.str cannot write to the store .*orders.db"),
        (lambda _world: None, ForeignConnection, "NoneType cannot write to the store"),
    ],
    ids=["closed", "autocommit", "other file", "memory", "a path", "nothing"],
)
def test_a_connection_that_cannot_carry_a_message_is_refused(
    world: World, app: Yeondong, make: Callable[[World], Any], error: type[Exception], sentence: str
) -> None:
    tx = make(world)
    with pytest.raises(error, match=sentence):
        add(app, tx, OrderPlaced(1))
    if isinstance(tx, sqlite3.Connection):
        tx.close()
    assert world.count("yeondong_outbox") == 0


def test_an_autocommit_connection_within_a_transaction_is_taken(world: World, app: Yeondong) -> None:
    with contextlib.closing(autocommit(world)) as connection:
        connection.execute("BEGIN")
        add(app, connection, OrderPlaced(1))
        connection.execute("ROLLBACK")
        assert world.count("yeondong_outbox") == 0
        connection.execute("BEGIN")
        add(app, connection, OrderPlaced(1))
        connection.execute("COMMIT")
    assert world.count("yeondong_outbox") == 1


# --- declarations -----------------------------------------------------------------------------------------------------


def takes_another_type(app: Yeondong) -> None:
    @app.subscribe(OrderPlaced, group="other")  # type: ignore[arg-type]
    def wrong(order: OrderMoved) -> None: ...


def asks_for_what_nobody_gives(app: Yeondong) -> None:
    @app.subscribe(OrderPlaced, group="other")
    def wrong(order: OrderPlaced, session: dict[str, str]) -> None: ...


def knows_no_such_option(app: Yeondong) -> None:
    @app.subscribe(OrderPlaced, group="other", atempts=3)  # type: ignore[call-arg]
    def never(order: OrderPlaced) -> None: ...


def tries_never(app: Yeondong) -> None:
    @app.subscribe(OrderPlaced, group="other", attempts=0)
    def never(order: OrderPlaced) -> None: ...


def fails_in_no_known_way(app: Yeondong) -> None:
    @app.subscribe(OrderPlaced, group="other", on_failure="ignore")  # type: ignore[arg-type]
    def never(order: OrderPlaced) -> None: ...


def has_two_handlers_in_one_group(app: Yeondong) -> None:
    @app.subscribe(OrderPlaced, group="search")
    def again(order: OrderPlaced) -> None: ...


def has_two_policies_in_one_group(app: Yeondong) -> None:
    @app.subscribe(OrderMoved, group="search", attempts=3)
    def moved(order: OrderMoved) -> None: ...


def has_two_outboxes(app: Yeondong) -> None:
    app.outbox()


def has_no_name(app: Yeondong) -> None:
    Yeondong("my/app")


@pytest.mark.parametrize(
    ("declare", "sentence"),
    [
        (takes_another_type, "takes OrderMoved and is given OrderPlaced; change the annotation of 'order'"),
        (asks_for_what_nobody_gives, "nothing gives its parameter 'session'; annotate it with Transaction, Message or"),
        (knows_no_such_option, "orders/other: no option 'atempts'; known options: attempts, backoff, on_failure"),
        (tries_never, "orders/other: attempts=0; give a whole number from 1"),
        (fails_in_no_known_way, "orders/other: on_failure='ignore'; known: park, hold_key, stop"),
        (has_two_handlers_in_one_group, "orders/search handles OrderPlaced already, .*two flows of one name cannot be"),
        (has_two_policies_in_one_group, "orders/search is one flow with one policy"),
        (has_two_outboxes, "app 'orders' has an outbox already; a second flow named 'outbox' cannot be"),
        (has_no_name, "'my/app' is no name for an app"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused_where_it_is_written(
    world: World, app: Yeondong, declare: Callable[[Yeondong], None], sentence: str
) -> None:
    with pytest.raises(DeclarationError, match=sentence):
        declare(app)
    app.publish(OrderPlaced(1))
    with working(app):
        until(lambda: handled(world) == [1], "what was declared before works")


def test_who_publishes_first_finds_no_tables_and_makes_them(world: World) -> None:
    app = Yeondong("orders")
    app.sends(OrderPlaced)
    app.publish(OrderPlaced(1))
    assert world.count("yeondong_broker_log") == 1


def test_an_app_with_nothing_to_run_says_so(world: World) -> None:
    with pytest.raises(
        DeclarationError, match="app 'empty' has nothing to run: it declares no outbox, no subscription"
    ):
        make_worker(Yeondong("empty"))


# --- endpoints and settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        (
            {"store": "oracle://db/orders"},
            UnknownEndpoint,
            "no store serves 'oracle://db/orders' .*known schemes: .*sqlite",
        ),
        (
            {"broker": "carrier-pigeon://roof"},
            UnknownEndpoint,
            "no broker serves 'carrier-pigeon://roof'.*memory, sqlite",
        ),
        ({"store": "sqlite://orders.db"}, SettingsError, "'sqlite://orders.db' names no file; write sqlite:///shop.db"),
        ({"lease_second": 3}, SettingsError, "no setting named 'lease_second'.*did you mean lease_seconds?"),
        ({"lanes": 0}, SettingsError, "lanes = 0 in .*yeondong.toml cannot be used"),
    ],
)
def test_a_setting_that_cannot_be_used_is_told(
    world: World, settings: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    world.set(**settings)
    app = Yeondong("orders")
    with pytest.raises(error, match=sentence):
        _ = app.store, app.broker
    assert not world.database.exists()


# --- receivers --------------------------------------------------------------------------------------------------------


def test_a_command_has_one_receiver(world: World, app: Yeondong) -> None:
    first, second, sender = Yeondong("first", **SHARED), Yeondong("second", **SHARED), Yeondong("third", **SHARED)
    sender.sends(GrantPoints)
    sender.broker.prepare()
    with pytest.raises(ReceiverError, match="command GrantPoints of channel 'points' has no receiver"):
        sender.register()

    for receiver in (first, second):

        @receiver.handle(GrantPoints)
        def grant(points: GrantPoints) -> None: ...

    first.register()
    with pytest.raises(
        ReceiverError, match=r"command 'GrantPoints' .*has a receiver already: group 'first' of app 'first'"
    ):
        second.register()
    sender.register()


SHARED: dict[str, Any] = {"store": "sqlite:///orders.db", "broker": "sqlite:///orders.db"}


# --- rows that somebody else has written ------------------------------------------------------------------------------

ROW = {
    "message_id": "'m-{0}'", "type": "'OrderPlaced'", "kind": "'event'", "key": "'k-{0}'", "headers": "NULL",
    "origin": "'/elsewhere'", "occurred_at": "NULL", "data": """CAST('{{"number":{0}}}' AS BLOB)""",
}  # fmt: skip
FOREIGN = [
    ({"data": "CAST('{\"number\":' AS BLOB)"}, "the data does not decode as OrderPlaced"),
    ({"data": 'CAST(\'{"number":"seven"}\' AS BLOB)'}, "Expected `int`, got `str` - at `$.number`"),
    ({"data": "X'FFFE00'"}, "the data does not decode as OrderPlaced"),
    ({"data": "NULL"}, "it is a tombstone"),
    ({"type": "'OrderSold'"}, "no handler for type 'OrderSold'; this worker handles: OrderPlaced"),
    ({"kind": "'rumour'"}, "rumour"),
    ({"headers": "'{'"}, "broken"),
    ({"headers": "'[1]'"}, "broken"),
    ({"occurred_at": "'yesterday'"}, "yesterday"),
    ({"key": "X'6B'"}, "broken"),
    ({"message_id": "X'6D'"}, "broken"),
    ({"type": "X'6D'"}, "broken"),
]


def foreign(number: int, changed: dict[str, str]) -> dict[str, str]:
    plain = {column: value.format(number) for column, value in ROW.items()}
    return {**plain, **changed}


def test_broken_rows_of_the_log_are_parked_and_the_others_handled(
    world: World, app: Yeondong, connection: sqlite3.Connection
) -> None:
    app.broker.prepare()
    for number, (changed, _) in enumerate(FOREIGN):
        for row in (foreign(number, changed), foreign(100 + number, {})):
            connection.execute(
                f"INSERT INTO yeondong_broker_log (channel, stored_at, bytes, {', '.join(row)}) "
                f"VALUES ('orders', 0, 100, {', '.join(row.values())})"
            )
    connection.commit()

    with working(app):
        until(lambda: handled(world) == [100 + number for number in range(len(FOREIGN))], "the others are handled")
        until(lambda: len(reasons(app)) == len(FOREIGN), "all broken ones are failures")
    assert [sentence for _, sentence in FOREIGN if not any(sentence in reason for reason in reasons(app))] == []


def test_broken_rows_of_the_outbox_are_failures_and_the_others_sent(
    world: World, app: Yeondong, connection: sqlite3.Connection
) -> None:
    broken = [changed for changed, reason in FOREIGN if not changed.keys() & {"data"} and "no handler" not in reason]
    names = {"type": "message_type", "data": "payload"}
    for number, changed in enumerate(broken):
        for row in (foreign(number, changed), foreign(100 + number, {})):
            columns = ", ".join(names.get(column, column) for column in row)
            connection.execute(
                f"INSERT INTO yeondong_outbox (channel, partition, {columns}) "
                f"VALUES ('orders', 0, {', '.join(row.values())})"
            )
    connection.commit()

    with working(app):
        until(lambda: handled(world) == [100 + number for number in range(len(broken))], "the others are handled")
        until(lambda: len(reasons(app)) == len(broken), "all broken ones are failures")


def reasons(app: Yeondong) -> list[str]:
    session = app.store.connect()
    try:
        failures = session.failures.find(FailureFilter(), 100)
    finally:
        session.close()
    return [failure.error for failure in failures]
