"""Topics: their names, whether they are there, and making them when asked to."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclOperation,
    AdminClient,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
    TopicDescription,
)
from msgspec import Struct
from msgspec.structs import replace

from yeondong.errors import ConnectionLost, StoreError
from yeondong.messaging.brokers.kafka.client import ASK_SECONDS, SYSTEM, Cluster

REGISTRY: Final = "yeondong-receivers"
"""The topic that says who receives what, behind the prefix."""

BY_BROKER: Final = {"message.timestamp.type": "LogAppendTime"}
"""Since when a message waits, and from where a replay begins, goes by the brokers' clock, whatever the senders' say."""

NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
BATCH_BYTES: Final = 61
"""What a batch of records takes besides them."""

MISSING: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001 - as in client
DENIED: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})


class Topic(Struct, frozen=True):
    """What is known about a topic: why it cannot be used, or how much it takes.

    ``max_bytes`` is None where we may not ask, or did not.
    """

    name: str
    wrong: str | None = None
    missing: bool = False
    writable: bool = True
    max_bytes: int | None = None

    def why_unwritable(self) -> str | None:
        if self.wrong is not None or self.writable:
            return self.wrong
        return f"nothing may be written to the topic {self.name!r}: its ACLs do not allow us to"


class Layout(Struct, frozen=True):
    """What tells a topic from a later one of the same name, and its partitions."""

    id: str
    partitions: frozenset[int]


def why_no_topic(name: str) -> str | None:
    """Say why Kafka cannot have a topic of this name."""
    if NAME.fullmatch(name) is not None and name not in (".", ".."):
        return None
    return f"{name!r} cannot be a topic of Kafka: use letters a to z, digits, . _ and -, at most 249 of them"


def look(
    cluster: Cluster, admin: AdminClient, names: Collection[str], seconds: float = ASK_SECONDS
) -> Mapping[str, Topic]:
    """Ask about topics; asking makes none. Raises ``ConnectionLost`` and ``StoreError``."""
    askable = sorted({name for name in names if why_no_topic(name) is None})
    found = {name: Topic(name, why_no_topic(name)) for name in set(names).difference(askable)}
    if askable:
        described = admin.describe_topics(
            TopicCollection(askable), include_authorized_operations=True, request_timeout=seconds
        )
        found.update({name: _described(cluster, admin, name, future) for name, future in described.items()})
    return found


def limits(cluster: Cluster, admin: AdminClient, topics: Collection[Topic]) -> list[Topic]:
    """Ask how much the topics take. Raises ``ConnectionLost`` and ``StoreError``."""
    asked = {ConfigResource(ResourceType.TOPIC, topic.name): topic for topic in topics if topic.wrong is None}
    if not asked:
        return list(topics)
    answers = admin.describe_configs(list(asked), request_timeout=ASK_SECONDS)
    limited = [_limited(cluster, admin, asked[resource], future) for resource, future in answers.items()]
    return [*limited, *(topic for topic in topics if topic.wrong is not None)]


def layout(cluster: Cluster, name: str, asked: Future[TopicDescription]) -> Layout:
    """Return the answer to ``describe_topics``. Raises ``ConnectionLost``, also for a topic that is not there."""
    try:
        found = asked.result()
    except KafkaException as error:
        if error.args[0].code() in MISSING:
            raise ConnectionLost(SYSTEM, cluster.address, absent(cluster, name)) from error
        raise cluster.lost(error.args[0]) from error
    return Layout(str(found.topic_id), frozenset(partition.id for partition in found.partitions))


def absent(cluster: Cluster, name: str) -> str:
    """Say that a topic is gone, and what to do."""
    return (
        f"there is no topic {name!r} at {cluster.address}: it was never made, or deleted with all that it held; "
        "make it: yeondong db create APP"
    )


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


def _described(cluster: Cluster, admin: AdminClient, name: str, future: Future[TopicDescription]) -> Topic:
    try:
        allowed = cluster.answer(admin, future).authorized_operations
    except KafkaException as error:
        code = error.args[0].code()
        if code in MISSING:
            return Topic(name, missing(name, cluster.address), missing=True)
        if code in DENIED:
            return Topic(name, f"the topic {name!r} at {cluster.address} may not be seen: {error.args[0].str()}")
        raise cluster.translated(error) from error
    return Topic(name, writable=not allowed or AclOperation.WRITE in allowed)


def _limited(cluster: Cluster, admin: AdminClient, topic: Topic, future: Future[Mapping[str, ConfigEntry]]) -> Topic:
    try:
        return replace(topic, max_bytes=int(cluster.answer(admin, future)["max.message.bytes"].value or 0))
    except KafkaException as error:
        if error.args[0].code() in DENIED | MISSING:
            return topic
        raise cluster.translated(error) from error


def missing(name: str, address: str) -> str:
    """Say that a topic is missing, and what to do."""
    return f"there is no topic {name!r} at {address}; make it: yeondong db create APP"


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
    topic = NewTopic(name, partitions, replication or -1, config={**BY_BROKER, **(config or {})})
    try:
        cluster.answer(admin, admin.create_topics([topic], request_timeout=ASK_SECONDS)[name])
    except KafkaException as error:
        cause = error.args[0]
        if cause.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        if cause.retriable() or cause.code() < 0:
            raise cluster.translated(error) from error
        raise StoreError(f"the topic {name!r} cannot be made at {cluster.address}: {cause.str()}") from error
    _wait_for(cluster, admin, name)
    return True


def _wait_for(cluster: Cluster, admin: AdminClient, name: str) -> None:
    """Wait until the brokers know a topic: who made it hears so from the controller, before they do."""
    give_up = time.monotonic() + ASK_SECONDS
    while look(cluster, admin, [name])[name].missing:
        if time.monotonic() > give_up:
            raise cluster.lost(f"the topic {name!r} was made and is not there after {ASK_SECONDS:g} s")
        threading.Event().wait(0.02)
