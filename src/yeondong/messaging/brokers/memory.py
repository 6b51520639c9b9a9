"""A broker inside one process, for tests and for parts of one application that may forget.

Nothing outlives the process. It settles by PREFIX, since a log with one position per group makes receiving a slice and
settling an assignment, whatever the number of groups. A PREFIX group has one reader: a second source of the same group
is refused while the first is open, so key order holds without leases (SHARED).
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from heapq import heappop, heappush
from typing import TypeAlias

from yeondong.core.broker import GroupLag, Receiver, Since, refuse_second_receivers
from yeondong.core.clock import Clock, SystemClock
from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.message import Message
from yeondong.core.sink import Refused
from yeondong.core.source import Lag
from yeondong.core.traits import Order, Partitions, Settles, Traits
from yeondong.errors import ConnectionLost, DeclarationError

SYSTEM = "memory broker"
ADDRESS = "memory:"
TRAITS = Traits(
    durable=False,
    order=Order.CHANNEL,
    settles=Settles.PREFIX,
    partitions=Partitions.SHARED,
    max_bytes=1 << 20,
)

GroupName: TypeAlias = tuple[str, str]


class _Log:
    """One channel: what was sent and is still kept. Positions count from 1; those up to ``floor`` are gone."""

    def __init__(self) -> None:
        self.floor = 0
        self.end = 0
        self._offset = 0  # position before the first delivery in the list
        self._deliveries: list[Delivery] = []
        self._stored: list[tuple[int, datetime]] = []  # first position of each call of send, and its time

    def append(self, messages: Iterable[Message], at: datetime) -> None:
        self._stored.append((self.end + 1, at))
        for message in messages:
            self.end += 1
            self._deliveries.append(Delivery(message, self.end, message.channel))

    def read(self, after: int, limit: int) -> list[Delivery]:
        start = max(after, self.floor) - self._offset
        return self._deliveries[start : start + limit]

    def stored_at(self, position: int) -> datetime | None:
        if position > self.end:
            return None
        return self._stored[bisect_right(self._stored, position, key=lambda entry: entry[0]) - 1][1]

    def forget(self, position: int) -> tuple[int, int]:
        """Let go of everything up to ``position``; return how many messages and how many bytes."""
        if position <= self.floor:
            return 0, 0
        gone = self._deliveries[self.floor - self._offset : position - self._offset]
        self.floor = position
        dead = position - self._offset
        if dead * 2 >= len(self._deliveries):  # moving the rest down then costs no more than what went
            del self._deliveries[:dead]
            self._offset = position
            del self._stored[: max(bisect_right(self._stored, position, key=lambda entry: entry[0]) - 1, 0)]
        return len(gone), sum([delivery.message.size() for delivery in gone])


class _Logs:
    """Everything that a memory broker knows, behind one lock."""

    def __init__(self, clock: Clock, max_messages: int, max_bytes: int) -> None:
        self.clock = clock
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._messages = 0
        self._bytes = 0
        self._room = threading.Condition(threading.Lock())
        self._logs: dict[str, _Log] = {}
        self._positions: dict[GroupName, int] = {}
        self._open: dict[GroupName, MemorySource] = {}
        self._receivers: dict[str, tuple[Receiver, ...]] = {}
        self._watchers: list[Callable[[], None]] = []
        self._closed = False

    def send(self, messages: Sequence[Message], deadline: float) -> None:
        byte_count = sum([message.size() for message in messages])
        with self._room:
            self._wait_for_room(len(messages), byte_count, deadline)
            at = self.clock.now()
            channels: dict[str, list[Message]] = {}
            for message in messages:
                channels.setdefault(message.channel, []).append(message)
            for channel, sent in channels.items():
                self._log(channel).append(sent, at)
            self._messages += len(messages)
            self._bytes += byte_count
            readers = [source for (channel, _), source in self._open.items() if channel in channels]
            watchers = list(self._watchers)
        for source in readers:
            source.wake()
        for wake in watchers:
            wake()

    def _wait_for_room(self, count: int, byte_count: int, deadline: float) -> None:
        while True:
            if self._closed:
                raise ConnectionLost(SYSTEM, ADDRESS, "it is closed")
            left = deadline - self.clock.elapsed()
            full = self._full(count, byte_count)
            if left > 0 and full is None:
                return
            if left <= 0:
                raise ConnectionLost(SYSTEM, ADDRESS, full or "the deadline for sending has passed")
            self._room.wait(left)

    def _full(self, count: int, byte_count: int) -> str | None:
        """Say why these messages have no room; a call larger than the bound goes into an empty log."""
        for channel in self._logs.keys() - {channel for channel, _ in self._positions}:
            log = self._logs[channel]
            # Nobody receives this channel: its oldest messages make room, or it would block all others for ever.
            while self._over(count, byte_count) and log.floor < log.end:
                self._forget(log, min(log.end, log.floor + count))
        if not self._over(count, byte_count):
            return None
        (channel, group), waiting = max(
            ((name, self._logs[name[0]].end - position) for name, position in self._positions.items()),
            key=lambda entry: entry[1],
        )
        return (
            f"full: {self._messages} messages wait, group {group!r} of channel {channel!r} has not settled {waiting}; "
            "start an app that receives in this group, or forget the group"
        )

    def _over(self, count: int, byte_count: int) -> bool:
        too_many = self._messages + count > self._max_messages or self._bytes + byte_count > self._max_bytes
        return too_many and self._messages > 0

    def _log(self, channel: str) -> _Log:
        return self._logs.setdefault(channel, _Log())

    def _forget(self, log: _Log, position: int) -> None:
        count, byte_count = log.forget(position)
        self._messages -= count
        self._bytes -= byte_count
        self._room.notify_all()

    def _forget_settled(self, channel: str) -> None:
        positions = [position for (name, _), position in self._positions.items() if name == channel]
        if positions:
            self._forget(self._log(channel), min(positions))

    def open(self, name: GroupName, source: MemorySource) -> int:
        with self._room:
            if self._open.setdefault(name, source) is not source:
                raise ConnectionLost(SYSTEM, ADDRESS, f"group {name[1]!r} of channel {name[0]!r} is open elsewhere")
            try:
                return self._position(name)
            except ConnectionLost:
                del self._open[name]
                raise

    def close(self, name: GroupName, source: MemorySource) -> None:
        with self._room:
            if self._open.get(name) is source:
                del self._open[name]

    def _position(self, name: GroupName) -> int:
        try:
            return self._positions[name]
        except KeyError:
            raise ConnectionLost(
                SYSTEM, ADDRESS, f"no group {name[1]!r} of channel {name[0]!r}; start an app that receives in it"
            ) from None

    def read(self, name: GroupName, after: int, limit: int) -> list[Delivery]:
        with self._room:
            self._position(name)
            return self._log(name[0]).read(after, limit)

    def settle(self, name: GroupName, position: int) -> None:
        with self._room:
            if position > self._position(name):
                self._positions[name] = position
                self._forget_settled(name[0])

    def lag(self, name: GroupName) -> Lag:
        with self._room:
            position = self._position(name)
            log = self._log(name[0])
            return Lag(log.end - position, log.stored_at(position + 1))

    def register(self, app: str, receivers: Sequence[Receiver], since: Callable[[str, str], Since]) -> None:
        with self._room:
            others = [other for name, theirs in self._receivers.items() if name != app for other in theirs]
            refuse_second_receivers(others, receivers)
            starts = {
                name: since(*name)
                for name in dict.fromkeys((receiver.channel, receiver.group) for receiver in receivers)
                if name not in self._positions
            }
            self._receivers[app] = tuple(receivers)
            for name, start in starts.items():
                log = self._log(name[0])
                self._positions[name] = log.floor if start == "start" else log.end
            for channel, _ in starts:
                self._forget_settled(channel)

    def receivers(self) -> list[Receiver]:
        with self._room:
            return [receiver for receivers in self._receivers.values() for receiver in receivers]

    def groups(self) -> list[GroupLag]:
        with self._room:
            return [
                GroupLag(channel, group, log.end - position, log.stored_at(position + 1))
                for (channel, group), position in sorted(self._positions.items())
                for log in [self._log(channel)]
            ]

    def forget_group(self, name: GroupName) -> bool:
        with self._room:
            if self._positions.pop(name, None) is None:
                return False
            for app, receivers in self._receivers.items():
                self._receivers[app] = tuple(
                    receiver for receiver in receivers if (receiver.channel, receiver.group) != name
                )
            self._forget_settled(name[0])
            self._room.notify_all()
            return True

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        def unwatch() -> None:
            with self._room:
                if wake in self._watchers:
                    self._watchers.remove(wake)

        with self._room:
            self._watchers.append(wake)
        return unwatch

    def shut(self) -> None:
        with self._room:
            self._closed = True
            self._watchers.clear()
            self._room.notify_all()


class MemorySink:
    """Appends to the log; waits while the log is full."""

    traits = TRAITS

    def __init__(self, logs: _Logs) -> None:
        self._logs = logs

    def open(self) -> None:
        """Nothing to connect to."""

    def check(self, message: Message) -> str | None:
        if TRAITS.max_bytes is not None and message.size() > TRAITS.max_bytes:
            return f"data of {message.size()} bytes is larger than the limit of {TRAITS.max_bytes}"
        return None

    def send(self, messages: Sequence[Message], deadline: float) -> Sequence[Refused]:
        refused = [Refused(message, reason) for message in messages if (reason := self.check(message)) is not None]
        if refused:
            late = {id(refusal.message) for refusal in refused}
            messages = [message for message in messages if id(message) not in late]
        self._logs.send(messages, deadline)
        return refused

    def close(self) -> None:
        """Nothing to disconnect from."""


class MemorySource:
    """One group's reader."""

    traits = TRAITS

    def __init__(self, logs: _Logs, channel: str, group: str) -> None:
        self._logs = logs
        self._name = (channel, group)
        self._read = 0
        self._settled = 0
        self._returned: dict[int, Delivery] = {}
        self._returned_order: list[int] = []
        self._event = threading.Event()

    def open(self, fence: Fence | None, revoked: Callable[[frozenset[str]], None]) -> None:
        """Raise ``ConnectionLost`` while another source has the group open."""
        self._read = self._settled = self._logs.open(self._name, self)
        self._returned.clear()
        self._returned_order.clear()

    def receive(self, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        if limit <= 0:
            return []
        if self._event.is_set():
            self._event.clear()
            return self._take(limit)
        found = self._take(limit)
        if not found and wait_seconds > 0:
            self._event.wait(wait_seconds)
            self._event.clear()
            found = self._take(limit)
        return found

    def _take(self, limit: int) -> list[Delivery]:
        again = [self._returned.pop(heappop(self._returned_order)) for _ in range(min(limit, len(self._returned)))]
        if len(again) == limit:
            return again
        found = self._logs.read(self._name, self._read, limit - len(again))
        if found:
            self._read = found[-1].receipt
        return again + found if again else found

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        position = deliveries[-1].receipt
        self._logs.settle(self._name, position)
        self._settled = max(self._settled, position)
        self._read = max(self._read, position)
        while self._returned_order and self._returned_order[0] <= position:
            del self._returned[heappop(self._returned_order)]

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            receipt = delivery.receipt
            if self._settled < receipt <= self._read and receipt not in self._returned:
                self._returned[receipt] = delivery
                heappush(self._returned_order, receipt)

    def lag(self) -> Lag:
        return self._logs.lag(self._name)

    def wake(self) -> None:
        # A set event belongs to a receive that returns at once: setting it again would only cost the lock.
        if not self._event.is_set():
            self._event.set()

    def close(self) -> None:
        self._logs.close(self._name, self)


class MemoryBroker:
    """A log per channel, in this process's memory.

    It keeps what not every group has settled, at most ``max_messages`` and ``max_bytes`` of data in all channels; then
    ``send`` waits, until its deadline. Channels without a group keep what there is room for.

    >>> broker = MemoryBroker()
    >>> from yeondong.core.message import Kind
    >>> search = Receiver("Placed", Kind.EVENT, "orders", "search", app="shop")
    >>> broker.register("shop", [search], lambda channel, group: "now")
    >>> deadline = SystemClock().elapsed() + 1
    >>> broker.sink().send([Message("1", "Placed", Kind.EVENT, "orders", None, b"{}")], deadline)
    []
    >>> source = broker.source("orders", "search")
    >>> source.open(None, print)
    >>> [delivery.message.id for delivery in source.receive(limit=10, wait_seconds=0)]
    ['1']
    """

    traits = TRAITS
    address = ADDRESS

    def __init__(
        self, *, clock: Clock | None = None, max_messages: int = 100_000, max_bytes: int = 256 * 1024 * 1024
    ) -> None:
        self._logs = _Logs(clock or SystemClock(), max_messages, max_bytes)

    def prepare(self, channels: Collection[str] = ()) -> None:
        """Nothing to connect to."""

    def statements(self) -> Sequence[str]:
        return ()

    def create(self, channels: Collection[str] = ()) -> Sequence[str]:
        return ()

    def check(self, channels: Collection[str] = ()) -> Sequence[str]:
        return ()

    def sink(self) -> MemorySink:
        return MemorySink(self._logs)

    def source(self, channel: str, group: str) -> MemorySource:
        return MemorySource(self._logs, channel, group)

    def register(self, app: str, receivers: Sequence[Receiver], since: Callable[[str, str], Since]) -> None:
        self._logs.register(app, receivers, since)

    def receivers(self) -> Sequence[Receiver]:
        return self._logs.receivers()

    def groups(self) -> Sequence[GroupLag]:
        return self._logs.groups()

    def forget(self, channel: str, group: str) -> bool:
        return self._logs.forget_group((channel, group))

    def rewind(self, channel: str, group: str, start: str) -> int:
        """Raise ``DeclarationError``: what was settled is gone."""
        raise DeclarationError(
            f"group {group!r} of channel {channel!r} cannot be replayed: the memory broker keeps nothing that was "
            "settled; use a broker that keeps a log, e.g. sqlite"
        )

    def repeats(self, channel: str, group: str, start: str) -> int:
        return self.rewind(channel, group, start)

    def sweep(self) -> int:
        """Nothing to do: what every group has settled went at once."""
        return 0

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        return self._logs.watch(wake)

    def close(self) -> None:
        self._logs.shut()
