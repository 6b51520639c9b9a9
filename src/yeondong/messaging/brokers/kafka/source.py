"""Reading a topic as a member of a consumer group.

librdkafka has threads of its own for fetching and for heartbeats: a slow handler never leaves the group. It calls back
only from within ``poll`` and ``consume``, so that all of this runs on the flow's thread; a consumer that is closed has
a thread for its end, and nothing that it says then is heard.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from yeondong.core.clock import Clock
from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.source import Lag
from yeondong.core.traits import Traits
from yeondong.errors import ConnectionLost, PositionLost, StoreError
from yeondong.messaging.brokers.kafka import groups
from yeondong.messaging.brokers.kafka.client import SYSTEM, Cluster
from yeondong.messaging.brokers.kafka.commits import Commits
from yeondong.messaging.brokers.kafka.envelope import message_of
from yeondong.messaging.brokers.kafka.lookout import Lookout
from yeondong.messaging.brokers.kafka.offsets import Place, Progress, place
from yeondong.messaging.brokers.kafka.registry import Group
from yeondong.messaging.brokers.kafka.returned import Returned
from yeondong.messaging.brokers.kafka.topics import MISSING

log = logging.getLogger("yeondong.kafka")

TUNING: Final = {
    "topic.metadata.refresh.interval.ms": 30_000,  # partitions that are added are noticed so soon
    "queued.max.messages.kbytes": 16_384,
    "fetch.queue.backoff.ms": 50,
}
"""Options that ``kafka_options`` may say otherwise."""

OPEN_SECONDS: Final = 5.0
"""How long each question of an opening may take; the flow tries again after an outage."""

CLOSE_SECONDS: Final = 4.0
"""How long to wait for the end of a consumer, which takes 2 s where the cluster is away. Where it stands still while a
commit is under way, librdkafka waits for its return, and at times for ever (librdkafka's issue 3740)."""

FIRST_SLICE: Final = 0.002
LAST_SLICE: Final = 0.05
"""librdkafka's waiting cannot be ended from outside: it waits in slices that grow, so that ``wake`` is heard soon."""

TEND_SECONDS: Final = 0.2
"""How long the flow may be at its limit before fetching is paused, which throws away what librdkafka has fetched."""

LOST_PLACE: Final = frozenset(
    {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION}  # noqa: SLF001
)

_FORKED: Final[list[Consumer]] = []
"""Consumers of the process that this one was forked from: to destroy one would wait for threads that are not here."""


class KafkaSource:
    """One member of a consumer group.

    Offsets are committed asynchronously, and before partitions are given up: Kafka answers one connection in order, so
    that the next owner sees them.
    """

    def __init__(
        self,
        cluster: Cluster,
        traits: Traits,
        channel: str,
        group: str,
        *,
        session_seconds: float,
        clock: Clock,
        asking: Callable[[], AdminClient],
        find: Callable[[str, str], Group | None],
    ) -> None:
        self.traits = traits
        self.session_seconds = session_seconds
        self.partitions: frozenset[str] = frozenset()
        self.existing: frozenset[str] = frozenset()
        self._cluster = cluster
        self._channel = channel
        self._name = group
        self._topic = cluster.topic(channel)
        self._clock = clock
        self._asking = asking
        self._find = find
        self._pid = 0
        self._woken = False
        self._consumer: Consumer | None = None
        self._revoked: Callable[[frozenset[str]], None] = lambda _partitions: None
        self._forget()

    def _forget(self) -> None:
        self.partitions = frozenset()
        self._names: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._progress = Progress()
        self._lent: dict[int, int] = {}
        self._returned = Returned()
        self._ahead: list[Message] = []
        self._failed: Exception | None = None
        self._paused = False
        self._polled_at = 0.0
        self._commits = Commits()

    # --- opening and closing ------------------------------------------------------------------------------------------

    def open(self, fence: Fence | None, revoked: Callable[[frozenset[str]], None]) -> None:
        """Join the group. What it is given is known only after some calls of ``receive``."""
        self.close()
        self._pid = os.getpid()
        self._revoked = revoked
        self._lookout = Lookout(self._cluster, self._topic, self._asking, self._clock, self.session_seconds)
        self._group = self._known()
        self.existing = frozenset(map(self._partition, self._lookout.layout.partitions))
        if self._group.topic_id != self._lookout.layout.id:
            log.warning(
                "kafka.topic_made_anew topic=%r group=%r reason='what the former one held is gone; reading from the "
                "start of this one'",
                self._topic,
                self._name,
            )
            self._origin = f"kafka:{self._topic}@{self._lookout.layout.id}"
        else:
            self._origin = f"kafka:{self._topic}"
        consumer = self._cluster.consumer(self._options())
        consumer.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        self._consumer = consumer
        self._polled_at = self._clock.elapsed()

    def _options(self) -> dict[str, Any]:
        session = int(self.session_seconds * 1000)
        return {
            **{name: value for name, value in TUNING.items() if name not in self._cluster.options},
            "group.id": self._cluster.group(self._channel, self._name),
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session,
            "heartbeat.interval.ms": max(100, min(session // 10, 3_000)),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "allow.auto.create.topics": False,
            "on_commit": partial(self._on_commit, self._progress, self._commits),
            "error_cb": self._on_error,
        }

    def _known(self) -> Group:
        try:
            group = self._find(self._channel, self._name)
        except StoreError as error:
            raise ConnectionLost(SYSTEM, self._cluster.address, str(error)) from error
        if group is None:
            raise ConnectionLost(
                SYSTEM,
                self._cluster.address,
                f"no group {self._name!r} of channel {self._channel!r}; start an app that receives in it",
            )
        return group

    def close(self) -> None:
        """Commit what is settled, and leave the group; behind our back, if that takes long."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None and self._pid != os.getpid():
            _FORKED.append(consumer)
        elif consumer is not None:
            self._tell(consumer, self._progress.untold())
            closing = threading.Thread(target=self._end, args=(consumer,), name="kafka-closing", daemon=True)
            closing.start()
            closing.join(CLOSE_SECONDS)
            if closing.is_alive():
                log.warning("kafka.closes_late topic=%r group=%r", self._topic, self._name)
        self._forget()

    def _end(self, consumer: Consumer) -> None:
        try:
            consumer.close()
        except (KafkaException, RuntimeError) as error:
            log.warning("kafka.closed_badly topic=%r group=%r reason=%r", self._topic, self._name, str(error))

    def _opened(self) -> Consumer:
        if self._consumer is None or self._pid != os.getpid():
            why = "is not open" if self._consumer is None else "was opened before this process was forked"
            raise ConnectionLost(
                SYSTEM, self._cluster.address, f"group {self._name!r} of channel {self._channel!r} {why}"
            )
        return self._consumer

    # --- receiving ----------------------------------------------------------------------------------------------------

    def receive(self, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        consumer = self._opened()
        self._keep(consumer)
        if limit <= 0:
            self._tend(consumer)
            return []
        found = self._returned.take(limit)
        if len(found) < limit and not self._ahead:
            try:
                self._fetch(consumer, limit - len(found), 0.0 if found else wait_seconds)
            except KafkaException as error:
                raise self._cluster.lost(error.args[0]) from error
        if len(found) < limit and self._ahead:
            found += self._lend(consumer, limit - len(found))
        return found

    def _fetch(self, consumer: Consumer, limit: int, wait_seconds: float) -> None:
        """Wait for a record, and take what else is there; ``consume`` alone would wait until it has all."""
        if self._paused:
            consumer.resume(self._assigned())
            self._paused = False
        woken, self._woken = self._woken, False
        left = 0.0 if woken else wait_seconds
        give_up = self._clock.elapsed() + left
        wait = FIRST_SLICE
        while True:
            record = consumer.poll(min(wait, max(left, 0.0)))
            now = self._polled_at = self._clock.elapsed()
            self._raise_failed()
            if record is not None:
                self._ahead.append(record)
                if limit > 1:
                    self._ahead += consumer.consume(limit - 1, 0)
                    self._raise_failed()
                return
            left = give_up - now
            if left <= 0 or self._woken:
                self._woken = False
                return
            self._keep(consumer)
            wait = min(2 * wait, LAST_SLICE)

    def _tend(self, consumer: Consumer) -> None:
        """Follow the group and borrow nothing.

        What is fetched ahead of the flow stays bounded: pausing comes first, but not for a moment at the limit.
        """
        now = self._clock.elapsed()
        if not self._paused and self._names and now - self._polled_at > TEND_SECONDS:
            consumer.pause(self._assigned())
            self._paused = True
        if self._paused or not self._names or self._commits.asked is not None:
            record = consumer.poll(0)
            self._polled_at = now
            if record is not None:
                self._ahead.append(record)
            self._raise_failed()

    def _keep(self, consumer: Consumer) -> None:
        self._tell_what_is_due(consumer)
        before = self._lookout.layout
        self._lookout.turn()
        if self._lookout.layout is not before:
            self.existing = self.existing.union(map(self._partition, self._lookout.layout.partitions))

    def _lend(self, consumer: Consumer, limit: int) -> list[Delivery]:
        records, self._ahead = self._ahead[:limit], self._ahead[limit:]
        names, lent, channel, origin = self._names, self._lent, self._channel, self._origin
        found: list[Delivery] = []
        append = found.append
        record: Any  # typed as if everything might be missing
        for record in records:
            number = record.partition()
            name = names.get(number)
            error = record.error()
            if error is not None:
                self._wrong(consumer, record, error)
            elif name is not None:
                offset = record.offset()
                message, flaw = message_of(
                    channel, origin, number, offset, record.key(), record.value(), record.headers()
                )
                append(Delivery(message, offset, name, 1, flaw))
                lent[number] = offset + 1
        return found

    def wake(self) -> None:
        self._woken = True

    # --- settling -----------------------------------------------------------------------------------------------------

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Note how far each partition is settled; offsets are committed a little later."""
        last: dict[str, int] = {}
        for delivery in deliveries:
            last[delivery.partition] = delivery.receipt
        for name, offset in last.items():
            number = self._numbers.get(name)
            if number is not None:
                self._progress.settle(number, offset + 1)
        if self._returned:
            self._returned.drop(lambda name, offset: offset <= last.get(name, -1))
        self._commits.wanted = self._commits.wanted or bool(last)
        if self._consumer is not None:
            self._tell_what_is_due(self._opened())

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            number = self._numbers.get(delivery.partition)
            settled = None if number is None else self._progress.settled(number)
            if number is not None and settled is not None and settled <= delivery.receipt < self._lent[number]:
                self._returned.put(delivery)

    def confirm(self) -> bool:
        """Commit where all partitions stand, which Kafka refuses to who is no longer a member."""
        consumer = self._opened()
        commits = self._commits
        if not self._names:
            return True
        if commits.expelled is not None:
            raise self._cluster.lost(commits.expelled)
        if (
            commits.asked is not None
            and commits.asked_for is self.partitions
            and not commits.overdue(self._clock.elapsed())
        ):
            return commits.answer()
        if self._tell(consumer, list(self._names)):
            commits.ask(self.partitions)
        return False

    def _tell_what_is_due(self, consumer: Consumer) -> None:
        if self._commits.due(self._clock.elapsed()):
            self._tell(consumer, self._progress.untold())

    def _tell(self, consumer: Consumer, partitions: Iterable[int]) -> bool:
        """Commit asynchronously; what comes of it is heard by ``_on_commit``. False if nothing was sent."""
        offsets = self._progress.commits(self._topic, self._group, self._lookout.layout.id, partitions)
        self._commits.wanted = False
        if not offsets:
            return False
        try:
            consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            log.debug("kafka.not_committed topic=%r group=%r reason=%r", self._topic, self._name, str(error))
            self._commits.wanted = True
            return False
        self._commits.send(self._clock.elapsed())
        return True

    def _on_commit(
        self, progress: Progress, commits: Commits, error: KafkaError | None, partitions: Sequence[TopicPartition]
    ) -> None:
        for each in partitions:
            if error is None and each.error is None:
                progress.told(each.partition, each.offset)
        first = error or next((each.error for each in partitions if each.error is not None), None)
        commits.heard(first)
        if first is not None:
            log.debug("kafka.not_committed topic=%r group=%r reason=%r", self._topic, self._name, first.str())
            if first.code() in MISSING:
                self._lookout.soon()

    def _on_error(self, error: KafkaError) -> None:
        """Hear what librdkafka says in the background. It says that all brokers are down also where one restarts."""
        self._cluster.reasons.note(error)
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's own code
            self._lookout.soon()

    def lag(self) -> Lag:
        """Count what waits in this reader's partitions."""
        self._opened()
        standing = {number: self._progress.settled(number) or 0 for number in self._names}
        return groups.lag(self._cluster, self._asking(), self._topic, standing)

    # --- what the group's coordinator decides -------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        if self._consumer is not consumer:
            return
        try:
            committed = consumer.committed(list(partitions), timeout=OPEN_SECONDS) if partitions else []
            for each in committed:
                if each.error is not None:
                    raise KafkaException(each.error)  # noqa: TRY301 - one way to fail
            places = {each.partition: place(self._group, self._lookout.layout.id, each) for each in committed}
            consumer.incremental_assign([TopicPartition(self._topic, n, at.offset) for n, at in places.items()])
            if self._paused and places:
                consumer.pause([TopicPartition(self._topic, number) for number in places])
        except (KafkaException, RuntimeError) as error:
            self._failed = self._cluster.lost(error.args[0])
            return
        if places:
            self._take_on(places)

    def _take_on(self, places: dict[int, Place]) -> None:
        for number, at in places.items():
            self._progress.begin(number, at)
            self._lent[number] = at.offset
            self._names[number] = self._partition(number)
            self._numbers[self._names[number]] = number
            if not at.told:
                log.info("kafka.begins partition=%r group=%r offset=%d", self._names[number], self._name, at.offset)
        self._commits.wanted, self._commits.expelled = True, None
        self.existing = self.existing.union(self._numbers)
        self.partitions = frozenset(self._numbers)

    def _on_revoke(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._leave(consumer, {each.partition for each in partitions}, lost=False)

    def _on_lost(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._leave(consumer, {each.partition for each in partitions}, lost=True)

    def _leave(self, consumer: Consumer, numbers: set[int], *, lost: bool) -> None:
        gone = {number: self._names[number] for number in numbers if number in self._names}
        if self._consumer is not consumer or not gone:
            return
        names = frozenset(gone.values())
        self._ahead = [record for record in self._ahead if record.partition() not in gone]
        self._returned.drop(lambda name, _offset: name in names)
        if lost:
            log.warning("kafka.partitions_lost group=%r partitions=%r", self._name, sorted(names))
        try:
            self._revoked(names)
        except Exception as error:  # noqa: BLE001 -- librdkafka calls us: what is raised here is raised by receive
            self._failed = error
        if not lost:
            self._tell(consumer, [number for number in self._progress.untold() if number in gone])
        self._progress.end(gone)
        for number, name in gone.items():
            del self._names[number], self._numbers[name], self._lent[number]
        self.partitions = frozenset(self._numbers)

    def _raise_failed(self) -> None:
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def _wrong(self, consumer: Consumer, record: Message, error: KafkaError) -> None:
        number, offset = record.partition(), record.offset()
        if error.code() in LOST_PLACE and number in self._names and offset is not None:
            self._find_place(consumer, number, offset, error)
        elif error.code() in MISSING:
            raise ConnectionLost(SYSTEM, self._cluster.address, f"there is no topic {self._topic!r} any more")
        elif error.code() == KafkaError.INVALID_SESSION_TIMEOUT:
            raise ConnectionLost(
                SYSTEM,
                self._cluster.address,
                f"lease_seconds is {self.session_seconds:g}, and the brokers allow no session as short or long: change "
                "it, or their group.min.session.timeout.ms",
            )
        elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own code
            raise self._cluster.lost(error)

    def _find_place(self, consumer: Consumer, number: int, offset: int, error: KafkaError) -> None:
        """Go on behind what the retention has deleted, and count it; anything else nobody can decide but a person."""
        self._lookout.require_same(self._lookout.look())
        partition = TopicPartition(self._topic, number)
        try:
            low, high = consumer.get_watermark_offsets(partition, timeout=OPEN_SECONDS, cached=False)
            if offset > high:
                raise PositionLost(
                    f"group {self._name!r} has read up to offset {offset} of partition {number} of topic "
                    f"{self._topic!r}, which ends at {high}: the brokers lost messages ({error.str()}), and what "
                    "was sent since may stand before that offset; say where to go on, e.g. yeondong replay APP "
                    f"{self._channel}/{self._name} --from {number}:{high}"
                )
            consumer.incremental_unassign([partition])
            consumer.incremental_assign([TopicPartition(self._topic, number, max(low, offset))])
        except KafkaException as failed:
            raise self._cluster.lost(failed.args[0]) from failed
        if offset >= low:
            return
        log.error(
            "kafka.dropped topic=%r partition=%d group=%r messages=%d reason='the retention of the topic deleted them "
            "before they were read'",
            self._topic,
            number,
            self._name,
            low - offset,
        )
        self._progress.drop(number, low - offset)
        if self._progress.settled(number) == self._lent[number]:
            self._progress.settle(number, low)
            self._commits.wanted = True
        self._lent[number] = low

    def _partition(self, number: int) -> str:
        return f"{self._topic}/{number}"

    def _assigned(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in self._names]
