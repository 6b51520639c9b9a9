"""Reading the log for one group."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any, Final

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.source import Lag
from yeondong.core.traits import Traits
from yeondong.errors import ConnectionLost, DeclarationError, FenceLost
from yeondong.messaging.brokers.sqlite.link import Link
from yeondong.messaging.brokers.sqlite.rows import READ, delivery_of, from_microseconds

# What one call of receive reads at most, save a single larger message: 500 messages may be of 1 MiB each.
READ_BYTES: Final = 8 << 20

OPEN: Final = (
    "UPDATE yeondong_broker_groups SET epoch = :epoch"
    " WHERE channel = :channel AND name = :group AND epoch <= :epoch RETURNING position"
)
SETTLE: Final = (
    "UPDATE yeondong_broker_groups SET position = ? WHERE channel = ? AND name = ? AND epoch = ? AND position >= ?"
)
PLACE: Final = """
SELECT position, epoch, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'yeondong_broker_log'), 0)
FROM yeondong_broker_groups WHERE channel = ? AND name = ?
"""
LAG: Final = """
SELECT
  (SELECT count(*) FROM yeondong_broker_log l WHERE l.channel = g.channel AND l.position > g.position),
  (SELECT stored_at FROM yeondong_broker_log l WHERE l.channel = g.channel AND l.position > g.position
   ORDER BY l.position LIMIT 1)
FROM yeondong_broker_groups g WHERE g.channel = ? AND g.name = ?
"""


class SqliteSource:
    """Reads on from the last row read, and moves the group's position under its lease's epoch."""

    def __init__(
        self,
        path: str,
        traits: Traits,
        channel: str,
        group: str,
        watch: Callable[[Callable[[], None]], Callable[[], None]],
    ) -> None:
        self.traits = traits
        self._path = path
        self._channel = channel
        self._group = group
        self._watch = watch
        # Positions may come back as they were after a power cut: that only repeats, and costs no fsync for each round.
        self._link = Link(path, durable=False)
        self._fence: Fence | None = None
        self._read = 0
        self._settled = 0
        self._began = 0
        self._returned: dict[int, Delivery] = {}
        self._returned_order: list[int] = []
        self._pid = 0
        self._event = threading.Event()
        self._woken = False
        self._unwatch: Callable[[], None] | None = None

    def open(self, fence: Fence | None, revoked: Callable[[frozenset[str]], None]) -> None:
        """Raise ``FenceLost`` if the group was opened under a younger lease."""
        if fence is None:
            raise DeclarationError(
                f"group {self._group!r} of channel {self._channel!r} is opened without a lease; take one from the store"
            )
        names = {"epoch": fence.epoch, "channel": self._channel, "group": self._group}
        with self._link.transaction(f"broker: open {self._channel}/{self._group}") as connection:
            row = connection.execute(OPEN, names).fetchall()
        if not row:
            raise self._why_not(fence)
        self._fence = fence
        self._read = self._settled = self._began = row[0][0]
        self._returned.clear()
        self._returned_order.clear()
        self._listen()

    def receive(self, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        if limit <= 0:
            return []
        if self._pid != os.getpid():
            self._listen()
        give_up = time.monotonic() + wait_seconds
        while True:
            self._event.clear()
            woken, self._woken = self._woken, False
            found = self._take(limit)
            left = give_up - time.monotonic()
            if found or woken or left <= 0:
                return found
            # Any commit to the file sets the event, our own positions too: only wake() ends the waiting with nothing.
            self._event.wait(left)

    def _take(self, limit: int) -> list[Delivery]:
        found = [self._returned.pop(heappop(self._returned_order)) for _ in range(min(limit, len(self._returned)))]
        if len(found) < limit:
            read = self._read_on(limit - len(found))
            if read:
                self._read = read[-1].receipt
                found += read
            elif not found:
                self._refuse_restored()
        return found

    def _read_on(self, limit: int) -> list[Delivery]:
        found: list[Delivery] = []
        size = 0
        with self._link.translating():
            cursor = self._link.connection.execute(READ, (self._channel, self._read, limit))
            for row in cursor:
                delivery = delivery_of(row, self._channel)
                found.append(delivery)
                size += delivery.message.size()
                if size >= READ_BYTES:
                    break
            cursor.close()  # or the rest of its rows would keep the file's log from being cut
        return found

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        fence = self._opened()
        position = deliveries[-1].receipt
        if position > self._settled:
            values = (position, self._channel, self._group, fence.epoch, self._settled)
            with self._link.transaction(f"broker: settle {self._channel}/{self._group}") as connection:
                moved = connection.execute(SETTLE, values).rowcount
            if not moved:
                raise self._why_not(fence)
            self._settled = position
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
        rows = self._link.rows(LAG, (self._channel, self._group))
        if not rows:
            raise self._unregistered()
        waiting, since = rows[0]
        return Lag(waiting, from_microseconds(since))

    def wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._event.set()

    def close(self) -> None:
        unwatch, self._unwatch = self._unwatch, None
        # In a forked process the watch, and the locks inside it, are still the parent's.
        if unwatch is not None and self._pid == os.getpid():
            unwatch()
        self._link.close()

    def _listen(self) -> None:
        if self._unwatch is not None and self._pid == os.getpid():
            self._unwatch()
        if self._pid != os.getpid():
            self._event = threading.Event()
        self._pid = os.getpid()
        self._unwatch = self._watch(self._changed)

    def _changed(self) -> None:
        self._event.set()

    def _opened(self) -> Fence:
        if self._fence is None:
            raise ConnectionLost("broker", self._path, f"group {self._group!r} of {self._channel!r} is not open")
        return self._fence

    def _why_not(self, fence: Fence) -> Exception:
        place: list[Any] = self._link.rows(PLACE, (self._channel, self._group))
        if not place:
            return self._unregistered()
        position, epoch, _ = place[0]
        if epoch == fence.epoch and position < self._settled:
            return self._restored(f"its position went back from {self._settled} to {position}")
        return FenceLost(fence.name, fence.epoch)

    def _refuse_restored(self) -> None:
        """Raise ``ConnectionLost`` if the log was set back under us: new messages have positions that we are past."""
        for position, _, last in self._link.rows(PLACE, (self._channel, self._group)):
            if position < self._settled:
                raise self._restored(f"its position went back from {self._settled} to {position}")
            if self._began < self._read and last < self._read:
                raise self._restored(f"the log ends at {last}, and was read up to {self._read}")

    def _restored(self, what: str) -> ConnectionLost:
        return ConnectionLost(
            "broker",
            self._path,
            f"group {self._group!r} of {self._channel!r}: {what}: an older state of the file was restored; "
            "opening it anew",
        )

    def _unregistered(self) -> ConnectionLost:
        return ConnectionLost(
            "broker",
            self._path,
            f"no group {self._group!r} of channel {self._channel!r}; start an app that receives in it",
        )
