"""The demo in topics of its own, on the Kafka cluster that ``YEONDONG_BROKER`` names."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from examples.shop.evidence import CHANNELS, Sent
from examples.shop.place import Nowhere

ASK_SECONDS: Final = 10.0
LONGEST_SESSION_SECONDS: Final = 60.0
PARTITIONS: Final = 6
# What yeondong's settings about the way into the cluster are called there.
WAY_IN: Final = {
    "YEONDONG_KAFKA_SECURITY": "security.protocol",
    "YEONDONG_KAFKA_MECHANISM": "sasl.mechanisms",
    "YEONDONG_KAFKA_USERNAME": "sasl.username",
    "YEONDONG_KAFKA_PASSWORD": "sasl.password",
    "YEONDONG_KAFKA_CA": "ssl.ca.location",
    "YEONDONG_KAFKA_CERTIFICATE": "ssl.certificate.location",
    "YEONDONG_KAFKA_KEY": "ssl.key.location",
    "YEONDONG_KAFKA_KEY_PASSWORD": "ssl.key.password",
}


class BrokerOnKafka:
    """Topics and groups whose names begin as nobody else's do. ``yeondong db create`` makes them, as for everybody."""

    scheme = "kafka"
    session_seconds = 6.0  # the shortest that brokers allow by default

    def __init__(self, url: str, environ: Mapping[str, str]) -> None:
        self._prefix = f"yeondong-demo-{secrets.token_hex(4)}."
        self._client: dict[str, Any] = {"bootstrap.servers": url.removeprefix("kafka://").rstrip("/"), "log_level": 0}
        self._client |= {option: environ[name] for name, option in WAY_IN.items() if environ.get(name)}
        self.environment: Mapping[str, str] = {
            "YEONDONG_BROKER": url,
            "YEONDONG_KAFKA_PREFIX": self._prefix,
            "YEONDONG_KAFKA_PARTITIONS": str(PARTITIONS),
        }
        self.told = f"topics {self._prefix}* on Kafka"

    def make(self) -> None:
        """See that there is a cluster. Raises ``Nowhere``."""
        try:
            AdminClient(self._client).list_topics(timeout=ASK_SECONDS)
        except KafkaException as error:
            raise Nowhere(f"no Kafka answers at {self._client['bootstrap.servers']}: {error}") from error

    def connect(self) -> KafkaLog:
        """Connect, beside the groups."""
        return KafkaLog(self._client, self._prefix)

    def remove(self) -> None:
        """Delete the topics and the groups."""
        admin = AdminClient(self._client)
        topics = [name for name in admin.list_topics(timeout=ASK_SECONDS).topics if name.startswith(self._prefix)]
        for deleted in admin.delete_topics(topics).values() if topics else ():
            deleted.result(ASK_SECONDS)
        give_up = time.monotonic() + LONGEST_SESSION_SECONDS
        while not self._groups_are_gone(admin):
            if time.monotonic() > give_up:
                raise Nowhere(f"the groups {self._prefix}* could not be deleted: they still have members")
            time.sleep(0.2)

    def _groups_are_gone(self, admin: AdminClient) -> bool:
        """Delete the groups; False while one counts a member, which was killed, until its session has ended."""
        names = [group.group_id for group in admin.list_consumer_groups().result(ASK_SECONDS).valid]
        ours = [name for name in names if name.startswith(self._prefix)]
        left = False
        for deleted in admin.delete_consumer_groups(ours).values() if ours else ():
            try:
                deleted.result(ASK_SECONDS)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.NON_EMPTY_GROUP:
                    raise
                left = True
        return not left


def _names(content: Mapping[str, Any]) -> tuple[str, str]:
    """Return the order that a message is about, and the key of that order."""
    return content["order_id"], str(content["member_id"])


class KafkaLog:
    """``Log`` on a cluster: a plain consumer in no group reads all partitions, and an admin client asks for offsets."""

    def __init__(
        self, client: Mapping[str, Any], prefix: str, names: Callable[[Mapping[str, Any]], tuple[str, str]] = _names
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._names = names
        self._admin = AdminClient(dict(client))
        self._consumer: Consumer | None = None
        self._sent: list[Sent] = []

    def sent(self) -> Sequence[Sent]:
        self._sent += self._new()
        return self._sent

    def everything(self) -> Sequence[Sent]:
        consumer = self._reading()
        ends = {}
        for at in consumer.assignment():
            _, end = consumer.get_watermark_offsets(at, timeout=ASK_SECONDS, cached=False)
            ends[at.topic, at.partition] = end
        while any(max(at.offset, 0) < ends[at.topic, at.partition] for at in consumer.position(consumer.assignment())):
            self._sent += self._new(wait_seconds=0.1)
        return self._sent

    def joined(self, channel: str, group: str) -> bool:
        name = self._group(channel, group)
        described = self._admin.describe_consumer_groups([name])[name].result(ASK_SECONDS)
        return any(member.assignment.topic_partitions for member in described.members)

    def settled(self, channel: str, group: str) -> Mapping[int, int]:
        name = self._group(channel, group)
        asked = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)])
        offsets = asked[name].result(ASK_SECONDS).topic_partitions
        return {one.partition: one.offset for one in offsets if one.offset >= 0}

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()

    def _group(self, channel: str, group: str) -> str:
        return f"{self._prefix}{channel}/{group}"

    def _new(self, wait_seconds: float = 0) -> Iterator[Sent]:
        """Give what has come since; librdkafka fetches it in the background."""
        for record in self._reading().consume(500, wait_seconds):
            if record.error() is not None:
                raise KafkaException(record.error())
            yield self._read(record)

    def _read(self, record: Message) -> Sent:
        headers: dict[str, Any] = dict(record.headers() or [])
        order, key = self._names(json.loads(record.value() or b""))
        return Sent(
            headers["ce_id"].decode(),
            str(record.topic()).removeprefix(self._prefix),
            record.partition() or 0,
            record.offset() or 0,
            order,
            key,
        )

    def _reading(self) -> Consumer:
        if self._consumer is None:
            self._consumer = Consumer({
                **self._client, "group.id": f"{self._prefix}reader", "enable.auto.commit": False,
                "fetch.wait.max.ms": 10,
            })  # fmt: skip
            topics = self._consumer.list_topics(timeout=ASK_SECONDS).topics
            names = [self._prefix + channel for channel in CHANNELS if self._prefix + channel in topics]
            self._consumer.assign(
                [TopicPartition(name, number, 0) for name in names for number in topics[name].partitions]
            )
        return self._consumer
