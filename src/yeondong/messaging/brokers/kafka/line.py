"""One producer of librdkafka, emptied and thrown away at its first failure."""

# ruff: noqa: SLF001 - librdkafka's own error codes begin with an underscore

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as Record

from yeondong.core.message import Message
from yeondong.messaging.brokers.kafka.client import Cluster
from yeondong.messaging.brokers.kafka.envelope import headers_of
from yeondong.messaging.brokers.kafka.topics import REGISTRY

LEAST_SECONDS: Final = 0.02
PART_BYTES: Final = 4 * 1024 * 1024
"""At most so much is handed over between two looks at the clock."""

RECORD_BYTES: Final = 400
"""What a message takes beside its data, its key and its own headers, and mostly less than that."""

CONSEQUENCES: Final = frozenset(
    {
        KafkaError._FATAL,
        KafkaError._GAPLESS_GUARANTEE,
        KafkaError._PURGE_QUEUE,
        KafkaError._PURGE_INFLIGHT,
    }
)


class Line:
    """An idempotent producer.

    It is never mended: what failed once is emptied, so that nothing it still has is handed over late, or behind its
    successor. ``message.timeout.ms`` is there for a process that was stopped: once it goes on, librdkafka drops what is
    too old before this process's own threads can.

    At no time is there more than one batch of a partition under way: where the brokers refuse the first batch that a
    producer has for a partition, they would take the second. So nothing goes before a whole batch is there, and each is
    waited for. ``enable.gapless.guarantee`` ends the producer where that was not enough.
    """

    def __init__(self, cluster: Cluster, *, seconds: float, batch_bytes: int, message_bytes: int) -> None:
        self.seconds = max(seconds, LEAST_SECONDS)
        self.patience_seconds = 0.9 * self.seconds  # so that a list fails as a whole, and not one message after another
        self.pid = os.getpid()
        self._cluster = cluster
        self._part_bytes = min(batch_bytes, PART_BYTES)
        self._known: set[str] = set()
        self._failed: list[KafkaError] = []
        self._producer = cluster.producer(
            {
                "acks": "all",
                "enable.idempotence": True,
                "enable.gapless.guarantee": True,
                "partitioner": "murmur2_random",
                "message.timeout.ms": int(self.seconds * 1_000),
                "linger.ms": self.seconds / 4 * 1_000,  # flushing does not wait for it
                "batch.size": batch_bytes,
                "batch.num.messages": 1_000_000,
                "message.max.bytes": message_bytes,
                "queue.buffering.max.messages": 0,  # bounded by the batch
                "allow.auto.create.topics": False,
                # Told of failures alone: a call for each message that arrived would cost a fifth of the speed.
                "delivery.report.only.error": True,
                "on_delivery": self._note,
            }
        )

    def connect(self, seconds: float) -> None:
        """Raise ``ConnectionLost`` or ``StoreError`` if the cluster does not answer.

        It is asked twice: the second answer lets librdkafka get the producer's id at once, and not after half a second.
        """
        try:
            for _ in range(2):
                self._producer.list_topics(self._cluster.topic(REGISTRY), timeout=seconds)
        except KafkaException as error:
            raise self._cluster.translated(error) from error

    def send(
        self, messages: Sequence[Message], topics: Mapping[str, str], left: Callable[[], float]
    ) -> KafkaError | None:
        """Hand messages over and wait until all are safe; return the first error, None if there is none.

        ``left`` says how many seconds there are; it may raise.
        """
        produce, size = self._producer.produce, 0
        try:
            self._learn({topics[message.channel] for message in messages}, left)
            for message in messages:
                data, key, headers = message.data, message.key, headers_of(message)
                more = RECORD_BYTES + (len(data) if data else 0) + (4 * len(key) if key else 0)
                if message.headers:
                    more += sum(len(name) + 4 * len(value or "") + 10 for name, value in headers)
                size += more
                if size > self._part_bytes and size > more:
                    if (error := self._flush(left)) is not None:
                        return error
                    size = more
                produce(topics[message.channel], data, key, headers=headers)
            return self._flush(left)
        except (KafkaException, SystemError) as error:
            return self._ended(error)

    def _flush(self, left: Callable[[], float]) -> KafkaError | None:
        waiting = self._producer.flush(left())
        if self._failed:
            return self._cause()
        return KafkaError(KafkaError._TIMED_OUT, f"{waiting} messages were not confirmed") if waiting else None

    def _learn(self, topics: Collection[str], left: Callable[[], float]) -> None:
        """Ask where topics are that are new here: what librdkafka has to ask for by itself goes one by one."""
        for topic in topics:
            if topic not in self._known:
                self._producer.list_topics(topic, timeout=left())
                self._known.add(topic)

    def _ended(self, error: KafkaException | SystemError) -> KafkaError:
        """Return why the producer has ended: what is purged tells it, or was told before.

        A fatal error comes as an exception out of whatever call serves callbacks, and runs into the callbacks after it:
        that is the SystemError.
        """
        self.drop()
        if self._failed:
            return self._cause()
        cause = error.args[0] if error.args else error
        return cause if isinstance(cause, KafkaError) else KafkaError(KafkaError._FATAL, str(error))

    def _note(self, error: KafkaError, _record: Record) -> None:
        self._failed.append(error)

    def _cause(self) -> KafkaError:
        """Return the first error that is no consequence of another."""
        return next((error for error in self._failed if error.code() not in CONSEQUENCES), self._failed[0])

    def drop(self) -> None:
        """Take back what is not yet sent. Twice is harmless."""
        if self.pid == os.getpid():
            self._producer.purge()
            while self._serve():
                pass

    def _serve(self) -> bool:
        """Take what callbacks bring; False when there is no more."""
        try:
            return self._producer.poll(0) > 0
        except (KafkaException, SystemError):
            return True
