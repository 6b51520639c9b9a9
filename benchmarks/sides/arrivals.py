"""From an act to the arrival of its message at a Kafka consumer. Peers run it too: it imports the client only."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from queue import SimpleQueue

from confluent_kafka import Consumer, TopicPartition

from benchmarks.sides.kafka import PARTITIONS, create_topic

PAUSE_SECONDS = (0.3, 0.9)
GIVE_UP_SECONDS = 60.0


class Arrivals:
    """A bare consumer on a thread of its own, which notes when each message comes."""

    def __init__(self, kafka: str, topic: str, *, create: bool = True) -> None:
        if create:
            create_topic(kafka, topic)
        self._came: SimpleQueue[float] = SimpleQueue()
        self._consumer = Consumer({"bootstrap.servers": kafka, "group.id": topic, "enable.auto.commit": False})
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._ended.is_set():
            message = self._consumer.poll(0.5)
            if message is not None and message.error() is None:
                self._came.put(time.perf_counter())

    def measure(
        self, act: Callable[[int], float], samples: int, pause_seconds: tuple[float, float] = PAUSE_SECONDS
    ) -> Mapping[str, float]:
        """Act, one at a time; ``act`` returns from when on its message was under way, by ``time.perf_counter``.

        The pauses have nothing to do with the pace at which anybody looks.
        """
        chance, took = random.Random(7), []
        for number in range(samples + 1):
            began = act(number)
            took.append((self._came.get(timeout=GIVE_UP_SECONDS) - began) * 1_000)
            time.sleep(chance.uniform(*pause_seconds))
        del took[0]  # it waited until everybody had started
        return {"p50": statistics.median(took), "p99": sorted(took)[int(len(took) * 0.99)], "most": max(took)}

    def close(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join()
        self._consumer.close()
