"""Reading a topic as a member of a consumer group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.source import Lag
from yeondong.core.traits import Traits
from yeondong.messaging.brokers.kafka.client import Cluster


class KafkaSource:
    """One member of a consumer group."""

    def __init__(self, cluster: Cluster, traits: Traits, channel: str, group: str) -> None:
        self.traits = traits
        self._cluster = cluster
        self._channel = channel
        self._group = group

    def open(self, fence: Fence | None, revoked: Callable[[frozenset[str]], None]) -> None:
        raise NotImplementedError

    def receive(self, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        raise NotImplementedError

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        raise NotImplementedError

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        raise NotImplementedError

    def lag(self) -> Lag:
        raise NotImplementedError

    def wake(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
