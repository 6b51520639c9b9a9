"""The status outbox keeps failures and waits on its own rows: there is no second copy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.store import Hold, OutboxRows
from yeondong.errors import FenceLost


class RowHolding:
    """``Held`` on the outbox table. A row whose time has come is lent by the source again, so nothing is due here."""

    copies = False

    def __init__(self, rows: OutboxRows) -> None:
        self._rows = rows

    def put(self, flow: str, holds: Sequence[Hold], fences: Sequence[Fence]) -> None:
        """Mark the failed and the delayed; what only waits behind them needs no mark: the source leaves it out."""
        if not fences:
            raise FenceLost(flow, 0)
        marked = [hold for hold in holds if hold.failed or hold.error is not None]
        if marked:
            self._rows.hold(marked, fences[0])

    def known(self, flow: str, ids: Collection[str]) -> set[str]:
        """Nothing is here that the source would lend."""
        del flow, ids
        return set()

    def keys(self, flow: str) -> Mapping[tuple[str, ...], int]:
        """Blocked keys are the source's own matter."""
        del flow
        return {}

    def due(self, flow: str, limit: int, partitions: Collection[str] | None = None) -> Sequence[Delivery]:
        """The source lends what is due."""
        del flow, limit, partitions
        return []

    def settle(self, flow: str, done: Sequence[Delivery], again: Sequence[Hold], fences: Sequence[Fence]) -> None:
        """Nothing was lent from here."""

    def count(self, flow: str) -> int:
        """The rows are counted as the outbox's own."""
        del flow
        return 0

    def partitions(self, flow: str) -> Mapping[str, int]:
        """Nothing is held besides the rows."""
        del flow
        return {}
