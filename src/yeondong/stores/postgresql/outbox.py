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

    def failed(self) -> int:
        raise NotImplementedError

    def lag(self) -> Lag:
        raise NotImplementedError

    def sweep(self, older: timedelta, limit: int) -> int:
        raise NotImplementedError

    def repeats(self, start: str) -> int:
        raise NotImplementedError

    def rewind(self, start: str, fence: Fence) -> int:
        raise NotImplementedError


class PostgresqlOutboxLog:
    """The outbox table as a relay sees it that marks by position."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def resume(self) -> None:
        raise NotImplementedError

    def read(self, limit: int) -> Sequence[Delivery]:
        raise NotImplementedError

    def save(self, receipt: int, fence: Fence) -> None:
        raise NotImplementedError

    def lag(self) -> Lag:
        raise NotImplementedError

    def sweep(self, older: timedelta, limit: int) -> int:
        raise NotImplementedError

    def repeats(self, start: str) -> int:
        raise NotImplementedError

    def rewind(self, start: str, fence: Fence) -> int:
        raise NotImplementedError
