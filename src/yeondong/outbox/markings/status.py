"""Marking by status: each row says whether it was sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.source import Lag
from yeondong.core.store import RELAY, Store
from yeondong.core.traits import Order, Partitions, Settles, Traits
from yeondong.errors import DeclarationError
from yeondong.outbox.markings.doorbell import Doorbell
from yeondong.outbox.markings.opening import Opening, opening


class StatusSource:
    """Lends WAITING rows of the outbox, lowest id first, and sets them DONE.

    A row that ``session.outbox.hold`` keeps (failed, or not due for long) is given back, not settled: settling would
    mark it DONE, and it was never sent.
    """

    traits = Traits(durable=True, order=Order.KEY, settles=Settles.EACH, partitions=Partitions.LEASED)

    def __init__(self, store: Store) -> None:
        self._store = store
        self._doorbell = Doorbell(store.poll_seconds)
        self._on_loan: set[int] = set()
        self._opening: Opening | None = None

    def open(self, fence: Fence | None, revoked: Callable[[frozenset[str]], None]) -> None:
        self.close()
        opened = opening(self._store, fence, self._doorbell.committed)
        if opened.session.positions.load(RELAY) is not None:
            opened.close()
            raise DeclarationError(
                "another app marks this outbox by position, where every row stays WAITING: marking by status would "
                "send all of them again; declare one outbox for one store"
            )
        self._opening = opened

    def receive(self, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        if limit <= 0:
            return []
        outbox = self._opened().outbox
        found = self._doorbell.wait_for(lambda: outbox.waiting(limit, self._on_loan), wait_seconds)
        self._on_loan.update(delivery.receipt for delivery in found)
        return found

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        ids = [delivery.receipt for delivery in deliveries]
        if ids:
            opened = self._opened()
            opened.outbox.mark(ids, opened.fence)
            self._on_loan.difference_update(ids)

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        self._on_loan.difference_update(delivery.receipt for delivery in deliveries)

    def lag(self) -> Lag:
        return self._opened().outbox.lag()

    def wake(self) -> None:
        self._doorbell.ring()

    def close(self) -> None:
        if self._opening is not None:
            self._opening.close()
        self._opening = None
        self._on_loan.clear()

    def _opened(self) -> Opening:
        if self._opening is None:
            raise RuntimeError("the outbox's source is used before open, or after close")
        return self._opening
