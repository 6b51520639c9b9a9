"""Marking by position: rows are only inserted, and one number says up to where they were sent."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.source import Lag
from yeondong.core.store import OutboxRows, Session, Store
from yeondong.core.traits import Order, Partitions, Settles, Traits
from yeondong.outbox.markings.doorbell import Doorbell
from yeondong.outbox.markings.opening import Opening, opening

VISIBLE_ROWS: Final = 100
PAGE_ROWS: Final = 100

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
            self._settled = self._lent = first_position(opened.session) if saved is None else int(saved)
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


def first_position(session: Session) -> int:
    """Say where to start in a table that was marked by status so far: below every row that was not sent.

    Where that cannot be told it is the start of the table: rows that were sent are repeated then, and none is lost.
    """
    outbox = session.outbox
    if outbox.lag(None).waiting == 0:
        last = _last_id(outbox)
        # Counted again, since a row that came in meanwhile may stand below the last one.
        if outbox.lag(None).waiting == 0:
            return last
    visible = outbox.waiting(VISIBLE_ROWS, ())
    # Fewer are visible than wait if some are blocked or not yet due, which may come first, or if there are many.
    # Counted after the look: a row that comes in between errs towards the start.
    return visible[0].receipt - 1 if visible and len(visible) >= outbox.lag(None).waiting else 0


def _last_id(outbox: OutboxRows) -> int:
    last = 0
    while page := outbox.following(last, PAGE_ROWS):
        last = page[-1].receipt
    return last
