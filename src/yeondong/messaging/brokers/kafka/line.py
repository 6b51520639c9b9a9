"""One producer of librdkafka, emptied and thrown away at its first failure."""

# ruff: noqa: SLF001 - librdkafka's own error codes begin with an underscore

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as Record

from yeondong.core.message import Message
from yeondong.messaging.brokers.kafka.client import Cluster
from yeondong.messaging.brokers.kafka.envelope import headers_of
from yeondong.messaging.brokers.kafka.topics import REGISTRY

LINGER_SECONDS: Final = 0.005
"""While a list is handed over, batches fill for so long. Waiting for the list then sends what is left at once."""

LEAST_SECONDS: Final = 0.02
FULL_SECONDS: Final = 0.1
QUEUED_MESSAGES: Final = 100_000

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
    successor. ``enable.gapless.guarantee`` ends it at the first batch that the brokers refuse; by itself it would go on
    with later messages of the same keys. ``message.timeout.ms`` is there for a process that was stopped: once it goes
    on, librdkafka drops what is too old before this process's own threads can.
    """

    def __init__(self, cluster: Cluster, *, seconds: float, batch_bytes: int, message_bytes: int) -> None:
        self.seconds = max(seconds, LEAST_SECONDS)
        self.patience_seconds = 0.9 * self.seconds  # so that a list fails as a whole, and not one message after another
        self.pid = os.getpid()
        self._cluster = cluster
        self._failed: list[KafkaError] = []
        self._producer = cluster.producer(
            {
                "acks": "all",
                "enable.idempotence": True,
                "enable.gapless.guarantee": True,
                "partitioner": "murmur2_random",
                "message.timeout.ms": int(self.seconds * 1_000),
                "linger.ms": min(LINGER_SECONDS, self.seconds / 4) * 1_000,
                "batch.size": batch_bytes,
                "message.max.bytes": message_bytes,
                "queue.buffering.max.messages": QUEUED_MESSAGES,
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
        produce = self._producer.produce
        try:
            for message in messages:
                topic, headers = topics[message.channel], headers_of(message)
                try:
                    produce(topic, message.data, message.key, headers=headers)
                except BufferError:
                    self._wait_for_room(left)
                    produce(topic, message.data, message.key, headers=headers)
            waiting = self._producer.flush(left())
        except (KafkaException, SystemError) as error:
            return self._ended(error)
        if self._failed:
            return self._cause()
        return KafkaError(KafkaError._TIMED_OUT, f"{waiting} messages were not confirmed") if waiting else None

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

    def _wait_for_room(self, left: Callable[[], float]) -> None:
        while len(self._producer) >= QUEUED_MESSAGES // 2:
            self._producer.poll(min(left(), FULL_SECONDS))

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
