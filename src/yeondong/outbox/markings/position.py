"""Marking by position: rows are only inserted, and one number says up to where they were sent."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final, NoReturn

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.source import Lag
from yeondong.core.store import Session, Store
from yeondong.core.traits import Order, Partitions, Settles, Traits
from yeondong.errors import ConnectionLost
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
        self._saved: int | None = None  # the position in the store, as far as this opening knows
        self._settled = 0
        self._lent = 0  # the highest id that this opening has lent
        self._on_loan: set[int] = set()
        self._returned: list[Delivery] = []

    def open(self, fence: Fence | None, revoked: Callable[[frozenset[str]], None]) -> None:
        self.close()
        opened = opening(self._store, fence, self._doorbell.committed)
        try:
            saved = opened.session.positions.load(self._name)
            self._saved = None if saved is None else int(saved)
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
            opened = self._opened()
            found = self._doorbell.wait_for(lambda: opened.outbox.following(self._lent, limit), wait_seconds)
            self._refuse_restored(opened, idle=not found)
            self._lent = found[-1].receipt if found else self._lent
        self._on_loan.update(map(_by_id, found))
        return found

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        last = max(map(_by_id, deliveries), default=0)
        if last > self._settled:
            opened = self._opened()
            self._refuse_restored(opened, idle=False)
            opened.session.positions.save(self._name, str(last), opened.fence)
            self._saved = self._settled = last
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

    def _refuse_restored(self, opened: Opening, *, idle: bool) -> None:
        """Raise ``ConnectionLost`` if the database was set back under us: new rows get ids that were sent before."""
        session = opened.session
        if self._saved is not None:
            saved = session.positions.load(self._name)
            if saved is None or int(saved) < self._saved:
                self._lose(session, f"the position {self._name!r} went back from {self._saved} to {saved}")
        # What is on loan can't have been swept.
        if idle and self._on_loan and not session.outbox.following(max(self._on_loan) - 1, 1):
            self._lose(session, f"row {max(self._on_loan)}, which is being sent, and all after it are gone")

    def _lose(self, session: Session, what: str) -> NoReturn:
        raise ConnectionLost(
            session.system, session.address, f"{what}: an older state of the database was restored; opening it anew"
        )

    def _opened(self) -> Opening:
        if self._opening is None:
            raise RuntimeError("the outbox's source is used before open, or after close")
        return self._opening
