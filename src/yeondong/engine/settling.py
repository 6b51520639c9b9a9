"""What is on loan, and what of it the source may forget."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from yeondong.core.delivery import Delivery
from yeondong.core.traits import Settles


class Window:
    """The loans of one partition in the order received: only a settled prefix may be told to the source."""

    __slots__ = ("open", "settled")

    def __init__(self) -> None:
        self.open: deque[Delivery] = deque()
        self.settled: set[Any] = set()

    def prefix(self) -> list[Delivery]:
        """Take out the deliveries at the front that are all settled."""
        settled = self.settled
        count = 0
        for delivery in self.open:
            if delivery.receipt not in settled:
                break
            count += 1
        take = self.open.popleft
        front = [take() for _ in range(count)]
        settled.difference_update([delivery.receipt for delivery in front])
        return front


class Loans:
    """Everything that a flow has borrowed and not yet settled.

    ``count`` and ``bytes`` are what is on loan until the source was told: behind one delivery that takes long, a PREFIX
    source can't be told of any number of finished ones, and they too are bounded, in memory and in what a crash
    repeats.
    """

    def __init__(self, settles: Settles) -> None:
        self._prefix = settles is Settles.PREFIX
        self._windows: dict[str, Window] = {}
        self._each: dict[tuple[str, Any], Delivery] = {}
        self._ready: list[Delivery] = []
        self._finished = 0
        self.count = 0
        self.bytes = 0

    @property
    def stuck(self) -> int:
        """How many are finished and can't be told, since an earlier one is not."""
        return self._finished - len(self._ready)

    def lend(self, deliveries: Sequence[Delivery]) -> list[str]:
        """Note what was received; return the partitions seen for the first time."""
        self.count += len(deliveries)
        self.bytes += _size(deliveries)
        fresh: list[str] = []
        partition: str | None = None
        add = None
        for delivery in deliveries:
            if delivery.partition != partition or add is None:
                partition = delivery.partition
                window = self._windows.get(partition)
                if window is None:
                    window = self._windows[partition] = Window()
                    fresh.append(partition)
                add = window.open.append
            if self._prefix:
                add(delivery)
            else:
                self._each[partition, delivery.receipt] = delivery
        return fresh

    def finish(self, deliveries: Sequence[Delivery]) -> None:
        """Note that nothing remains to be done for these."""
        self._finished += len(deliveries)
        if self._prefix:
            for delivery in deliveries:
                self._windows[delivery.partition].settled.add(delivery.receipt)
        else:
            for delivery in deliveries:
                self._ready.append(self._each.pop((delivery.partition, delivery.receipt)))

    def ready(self) -> list[Delivery]:
        """Return what the source may forget now; it stays here until ``told``."""
        if self._prefix:
            for window in self._windows.values():
                self._ready.extend(window.prefix())
        return self._ready

    def told(self) -> None:
        """The source has forgotten what was ready."""
        self._finished -= len(self._ready)
        self._leave(self._ready)
        self._ready = []

    def returned(self, deliveries: Sequence[Delivery]) -> None:
        """Note that these went back to the source, which lends them again (sources that settle each)."""
        self._leave(deliveries)
        for delivery in deliveries:
            del self._each[delivery.partition, delivery.receipt]

    def finished(self) -> Iterator[Delivery]:
        """Yield what is finished and not told to the source."""
        yield from self._ready
        for window in self._windows.values():
            yield from (d for d in window.open if d.receipt in window.settled)

    def unfinished(self) -> list[Delivery]:
        """Return what is still to be done."""
        if not self._prefix:
            return list(self._each.values())
        return [d for w in self._windows.values() for d in w.open if d.receipt not in w.settled]

    def gaps(self) -> set[tuple[str, Any]]:
        """Name, by partition and receipt, the unfinished ones that something finished waits behind."""
        gaps: set[tuple[str, Any]] = set()
        for partition, window in self._windows.items():
            before: list[tuple[str, Any]] = []
            for delivery in window.open if window.settled else ():
                if delivery.receipt in window.settled:
                    gaps.update(before)
                    before = []
                else:
                    before.append((partition, delivery.receipt))
        return gaps

    def drop(self, partitions: Collection[str] | None = None) -> None:
        """Forget the loans of these partitions, or all."""
        if partitions is None:
            self._windows, self._each, self._ready = {}, {}, []
            self._finished = self.count = self.bytes = 0
            return
        finished = [d for d in self.finished() if d.partition in partitions]
        self._finished -= len(finished)
        self._leave([*finished, *(d for d in self.unfinished() if d.partition in partitions)])
        self._ready = [d for d in self._ready if d.partition not in partitions]
        for partition in partitions:
            self._windows.pop(partition, None)
        self._each = {key: d for key, d in self._each.items() if key[0] not in partitions}

    def _leave(self, deliveries: Sequence[Delivery]) -> None:
        self.count -= len(deliveries)
        self.bytes -= _size(deliveries)


def _size(deliveries: Sequence[Delivery]) -> int:
    return sum(len(d.message.data) for d in deliveries if d.message.data is not None)
