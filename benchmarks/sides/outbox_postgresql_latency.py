"""Ours on PostgreSQL and Kafka: from a commit to the arrival at a bare consumer, the relay in another process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Literal, TypeAlias

import psycopg

from benchmarks.sides.arrivals import Arrivals
from benchmarks.sides.kafka_app import kafka_app, topic_of
from benchmarks.sides.running import run
from yeondong import Event, Yeondong
from yeondong.app.assembly import make_worker

Way: TypeAlias = Literal["notify", "polling"]

CHANNEL = "ticks"
WAYS: Mapping[Way, Mapping[str, str]] = {"polling": {}, "notify": {"YEONDONG_STORE_NOTIFY": "true"}}
COMMITS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
STATISTICS_SECONDS = 1.5  # the server's processes tell what they did at most once a second


class Tick(Event, channel=CHANNEL, key="number"):
    number: int


def latency(database: str, kafka: str, topic: str, samples: int, idle_seconds: float, way: Way) -> Mapping[str, float]:
    """Commit one message at a time; afterwards commit nothing, and count what the database is asked."""
    app = _app(database, kafka, topic, way)
    app.store.create()
    arrivals = Arrivals(kafka, topic_of(topic, CHANNEL), create=False)
    outbox = app.relay
    assert outbox is not None
    options = json.dumps({"database": database, "kafka": kafka, "topic": topic, "way": way})
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.sides.outbox_postgresql_latency", "relay", options])
    try:
        with psycopg.connect(database) as connection:

            def act(number: int) -> float:
                outbox.add(connection, Tick(number))
                connection.commit()
                return time.perf_counter()

            figures = arrivals.measure(act, samples)
            return {**figures, "idle": _idle(connection, idle_seconds)}
    finally:
        process.terminate()
        process.wait(30)
        arrivals.close()


def relay(database: str, kafka: str, topic: str, way: Way) -> Mapping[str, float]:
    """Be the relay process, as ``yeondong relay`` is, until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: ended.set())
    worker = make_worker(_app(database, kafka, topic, way), "relay")
    worker.start()
    ended.wait()
    worker.stop()
    return {}


def _app(database: str, kafka: str, topic: str, way: Way) -> Yeondong:
    os.environ.update(WAYS[way])
    app = kafka_app(kafka, topic, store=database, channels=[CHANNEL])
    app.sends(Tick)
    app.outbox()
    return app


def _idle(connection: psycopg.Connection, seconds: float) -> float:
    """Count transactions a second while nothing happens, our own two left out."""
    time.sleep(STATISTICS_SECONDS)
    began, before = time.perf_counter(), _commits(connection)
    time.sleep(seconds)
    after = _commits(connection)
    return max(0, after - before - 1) / (time.perf_counter() - began)


def _commits(connection: psycopg.Connection) -> int:
    found = connection.execute(COMMITS).fetchone()
    connection.commit()
    return 0 if found is None else int(found[0])


if __name__ == "__main__":
    run(latency, relay)
