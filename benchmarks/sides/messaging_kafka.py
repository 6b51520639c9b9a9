"""Ours on Kafka: publishing typed events, handling them, and handling them once in a database."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice

import psycopg

from benchmarks.sides.bare_kafka import fill
from benchmarks.sides.kafka_app import kafka_app, topic_of
from benchmarks.sides.orders import Order, make_orders
from benchmarks.sides.running import run, wait_for
from yeondong import Transaction, Yeondong
from yeondong.app.assembly import make_worker

EFFECTS = "CREATE TABLE effects (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id bigint, note text)"
EFFECT = "INSERT INTO effects (order_id, note) VALUES (:order_id, :note)"
NOTE = "x" * 40


def publish(kafka: str, topic: str, messages: int, each: int, size: int) -> Mapping[str, float]:
    """Call ``publish`` with so many events at a time; it returns when all are confirmed."""
    app = kafka_app(kafka, topic, store=None, channels=["orders"])
    app.sends(Order)
    orders = make_orders(messages + 1, size)
    app.publish(next(orders))
    began = time.perf_counter()
    for _ in range(0, messages, each):
        app.publish(*islice(orders, each))
    return {"rate": messages / (time.perf_counter() - began)}


def consume(database: str, kafka: str, topic: str, messages: int, size: int, lanes: int) -> Mapping[str, float]:
    """Run the app's flow, as ``yeondong run`` does, until a typed handler has had all messages."""
    app = kafka_app(kafka, topic, store=database, channels=["orders"])
    app.store.create()

    @app.subscribe(Order, group="search", lanes=lanes)
    def handle(order: Order) -> None:
        """Do nothing: what is measured is the way there."""

    return {"rate": _rate(app, kafka, topic, messages, size)}


def inbox(database: str, kafka: str, topic: str, messages: int, size: int, lanes: int) -> Mapping[str, float]:
    """Handle each message once: its effect and its row in the inbox commit together."""
    app = kafka_app(kafka, topic, store=database, channels=["orders"])
    app.store.create()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(EFFECTS)

    @app.subscribe(Order, group="points", lanes=lanes)
    def place(order: Order, tx: Transaction) -> None:
        tx.execute(EFFECT, {"order_id": order.order_id, "note": NOTE})

    rate = _rate(app, kafka, topic, messages, size)
    with psycopg.connect(database) as connection:
        (effects,) = connection.execute("SELECT count(DISTINCT order_id) FROM effects").fetchone() or (0,)
    if effects != messages:
        raise RuntimeError(f"{messages} messages had {effects} effects")
    return {"rate": rate}


def _rate(app: Yeondong, kafka: str, topic: str, messages: int, size: int) -> float:
    """Fill the topic, run the flow over it until all offsets are committed."""
    fill(kafka, topic_of(topic, "orders"), messages, size, create=False)
    app.register()
    worker = make_worker(app, "handlers")
    flow = worker.flows[0]
    worker.start()
    wait_for(lambda: flow.handled > 0)
    began, already = time.perf_counter(), flow.handled
    wait_for(lambda: flow.handled >= messages and flow.report().in_flight == 0)
    rate = (messages - already) / (time.perf_counter() - began)
    worker.stop()
    return rate


if __name__ == "__main__":
    run(publish, consume, inbox)
