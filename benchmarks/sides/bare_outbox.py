"""The limits of the outbox on PostgreSQL: loops that fetch, send and mark, with nothing in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from benchmarks.sides.bare_kafka import make_producer
from benchmarks.sides.kafka import create_topic
from benchmarks.sides.postgresql import fill
from benchmarks.sides.running import run
from yeondong import Yeondong

COLUMNS = "id, fail_count, message_id, message_type, kind, channel, key, payload, headers, origin, occurred_at"

FETCH_WAITING = f"SELECT {COLUMNS} FROM yeondong_outbox WHERE id > %s AND status = 'WAITING' ORDER BY id LIMIT %s"  # noqa: S608

MARK = """
UPDATE yeondong_outbox SET status = 'DONE', processed_at = now() WHERE id = ANY(%s) AND status = 'WAITING'
"""

# What is visible now and was not before; paged by id, from the window's smallest on: `IS TRUE` keeps the planner from
# another index, by which it would sort the whole window for each page.
SNAPSHOT = "SELECT pg_current_snapshot()::text"
LOWEST = "SELECT min(id) FROM yeondong_outbox WHERE txid >= pg_snapshot_xmin(%s::pg_snapshot)"
FETCH_WINDOW = f"""
SELECT {COLUMNS} FROM yeondong_outbox
WHERE id > %s AND (txid >= %s::text::xid8 AND txid < %s::text::xid8) IS TRUE
  AND NOT pg_visible_in_snapshot(txid, %s::pg_snapshot) AND pg_visible_in_snapshot(txid, %s::pg_snapshot)
ORDER BY id LIMIT %s
"""  # noqa: S608

Rows = Sequence[tuple[Any, ...]]


def status(database: str, rows: int, batch: int, size: int) -> Mapping[str, float]:
    """Fetch waiting rows and mark them."""
    with _filled(database, rows, size) as connection, connection.cursor(binary=True) as cursor:
        began, marked, last = time.perf_counter(), 0, 0
        while found := cursor.execute(FETCH_WAITING, (last, batch)).fetchall():
            last = found[-1][0]
            cursor.execute(MARK, ([row[0] for row in found],))
            connection.commit()
            marked += len(found)
        return {"rate": _all(marked, rows) / (time.perf_counter() - began)}


def position(database: str, rows: int, batch: int, size: int) -> Mapping[str, float]:
    """Fetch rows by snapshot windows, and nothing else."""
    with _filled(database, rows, size) as connection:
        began = time.perf_counter()
        read = sum(len(found) for found in _windows(connection, batch))
        return {"rate": _all(read, rows) / (time.perf_counter() - began)}


def status_to_kafka(database: str, kafka: str, topic: str, rows: int, batch: int, size: int) -> Mapping[str, float]:
    """Fetch and produce a batch while the one before is being acknowledged; mark that one then."""
    with _filled(database, rows, size) as connection, connection.cursor(binary=True) as cursor:

        def batches() -> Iterator[Rows]:
            last = 0
            while found := cursor.execute(FETCH_WAITING, (last, batch)).fetchall():
                last = found[-1][0]
                yield found

        def mark(found: Rows) -> None:
            cursor.execute(MARK, ([row[0] for row in found],))
            connection.commit()

        return {"rate": rows / _relay(kafka, topic, batches(), mark, rows)}


def position_to_kafka(database: str, kafka: str, topic: str, rows: int, batch: int, size: int) -> Mapping[str, float]:
    """Do the same by snapshot windows, where nothing is marked."""
    with _filled(database, rows, size) as connection:
        return {"rate": rows / _relay(kafka, topic, _windows(connection, batch), lambda _found: None, rows)}


@contextmanager
def _filled(database: str, rows: int, size: int) -> Iterator[psycopg.Connection]:
    fill(Yeondong("measured", store=database, broker="memory:"), database, rows, size)
    with psycopg.connect(database) as connection:
        yield connection


def _windows(connection: psycopg.Connection, batch: int) -> Iterator[Rows]:
    """Yield all rows, window by window, until one is empty."""
    before = "3:3:"  # no transaction of a user is older
    with connection.cursor(binary=True) as cursor:
        while True:
            now = _value(cursor, SNAPSHOT, ())
            lowest = _value(cursor, LOWEST, (before,))
            if lowest is None:
                return
            last, bounds, some = lowest - 1, (before.split(":", maxsplit=1)[0], now.split(":")[1]), False
            while found := cursor.execute(FETCH_WINDOW, (last, *bounds, before, now, batch)).fetchall():
                last, some = found[-1][0], True
                yield found
                connection.commit()
            if not some:
                return
            before = now


def _value(cursor: psycopg.Cursor, statement: str, values: tuple[Any, ...]) -> Any:
    found = cursor.execute(statement, values).fetchone()
    return None if found is None else found[0]


def _relay(kafka: str, topic: str, batches: Iterator[Rows], mark: Callable[[Rows], None], rows: int) -> float:
    """Produce batch after batch, the next while the last is on its way; return the seconds."""
    create_topic(kafka, topic)
    producer = make_producer(kafka)
    producer.produce(topic, b"warm")
    producer.flush()
    failed: list[object] = []

    def delivered(error: object, _message: object) -> None:
        if error is not None:
            failed.append(error)

    produce, sent = producer.produce, 0
    before: Rows = ()
    began = time.perf_counter()
    while True:
        found: Rows = next(batches, ())
        for _, _, message_id, message_type, _, _, key, payload, _, origin, at in found:
            headers = [
                ("ce_specversion", b"1.0"), ("ce_id", message_id.encode()), ("ce_type", message_type.encode()),
                ("ce_source", origin.encode()), ("ce_time", at.isoformat().encode()),
                ("content-type", b"application/json"),
            ]  # fmt: skip
            produce(topic, payload, key.encode(), headers=headers, on_delivery=delivered)
        producer.poll(0)
        if before:
            while len(producer) > len(found):  # what was sent before these is acknowledged, roughly
                producer.poll(0.001)
            mark(before)
            sent += len(before)
        if not found:
            break
        before = found
    producer.flush()
    seconds = time.perf_counter() - began
    if failed:
        raise RuntimeError(f"{len(failed)} messages failed, first {failed[0]}")
    _all(sent, rows)
    return seconds


def _all(done: int, rows: int) -> int:
    if done != rows:
        raise RuntimeError(f"{done} of {rows} rows were done")
    return done


if __name__ == "__main__":
    run(status, position, status_to_kafka, position_to_kafka)
