"""Who receives what, and which groups there are: a compacted topic with one partition, read from its start.

Kafka has no transaction over what several programs read and write, but it has an order: who registers writes first,
reads back, and yields to what stands before its own record.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from msgspec import Struct

from yeondong.core.broker import Receiver, Since, refuse_second_receivers
from yeondong.core.message import Kind
from yeondong.errors import ReceiverError, SchemaMissing, StoreError
from yeondong.messaging.brokers.kafka.client import ASK_SECONDS, Cluster
from yeondong.messaging.brokers.kafka.topics import MISSING, REGISTRY, missing

CONFIG: Final = {"cleanup.policy": "compact"}
APP: Final = "app/"
GROUP: Final = "group/"
AT_ONCE: Final = 500

T = TypeVar("T")


class Group(Struct, frozen=True):
    """A group as it was made. ``life`` is unique: a group that was forgotten and comes back is another one.

    ``starts`` says by partition where it begins as long as nothing is committed; a partition that is not named begins
    at its start, since it came later. It holds for the topic of this id alone: one that was deleted and made anew is
    read from its start.
    """

    channel: str
    name: str
    life: str
    topic_id: str
    starts: dict[int, int]


class Registered(Struct, frozen=True):
    """What one app receives."""

    app: str
    receivers: tuple[tuple[str, Kind, str, str], ...]

    def as_receivers(self) -> list[Receiver]:
        return [Receiver(*each, self.app) for each in self.receivers]


class Entries(Struct, frozen=True):
    """The topic's content: the offset and the latest value of each key, in the order in which they were written."""

    apps: Mapping[str, tuple[int, Registered]]
    groups: Mapping[tuple[str, str], Group]

    def receivers(self) -> list[Receiver]:
        return [each for _, registered in self.apps.values() for each in registered.as_receivers()]

    def others(self, app: str, before: float = float("inf")) -> list[Receiver]:
        """Return what all other apps receive, as far as they registered before this offset."""
        return [
            each
            for name, (offset, registered) in self.apps.items()
            if name != app and offset < before
            for each in registered.as_receivers()
        ]


