"""Deliveries that were given back, to be lent again before what is read next."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from yeondong.core.delivery import Delivery


class Returned:
    """In order within each partition."""

    def __init__(self) -> None:
        self._deliveries: dict[tuple[str, int], Delivery] = {}
        self._order: list[tuple[str, int]] = []

    def __bool__(self) -> bool:
        return bool(self._order)

    def put(self, delivery: Delivery) -> None:
        """Take one back; twice is harmless."""
        key = (delivery.partition, delivery.receipt)
        if key not in self._deliveries:
            self._deliveries[key] = delivery
            heappush(self._order, key)

    def take(self, limit: int) -> list[Delivery]:
        """Take out the first ones."""
        return [self._deliveries.pop(heappop(self._order)) for _ in range(min(limit, len(self._order)))]

    def drop(self, gone: Callable[[str, int], bool]) -> None:
        """Forget those whose partition and offset are gone."""
        self._order = [key for key in self._order if not gone(*key)]
        heapify(self._order)
        self._deliveries = {key: self._deliveries[key] for key in self._order}
