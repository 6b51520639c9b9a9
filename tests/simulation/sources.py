"""A durable log, and the sources that lend from it: by position or each by itself, leased, assigned or shared."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from tests.simulation.world import Process, World
from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.message import Message
from yeondong.core.source import Lag
from yeondong.core.traits import Order, Partitions, Settles, Traits
from yeondong.errors import ConnectionLost, FenceLost

SYSTEM = "log"

LEASED_PREFIX = Traits(durable=True, order=Order.KEY, settles=Settles.PREFIX, partitions=Partitions.LEASED)
LEASED_EACH = Traits(durable=True, order=Order.KEY, settles=Settles.EACH, partitions=Partitions.LEASED)
ASSIGNED_PREFIX = Traits(durable=True, order=Order.KEY, settles=Settles.PREFIX, partitions=Partitions.ASSIGNED)
SHARED_EACH = Traits(durable=True, order=Order.NONE, settles=Settles.EACH, partitions=Partitions.SHARED)


@dataclass(slots=True)
class Partition:
    """One part of the log, in the order sent. ``position`` is what a PREFIX reader saves."""

    name: str
    messages: list[Message] = field(default_factory=list)
    flaws: dict[int, str] = field(default_factory=dict)
    position: int = 0
    settled: set[int] = field(default_factory=set)
    owner: SimSource | None = None
    wanted: SimSource | None = None
    loans: dict[int, SimSource] = field(default_factory=dict)

    def drained(self, settles: Settles) -> bool:
        done = self.position if settles is Settles.PREFIX else len(self.settled)
        return done >= len(self.messages)


class SimLog:
    """What is on the broker's disk, and who reads it."""

    def __init__(self, world: World, names: Sequence[str], traits: Traits) -> None:
        self.world = world
        self.traits = traits
        self.partitions = {name: Partition(name) for name in names}
        self.epoch = 0
        self.members: list[SimSource] = []
        self.most_on_loan = 0
        self.rewound: Callable[[], None] = lambda: None
        self.wrote: Callable[[str, int, int], None] = lambda _what, _epoch, _newest: None

    def publish(self, partition: str, message: Message, flaw: str | None = None) -> None:
        place = self.partitions[partition]
        if flaw is not None:
            place.flaws[len(place.messages)] = flaw
        place.messages.append(message)
        for member in self.members:
            member.ring()

    def check(self, fence: Fence | None) -> None:
        """Refuse writes under an older epoch than the one that opened last."""
        if fence is not None and fence.epoch < self.epoch:
            raise FenceLost(fence.name, fence.epoch)

    def drained(self) -> bool:
        """Whether nothing is left to be lent."""
        return all(p.drained(self.traits.settles) for p in self.partitions.values())

    def behind(self) -> list[str]:
        """Return what stays here behind failures."""
        return []

    # --- who reads ----------------------------------------------------------------------------------------------------

    def join(self, source: SimSource) -> None:
        self.members.append(source)
        self.rebalance()

    def repeats(self, process: Process) -> int:
        process.gate(SYSTEM, "broker.repeats")
        return sum(partition.position for partition in self.partitions.values())

    def rewind(self, process: Process) -> int:
        """Set all positions back; refused while anybody reads."""
        process.gate(SYSTEM, "broker.rewind")
        if self.members:
            raise ConnectionLost(SYSTEM, "sim", "the group still has members")
        repeated = sum(partition.position for partition in self.partitions.values())
        for partition in self.partitions.values():
            partition.position = 0
        if repeated:
            self.rewound()
        self.world.note("%s rewinds %d messages", process.name, repeated)
        process.after(SYSTEM, "broker.rewind")
        return repeated

    def leave(self, source: SimSource) -> None:
        """End all loans of this source, and give its partitions to others."""
        if source in self.members:
            self.members.remove(source)
        for partition in self.partitions.values():
            for offset in [offset for offset, reader in partition.loans.items() if reader is source]:
                del partition.loans[offset]
            if partition.owner is source:
                partition.owner = None
        self.rebalance()
        for member in self.members:
            member.ring()

    def rebalance(self) -> None:
        """Wish for another distribution; each reader learns it at its next ``receive``."""
        if self.traits.partitions is not Partitions.ASSIGNED:
            return
        for partition in self.partitions.values():
            number = int(self.world.chance() * len(self.members))
            partition.wanted = self.members[number] if self.members else None
        for member in self.members:
            member.ring()

    def expel(self, source: SimSource) -> None:
        """The reader gave no sign of life: whatever it asks next is refused."""
        source.expelled = True
        self.leave(source)


