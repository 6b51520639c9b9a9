"""Marking by position: rows are only inserted, and one number says up to where they were sent."""

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

_by_id: Final = attrgetter("receipt")


class PositionSource:
    """Lends the rows above a position, lowest id first, and saves how far they are settled.

    For stores where ids become visible in their order, which one writer at a time ensures (SQLite): elsewhere a row
    that is committed late appears below the position and would be passed over.
    """

    traits = Traits(durable=True, order=Order.KEY, settles=Settles.PREFIX, partitions=Partitions.LEASED)

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._doorbell = Doorbell()
        self._opening: Opening | None = None
        self._settled = 0
        self._lent = 0  # the highest id that this opening has lent
        self._on_loan: set[int] = set()
        self._returned: list[Delivery] = []

    def open(self, fence: Fence | None, revoked: Callable[[frozenset[str]], None]) -> None:
        self.close()
        opened = opening(self._store, fence, self._doorbell.committed)
        try:
            saved = opened.session.positions.load(self._name)
            # A table that was marked by status so far: rows that were sent above the first unsent one are repeated.
            self._settled = self._lent = opened.session.outbox.unsent() if saved is None else int(saved)
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
            outbox = self._opened().outbox
            found = self._doorbell.wait_for(lambda: outbox.following(self._lent, limit), wait_seconds)
            self._lent = found[-1].receipt if found else self._lent
        self._on_loan.update(map(_by_id, found))
        return found

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        last = max(map(_by_id, deliveries), default=0)
        if last > self._settled:
            opened = self._opened()
            opened.session.positions.save(self._name, str(last), opened.fence)
            self._settled = last
        self._on_loan.difference_update(map(_by_id, deliveries))

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.receipt in self._on_loan:
                self._on_loan.remove(delivery.receipt)
                insort(self._returned, delivery, key=_by_id)

    def lag(self) -> Lag:
        return self._opened().outbox.lag(self._settled)

    def wake(self) -> None:
        self._doorbell.ring()

    def close(self) -> None:
        if self._opening is not None:
            self._opening.close()
        self._opening = None
        self._on_loan.clear()
        self._returned.clear()

    def _opened(self) -> Opening:
        if self._opening is None:
            raise RuntimeError("the outbox's source is used before open, or after close")
        return self._opening
