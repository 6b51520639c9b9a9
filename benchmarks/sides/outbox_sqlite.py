"""Sides of the outbox's rates on SQLite: relaying to a sink that drops, and adding."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.sides.running import run, wait_for
from yeondong import Event, Outbox, Yeondong
from yeondong.app.assembly import make_worker
from yeondong.app.declared import Marking
from yeondong.core.broker import Broker
from yeondong.core.ids import new_id
from yeondong.core.message import Message
from yeondong.core.sink import Refused
from yeondong.messaging.brokers.memory import MemoryBroker, MemorySink

KEYS = 1_000
BYTES = 256
NOTE = 199  # what is left of them for the note
MESSAGES = 1_000
OCCURRED_AT = "2026-01-01 00:00:00.000000"

INSERT = """
INSERT INTO yeondong_outbox (message_id, message_type, kind, channel, key, payload, origin, occurred_at, partition)
VALUES (?, 'Order', 'event', 'orders', ?, ?, '/measured', ?, ?)
"""
FETCH_WAITING = """
SELECT id, partition, fail_count, message_id, message_type, kind, channel, key, payload, headers, origin, occurred_at
FROM yeondong_outbox WHERE status = 'WAITING' ORDER BY id LIMIT ?
"""
FETCH_FOLLOWING = """
SELECT id, partition, fail_count, message_id, message_type, kind, channel, key, payload, headers, origin, occurred_at
FROM yeondong_outbox WHERE id > ? ORDER BY id LIMIT ?
"""
MARK = """
UPDATE yeondong_outbox SET status = 'DONE', processed_at = strftime('%Y-%m-%d %H:%M:%f', 'now')
WHERE id IN (SELECT value FROM json_each(?)) AND status = 'WAITING'
"""
SAVE = "INSERT OR REPLACE INTO yeondong_positions (name, position, saved_at) VALUES ('limit', ?, '2026-01-01 00:00:00')"
COUNT_WAITING = "SELECT count(*) FROM yeondong_outbox WHERE status = 'WAITING'"
SAVED = "SELECT count(*) FROM yeondong_positions WHERE position = ?"


class Order(Event, channel="orders", key="customer"):
    order_id: int
    customer: str
    note: str


class Dropping(MemorySink):
    """Takes everything, keeps nothing, and notes when it all began."""

    began = 0.0
    first = 0
    taken = 0

    def __init__(self) -> None:
        """Nothing is kept, so there is no log behind it."""

    def send(self, messages: Sequence[Message], deadline: float) -> Sequence[Refused]:
        if not self.taken:
            self.began, self.first = time.perf_counter(), len(messages)
        self.taken += len(messages)
        return []


class DroppingBroker(MemoryBroker):
    """A broker with one sink, which drops."""

    def __init__(self) -> None:
        super().__init__()
        self.dropping = Dropping()

    def sink(self) -> MemorySink:
        return self.dropping


class Relaying(Yeondong):
    """An app whose relay sends to the sink that drops."""

    def __init__(self, path: str) -> None:
        super().__init__("measured", store=f"sqlite:///{path}")
        self.nowhere = DroppingBroker()
        self.sends(Order)

    @property
    def broker(self) -> Broker:
        return self.nowhere


def fill(app: Yeondong, path: str, rows: int, size: int = BYTES) -> None:
    """Insert waiting rows, and leave nothing in the write-ahead log."""
    app.store.prepare()
    values = (
        (new_id(), f"customer-{number % KEYS:03}", payload_of(number, size), OCCURRED_AT, number % 64)
        for number in range(rows)
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        connection.executemany(INSERT, values)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def payload_of(number: int, size: int = BYTES) -> bytes:
    """Return JSON of so many bytes."""
    start = f'{{"order_id":{10_000_000 + number},"customer":"customer-{number % KEYS:03}","note":"'
    return (start + "x" * (size - len(start) - 2) + '"}').encode()


def bare(path: str, synchronous: str) -> sqlite3.Connection:
    """Open a connection as ours are: in WAL mode, with the given durability."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def relay(rows: int, marking: Marking) -> Mapping[str, float]:
    """Run the relay as ``yeondong relay`` does, until every row is marked; from the first batch on."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "store.db")
        app = Relaying(path)
        app.outbox(marking=marking)
        fill(app, path, rows)
        dropping = app.nowhere.dropping
        worker = make_worker(app, "relay")
        with closing(bare(path, "NORMAL")) as watching:
            all_marked = _all_marked(watching, marking, rows)
            worker.start()
            wait_for(lambda: dropping.taken >= rows and all_marked())
            seconds = time.perf_counter() - dropping.began
        worker.stop()
        assert dropping.taken == rows
        return {"rate": (rows - dropping.first) / seconds}


def _all_marked(watching: sqlite3.Connection, marking: Marking, rows: int) -> Callable[[], bool]:
    if marking == "status":
        return lambda: watching.execute(COUNT_WAITING).fetchone()[0] == 0
    return lambda: watching.execute(SAVED, (str(rows),)).fetchone()[0] == 1


def bare_status(rows: int, batch: int) -> Mapping[str, float]:
    """Fetch waiting rows and mark them, with nothing in between."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "store.db")
        fill(Relaying(path), path, rows)
        with closing(bare(path, "NORMAL")) as connection:
            began = time.perf_counter()
            while found := connection.execute(FETCH_WAITING, (batch,)).fetchall():
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(MARK, (json.dumps([row[0] for row in found]),))
                connection.execute("COMMIT")
            seconds = time.perf_counter() - began
            assert connection.execute(COUNT_WAITING).fetchone()[0] == 0
        return {"rate": rows / seconds}


