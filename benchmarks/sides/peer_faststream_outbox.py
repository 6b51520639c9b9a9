"""faststream-outbox on PostgreSQL, in its own environment: from a commit to the arrival at a Kafka consumer."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import asyncpg  # type: ignore[import-not-found]  # its own environment
from faststream.kafka import KafkaBroker  # type: ignore[import-not-found]
from faststream_outbox import OutboxBroker, make_outbox_table  # type: ignore[import-not-found]
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.sides.arrivals import Arrivals
from benchmarks.sides.running import run

QUEUE = "ticks"
COMMITS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1"


def latency(database: str, kafka: str, topic: str, samples: int, idle_seconds: float) -> Mapping[str, float]:
    """Commit one message at a time; its relay, in another process, hears of it by NOTIFY."""
    loop = asyncio.new_event_loop()
    engine, broker = _broker(database)
    loop.run_until_complete(_create(engine, broker))
    arrivals = Arrivals(kafka, topic)

    async def add(number: int) -> float:
        async with engine.begin() as connection:
            await broker.publish({"number": number}, queue=QUEUE, session=connection)
        return time.perf_counter()

    options = json.dumps({"database": database, "kafka": kafka, "topic": topic})
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.sides.peer_faststream_outbox", "relay", options])
    try:
        figures = arrivals.measure(lambda number: loop.run_until_complete(add(number)), samples)
        loop.run_until_complete(engine.dispose())
        return {**figures, "idle": loop.run_until_complete(_idle(database, idle_seconds))}
    finally:
        process.terminate()
        process.wait(30)
        arrivals.close()


def relay(database: str, kafka: str, topic: str) -> Mapping[str, float]:
    """Be the relay process until SIGTERM."""
    asyncio.run(_relay(database, kafka, topic))
    return {}


async def _relay(database: str, kafka: str, topic: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    engine, broker = _broker(database)
    to_kafka = KafkaBroker(kafka, logger=None, enable_idempotence=True, acks="all")

    @to_kafka.publisher(topic)  # type: ignore[untyped-decorator]
    @broker.subscriber(QUEUE)  # type: ignore[untyped-decorator]
    async def forward(body: dict[str, Any]) -> dict[str, Any]:
        return body

    await to_kafka.connect()
    await to_kafka.start()
    await broker.start()
    await ended.wait()
    await broker.stop()
    await to_kafka.stop()
    await engine.dispose()


def _broker(database: str) -> tuple[Any, Any]:
    engine = create_async_engine(database.replace("postgresql:", "postgresql+asyncpg:"))
    table = make_outbox_table(MetaData(), table_name="outbox")
    return engine, OutboxBroker(engine, outbox_table=table, logger=None)


async def _create(engine: Any, broker: Any) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(broker._outbox_table.metadata.create_all)  # noqa: SLF001
    await engine.dispose()


async def _idle(database: str, seconds: float) -> float:
    """Count transactions a second while nothing happens."""
    server, _, name = database.rpartition("/")
    connection = await asyncpg.connect(f"{server}/postgres")
    before = await connection.fetchval(COMMITS, name)
    await asyncio.sleep(seconds)
    after = await connection.fetchval(COMMITS, name)
    await connection.close()
    return float((after - before) / seconds)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    run(latency, relay)
