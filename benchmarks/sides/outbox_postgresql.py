"""Ours on PostgreSQL: the relay to a sink that drops, to Kafka, and beside a large table."""

from __future__ import annotations

import time
from collections.abc import Mapping

import psycopg

from benchmarks.sides.dropping import Nowhere
from benchmarks.sides.kafka_app import kafka_app
from benchmarks.sides.orders import Order
from benchmarks.sides.postgresql import fill, insert, settle_down
from benchmarks.sides.running import run, wait_for
from yeondong import Yeondong
from yeondong.app.assembly import make_worker
from yeondong.app.declared import Marking

LOAD_EACH = 50_000
WAITING = "SELECT count(*) FROM yeondong_outbox WHERE status = 'WAITING'"


def relay(database: str, rows: int, size: int, marking: Marking) -> Mapping[str, float]:
    """Run the relay as ``yeondong relay`` does, to a sink that drops, until every row is marked."""
    app = Nowhere(database)
    fill(app, database, rows, size)
    return {"rate": drain(app, rows, marking)}


def relay_to_kafka(
    database: str, kafka: str, topic: str, rows: int, size: int, marking: Marking
) -> Mapping[str, float]:
    """Do the same to Kafka."""
    app = kafka_app(kafka, topic, store=database, channels=["orders"])
    fill(app, database, rows, size)
    return {"rate": drain(app, rows, marking)}


def backlog(database: str, size: int, done: int, waiting: int, drained: int) -> Mapping[str, float]:
    """Drain so many of the waiting rows, in a table that has many more."""
    app = Nowhere(database)
    app.store.create()
    with psycopg.connect(database, autocommit=True) as connection:
        if done:
            insert(connection, done, size, status="DONE", each=min(done, LOAD_EACH))
        insert(connection, waiting, size, start=done, each=min(waiting, LOAD_EACH))
        settle_down(connection)
    return {"rate": drain(app, drained, "status", more=waiting > drained)}


def drain(app: Yeondong, rows: int, marking: Marking, *, more: bool = False) -> float:
    """Relay so many rows and return how many a second, from when the relay is at work."""
    app.sends(Order)
    app.outbox(marking=marking)
    worker = make_worker(app, "relay")
    flow = worker.flows[0]
    worker.start()
    wait_for(lambda: flow.handled > 0)
    began, already = time.perf_counter(), flow.handled
    wait_for(lambda: flow.handled >= rows and (more or flow.report().in_flight == 0))
    rate = (flow.handled - already) / (time.perf_counter() - began)
    worker.stop()
    if not more and flow.handled != rows:
        raise RuntimeError(f"{flow.handled} messages were sent, and there were {rows}")
    return rate


if __name__ == "__main__":
    run(relay, relay_to_kafka, backlog)
