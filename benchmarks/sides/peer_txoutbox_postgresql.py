"""txoutbox on PostgreSQL, in its own environment, on uvloop: to a publisher that does nothing, and to Kafka."""

from __future__ import annotations

import time
from asyncio import Future, get_running_loop, sleep
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import uvloop  # type: ignore[import-not-found]  # its own environment
from confluent_kafka import Producer
from txoutbox import OutboxMessage, Relay, RelayConfig  # type: ignore[import-not-found]
from txoutbox.adapters.postgres import PostgresStorage  # type: ignore[import-not-found]

from benchmarks.sides.kafka import create_topic
from benchmarks.sides.running import run

KEYS = 1_000
FILL = """
INSERT INTO outbox (topic, key, payload)
SELECT $1, 'customer-' || lpad((i % $2)::text, 3, '0'), convert_to(repeat('x', $3), 'UTF8')
FROM generate_series(1, $4::bigint) AS i
"""
LEFT = "SELECT count(*) FROM outbox WHERE status <> 'done'"

Publish = Callable[[OutboxMessage], Awaitable[None]]


def relay(database: str, rows: int, batch: int, size: int) -> Mapping[str, float]:
    """Relay to a publisher that does nothing."""

    async def publish(_message: OutboxMessage) -> None:
        """Drop it."""

    return {"rate": uvloop.run(_drain(database, rows, batch, size, lambda: publish))}


def relay_to_kafka(database: str, kafka: str, topic: str, rows: int, batch: int, size: int) -> Mapping[str, float]:
    """Relay to a publisher that returns when Kafka has the message; all keys of a batch are on their way together."""
    create_topic(kafka, topic)
    return {"rate": uvloop.run(_drain(database, rows, batch, size, lambda: KafkaPublisher(kafka, topic).publish))}


class KafkaPublisher:
    """Confluent's producer, polled by the event loop itself: no thread hands a confirmation over."""

    def __init__(self, kafka: str, topic: str) -> None:
        self._loop = get_running_loop()
        self._topic = topic
        self._producer = Producer({
            "bootstrap.servers": kafka, "enable.idempotence": True, "linger.ms": 2,
            "queue.buffering.max.messages": 1_000_000,
        })  # fmt: skip
        self._polling = self._loop.create_task(self._poll())
        self._waiting = 0

    async def publish(self, message: OutboxMessage) -> None:
        """Produce with the headers of a CloudEvent."""
        confirmed: Future[None] = self._loop.create_future()

        def delivered(error: Any, _message: Any) -> None:
            self._waiting -= 1
            if error is None:
                confirmed.set_result(None)
            else:
                confirmed.set_exception(RuntimeError(str(error)))

        key = (message.key or "").encode()
        headers = [
            ("ce_specversion", b"1.0"), ("ce_id", str(message.id).encode()), ("ce_type", b"Order"),
            ("ce_source", b"/measured"), ("ce_time", message.created_at.isoformat().encode()),
            ("content-type", b"application/json"),
        ]  # fmt: skip
        self._waiting += 1
        self._producer.produce(self._topic, message.payload, key, headers=headers, on_delivery=delivered)
        await confirmed

    async def _poll(self) -> None:
        while True:
            self._producer.poll(0)
            await sleep(0 if self._waiting else 0.001)


async def _drain(database: str, rows: int, batch: int, size: int, publisher: Callable[[], Publish]) -> float:
    storage = await PostgresStorage.connect(database, table="outbox")
    async with storage.pool.acquire() as connection:
        await connection.execute(storage.schema_sql())
        await connection.execute(FILL, "orders", KEYS, size, rows)
        await connection.execute("VACUUM ANALYZE outbox")
        await connection.execute("CHECKPOINT")
    config = RelayConfig(batch_size=batch, concurrency=KEYS, publish_timeout=None)
    relaying = Relay(storage, publisher(), config=config)
    began = time.perf_counter()
    while (await relaying.run_once()).claimed:
        pass
    seconds = time.perf_counter() - began
    left = await storage.pool.fetchval(LEFT)
    await storage.close()
    if left:
        raise RuntimeError(f"{left} rows were not relayed")
    return rows / seconds


if __name__ == "__main__":
    run(relay, relay_to_kafka)
