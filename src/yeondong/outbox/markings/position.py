"""Marking by position: rows are only inserted, and one position says up to where they were sent."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.source import Lag
from yeondong.core.store import Store
from yeondong.core.traits import Order, Partitions, Settles, Traits
from yeondong.outbox.markings.doorbell import Doorbell
from yeondong.outbox.markings.opening import Opening, opening

_by_turn: Final = attrgetter("receipt")


class PositionSource:
    """Lends rows in the order in which the store's log gives them, and saves how far they are settled."""

    traits = Traits(durable=True, order=Order.KEY, settles=Settles.PREFIX, partitions=Partitions.LEASED)

    def __init__(self, store: Store) -> None:
        self._store = store
        self._doorbell = Doorbell(store.poll_seconds)
        self._opening: Opening | None = None
        self._settled = -1
        self._on_loan: set[int] = set()
        self._returned: list[Delivery] = []

    def open(self, fence: Fence | None, revoked: Callable[[frozenset[str]], None]) -> None:
        self.close()
        opened = opening(self._store, fence, self._doorbell.committed)
        try:
            opened.session.outbox_log.resume()
        except BaseException:
            opened.close()
            raise
        self._opening = opened

    def receive(self, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        if limit <= 0:
            return []
        if self._returned:
            found: Sequence[Delivery] = self._returned[:limit]
            del self._returned[:limit]
        else:
            log = self._opened().session.outbox_log
            found = self._doorbell.wait_for(lambda: log.read(limit), wait_seconds)
        self._on_loan.update(map(_by_turn, found))
        return found

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        last = max(map(_by_turn, deliveries), default=-1)
        if last > self._settled:
            opened = self._opened()
            opened.session.outbox_log.save(last, opened.fence)
            self._settled = last
        self._on_loan.difference_update(map(_by_turn, deliveries))

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.receipt in self._on_loan:
                self._on_loan.remove(delivery.receipt)
                insort(self._returned, delivery, key=_by_turn)

    def lag(self) -> Lag:
        return self._opened().session.outbox_log.lag()

    def wake(self) -> None:
        self._doorbell.ring()

    def close(self) -> None:
        if self._opening is not None:
            self._opening.close()
        self._opening = None
        self._settled = -1
        self._on_loan.clear()
        self._returned.clear()

    def _opened(self) -> Opening:
        if self._opening is None:
            raise RuntimeError("the outbox's source is used before open, or after close")
        return self._opening
