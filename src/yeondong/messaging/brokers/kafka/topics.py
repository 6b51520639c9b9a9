"""Topics: their names, whether they are there, and making them when asked to."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]
from msgspec import Struct

from yeondong.errors import ConnectionLost, DeclarationError, StoreError
from yeondong.messaging.brokers.kafka.client import ASK_SECONDS, Cluster

NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
BATCH_BYTES: Final = 61
"""What a batch of records takes besides them."""

MISSING: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001 - as in client
DENIED: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


class Topic(Struct, frozen=True):
    """What is known about a topic: why it cannot be used, or how much it takes.

    ``max_bytes`` is None where we may not ask.
    """

    name: str
    wrong: str | None = None
    missing: bool = False
    max_bytes: int | None = None
    compacted: bool = False


def check_name(name: str) -> None:
    """Raise ``DeclarationError`` if Kafka has no topic of this name."""
    if NAME.fullmatch(name) is None or name in (".", ".."):
        raise DeclarationError(
            f"channel {name!r} cannot be a topic of Kafka: use letters of the English alphabet, digits, . _ and -, "
            "at most 249 of them"
        )


def look(cluster: Cluster, admin: AdminClient, names: Collection[str]) -> Mapping[str, Topic]:
    """Ask about topics; asking makes none. Raises ``ConnectionLost`` and ``StoreError``."""
    if not names:
        return {}
    found: dict[str, Topic] = {}
    described = admin.describe_topics(TopicCollection(sorted(names)), request_timeout=ASK_SECONDS)
    for name, future in described.items():
        try:
            future.result()
        except KafkaException as error:
            found[name] = _unusable(cluster, name, error)
    usable = sorted(set(names) - found.keys())
    return {**found, **{name: _configured(cluster, admin, name) for name in usable}}


def flaw(topic: Topic, message_bytes: int) -> str | None:
    """Say why a topic cannot carry messages of up to this size."""
    if topic.wrong is not None:
        return topic.wrong
    if topic.max_bytes is not None and topic.max_bytes < message_bytes + BATCH_BYTES:
        return (
            f"the topic {topic.name!r} takes {topic.max_bytes} bytes at once (max.message.bytes), and "
            f"kafka_message_bytes is {message_bytes}: make it {message_bytes + BATCH_BYTES}, or lower the other"
        )
    return None


def _unusable(cluster: Cluster, name: str, error: KafkaException) -> Topic:
    code = error.args[0].code()
    if code in MISSING:
        return Topic(name, f"there is no topic {name!r} at {cluster.address}; make it: yeondong db create APP", True)
    if code in DENIED:
        return Topic(name, f"the topic {name!r} at {cluster.address} may not be seen: {error.args[0].str()}")
    raise cluster.translated(error) from error


def _configured(cluster: Cluster, admin: AdminClient, name: str) -> Topic:
    resource = ConfigResource(ResourceType.TOPIC, name)
    try:
        entries = admin.describe_configs([resource], request_timeout=ASK_SECONDS)[resource].result()
    except KafkaException as error:
        code = error.args[0].code()
        if code in DENIED:
            return Topic(name)
        if code in MISSING:
            return _unusable(cluster, name, error)
        raise cluster.translated(error) from error
    policy = entries["cleanup.policy"].value or ""
    return Topic(name, max_bytes=int(entries["max.message.bytes"].value), compacted="compact" in policy)


def make(
    cluster: Cluster,
    admin: AdminClient,
    name: str,
    *,
    partitions: int,
    replication: int | None,
    config: Mapping[str, str] | None = None,
) -> bool:
    """Make a topic; False if it is there already. Raises ``StoreError`` for what the brokers refuse."""
    topic = NewTopic(name, partitions, replication or -1, config=dict(config or {}))
    try:
        admin.create_topics([topic], request_timeout=ASK_SECONDS)[name].result()
    except KafkaException as error:
        cause = error.args[0]
        if cause.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        lost = cluster.translated(error)
        if isinstance(lost, ConnectionLost) and (cause.retriable() or cause.code() < 0):
            raise lost from error
        raise StoreError(f"the topic {name!r} cannot be made at {cluster.address}: {cause.str()}") from error
    return True
