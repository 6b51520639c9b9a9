"""A broker that drops: what is left of a relay without one."""

from __future__ import annotations

from collections.abc import Sequence

from yeondong import Yeondong
from yeondong.core.broker import Broker
from yeondong.core.message import Message
from yeondong.core.sink import Refused
from yeondong.messaging.brokers.memory import MemoryBroker, MemorySink


class Dropping(MemorySink):
    """Takes everything and keeps nothing but the count."""

    taken = 0

    def __init__(self) -> None:
        """Nothing is kept, so there is no log behind it."""

    def send(self, messages: Sequence[Message], deadline: float) -> Sequence[Refused]:
        self.taken += len(messages)
        return []


class DroppingBroker(MemoryBroker):
    """A broker with one sink, which drops."""

    def __init__(self) -> None:
        super().__init__()
        self.dropping = Dropping()

    def sink(self) -> MemorySink:
        return self.dropping


class Nowhere(Yeondong):
    """An app whose relay sends to the sink that drops."""

    def __init__(self, store: str) -> None:
        super().__init__("measured", store=store)
        self.nowhere = DroppingBroker()

    @property
    def broker(self) -> Broker:
        return self.nowhere