def bare_position(rows: int, batch: int) -> Mapping[str, float]:
    """Fetch the rows after the last id and save the new one, with nothing in between."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "store.db")
        fill(Relaying(path), path, rows)
        with closing(bare(path, "NORMAL")) as connection:
            began, last = time.perf_counter(), 0
            while found := connection.execute(FETCH_FOLLOWING, (last, batch)).fetchall():
                last = found[-1][0]
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(SAVE, (str(last),))
                connection.execute("COMMIT")
            seconds = time.perf_counter() - began
        assert last == rows
        return {"rate": rows / seconds}


def add(transactions: int, each: int) -> Mapping[str, float]:
    """Call ``outbox.add`` on a connection of the application's own."""
    app = Placed()
    outbox: Outbox = app.outbox()
    orders = [Order(10_000_000 + number, f"customer-{number % KEYS:03}", "x" * NOTE) for number in range(MESSAGES)]

    def add_one(connection: sqlite3.Connection, number: int) -> None:
        start = number * each % MESSAGES
        outbox.add(connection, *orders[start : start + each])

    return _in_transactions(app, transactions, each, add_one)


def bare_add(transactions: int, each: int) -> Mapping[str, float]:
    """Insert rows that were made before."""
    rows = [
        (new_id(), f"customer-{number % KEYS:03}", payload_of(number), OCCURRED_AT, number % 64)
        for number in range(transactions * each)
    ]

    def insert(connection: sqlite3.Connection, number: int) -> None:
        connection.executemany(INSERT, rows[number * each : (number + 1) * each])

    return _in_transactions(Placed(), transactions, each, insert)


class Placed(Relaying):
    """An app with a folder of its own for as long as it lives."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = str(Path(self.folder.name) / "store.db")
        super().__init__(self.path)
        self.store.prepare()


def _in_transactions(
    app: Placed, transactions: int, each: int, write: Callable[[sqlite3.Connection, int], None]
) -> Mapping[str, float]:
    with app.folder, closing(bare(app.path, "FULL")) as connection:
        began = time.perf_counter()
        for number in range(transactions):
            connection.execute("BEGIN IMMEDIATE")
            write(connection, number)
            connection.execute("COMMIT")
        seconds = time.perf_counter() - began
        assert connection.execute(COUNT_WAITING).fetchone()[0] == transactions * each
    return {"rate": transactions * each / seconds}


if __name__ == "__main__":
    run(relay, bare_status, bare_position, add, bare_add)
