"""What a test of a broker needs around it: registered groups, messages, opened sources."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import count
from typing import Final, cast

import pytest

from yeondong.core.broker import Broker, GroupLag, Receiver, Since
from yeondong.core.clock import SystemClock
from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.message import Kind, Message
from yeondong.core.sink import Refused, Sink
from yeondong.core.source import AssignedSource, Source
from yeondong.core.traits import Partitions, Settles
from yeondong.errors import ConnectionLost

CHANNEL: Final = "orders"
GROUP: Final = "search"
APP: Final = "shop"
PATIENCE_SECONDS: Final = 20.0
OCCURRED_AT: Final = datetime(2026, 2, 3, 4, 5, 6, 789_000, UTC)


def message(id: str, *, key: str | None = "key 0", channel: str = CHANNEL, data: bytes | None = b"{}") -> Message:
    return Message(id, "order.placed", Kind.EVENT, channel, key, data, origin="/shop", occurred_at=OCCURRED_AT)


def messages(total: int, *, keys: int = 1, prefix: str = "m", channel: str = CHANNEL) -> list[Message]:
    return [message(f"{prefix}{i}", key=f"key {i % keys}", channel=channel) for i in range(total)]


def receiver(
    message_type: str = "order.placed",
    kind: Kind = Kind.EVENT,
    *,
    channel: str = CHANNEL,
    group: str = GROUP,
    app: str = APP,
) -> Receiver:
    return Receiver(message_type, kind, channel, group, app)


def ids(found: Iterable[Delivery | Message]) -> list[str]:
    return [(one.message if isinstance(one, Delivery) else one).id for one in found]


def soon() -> float:
    """Return a deadline for sending that no healthy system misses."""
    return SystemClock().elapsed() + PATIENCE_SECONDS


def nothing_comes(source: Source) -> bool:
    # A broker that assigns partitions has to be asked over the network, and the reader has just been given them.
    return not source.receive(100, 0.4 if source.traits.partitions is Partitions.ASSIGNED else 0.05)


def reader_of(source: Source) -> AssignedSource:
    """Take a source for what its Traits say it is."""
    assert source.traits.partitions is Partitions.ASSIGNED
    return cast("AssignedSource", source)


def keeps_order(found: Sequence[Delivery], sent: Sequence[Message]) -> bool:
    """Whether the messages of each key came in the order in which they were sent, and all of them once."""
    arrived = ids(found)
    by_key = {key: [one.id for one in sent if one.key == key] for key in {one.key for one in sent}}
    return len(arrived) == len(sent) and all(
        [id for id in arrived if id in set(mine)] == mine for mine in by_key.values()
    )


class Scene:
    """One broker, and another object on the same data, as another process would have it."""

    def __init__(
        self, broker: Broker, reopen: Callable[[], Broker] | None, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self.broker = broker
        self._patience_seconds = patience_seconds
        self.traits = broker.traits
        self._reopen = reopen
        self._epochs = count(1)
        self._readers: list[Source] = []
        self._after = ExitStack()

    def other(self) -> Broker:
        """Return an independent broker object; where nothing is durable, there is only the one."""
        if not self.traits.durable:
            return self.broker
        assert self._reopen is not None, "a durable broker's test needs the fixture reopen"
        broker = self._reopen()
        self._after.callback(broker.close)
        return broker

    def needs(self, condition: object, promise: str) -> None:
        """Skip a test about what these Traits do not promise."""
        if not condition:
            pytest.skip(f"Traits: {promise}")

    def needs_memory_of_loans(self) -> None:
        self.needs(self.traits.settles is not Settles.NOTHING, "it forgets what it handed over")

    def register(
        self, *receivers: Receiver, app: str = APP, since: Since = "now", broker: Broker | None = None
    ) -> None:
        (broker or self.broker).register(app, receivers or [receiver(app=app)], lambda _channel, _group: since)

    def sink(self, broker: Broker | None = None) -> Sink:
        sink = (broker or self.broker).sink()
        sink.open()
        self._after.callback(sink.close)
        return sink

    def send(self, sent: Sequence[Message], broker: Broker | None = None) -> Sequence[Refused]:
        sink = self.sink(broker)
        try:
            return sink.send(sent, soon())
        finally:
            sink.close()

    def fence(self, epoch: int | None = None) -> Fence | None:
        """Return a lease that is younger than all before, for sources that need one."""
        if self.traits.partitions is not Partitions.LEASED:
            return None
        return Fence("flow", "worker", next(self._epochs) if epoch is None else epoch, SystemClock().elapsed() + 3600)

    def source(self, *, channel: str = CHANNEL, group: str = GROUP, broker: Broker | None = None) -> Source:
        source = (broker or self.broker).source(channel, group)
        self._after.callback(source.close)
        return source

    def opened(self, *, channel: str = CHANNEL, group: str = GROUP, broker: Broker | None = None) -> Source:
        source = self.source(channel=channel, group=group, broker=broker)
        self.open(source)
        return source

    def open(self, source: Source, revoked: Callable[[frozenset[str]], None] = lambda _partitions: None) -> None:
        """Open a source; where the broker assigns partitions, wait until it has some."""
        source.open(self.fence(), revoked)
        if self.traits.partitions is Partitions.ASSIGNED:
            self._readers.append(source)
            self.wait(lambda: reader_of(source).partitions)

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait until the readers that are open have come so far, while all of them follow their group."""
        give_up = time.monotonic() + self._patience_seconds
        while not condition():
            assert time.monotonic() < give_up, "it did not come to that"
            for reader in list(self._readers):
                try:
                    reader.receive(0, 0)
                except ConnectionLost:  # the test has closed it
                    self._readers.remove(reader)
            time.sleep(0.01)

    def settle(self, source: Source, deliveries: Sequence[Delivery]) -> None:
        """Settle, and wait until the broker knows it, so that other objects see it too."""
        source.settle(deliveries)
        if self.traits.partitions is Partitions.ASSIGNED:
            self.wait(reader_of(source).confirm)

    def drain(self, source: Source, total: int, *, at_once: int = 100) -> list[Delivery]:
        """Borrow ``total`` deliveries, or what comes while the test has patience."""
        found: list[Delivery] = []
        give_up = time.monotonic() + self._patience_seconds
        while len(found) < total and time.monotonic() < give_up:
            found += source.receive(min(at_once, total - len(found)), 0.1)
        return found

    def progress(self, group: str = GROUP, channel: str = CHANNEL) -> GroupLag:
        found = [lag for lag in self.broker.groups() if (lag.channel, lag.group) == (channel, group)]
        assert len(found) == 1, f"group {group!r} of channel {channel!r} is there {len(found)} times"
        return found[0]

    def close(self) -> None:
        self._after.close()
