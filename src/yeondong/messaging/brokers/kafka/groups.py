"""How far each group has come: the consumer groups' committed offsets, and the ends of the topics.

A group is there while the registry has it, not while Kafka has offsets of it: Kafka forgets those of an idle group
after a week. Where nothing is committed, the group stands where its record in the registry says.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from msgspec import Struct

from yeondong.core.broker import GroupLag, Since
from yeondong.core.source import Lag
from yeondong.errors import ConnectionLost, DeclarationError, UnknownName
from yeondong.messaging.brokers.kafka.client import ASK_SECONDS, SYSTEM, Cluster
from yeondong.messaging.brokers.kafka.offsets import Mark, Place, place
from yeondong.messaging.brokers.kafka.registry import Group
from yeondong.messaging.brokers.kafka.topics import MISSING, REGISTRY, Layout, layout

PEEK_SECONDS: Final = 5.0
"""How long the first waiting messages are looked for, to tell since when they wait."""

EARLIEST: Final[OffsetSpec] = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
LATEST: Final[OffsetSpec] = OffsetSpec.latest()  # type: ignore[no-untyped-call]
ONE_PLACE: Final = re.compile(r"([0-9]{1,9}):([0-9]{1,18})")

Offsets = Mapping[int, int]


class Standing(Struct, frozen=True):
    """Where a group stands in each partition of its topic, and what the topic holds."""

    group: Group
    topic: str
    layout: Layout
    places: Mapping[int, Place]
    first: Offsets
    end: Offsets

    def waiting(self) -> dict[int, int]:
        """Return the first offset that waits, for the partitions where something does."""
        following = {n: max(at.offset, self.first[n]) for n, at in self.places.items()}
        return {n: offset for n, offset in following.items() if offset < self.end[n]}

    def lag(self) -> int:
        return sum(self.end[n] - offset for n, offset in self.waiting().items())

    def dropped(self) -> int:
        return sum(at.dropped + max(0, self.first[n] - at.offset) for n, at in self.places.items())


# --- asking -----------------------------------------------------------------------------------------------------------


def starts(cluster: Cluster, admin: AdminClient, channel: str, since: Since) -> tuple[str, dict[int, int]]:
    """Return the topic's id, and where a new group begins, by partition."""
    topic = cluster.topic(channel)
    found = _layout(cluster, admin, topic)
    spec = EARLIEST if since == "start" else LATEST
    return found.id, _offsets(cluster, admin, topic, found.partitions, spec)


def progress(cluster: Cluster, admin: AdminClient, known: Sequence[Group]) -> Sequence[GroupLag]:
    """Return how far these groups are. Of a topic that is gone nothing waits."""
    lags = []
    for group in sorted(known, key=lambda each: (each.channel, each.name)):
        try:
            at = _standing(cluster, admin, group)
        except _NoTopic:
            lags.append(GroupLag(group.channel, group.name, 0, None))
            continue
        since = _oldest(cluster, at.topic, at.waiting())
        lags.append(GroupLag(group.channel, group.name, at.lag(), since, at.dropped()))
    return lags


def lag(cluster: Cluster, admin: AdminClient, topic: str, standing: Offsets) -> Lag:
    """Count what waits from these offsets on."""
    first = _offsets(cluster, admin, topic, standing, EARLIEST)
    end = _offsets(cluster, admin, topic, standing, LATEST)
    following = {n: max(offset, first[n]) for n, offset in standing.items()}
    waiting = {n: offset for n, offset in following.items() if offset < end[n]}
    return Lag(sum(end[n] - offset for n, offset in waiting.items()), _oldest(cluster, topic, waiting))


def _standing(cluster: Cluster, admin: AdminClient, group: Group) -> Standing:
    topic = cluster.topic(group.channel)
    name = cluster.group(group.channel, group.name)
    found = _layout(cluster, admin, topic)
    wanted = ConsumerGroupTopicPartitions(name, [TopicPartition(topic, number) for number in sorted(found.partitions)])
    asked = admin.list_consumer_group_offsets([wanted], request_timeout=ASK_SECONDS)[name]
    committed = {each.partition: each for each in _answer(cluster, asked).topic_partitions}
    return Standing(
        group,
        topic,
        found,
        {n: place(group, found.id, committed.get(n, TopicPartition(topic, n))) for n in found.partitions},
        _offsets(cluster, admin, topic, found.partitions, EARLIEST),
        _offsets(cluster, admin, topic, found.partitions, LATEST),
    )


class _NoTopic(ConnectionLost):
    """There is no such topic (any more)."""


def _layout(cluster: Cluster, admin: AdminClient, topic: str) -> Layout:
    asked = admin.describe_topics(TopicCollection([topic]), request_timeout=ASK_SECONDS)[topic]
    try:
        asked.result()
    except KafkaException as error:
        if error.args[0].code() in MISSING:
            raise _NoTopic(SYSTEM, cluster.address, f"there is no topic {topic!r}") from error
    return layout(cluster, topic, asked)


def _offsets(
    cluster: Cluster, admin: AdminClient, topic: str, partitions: Iterable[int], spec: OffsetSpec
) -> dict[int, int]:
    wanted = {TopicPartition(topic, number): spec for number in partitions}
    if not wanted:
        return {}
    asked = admin.list_offsets(wanted, request_timeout=ASK_SECONDS)
    return {each.partition: _answer(cluster, future).offset for each, future in asked.items()}


def _answer(cluster: Cluster, asked: Future[Any]) -> Any:
    try:
        return asked.result()
    except KafkaException as error:
        raise cluster.translated(error) from error


