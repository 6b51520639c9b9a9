"""Looking whether a topic is still the same, while its reader goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient, TopicDescription  # type: ignore[attr-defined]

from yeondong.core.clock import Clock
from yeondong.errors import ConnectionLost
from yeondong.messaging.brokers.kafka.client import SYSTEM, Cluster
from yeondong.messaging.brokers.kafka.topics import Layout, layout

LOOK_SECONDS: Final = 5.0
"""How often the cluster is asked whether the topic is still the same; who only waits is not told that it is away."""


class Lookout:
    """Asks about one topic now and then, and does not wait for the answer.

    librdkafka tells a reader neither that its topic is gone, nor that it was made anew, nor that the cluster is away.
    """

    def __init__(
        self, cluster: Cluster, topic: str, asking: Callable[[], AdminClient], clock: Clock, patience_seconds: float
    ) -> None:
        self._cluster = cluster
        self._topic = topic
        self._asking = asking
        self._clock = clock
        self._patience_seconds = max(patience_seconds, LOOK_SECONDS)
        self._asked: Future[TopicDescription] | None = None
        self.layout = self.look()
        self._look_at = clock.elapsed() + LOOK_SECONDS

    def look(self) -> Layout:
        """Ask and wait for the answer. Raises ``ConnectionLost``, also for a topic that is not there."""
        return layout(self._cluster, self._topic, self._ask(LOOK_SECONDS))

    def soon(self) -> None:
        """Ask again at once: there is a sign that something is wrong."""
        self._look_at = 0.0

    def turn(self) -> None:
        """Ask if it is time, hear the answer if there is one. Raises ``ConnectionLost`` as ``require_same`` does."""
        if self._asked is not None:
            if self._asked.done():
                asked, self._asked = self._asked, None
                self._look_at = self._clock.elapsed() + LOOK_SECONDS
                self.require_same(layout(self._cluster, self._topic, asked))
        elif self._clock.elapsed() >= self._look_at:
            self._asked = self._ask(self._patience_seconds)

    def require_same(self, found: Layout) -> None:
        """Raise ``ConnectionLost`` if this is another topic of the same name."""
        if found.id != self.layout.id:
            raise ConnectionLost(
                SYSTEM, self._cluster.address, f"the topic {self._topic!r} was deleted and made anew; opening it anew"
            )
        self.layout = found

    def _ask(self, seconds: float) -> Future[TopicDescription]:
        topics = TopicCollection([self._topic])
        return self._asking().describe_topics(topics, request_timeout=seconds)[self._topic]
