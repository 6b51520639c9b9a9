"""FastStream on Kafka, in its own environment: typed payloads, sent with confirmation and received with offsets kept.

Set as well as its documentation allows: on uvloop, as its own command line runs it; msgspec for payloads; no logger;
idempotent and acks=all, as ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec
import uvloop  # type: ignore[import-not-found]  # its own environment
from confluent_kafka import Producer
from fast_depends.msgspec import MsgSpecSerializer  # type: ignore[import-not-found]
from faststream import AckPolicy  # type: ignore[import-not-found]
from faststream.confluent import KafkaBroker as ConfluentBroker  # type: ignore[import-not-found]
from faststream.kafka import KafkaBroker as AiokafkaBroker  # type: ignore[import-not-found]

from benchmarks.sides.kafka import create_topic
from benchmarks.sides.running import run

KEYS = 1_000
WAIT_SECONDS = 120
FLAVOURS = {"confluent": ConfluentBroker, "aiokafka": AiokafkaBroker}


class Order(msgspec.Struct):
    order_id: int
    customer: str
    note: str


def publish(kafka: str, topic: str, messages: int, each: int, size: int) -> Mapping[str, float]:
    """Publish ``each`` at a time and wait for their confirmations; with both brokers, and the better one counts."""
    figures = {}
    for flavour in FLAVOURS:
        create_topic(kafka, f"{topic}-{flavour}")
        figures[flavour] = uvloop.run(_publish(_broker(flavour, kafka), f"{topic}-{flavour}", messages, each, size))
    return {"rate": max(figures.values()), **figures}


async def _publish(broker: Any, topic: str, messages: int, each: int, size: int) -> float:
    await broker.start()
    publisher = broker.publisher(topic)
    orders = _orders(messages + 1, size)
    await publisher.publish(next(orders), key=b"warm")
    began = time.perf_counter()
    for _ in range(0, messages, each):
        some = islice(orders, each)
        await asyncio.gather(*(publisher.publish(order, key=order.customer.encode()) for order in some))
    seconds = time.perf_counter() - began
    await broker.stop()
    return messages / seconds


def consume(kafka: str, topic: str, messages: int, size: int) -> Mapping[str, float]:
    """Handle typed messages, with both brokers, and the better one counts; confluent's gets fewer, it is slower."""
    figures = {}
    for flavour, some in (("aiokafka", messages), ("confluent", messages // 10)):
        _fill(kafka, f"{topic}-{flavour}", some, size)
        figures[flavour] = uvloop.run(_consume(_broker(flavour, kafka), f"{topic}-{flavour}", some))
    return {"rate": max(figures.values()), **figures}


async def _consume(broker: Any, topic: str, messages: int) -> float:
    done = asyncio.Event()
    seen, began = 0, 0.0

    @broker.subscriber(  # type: ignore[untyped-decorator]
        topic, group_id=topic, auto_offset_reset="earliest", ack_policy=AckPolicy.ACK_FIRST
    )
    async def handle(_order: Order) -> None:
        nonlocal seen, began
        began = began or time.perf_counter()
        seen += 1
        if seen == messages:
            done.set()

    await broker.start()
    await asyncio.wait_for(done.wait(), WAIT_SECONDS)
    seconds = time.perf_counter() - began
    await broker.stop()
    return messages / seconds


def _broker(flavour: str, address: str) -> Any:
    return FLAVOURS[flavour](address, logger=None, enable_idempotence=True, acks="all", serializer=MsgSpecSerializer())


def _orders(count: int, size: int) -> Iterator[Order]:
    note = "x" * (size - len(msgspec.json.encode(Order(10_000_000, "customer-000", ""))))
    return (Order(10_000_000 + number, f"customer-{number % KEYS:03}", note) for number in range(count))


def _fill(kafka: str, topic: str, messages: int, size: int) -> None:
    """Put messages into a topic as its own publisher does."""
    create_topic(kafka, topic)
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    for number, order in enumerate(_orders(messages, size)):
        headers: list[tuple[str, str | bytes | None]] = [
            ("content-type", b"application/json"),
            ("correlation_id", b"%036d" % number),
        ]
        producer.produce(topic, msgspec.json.encode(order), order.customer.encode(), headers=headers)
    producer.flush()


if __name__ == "__main__":
    run(publish, consume)
