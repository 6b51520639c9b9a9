"""The outbox table, as the relay sees it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.source import Lag
from yeondong.core.store import Hold
from yeondong.stores.postgresql.link import Link


class PostgresqlOutbox:
    """The outbox table as the relay sees it."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def waiting(self, limit: int, on_loan: Collection[int]) -> Sequence[Delivery]:
        raise NotImplementedError

    def mark(self, ids: Sequence[int], fence: Fence) -> None:
        raise NotImplementedError

    def hold(self, holds: Sequence[Hold], fence: Fence) -> None:
        raise NotImplementedError

    def following(self, position: int, limit: int) -> Sequence[Delivery]:
        raise NotImplementedError

    def failed(self) -> int:
        raise NotImplementedError

    def unsent(self) -> int:
        raise NotImplementedError

    def lag(self, position: int | None) -> Lag:
        raise NotImplementedError

    def sweep(self, older: timedelta, limit: int, position: int | None) -> int:
        raise NotImplementedError
