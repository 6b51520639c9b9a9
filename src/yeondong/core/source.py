"""Where deliveries are borrowed from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from msgspec import Struct

from yeondong.core.delivery import Delivery
from yeondong.core.fence import Fence
from yeondong.core.traits import Traits


class Lag(Struct, frozen=True):
    """How many messages wait, and since when the oldest of them does."""

    waiting: int
    since: datetime | None = None


class Source(Protocol):
    """Lends deliveries. Used by its flow's thread only, ``wake`` excepted.

    Every method but ``wake`` and ``close`` may raise ``ConnectionLost``: the flow then calls ``close``, and ``open``
    again later. What was on loan at that time is lent again. Nothing is raised for the content of a message: a broken
    one is delivered with its ``flaw``.
    """

    traits: Traits

    def open(self, fence: Fence | None, revoked: Callable[[frozenset[str]], None]) -> None:
        """Connect. ``fence`` is given to LEASED sources, which refuse writes under an older epoch from then on.

        An ASSIGNED source calls ``revoked`` from within ``receive`` with the partitions that it is about to lose;
        what is settled before that call returns still counts.
        """

    def receive(self, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        """Borrow up to ``limit`` deliveries, in order within each partition.

        Waits at most ``wait_seconds`` for the first. Returns at once, maybe with nothing, after ``wake``. A limit of 0
        borrows nothing and keeps the session and the loans alive. What is on loan is never lent again by the same
        opening, unless it was given back.
        """

    def settle(self, deliveries: Sequence[Delivery]) -> None:
        """Forget these for ever. PREFIX sources are given them in order, per partition, without a gap.

        Twice is harmless. Raises ``FenceLost`` if the lease has moved on; nothing is forgotten then.
        """

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """End the loan: they are lent again, to this flow or another. Twice is harmless."""

    def lag(self) -> Lag:
        """Count what waits, loans included."""

    def wake(self) -> None:
        """Make the current or the next ``receive`` return at once. Any thread may call it, at any time."""

    def close(self) -> None:
        """Disconnect; what is on loan is lent again later. Never raises; twice is harmless."""
