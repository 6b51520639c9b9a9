"""The limits of messaging on Kafka: confluent-kafka with the same headers, and nothing around it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from confluent_kafka import Consumer, Message, Producer

from benchmarks.sides.arrivals import Arrivals
from benchmarks.sides.kafka import create_topic
from benchmarks.sides.orders import Order, make_orders
from benchmarks.sides.running import leave_out, run

BATCH = 1_000
WAIT_SECONDS = 60.0
PAUSE_SECONDS = (0.05, 0.15)  # nobody sleeps meanwhile that would have to be woken


Ready: TypeAlias = tuple[bytes, bytes, bytes]
"""Data, key and id of a message."""


def id_of(number: int) -> bytes:
    """Return an id of the same size as ours."""
    return b"00000000-0000-7000-8000-%012d" % number


def make_producer(kafka: str, linger_ms: float = 2) -> Producer:
    """Return a producer as durable and as orderly as ours."""
    return Producer({
        "bootstrap.servers": kafka, "enable.idempotence": True, "linger.ms": linger_ms,
        "queue.buffering.max.messages": 1_000_000,
    })  # fmt: skip


def publish(kafka: str, topic: str, messages: int, each: int, size: int) -> Mapping[str, float]:
    """Produce ``each`` messages, made before, and wait for their confirmations."""
    create_topic(kafka, topic)
    producer = make_producer(kafka)
    produce_all(producer, topic, [(b"warm", b"warm", id_of(0))], 1)
    ready = [
        (msgspec.json.encode(order), order.customer.encode(), id_of(number))
        for number, order in enumerate(make_orders(messages, size))
    ]
    leave_out()
    began = time.perf_counter()
    produce_all(producer, topic, ready, each)
    return {"rate": messages / (time.perf_counter() - began)}


def produce_all(producer: Producer, topic: str, ready: Sequence[Ready], each: int) -> None:
    """Produce with the headers that ours have and a callback each, and wait for all after ``each``."""
    confirmed = 0

    def delivered(error: Any, _message: Message) -> None:
        nonlocal confirmed
        if error is None:
            confirmed += 1

    produce = producer.produce
    for start in range(0, len(ready), each):
        for data, key, message_id in ready[start : start + each]:
            headers: list[tuple[str, str | bytes | None]] = [
                ("ce_specversion", b"1.0"), ("ce_id", message_id), ("ce_type", b"Order"), ("ce_source", b"/measured"),
                ("ce_time", b"2026-11-22T00:00:00.000000Z"), ("content-type", b"application/json"),
            ]  # fmt: skip
            produce(topic, data, key, headers=headers, on_delivery=delivered)
        producer.flush()
    if confirmed != len(ready):
        raise RuntimeError(f"{confirmed} of {len(ready)} messages were confirmed")


def consume(kafka: str, topic: str, messages: int, size: int) -> Mapping[str, float]:
    """Take batches, read the headers and decode the data; commit the offsets of each batch, without waiting."""
    fill(kafka, topic, messages, size)
    decode = msgspec.json.Decoder(Order).decode
    consumer = Consumer({
        "bootstrap.servers": kafka, "group.id": topic, "enable.auto.commit": False, "auto.offset.reset": "earliest"
    })  # fmt: skip
    consumer.subscribe([topic])
    began, seen, give_up = 0.0, 0, time.monotonic() + WAIT_SECONDS
    while seen < messages:
        first = consumer.poll(1.0)
        if first is None:
            if time.monotonic() > give_up:
                raise TimeoutError(f"{seen} of {messages} messages came within {WAIT_SECONDS:g} s")
            continue
        began = began or time.perf_counter()
        for message in (first, *consumer.consume(BATCH - 1, 0)):
            dict(message.headers() or ())
            decode(message.value() or b"")
            seen += 1
        consumer.commit(asynchronous=True)
    seconds = time.perf_counter() - began
    consumer.close()
    return {"rate": messages / seconds}


def fill(kafka: str, topic: str, messages: int, size: int, *, create: bool = True) -> None:
    """Put messages into a topic as ours would."""
    if create:
        create_topic(kafka, topic)
    ready = [
        (msgspec.json.encode(order), order.customer.encode(), id_of(number))
        for number, order in enumerate(make_orders(messages, size))
    ]
    produce_all(make_producer(kafka, 20), topic, ready, messages)


def latency(kafka: str, topic: str, samples: int) -> Mapping[str, float]:
    """Produce one message at a time, and note when it comes to a consumer."""
    arrivals = Arrivals(kafka, topic)
    producer = make_producer(kafka, linger_ms=0)

    def act(number: int) -> float:
        began = time.perf_counter()
        produce_all(producer, topic, [(b'{"number":%d}' % number, b"%d" % number, id_of(number))], 1)
        return began

    try:
        return arrivals.measure(act, samples, PAUSE_SECONDS)
    finally:
        arrivals.close()


if __name__ == "__main__":
    run(publish, consume, latency)
