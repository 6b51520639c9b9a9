"""What is committed for a group, and what stands beside it: whose offset it is, and of which topic."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from confluent_kafka import TopicPartition
from msgspec import Struct

from yeondong.messaging.brokers.kafka.registry import Group

_MARK_FIELDS: Final = 3


class Mark(Struct, frozen=True):
    """The metadata of a committed offset.

    ``life`` and ``topic_id`` tell offsets of a group that was forgotten, or of a topic that was deleted, from those of
    the present ones. ``dropped`` counts what the topic's retention took away unread.
    """

    life: str
    topic_id: str
    dropped: int = 0

    def text(self) -> str:
        return f"{self.life} {self.topic_id} {self.dropped}"


class Place(Struct, frozen=True):
    """Where a group stands in one partition: the offset that it reads next, and how many it never could read.

    ``told`` is whether Kafka knows it.
    """

    offset: int
    dropped: int = 0
    told: bool = False


def read_mark(metadata: str | None) -> Mark | None:
    """Return what is written beside an offset; None if another program committed it, to set the group back."""
    fields = (metadata or "").split(" ")
    if len(fields) != _MARK_FIELDS or not fields[2].isdecimal():
        return None
    return Mark(fields[0], fields[1], int(fields[2]))


def place(group: Group, topic_id: str, committed: TopicPartition) -> Place:
    """Return where a group stands in a partition, given what Kafka has of it.

    Where nothing fits, the group stands where it began; in a topic that was deleted and made anew, at the start.
    """
    mark = read_mark(committed.metadata)
    if committed.offset >= 0 and (mark is None or (mark.life, mark.topic_id) == (group.life, topic_id)):
        return Place(committed.offset, mark.dropped if mark is not None else 0, told=True)
    return Place(group.starts.get(committed.partition, 0) if group.topic_id == topic_id else 0)


class Progress:
    """How far the partitions of one reader are settled, and what of it Kafka was told."""

    def __init__(self) -> None:
        self._settled: dict[int, int] = {}
        self._told: dict[int, int | None] = {}
        self._dropped: dict[int, int] = {}

    def begin(self, partition: int, at: Place) -> None:
        """Take a partition on."""
        self._settled[partition] = at.offset
        self._told[partition] = at.offset if at.told else None
        self._dropped[partition] = at.dropped

    def end(self, partitions: Iterable[int]) -> None:
        """Give partitions up."""
        for partition in partitions:
            for known in (self._settled, self._told, self._dropped):
                known.pop(partition, None)

    def settle(self, partition: int, following: int) -> None:
        """Note that everything before this offset is settled."""
        if following > self._settled.get(partition, following):
            self._settled[partition] = following

    def settled(self, partition: int) -> int | None:
        """Return the first offset that is not settled; None for a partition of others."""
        return self._settled.get(partition)

    def drop(self, partition: int, count: int) -> None:
        """Note that messages are gone that nobody has read."""
        self._dropped[partition] = self._dropped.get(partition, 0) + count

    def told(self, partition: int, offset: int) -> None:
        """Note that Kafka has taken an offset."""
        if partition in self._told:
            self._told[partition] = offset

    def untold(self) -> list[int]:
        """Return the partitions of which Kafka knows less."""
        return [partition for partition, offset in self._settled.items() if self._told[partition] != offset]

    def commits(self, topic: str, group: Group, topic_id: str, partitions: Iterable[int]) -> list[TopicPartition]:
        """Return what to tell Kafka of these partitions."""
        return [
            TopicPartition(topic, each, self._settled[each], Mark(group.life, topic_id, self._dropped[each]).text())
            for each in partitions
            if each in self._settled
        ]
