"""The application that the acceptance tests run: orders, and what follows from them.

Each order says which trouble it makes, so that a test decides by what it places. Effects are rows in a table without
any uniqueness: a second effect is seen, not refused.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from examples.shop.ledger import Ledger
from yeondong import Backoff, Command, Delivery, Event, Message, Outcome, Park, Transaction, Yeondong
from yeondong.app.declared import Marking

ATTEMPTS = 3
REPAIRED = Path("repaired")
LETTERS = Path("letters")
LEDGER = Path("ledger.jsonl")
TABLES = """
CREATE TABLE IF NOT EXISTS placed (customer TEXT, number INTEGER, PRIMARY KEY (customer, number));
CREATE TABLE IF NOT EXISTS effects (
  id {counted}, receiver TEXT, message_id TEXT, customer TEXT, number INTEGER, attempt INTEGER,
  pid INTEGER)
"""
COUNTED = {
    "sqlite": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "postgresql": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
}
EFFECT = """
INSERT INTO effects (receiver, message_id, customer, number, attempt, pid)
VALUES (:receiver, :message_id, :customer, :number, :attempt, :pid)
"""
RETRIES = Backoff(first=timedelta(milliseconds=50), most=timedelta(milliseconds=200))


class OrderPlaced(Event, channel="orders", key="customer"):
    customer: str
    number: int
    trouble: str = ""
    text: str = ""


class GrantPoints(Command, channel="points", key="customer"):
    customer: str
    number: int


def make(marking: Marking = "status") -> Yeondong:
    """Three groups of the event (holding, parking, without a transaction), and a command that follows."""
    app = Yeondong("orders")
    outbox = app.outbox(marking=marking)

    @app.subscribe(OrderPlaced, group="search", attempts=ATTEMPTS, backoff=RETRIES)
    def index(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> Outcome | None:
        received("search", order)
        if order.trouble == "deadly" and not REPAIRED.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if order.trouble == "deadly later":
            die_at_the_second_attempt(delivery)
        outbox.add(tx, GrantPoints(order.customer, order.number))
        effect(tx, "search", order, delivery)
        return trouble(order, delivery)

    @app.subscribe(OrderPlaced, group="statistics", attempts=ATTEMPTS, backoff=RETRIES, on_failure="park")
    def count(order: OrderPlaced, delivery: Delivery, tx: Transaction) -> Outcome | None:
        received("statistics", order)
        effect(tx, "statistics", order, delivery)
        return trouble(order, delivery)

    @app.subscribe(OrderPlaced, group="letters", attempts=ATTEMPTS, backoff=RETRIES)
    def write(order: OrderPlaced, message: Message) -> None:
        received("letters", order)
        if order.trouble == "slow to write":
            time.sleep(0.5)
        with LETTERS.open("ab", buffering=0) as letters:
            letters.write(f"{message.id}\t{order.customer}\t{order.number}\n".encode())

    @app.handle(GrantPoints)
    def grant(points: GrantPoints, delivery: Delivery, tx: Transaction) -> None:
        received("points", points)
        effect(tx, "points", points, delivery)

    return app


def by_position() -> Yeondong:
    return make("position")


def die_at_the_second_attempt(delivery: Delivery) -> None:
    """Fail in a way that the process outlives, so that the store has taken the message over before it kills."""
    if delivery.attempt == 1:
        raise ValueError("not at once")
    if not REPAIRED.exists():
        os.kill(os.getpid(), signal.SIGKILL)


def received(receiver: str, order: OrderPlaced | GrantPoints) -> None:
    """Write down that a handler was given a message, whatever becomes of its transaction."""
    ledger = Ledger(LEDGER, by=str(os.getpid()), durable=False)
    ledger.write("received", where=receiver, order=f"{order.customer}/{order.number}")
    ledger.close()


def effect(tx: Transaction, receiver: str, order: OrderPlaced | GrantPoints, delivery: Delivery) -> None:
    tx.execute(EFFECT, {
        "receiver": receiver,
        "message_id": delivery.message.id,
        "customer": order.customer,
        "number": order.number,
        "attempt": delivery.attempt,
        "pid": os.getpid(),
    })  # fmt: skip


def trouble(order: OrderPlaced, delivery: Delivery) -> Outcome | None:
    """Do after the effect what the order says, so that a transaction has something to undo."""
    match order.trouble:
        case "flaky" if delivery.attempt == 1:
            raise ValueError("not at once")
        case "flakier" if delivery.attempt <= 2:
            raise ValueError(f"not at attempt {delivery.attempt}")
        case "broken" if not REPAIRED.exists():
            raise ValueError("the warehouse knows no such product")
        case "parked" if not REPAIRED.exists():
            return Park("this customer is to be called first")
        case "slow":
            time.sleep(0.02)
        case "long":
            time.sleep(1.5)
        case _:
            pass
    return None


def prepare(app: Yeondong) -> None:
    """Make all tables, topics and groups, as `db create` and `run` do."""
    app.store.create()
    app.broker.create(app.channels())
    app.store.prepare()
    app.broker.prepare(app.channels())
    app.register()
    scheme, _, _ = (app.settings.store or "sqlite:").partition(":")
    with app.transaction() as tx:
        for statement in TABLES.format(counted=COUNTED[scheme]).split(";"):
            tx.execute(statement)


def place(app: Yeondong, orders: Sequence[OrderPlaced]) -> None:
    """Place orders in one transaction."""
    with app.transaction() as tx:
        add(app, tx, orders)


def place_and_fail(app: Yeondong, orders: Sequence[OrderPlaced]) -> None:
    """Place orders in a transaction that is rolled back."""
    with contextlib.suppress(InterruptedError), app.transaction() as tx:
        add(app, tx, orders)
        raise InterruptedError


def add(app: Yeondong, tx: Any, orders: Sequence[OrderPlaced]) -> None:
    """Write that they were placed, and the messages about it, in one transaction."""
    assert app.relay is not None
    note(tx, orders)
    app.relay.add(tx, *orders)


def note(tx: Any, orders: Sequence[OrderPlaced]) -> None:
    for order in orders:
        tx.execute(
            "INSERT INTO placed VALUES (:customer, :number)", {"customer": order.customer, "number": order.number}
        )