class Registry:
    """The topic. Each call has clients of its own: it is asked at starts and by people."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.topic = cluster.topic(REGISTRY)

    def read(self) -> Entries:
        """Read everything. Raises ``ConnectionLost``, and ``SchemaMissing`` if there is no such topic."""
        apps: dict[str, tuple[int, Registered]] = {}
        groups: dict[tuple[str, str], Group] = {}
        for offset, key, value in self._records():
            if key.startswith(APP):
                apps.pop(key, None)  # the order is that of the latest records
                if value is not None:
                    apps[key] = (offset, _decoded(value, Registered, self.topic, offset))
            elif key.startswith(GROUP):
                groups.pop(_group_of(key), None)
                if value is not None:
                    groups[_group_of(key)] = _decoded(value, Group, self.topic, offset)
        return Entries({registered.app: (offset, registered) for offset, registered in apps.values()}, groups)

    def register(
        self,
        app: str,
        receivers: Sequence[Receiver],
        since: Callable[[str, str], Since],
        starts: Callable[[str, Since], tuple[str, dict[int, int]]],
    ) -> None:
        """Replace what an app receives, and make its new groups.

        ``starts(channel, since)`` says where they begin: the topic's id, and offsets by partition.
        """
        before = self.read()
        refuse_second_receivers(before.others(app), receivers)
        _, former = before.apps.get(app, (-1, None))
        mine = Registered(app, tuple(dict.fromkeys((r.type, r.kind, r.channel, r.group) for r in receivers)))
        if mine != former and (mine.receivers or former is not None):
            self._claim(app, mine, former, receivers)
        for channel, group in dict.fromkeys((one.channel, one.group) for one in receivers):
            if (channel, group) not in before.groups:
                self._make(Group(channel, group, secrets.token_hex(4), *starts(channel, since(channel, group))))

    def _claim(self, app: str, mine: Registered, former: Registered | None, receivers: Sequence[Receiver]) -> None:
        offset = self._write(APP + app, msgspec.json.encode(mine))
        try:
            refuse_second_receivers(self.read().others(app, before=offset), receivers)
        except ReceiverError:
            self._write(APP + app, None if former is None else msgspec.json.encode(former))
            raise

    def _make(self, group: Group) -> None:
        """Write a group, unless another process was first: then what that one wrote is confirmed."""
        key = f"{GROUP}{group.channel}/{group.name}"
        self._write(key, msgspec.json.encode(group))
        written: list[bytes] = []
        for _, each, value in self._records():
            if each != key:
                continue
            if value is None:
                written.clear()
            else:
                written.append(value)
        if written and written[0] != msgspec.json.encode(group):
            self._write(key, written[0])

    def forget(self, channel: str, group: str) -> bool:
        """Remove a group and its receivers; False if there is none."""
        entries = self.read()
        if (channel, group) not in entries.groups:
            return False
        for app, (_, registered) in entries.apps.items():
            left = tuple(each for each in registered.receivers if each[2:] != (channel, group))
            if left != registered.receivers:
                self._write(APP + app, msgspec.json.encode(Registered(app, left)))
        self._write(f"{GROUP}{channel}/{group}", None)
        return True

    def _records(self) -> list[tuple[int, str, bytes | None]]:
        consumer = self._cluster.consumer(
            {"group.id": self.topic, "enable.partition.eof": True, "enable.auto.commit": False}
        )
        try:
            partition = TopicPartition(self.topic, 0)
            low, high = consumer.get_watermark_offsets(partition, timeout=ASK_SECONDS, cached=False)
            consumer.assign([TopicPartition(self.topic, 0, low)])
            return list(self._up_to(high, consumer)) if low < high else []
        except KafkaException as error:
            if error.args[0].code() in MISSING | {KafkaError._UNKNOWN_PARTITION}:  # noqa: SLF001 - as below
                raise SchemaMissing(missing(self.topic, self._cluster.address)) from error
            raise self._cluster.translated(error) from error
        finally:
            consumer.close()

    def _up_to(self, end: int, consumer: Consumer) -> Iterator[tuple[int, str, bytes | None]]:
        position = 0
        while position < end:
            first = consumer.poll(ASK_SECONDS)
            if first is None:
                raise self._cluster.lost(f"the topic {self.topic!r} could not be read within {ASK_SECONDS:g} s")
            for record in [first, *consumer.consume(AT_ONCE, 0)]:  # which would wait until it has so many
                position = record.offset() or 0
                error = record.error()
                if error is None:
                    position += 1
                    yield position - 1, (record.key() or b"").decode(errors="replace"), record.value()
                elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own code
                    raise KafkaException(error)

    def _write(self, key: str, value: bytes | None) -> int:
        """Write one record and return its offset."""
        cluster = self._cluster
        offsets: list[int] = []
        errors: list[KafkaError] = []
        producer = cluster.producer({"enable.idempotence": True})
        producer.produce(
            self.topic,
            value,
            key,
            partition=0,
            on_delivery=lambda error, record: errors.append(error) if error else offsets.append(record.offset() or 0),
        )
        producer.flush(ASK_SECONDS)
        if offsets:
            return offsets[0]
        producer.purge()
        raise (
            cluster.translated(errors[0])
            if errors
            else cluster.lost(f"the topic {self.topic!r} did not take a record within {ASK_SECONDS:g} s")
        )


def _group_of(key: str) -> tuple[str, str]:
    channel, _, group = key.removeprefix(GROUP).partition("/")
    return channel, group


def _decoded(value: bytes, kind: type[T], topic: str, offset: int) -> T:
    try:
        return msgspec.json.decode(value, type=kind)
    except msgspec.DecodeError as error:
        raise StoreError(
            f"record {offset} of topic {topic!r} is not yeondong's: {error}; another program writes there"
        ) from error
