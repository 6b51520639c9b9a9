"""What the sides on Kafka share. Peers run it in their own environments: it imports the client only."""

from __future__ import annotations

from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined, unused-ignore]

PARTITIONS = 4


def create_topic(address: str, topic: str, partitions: int = PARTITIONS) -> None:
    """Create a topic and wait until it is there."""
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result()
