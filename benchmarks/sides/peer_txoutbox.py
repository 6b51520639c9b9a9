"""txoutbox on SQLite, in its own environment: nothing of ours is imported here but what starts a side."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from txoutbox import OutboxMessage, Relay, RelayConfig  # type: ignore[import-not-found]  # its own environment
from txoutbox.adapters.sqlite import SqliteStorage  # type: ignore[import-not-found]

from benchmarks.sides.running import run

KEYS = 1_000
BYTES = 256
NOTE = 199  # what is left of them for the note
INSERT = "INSERT INTO outbox (topic, key, payload, created_at) VALUES ('orders', ?, ?, ?)"


def relay(rows: int, batch: int) -> Mapping[str, float]:
    """Relay to a publisher that does nothing, in batches as large as ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "store.db")
        storage = SqliteStorage(path)
        storage.create_schema()
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executemany(
                INSERT, ((f"customer-{number % KEYS:03}", b"x" * BYTES, time.time()) for number in range(rows))
            )
        # Its own default syncs each commit; ours does not when it marks, so neither does this one here.
        storage._conn.execute("PRAGMA synchronous=NORMAL")  # noqa: SLF001 -- there is no other way to say so
        seconds = asyncio.run(_drain(storage, rows, batch))
        storage.close()
    return {"rate": rows / seconds}


async def _drain(storage: SqliteStorage, rows: int, batch: int) -> float:
    taken = 0

    async def publish(_message: OutboxMessage) -> None:
        nonlocal taken
        taken += 1

    config = RelayConfig(batch_size=batch, concurrency=100, publish_timeout=None)
    relaying = Relay(storage, publish, config=config)
    began = time.perf_counter()
    while (await relaying.run_once()).claimed:
        pass
    seconds = time.perf_counter() - began
    assert taken == rows
    return seconds


def add(transactions: int, each: int) -> Mapping[str, float]:
    """Insert on a connection of the application's own."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "store.db")
        storage = SqliteStorage(path)
        storage.create_schema()
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous=FULL")
            began = time.perf_counter()
            for number in range(transactions):
                connection.execute("BEGIN IMMEDIATE")
                for other in range(each):
                    customer = f"customer-{number % KEYS:03}"
                    order = {"order_id": 10_000_000 + number + other, "customer": customer, "note": "x" * NOTE}
                    storage.insert(connection, "orders", order, key=customer)
                connection.execute("COMMIT")
            seconds = time.perf_counter() - began
        storage.close()
    return {"rate": transactions * each / seconds}


if __name__ == "__main__":
    run(relay, add)
