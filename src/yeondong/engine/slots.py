"""Lanes as their flow sees them: what waits for each, what it has, and what of that belongs to a former opening."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias
from zlib import crc32

from yeondong.core.delivery import Delivery, Settled
from yeondong.core.message import order_key
from yeondong.core.store import HeldReceipt
from yeondong.engine.lane import Halt, Lane, LaneMaker, Work


class Everything:
    """All partitions."""

    def __contains__(self, partition: object) -> bool:
        return True


Partitions: TypeAlias = frozenset[str] | Everything
NOTHING: frozenset[str] = frozenset()
EVERYTHING = Everything()


@dataclass(slots=True)
class Slot:
    """One lane. ``orphaned`` partitions are those whose loans ended while the lane had deliveries of them.

    Those that were revoked stay in ``halt`` until the lane is through with what it had of them.

    ``has_held`` says that something may be here that came out of held, and may have gone back meanwhile.
    """

    number: int
    lane: Lane
    work: Work
    halt: Halt
    backlog: deque[Delivery] = field(default_factory=deque)
    given: Sequence[Delivery] = ()
    busy: bool = False
    returned: list[Delivery] = field(default_factory=list)
    orphaned: Partitions = NOTHING
    has_held: bool = False

    def give(self, deliveries: Sequence[Delivery]) -> None:
        """Hand a list to the lane, which is ready."""
        if deliveries:
            self.busy = True
            self.given = deliveries
            self.lane.give(deliveries)

    def ready(self) -> None:
        """Put what came back unhandled before everything that came later."""
        self.busy = False
        self.given = ()
        self.orphaned = self.halt.partitions = NOTHING
        self.backlog.extendleft(reversed(self.returned))
        self.returned = []


class Slots:
    """All lanes of a flow. A key always goes to the same one."""

    def __init__(
        self,
        flow: str,
        works: Sequence[Work],
        *,
        make_lane: LaneMaker,
        make_halt: Callable[[], Halt],
        ring: Callable[[], None],
    ) -> None:
        self.results: deque[tuple[Slot, Settled | None]] = deque()
        self._seeds: dict[str, int] = {}
        self._slots = [
            self._slot(flow, number, work, make_lane, make_halt(), ring) for number, work in enumerate(works)
        ]

    def _slot(
        self, flow: str, number: int, work: Work, make_lane: LaneMaker, halt: Halt, ring: Callable[[], None]
    ) -> Slot:
        def report(settled: Settled | None) -> None:
            self.results.append((slot, settled))
            ring()

        slot = Slot(number, make_lane(f"{flow}-{number}", work, halt, report), work, halt)
        return slot

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def __getitem__(self, number: int) -> Slot:
        return self._slots[number]

    @property
    def halted(self) -> bool:
        """Whether no lane may begin another message."""
        return self._slots[0].halt.everything

    @halted.setter
    def halted(self, halted: bool) -> None:
        for slot in self._slots:
            slot.halt.everything = halted

    def halt(self, partitions: frozenset[str]) -> None:
        """Let the lanes begin no other message of these, until ``drop``."""
        for slot in self._slots:
            slot.halt.partitions |= partitions

    def admit(self, deliveries: Iterable[Delivery]) -> None:
        """Append to the backlogs, in order."""
        slots, count = self._slots, len(self._slots)
        if count == 1:
            slots[0].backlog.extend(deliveries)
            return
        seeds = self._seeds
        for delivery in deliveries:
            message = delivery.message
            seed = seeds.get(message.channel)
            if seed is None:
                seed = seeds[message.channel] = crc32(message.channel.encode())
            key = message.key if message.key is not None else message.id
            slots[crc32(key.encode(), seed) % count].backlog.append(delivery)

    def expect_held(self) -> None:
        """Note that deliveries were admitted that came out of held."""
        for slot in self._slots:
            slot.has_held = True

    def passed_over(self) -> int:
        """Count what no handler wanted."""
        return sum(slot.work.passed_over for slot in self._slots)

    def busy(self, partitions: Collection[str] | None = None) -> bool:
        """Whether a lane has deliveries, of these partitions if given."""
        return any(
            slot.busy and (partitions is None or any(d.partition in partitions for d in slot.given))
            for slot in self._slots
        )

    def waiting(self) -> bool:
        """Whether a lane that is ready has a backlog."""
        return any(slot.backlog and not slot.busy for slot in self._slots)

    def in_hand(self, key: tuple[str, ...]) -> bool:
        """Whether messages of the key are with a lane or wait for one."""
        return any(order_key(d.message) == key for slot in self._slots for d in (*slot.given, *slot.backlog))

    def drop(self, partitions: Partitions) -> list[Delivery]:
        """Forget the backlog of these partitions, and mark what lanes have of them as orphaned.

        Returns what had been tried before. What came out of held stays: it is no loan of the source.
        """
        tried: list[Delivery] = []
        for slot in self._slots:
            kept: deque[Delivery] = deque()
            for delivery in slot.backlog:
                if isinstance(delivery.receipt, HeldReceipt) or delivery.partition not in partitions:
                    kept.append(delivery)
                elif delivery.attempt > 1:
                    tried.append(delivery)
            slot.backlog = kept
            slot.returned = [
                d for d in slot.returned if isinstance(d.receipt, HeldReceipt) or d.partition not in partitions
            ]
            if slot.busy:
                slot.orphaned = _joined(slot.orphaned, partitions)
            else:
                slot.halt.partitions = NOTHING
        return tried

    def clear(self) -> None:
        """Forget all backlogs."""
        for slot in self._slots:
            slot.backlog.clear()

    def stop(self) -> None:
        """Let all lanes end."""
        for slot in self._slots:
            slot.lane.stop()


def _joined(first: Partitions, second: Partitions) -> Partitions:
    if isinstance(first, Everything) or isinstance(second, Everything):
        return EVERYTHING
    return first | second
