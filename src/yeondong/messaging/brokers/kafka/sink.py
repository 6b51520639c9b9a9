"""Sending to topics."""

from __future__ import annotations

from collections.abc import Sequence

from yeondong.core.clock import Clock
from yeondong.core.message import Message
from yeondong.core.sink import Refused
from yeondong.core.traits import Traits
from yeondong.messaging.brokers.kafka.client import Cluster


class KafkaSink:
    """One idempotent producer."""

    def __init__(self, cluster: Cluster, traits: Traits, clock: Clock) -> None:
        self.traits = traits
        self._cluster = cluster
        self._clock = clock

    def open(self) -> None:
        raise NotImplementedError

    def check(self, message: Message) -> str | None:
        raise NotImplementedError

    def send(self, messages: Sequence[Message], deadline: float) -> Sequence[Refused]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
