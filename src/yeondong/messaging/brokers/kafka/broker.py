"""The broker itself: topics, who receives, sinks and sources."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final

from confluent_kafka.admin import AdminClient

from yeondong.core.broker import GroupLag, Receiver, Since
from yeondong.core.clock import Clock, SystemClock
from yeondong.core.traits import Order, Partitions, Settles, Traits
from yeondong.errors import DeclarationError, SchemaMissing, StoreError
from yeondong.messaging.brokers.kafka import groups, topics
from yeondong.messaging.brokers.kafka.client import Cluster
from yeondong.messaging.brokers.kafka.limits import Limits
from yeondong.messaging.brokers.kafka.registry import CONFIG, Registry
from yeondong.messaging.brokers.kafka.sink import KafkaSink
from yeondong.messaging.brokers.kafka.source import KafkaSource

SENDING_PART: Final = 0.5
"""The part of a lease for which a list may be under way: beyond it the flow is told, and the lease still holds."""


class KafkaBroker:
    """Topics of one Kafka cluster, a channel each; groups are consumer groups.

    Topics are made by ``create`` alone, with as many ``partitions`` and copies as it is told.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        partitions: int = 6,
        replication: int | None = None,
        message_bytes: int = 1_000_000,
        lease_seconds: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self._limits = Limits(cluster.prefix, message_bytes)
        self.traits = Traits(
            durable=True,
            order=Order.KEY,
            settles=Settles.PREFIX,
            partitions=Partitions.ASSIGNED,
            max_bytes=self._limits.data_bytes,
            replay=True,
        )
        self.address = cluster.address
        self._cluster = cluster
        self._partitions = partitions
        self._replication = replication
        self._session_seconds = lease_seconds
        self._patience_seconds = SENDING_PART * lease_seconds
        self._clock = clock or SystemClock()
        self._registry = Registry(cluster)
        self._admin: tuple[int, AdminClient] | None = None

    def prepare(self, channels: Collection[str] = ()) -> None:
        """Raise ``SchemaMissing`` for topics that are not there, ``StoreError`` for what cannot be used."""
        if self._missing():
            raise SchemaMissing(topics.missing(self._registry.topic, self.address))
        found = self._look(channels)
        if absent := [topic.name for topic in found if topic.missing]:
            raise SchemaMissing(
                f"there is no topic {', '.join(map(repr, absent))} at {self.address}; make what is missing: "
                "yeondong db create APP"
            )
        if flaws := [flaw for topic in found if (flaw := topics.flaw(topic, self._limits.message_bytes)) is not None]:
            raise StoreError("; ".join(flaws))

    def statements(self) -> Sequence[str]:
        """Return nothing: topics are not made by statements."""
        return ()

    def create(self, channels: Collection[str] = ()) -> Sequence[str]:
        made = [self._make(self._registry.topic, 1, CONFIG)] if self._missing() else []
        made += [self._make(topic.name, self._partitions) for topic in self._look(channels) if topic.missing]
        return [name for name in made if name is not None]

    def _make(self, name: str, partitions: int, config: Mapping[str, str] | None = None) -> str | None:
        """Make a topic and return its name; None if another process was first."""
        made = topics.make(
            self._cluster, self._asking, name, partitions=partitions, replication=self._replication, config=config
        )
        return name if made else None

    def check(self, channels: Collection[str] = ()) -> Sequence[str]:
        found = [topics.missing(self._registry.topic, self.address)] if self._missing() else []
        flaws = (topics.flaw(topic, self._limits.message_bytes) for topic in self._look(channels))
        return [*found, *(flaw for flaw in flaws if flaw is not None)]

    def sink(self) -> KafkaSink:
        return KafkaSink(
            self._cluster,
            self.traits,
            self._limits,
            lambda names, seconds: topics.look(self._cluster, self._asking, names, seconds),
            clock=self._clock,
            patience_seconds=self._patience_seconds,
        )

    def source(self, channel: str, group: str) -> KafkaSource:
        return KafkaSource(
            self._cluster,
            self.traits,
            channel,
            group,
            session_seconds=self._session_seconds,
            clock=self._clock,
            asking=lambda: self._asking,
            find=lambda channel, group: self._registry.read().groups.get((channel, group)),
        )

    def register(self, app: str, receivers: Sequence[Receiver], since: Callable[[str, str], Since]) -> None:
        self._registry.register(app, receivers, since, partial(groups.starts, self._cluster, self._asking))

    def receivers(self) -> Sequence[Receiver]:
        return [] if self._missing() else self._registry.read().receivers()

    def groups(self) -> Sequence[GroupLag]:
        known = [] if self._missing() else list(self._registry.read().groups.values())
        return groups.progress(self._cluster, self._asking, known)

    def forget(self, channel: str, group: str) -> bool:
        """Raise ``ConnectionLost`` while anybody has the group open: Kafka would let it go on."""
        groups.require_closed(self._cluster, self._asking, channel, group)
        if not self._registry.forget(channel, group):
            return False
        groups.forget(self._cluster, self._asking, channel, group)
        return True

    def rewind(self, channel: str, group: str, start: str) -> int:
        """Raise ``ConnectionLost`` while anybody has the group open.

        ``start`` may also be ``PARTITION:OFFSET``, which sets back this partition alone.
        """
        known = {} if self._missing() else self._registry.read().groups
        return groups.rewind(self._cluster, self._asking, known, channel, group, start)

    def repeats(self, channel: str, group: str, start: str) -> int:
        if self._missing():
            return 0
        return groups.repeats(self._cluster, self._asking, self._registry.read().groups, channel, group, start)

    def sweep(self) -> int:
        """Nothing to do: Kafka deletes by the topic's own retention."""
        return 0

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Nothing to do: who receives waits at the broker itself, which answers as soon as something is sent."""
        return lambda: None

    def close(self) -> None:
        self._admin = None

    @property
    def _asking(self) -> AdminClient:
        if self._admin is None or self._admin[0] != os.getpid():
            self._admin = (os.getpid(), self._cluster.admin())
        return self._admin[1]

    def _look(self, channels: Collection[str]) -> list[topics.Topic]:
        """Ask about channels. Raises ``DeclarationError`` for one that cannot be a topic."""
        names = [self._cluster.topic(channel) for channel in channels]
        for name in names:
            if (reason := topics.why_no_topic(name)) is not None:
                raise DeclarationError(f"channel {reason}")
        found = topics.look(self._cluster, self._asking, names)
        return topics.limits(self._cluster, self._asking, found.values())

    def _missing(self) -> bool:
        return topics.look(self._cluster, self._asking, [self._registry.topic])[self._registry.topic].missing
