"""What a flow takes over from its source, so that one bad key never blocks a partition, a slot or a table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from yeondong.core.clock import Clock
from yeondong.core.delivery import Delivery
from yeondong.core.failpoint import HELD, HOLDING, Failpoint
from yeondong.core.fence import Fence
from yeondong.core.message import order_key
from yeondong.core.store import Held, HeldReceipt, Hold

LOOK_SECONDS = 1.0


class Holding:
    """The flow's side of ``Held``: what is to be written there, which keys wait there, what came out again."""

    def __init__(self, flow: str, held: Held, *, most: int, clock: Clock, failpoint: Failpoint) -> None:
        self._flow = flow
        self._held = held
        self._most = most
        self._clock = clock
        self._failpoint = failpoint
        self.copies = held.copies
        self.look_at = 0.0
        self._soonest = 0.0  # when what went back last is due again
        self._count = 0
        self._keys: dict[tuple[str, ...], int] = {}
        self._pending: list[Hold] = []
        self._out: dict[int, Delivery] = {}
        self._done: list[Delivery] = []
        self._again: list[Hold] = []

    def __bool__(self) -> bool:
        """Whether any key waits here."""
        return bool(self._keys)

    @property
    def pending(self) -> bool:
        """Whether something is still to be written."""
        return bool(self._pending or self._done or self._again)

    @property
    def out(self) -> bool:
        """Whether something that came out of held is in work."""
        return bool(self._out)

    # --- opening ------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Learn which keys wait, before the first delivery is handed out."""
        self._keys = dict(self._held.keys(self._flow))
        self._count = self._held.count(self._flow)
        self.look_at = 0.0

    def refresh(self) -> None:
        """Learn anew which keys wait: persons release some, and others come with a partition from another worker."""
        if not self.copies:
            return
        keys = dict(self._held.keys(self._flow))
        for hold in self._pending:
            if hold.blocks:
                key = order_key(hold.delivery.message)
                keys[key] = keys.get(key, 0) + 1
        self._keys = keys

    def forget(self) -> None:
        """Forget everything: another worker has the flow."""
        self._out.clear()
        self._pending, self._done, self._again = [], [], []

    def drop_pending(self) -> list[Delivery]:
        """Forget what is not yet written, and return it: the source lends it again."""
        gone = [hold.delivery for hold in self._pending]
        self._pending = []
        return gone

    def drop(self, partitions: Collection[str]) -> list[Delivery]:
        """Forget everything of these partitions, which go to another worker; return what was not yet written."""
        gone = [hold.delivery for hold in self._pending if hold.delivery.partition in partitions]
        self._pending = [hold for hold in self._pending if hold.delivery.partition not in partitions]
        self._out = {id: delivery for id, delivery in self._out.items() if delivery.partition not in partitions}
        self._done = [delivery for delivery in self._done if delivery.partition not in partitions]
        self._again = [hold for hold in self._again if hold.delivery.partition not in partitions]
        return gone

    def known(self, ids: Collection[str]) -> set[str]:
        """Return which of these messages are held already, since before a crash."""
        return self._held.known(self._flow, ids) if ids else set()

    # --- taking over --------------------------------------------------------------------------------------------------

    def blocks(self, key: tuple[str, ...]) -> bool:
        """Whether later messages of the key must wait here."""
        return key in self._keys

    def add(self, hold: Hold) -> None:
        """Take a delivery over at the next ``write``."""
        self._pending.append(hold)
        if hold.blocks:
            key = order_key(hold.delivery.message)
            self._keys[key] = self._keys.get(key, 0) + 1

    def write(self, fences_of: Callable[[Iterable[Delivery]], Sequence[Fence]]) -> list[Delivery]:
        """Write what there is room for, and return the deliveries that the flow may let its source forget.

        They are safe now. What finds no room waits for what is held to be done, retried or discarded: see ``full``.
        """
        if self._done or self._again:
            fences = fences_of([*self._done, *(hold.delivery for hold in self._again)])
            self._held.settle(self._flow, self._done, self._again, fences)
            self._count -= len(self._done)
            for delivery in self._done:
                self._free(order_key(delivery.message))
            self._done, self._again = [], []
            self.look_at = 0.0
        if self._pending and self._count + len(self._pending) > self._most:
            self._count = self._held.count(self._flow)
        fits = max(0, self._most - self._count)
        holds = self._pending[:fits]
        if holds:
            fences = fences_of(hold.delivery for hold in holds)
            self._failpoint(HOLDING)
            self._held.put(self._flow, holds, fences)
            self._failpoint(HELD)
            self._pending = self._pending[fits:]
            if self.copies:
                self._count += len(holds)
        return [hold.delivery for hold in holds]

    @property
    def full(self) -> str | None:
        """Why nothing more can be taken over."""
        if not self._pending or self._count < self._most:
            return None
        return f"{self._count} messages are held and at most {self._most} may be; retry or discard some"

    def _free(self, key: tuple[str, ...]) -> None:
        left = self._keys.get(key, 0) - 1
        if left > 0:
            self._keys[key] = left
        else:
            self._keys.pop(key, None)

    # --- coming out again ---------------------------------------------------------------------------------------------

    def due(
        self, most: int, in_hand: Callable[[tuple[str, ...]], bool], partitions: Collection[str] | None
    ) -> list[Delivery]:
        """Return what is due, of these partitions or of all, at most once a second.

        What persons decided is seen here too.
        """
        now = self._clock.elapsed()
        if now < self.look_at:
            return []
        self.look_at = now + LOOK_SECONDS if self._soonest <= now else min(now + LOOK_SECONDS, self._soonest)
        if partitions is not None and not partitions:
            return []
        if self.copies:
            self.refresh()
        elif not self._pending:
            # Where the source keeps its own rows, a key may come free only when nothing of it is under way here.
            self._keys = {key: n for key, n in self._keys.items() if in_hand(key)}
        self._count = self._held.count(self._flow)
        busy = {order_key(delivery.message) for delivery in self._out.values()}
        taken: list[Delivery] = []
        for delivery in self._held.due(self._flow, most + len(self._out), partitions):
            key = order_key(delivery.message)
            if key in busy or len(self._out) >= most:
                continue
            self._keys.setdefault(key, 1)
            self._out[delivery.receipt.id] = delivery
            taken.append(delivery)
        return taken

    def is_out(self, delivery: Delivery) -> bool:
        """Whether this delivery came out of held and is still in work.

        Asked of the very object: what went back may come out again while a lane still returns the former delivery.
        """
        return self._out.get(delivery.receipt.id) is delivery

    def exchange(self, delivery: Delivery, current: Delivery) -> None:
        """Go on with another attempt of a delivery that came out of held."""
        if self.is_out(delivery):
            self._out[delivery.receipt.id] = current

    def finished(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Note those that came out of held as done; return the others."""
        others: list[Delivery] = []
        for delivery in deliveries:
            if not isinstance(delivery.receipt, HeldReceipt):
                others.append(delivery)
            elif self.is_out(delivery):
                del self._out[delivery.receipt.id]
                self._done.append(delivery)
        return others

    def back(self, delivery: Delivery, hold: Hold) -> list[Delivery]:
        """Note that a delivery that came out goes back; take those behind it out of work, and return them."""
        if not self.is_out(delivery):
            return []
        del self._out[delivery.receipt.id]
        self._again.append(hold)
        if not hold.failed:
            self._soonest = self._clock.elapsed() + hold.after_seconds
        key = order_key(delivery.message)
        behind = [later for later in self._out.values() if order_key(later.message) == key]
        for later in behind:
            del self._out[later.receipt.id]
        return behind