class SimSource:
    """One worker's line to the log."""

    def __init__(
        self,
        log: SimLog,
        process: Process,
        ring: Callable[[], None],
        sleep: Callable[[float], None],
        session_seconds: float,
    ) -> None:
        self.traits = log.traits
        self.session_seconds = session_seconds
        self.partitions: frozenset[str] = frozenset()
        self.existing: frozenset[str] = frozenset()
        self.expelled = False
        self.expired = False
        self.ring = ring
        self._log = log
        self._process = process
        self._world = log.world
        self._sleep = sleep
        self._open = False
        self._fence: Fence | None = None
        self._revoked: Callable[[frozenset[str]], None] = lambda _partitions: None
        self._cursor: dict[str, int] = {}
        self._returned: dict[str, list[int]] = {}
        self._on_loan: dict[str, set[int]] = {}
        self._woken = False
        self.blocking = False
        process.on_death(self._died)
        process.on_freeze = self._frozen

    def open(self, fence: Fence | None, revoked: Callable[[frozenset[str]], None]) -> None:
        self.close()
        self._process.gate(SYSTEM, "source.open")
        self._fence, self._revoked = fence, revoked
        self.expelled = self.expired = False
        self._open = True
        log = self._log
        if fence is not None:
            log.epoch = max(log.epoch, fence.epoch)
        if self.traits.partitions is Partitions.ASSIGNED:
            log.join(self)
        else:
            if self.traits.partitions is Partitions.SHARED:
                log.members.append(self)
            for name in log.partitions:
                self._assign(name)
        self._world.note("%s opens the source%s", self._process.name, f" under epoch {fence.epoch}" if fence else "")
        self._process.after(SYSTEM, "source.open")

    def _assign(self, name: str) -> None:
        partition = self._log.partitions[name]
        self._cursor[name] = partition.position
        self._returned[name] = []
        self._on_loan[name] = set()

    def receive(self, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        if self.expelled:
            self._learn()
        self._gate("source.receive")
        if self.traits.partitions is Partitions.ASSIGNED and not self.expelled:
            self._follow_assignment()
        if limit <= 0:
            return []
        limit = 1 + int(self._world.chance() * limit)
        found: list[Delivery] = []
        names = list(self._cursor)
        self._world.random.shuffle(names)
        for name in names:
            if len(found) < limit:
                most = min(limit - len(found), 1 + int(self._world.chance() * limit))
                found.extend(self._lend(name, most))
        if found:
            self._world.note("%s receives %s", self._process.name, " ".join(delivery.message.id for delivery in found))
            on_loan = sum(map(len, self._on_loan.values()))
            self._log.most_on_loan = max(self._log.most_on_loan, on_loan)
        elif self._woken:
            self._woken = False
        else:
            self._sleep(wait_seconds)
        self._process.after(SYSTEM, "source.receive")
        return found

    def confirm(self) -> bool:
        self._gate("source.confirm")
        if self.expelled:
            raise ConnectionLost(SYSTEM, "sim", "the session has expired")
        sure = self._world.chance() < 0.9
        self._process.after(SYSTEM, "source.confirm")
        return sure

    def _learn(self) -> None:
        """Learn of the expulsion, now or later: as an error, or as partitions that are lost already."""
        drawn = self._world.chance()
        if drawn < 0.4:
            return
        if drawn < 0.6:
            raise ConnectionLost(SYSTEM, "sim", "the session has expired")
        lost = frozenset(self._cursor)
        self._world.note("%s learns that it was expelled", self._process.name)
        self._lose(lost)
        self.expelled = self.expired = False
        self._log.join(self)

    def _lose(self, lost: frozenset[str]) -> None:
        self.blocking = True
        try:
            self._revoked(lost)
        finally:
            self.blocking = False
        self._gate("source.revoked")
        for name in sorted(lost):
            self._cursor.pop(name, None)
            self._returned.pop(name, None)
            self._on_loan.pop(name, None)
        self.partitions = frozenset(self._cursor)

    def _follow_assignment(self) -> None:
        partitions = self._log.partitions.values()
        lost = frozenset(p.name for p in partitions if p.owner is self and p.wanted is not self)
        if lost:
            self._world.note("%s loses partitions %s", self._process.name, ",".join(sorted(lost)))
            self._lose(lost)
            for name in sorted(lost):
                if self._log.partitions[name].owner is self:
                    self._log.partitions[name].owner = None
            if self._world.chance() < 0.3:
                # The same reader gets it back: the others did not come in time.
                for name in sorted(lost):
                    self._log.partitions[name].wanted = self
            for member in self._log.members:
                member.ring()
        for partition in self._log.partitions.values():
            if partition.owner is None and partition.wanted is self:
                partition.owner = self
                self._assign(partition.name)
                self.partitions = frozenset(self._cursor)
                self.existing = frozenset(self._log.partitions)
                self._world.note("%s gains partition %s", self._process.name, partition.name)

    def _lend(self, name: str, most: int) -> list[Delivery]:
        partition = self._log.partitions[name]
        found: list[Delivery] = []
        for offset in islice(self._candidates(partition), most):
            self._on_loan[name].add(offset)
            if self.traits.partitions is Partitions.SHARED:
                partition.loans[offset] = self
            found.append(
                Delivery(
                    partition.messages[offset],
                    offset,
                    name,
                    attempt=self._attempt(name, offset),
                    flaw=partition.flaws.get(offset),
                )
            )
        return found

    def _attempt(self, name: str, offset: int) -> int:
        return 1

    def _candidates(self, partition: Partition) -> Iterator[int]:
        """Yield what may be lent now, in order."""
        on_loan = self._on_loan[partition.name]
        if self.traits.partitions is Partitions.SHARED:
            for offset in range(len(partition.messages)):
                if offset not in partition.loans and offset not in partition.settled:
                    yield offset
            return
        returned = self._returned[partition.name]
        while returned:
            yield returned.pop(0)
        each = self.traits.settles is Settles.EACH
        for offset in range(self._cursor[partition.name], len(partition.messages)):
            if offset not in on_loan and not (each and offset in partition.settled):
                self._cursor[partition.name] = offset + 1
                yield offset

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        self._gate("source.settle")
        if self.expelled:
            raise ConnectionLost(SYSTEM, "sim", "the session has expired")
        self._log.check(self._fence)
        if self._fence is not None:
            self._log.wrote("source.settle", self._fence.epoch, self._log.epoch)
        for delivery in deliveries:
            partition = self._log.partitions[delivery.partition]
            self._on_loan.get(delivery.partition, set()).discard(delivery.receipt)
            if self.traits.settles is Settles.PREFIX:
                if self.traits.partitions is Partitions.ASSIGNED and partition.owner is not self:
                    raise ConnectionLost(SYSTEM, "sim", f"partition {partition.name} belongs to another reader")
                partition.position = max(partition.position, delivery.receipt + 1)
            else:
                self.settled(partition, delivery)
        self._world.note("%s settles %s", self._process.name, " ".join(d.message.id for d in deliveries))
        self._process.after(SYSTEM, "source.settle")

    def settled(self, partition: Partition, delivery: Delivery) -> None:
        """Forget one message for ever."""
        partition.settled.add(delivery.receipt)
        partition.loans.pop(delivery.receipt, None)

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        self._gate("source.give_back")
        for delivery in deliveries:
            on_loan = self._on_loan.get(delivery.partition, set())
            if delivery.receipt in on_loan:
                on_loan.remove(delivery.receipt)
                insort(self._returned[delivery.partition], delivery.receipt)
                self._log.partitions[delivery.partition].loans.pop(delivery.receipt, None)

    def lag(self) -> Lag:
        return Lag(0)

    def wake(self) -> None:
        self._woken = True
        self.ring()

    def close(self) -> None:
        if self._open and not self._process.dead:
            self._open = False
            self._world.note("%s closes the source", self._process.name)
            self._log.leave(self)
        self._cursor, self._returned, self._on_loan = {}, {}, {}
        self.partitions = frozenset()

    def _gate(self, what: str) -> None:
        self._process.gate(SYSTEM, what)
        if not self._open:
            raise AssertionError(f"{what} on a source that is not open")

    def _frozen(self) -> None:
        """The broker hears nothing from a reader that stands still, and expels it."""

        def expire() -> None:
            if self._process.frozen and self._open and self.traits.partitions is Partitions.ASSIGNED:
                self._world.note("the broker expels %s", self._process.name)
                self.expired = True
                self._log.expel(self)

        self._world.at(self._world.time + self.session_seconds, expire)

    def _died(self) -> None:
        """The broker notices the end of a reader after a while."""
        if self._open:
            self._open = False
            self._world.at(self._world.time + self._world.chance() * 2, lambda: self._log.leave(self))
