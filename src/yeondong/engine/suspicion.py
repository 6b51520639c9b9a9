"""A message that kills its process: after an unclean end each runs alone, its attempt written first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from yeondong.core.clock import Clock
from yeondong.core.delivery import Delivery
from yeondong.core.failpoint import SUSPECTED, Failpoint
from yeondong.core.store import Suspects

TRUST_SECONDS = 60.0
TURN_SECONDS = 30.0
FETCH_SECONDS = 3.0


class Turn(Protocol):
    """Who of the flows in one process has its turn; threading.Lock is one."""

    def acquire(self, *, blocking: bool) -> bool: ...
    def release(self) -> None: ...


class Suspicion:
    """What could have been in work when the flow's last owner ended. True while some of it is still to be tried.

    Only what was in work at an end can be its reason, so an attempt stays written only while it is in work: else what
    is lent again after each end would count the ends that another message made. For the same reason the flows of one
    process take turns (``turn``) with what was in work at an end before.

    Where workers share a flow, only what comes from the partitions is suspected whose last owner ended uncleanly.
    """

    def __init__(self, flow: str, suspects: Suspects, clock: Clock, failpoint: Failpoint, turn: Turn) -> None:
        self._flow = flow
        self._store = suspects
        self._clock = clock
        self._failpoint = failpoint
        self._begun: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._corrections: dict[str, tuple[str, int]] = {}
        self._suspects: dict[str, str] = {}
        self._places: set[str] | None = None
        self._left: set[str] = set()
        self._until = 0.0
        self._fetched_at = 0.0
        self._turn = turn
        self._asked_at: float | None = None
        self.has_turn = False
        self.active = False

    def __bool__(self) -> bool:
        return bool(self._suspects)

    def load(self) -> Mapping[str, int]:
        """Return what former owners began."""
        return self._store.load(self._flow)

    def begin(self, begun: Mapping[str, int]) -> None:
        """Suspect, from an opening on, what is handed in by ``suspect``."""
        self._begun = {id: attempt for id, attempt in begun.items() if attempt}
        self._before, self._corrections = {}, {}
        self._suspects = {}
        self._until = self._clock.elapsed() + TRUST_SECONDS
        self.active = True

    def begin_in(self, partitions: Collection[str]) -> None:
        """Suspect what comes from these."""
        begun = self._store.load(self._flow, partitions)
        self._begun.update({id: attempt for id, attempt in begun.items() if attempt})
        self._places = (self._places or set()).union(partitions)
        self._left.difference_update(partitions)
        self._fetched_at = self._clock.elapsed() + FETCH_SECONDS
        self._until = self._clock.elapsed() + TRUST_SECONDS
        self.active = True

    def left(self, partition: str) -> bool:
        """Whether we lost this partition before its suspects were through."""
        return partition in self._left

    def suspects_in(self, partition: str) -> bool:
        """Whether something of this partition is still to be tried."""
        return partition in self._suspects.values()

    def drop(self, partitions: Collection[str]) -> None:
        """Forget what is suspected in these partitions, which go to another worker.

        What is in work has not ended this process so far, and its next owner counts for itself.
        """
        if self._places is None or self._places.isdisjoint(partitions):
            return
        self._left |= {place for place in self._suspects.values() if place in partitions}
        self._places.difference_update(partitions)
        for id in [id for id, place in self._suspects.items() if place in partitions]:
            if id in self._before:
                self._corrections[id] = (self._suspects[id], self._before.pop(id))
            del self._suspects[id]
            self._begun.pop(id, None)
        if not self._places:
            self._begun, self._before, self.active = {}, {}, False
        try:
            self.flush()
        finally:
            self._corrections = {id: to for id, to in self._corrections.items() if to[0] not in partitions}

    def suspect(self, deliveries: Iterable[Delivery]) -> None:
        """Run these alone."""
        if self.active:
            places = self._places
            self._suspects.update(
                {d.message.id: d.partition for d in deliveries if places is None or d.partition in places}
            )

    def suspect_again(self, deliveries: Iterable[Delivery]) -> None:
        """Run those alone that an owner had begun when it ended, wherever they come among the others."""
        if self.active and self._begun:
            self._suspects.update({d.message.id: d.partition for d in deliveries if self._begun.get(d.message.id)})

    def suspects(self, delivery: Delivery) -> bool:
        return delivery.message.id in self._suspects

    def attempt(self, delivery: Delivery) -> int:
        """Tell which attempt this is, counting those that ended a process."""
        return max(delivery.attempt, self._begun.get(delivery.message.id, 0) + 1)

    def may_try(self, delivery: Delivery, attempts: int) -> bool:
        """Whether this one may be tried now. False while another flow tries one that may end the process.

        A handler that hangs must not hold up other flows for ever, so after ``TURN_SECONDS`` it may all the same.
        """
        if self.has_turn or (attempts > 1 and not self._begun.get(delivery.message.id)):
            return True
        now = self._clock.elapsed()
        self._asked_at = now if self._asked_at is None else self._asked_at
        self.has_turn = self._turn.acquire(blocking=False)
        if not self.has_turn and now - self._asked_at < TURN_SECONDS:
            return False
        self._asked_at = None
        return True

    def leave_turn(self) -> None:
        """Note that nothing is in work any more."""
        if self.has_turn:
            self.has_turn = False
            self._turn.release()

    def write(self, delivery: Delivery) -> None:
        """Write that an attempt begins, before it does."""
        self.flush()
        id = delivery.message.id
        self._store.begin(self._flow, delivery.partition, id, delivery.attempt)
        self._before[id] = self._begun.get(id, 0)
        self._begun[id] = delivery.attempt
        self._failpoint(SUSPECTED)

    def ended(self, deliveries: Iterable[Delivery], *, tried: bool) -> None:
        """Note that the process outlived these; what was not tried, or in vain during an outage, stays suspected."""
        for delivery in deliveries:
            id = delivery.message.id
            before = self._before.pop(id, None)
            if tried:
                self._suspects.pop(id, None)
                if self._begun.pop(id, 0):
                    self._corrections[id] = (delivery.partition, 0)
            elif before is not None:
                self._begun[id] = before
                self._corrections[id] = (delivery.partition, before)

    def put_aside(self, deliveries: Iterable[Delivery]) -> None:
        """Note that these are not in work any more; they are suspected again when they come back."""
        if self.active:
            for delivery in deliveries:
                self._suspects.pop(delivery.message.id, None)

    def flush(self) -> None:
        """Write which attempts did not end the process."""
        while self._corrections:
            id, (partition, attempt) = next(iter(self._corrections.items()))
            self._store.begin(self._flow, partition, id, attempt)
            del self._corrections[id]

    def end_if_over(self, *, idle: bool) -> None:
        """Trust what comes, once everything that was in work at the unclean end was lent again."""
        if not self.active or self._suspects:
            return
        now = self._clock.elapsed()
        # What a broker has may be on its way: that nothing came right after a partition says nothing.
        if (idle and now >= self._fetched_at) or now >= self._until:
            self._store.clear(self._flow, self._places)
            self._begun, self._before, self._corrections = {}, {}, {}
            self._places = None if self._places is None else set()
            self.active = False