def _oldest(cluster: Cluster, topic: str, waiting: Offsets) -> datetime | None:
    """Return the time of the oldest message that waits; it stands at the front of one of the partitions."""
    if not waiting:
        return None
    consumer = cluster.consumer(
        {"group.id": cluster.topic(REGISTRY), "enable.auto.commit": False, "enable.partition.eof": True}
    )
    times = []
    try:
        consumer.assign([TopicPartition(topic, number, offset) for number, offset in waiting.items()])
        left = set(waiting)
        until = time.monotonic() + PEEK_SECONDS
        while left and time.monotonic() < until:
            record = consumer.poll(max(0.0, until - time.monotonic()))
            if record is None or record.partition() not in left:
                continue
            number = record.partition()
            left.discard(number)
            consumer.pause([TopicPartition(topic, number)])  # type: ignore[arg-type]
            if record.error() is None:
                times.append(record.timestamp()[1])
    finally:
        consumer.close()
    return datetime.fromtimestamp(min(times) / 1000, UTC) if times else None


# --- changing ---------------------------------------------------------------------------------------------------------


def require_closed(cluster: Cluster, admin: AdminClient, channel: str, group: str) -> None:
    """Raise ``ConnectionLost`` while the group has members; one that was killed counts until its session has ended."""
    name = cluster.group(channel, group)
    found = _answer(cluster, admin.describe_consumer_groups([name], request_timeout=ASK_SECONDS)[name])
    if found.members:
        raise _still_open(cluster, name, {f"{each.client_id} at {each.host.lstrip('/')}" for each in found.members})


def _still_open(cluster: Cluster, name: str, members: Iterable[str]) -> ConnectionLost:
    readers = ", ".join(sorted(members))
    return ConnectionLost(
        SYSTEM,
        cluster.address,
        f"the consumer group {name!r} is open ({readers}): stop or pause its workers; one that was killed counts until "
        "its session has ended (lease_seconds)",
    )


def forget(cluster: Cluster, admin: AdminClient, channel: str, group: str) -> None:
    """Remove what Kafka knows of a group that the registry has forgotten.

    Whoever opens it just now keeps it alive; what that one commits is of a former life of the group and counts nothing.
    """
    name = cluster.group(channel, group)
    try:
        admin.delete_consumer_groups([name], request_timeout=ASK_SECONDS)[name].result()
    except KafkaException as error:
        if error.args[0].code() not in (KafkaError.GROUP_ID_NOT_FOUND, KafkaError.NON_EMPTY_GROUP):
            raise cluster.translated(error) from error


def rewind(
    cluster: Cluster,
    admin: AdminClient,
    known: Mapping[tuple[str, str], Group],
    channel: str,
    group: str,
    start: str,
) -> int:
    """Set a group back; return how many messages will repeat."""
    at = _standing(cluster, admin, _known(known, channel, group))
    back = _back(cluster, admin, at, start)
    require_closed(cluster, admin, channel, group)
    if not back:
        return 0
    name = cluster.group(channel, group)
    offsets = [
        TopicPartition(at.topic, n, offset, Mark(at.group.life, at.layout.id, at.places[n].dropped).text())
        for n, offset in back.items()
    ]
    asked = admin.alter_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(name, offsets)], request_timeout=ASK_SECONDS
    )[name]
    for each in _answer(cluster, asked).topic_partitions:
        if each.error is not None:
            if each.error.code() == KafkaError.UNKNOWN_MEMBER_ID:
                raise _still_open(cluster, name, ["it was opened just now"])
            raise cluster.translated(each.error)
    return _repeated(at, back)


def repeats(
    cluster: Cluster,
    admin: AdminClient,
    known: Mapping[tuple[str, str], Group],
    channel: str,
    group: str,
    start: str,
) -> int:
    """Count what ``rewind`` would repeat."""
    at = _standing(cluster, admin, _known(known, channel, group))
    return _repeated(at, _back(cluster, admin, at, start))


def _known(known: Mapping[tuple[str, str], Group], channel: str, group: str) -> Group:
    try:
        return known[channel, group]
    except KeyError:
        raise UnknownName("group", f"{channel}/{group}", ["/".join(name) for name in known]) from None


def _repeated(at: Standing, back: Offsets) -> int:
    return sum(at.places[n].offset - offset for n, offset in back.items())


def _back(cluster: Cluster, admin: AdminClient, at: Standing, start: str) -> dict[int, int]:
    """Return where to go back to, for the partitions where that is before where the group stands."""
    wanted = _wanted(cluster, admin, at, start)
    found = {n: max(offset, at.first[n]) for n, offset in wanted.items()}
    return {n: offset for n, offset in found.items() if offset < at.places[n].offset}


def _wanted(cluster: Cluster, admin: AdminClient, at: Standing, start: str) -> Offsets:
    if start == "start":
        return at.first
    if (one := ONE_PLACE.fullmatch(start)) is not None:
        number, offset = int(one[1]), int(one[2])
        if number not in at.layout.partitions:
            last = max(at.layout.partitions)
            raise DeclarationError(f"cannot replay from {start!r}: topic {at.topic!r} has partitions 0 to {last}")
        return {number: offset}
    spec = OffsetSpec.for_timestamp(_milliseconds(start))
    found = _offsets(cluster, admin, at.topic, at.layout.partitions, spec)
    return {n: offset for n, offset in found.items() if offset >= 0}  # -1: nothing was sent since


def _milliseconds(text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.utcoffset() is None:
        raise DeclarationError(
            f"cannot replay from {text!r}; say 'start', a time with an offset as 2026-01-31T09:00:00+09:00, or "
            "PARTITION:OFFSET as 3:1200"
        )
    return int(at.timestamp() * 1000)
