"""Kafka brokers of a test's own on a shared server: everything they make begins with one prefix."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.servers.shared import unique
from yeondong.messaging.brokers.kafka import Cluster, KafkaBroker

PARTITIONS = 3
CHANNELS = ("orders", "refunds", "points", "miles", "unheard")


def new_prefix() -> str:
    return f"{unique('test')}."


def broker_at(url_and_prefix: str) -> KafkaBroker:
    """Return a broker for ``kafka://host:port prefix``: other processes are given this text."""
    url, _, prefix = url_and_prefix.partition(" ")
    return KafkaBroker(Cluster.at(url, prefix=prefix), partitions=PARTITIONS, lease_seconds=4)


def remove(url_and_prefix: str) -> None:
    """Delete all topics and consumer groups that begin with the prefix."""
    url, _, prefix = url_and_prefix.partition(" ")
    admin = AdminClient({"bootstrap.servers": url.removeprefix("kafka://"), "log_level": 0})
    if topics := [name for name in admin.list_topics(timeout=10).topics if name.startswith(prefix)]:
        for deleted in admin.delete_topics(topics).values():
            deleted.result(30)


def read(bootstrap: str, topic: str) -> list[Message]:
    """Return all records of a topic, as a plain program reads them; those of one partition in their order."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "tests", "enable.auto.commit": False})
    try:
        wanted = _ends(consumer, topic)
        consumer.assign([TopicPartition(topic, number, low) for number, (low, _) in wanted.items()])
        found: list[Message] = []
        while wanted:
            records = consumer.consume(100, 0.2) or consumer.consume(1, 10)
            assert records, f"records of {wanted} did not come"
            for record in records:
                assert record.error() is None, record.error()
                if (record.offset() or 0) >= wanted.get(record.partition() or 0, (0, 0))[1] - 1:
                    wanted.pop(record.partition() or 0, None)
            found += records
        return found
    finally:
        consumer.close()


def _ends(consumer: Consumer, topic: str) -> dict[int, tuple[int, int]]:
    numbers = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    ends = {number: _end(consumer, TopicPartition(topic, number)) for number in numbers}
    return {number: (low, high) for number, (low, high) in ends.items() if low < high}


def _end(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    give_up = time.monotonic() + 10
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=10, cached=False)
        except KafkaException as error:  # a topic that was just made may have no leaders yet
            if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION or time.monotonic() > give_up:
                raise
